//! Between archives, whose bytes travel over a stream, and the image store.

use std::pin::pin;

use bytes::BytesMut;
use futures::TryStreamExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use windlass::transfer::export::Docker;
use windlass::transfer::import::Digests;
use windlass::transfer::{Export, Import, Naming, Unpack, familiar};
use windlass_core::error::IoResultExt as _;
use windlass_core::platform::Selection;
use windlass_core::{Error, Result};
use windlass_grpc::streaming::window::{self, Sender};
use windlass_proto::containerd::types::transfer::{ImageExportStream, ImageImportStream, ImageStore};

use super::Work;
use super::pull::selection;
use super::store::images;

/// How much of an archive waits to be sent.
const BUFFER: usize = 1 << 20;

/// Reads an archive from the client and records its images.
pub(super) async fn import(work: &Work<'_>, from: ImageImportStream, to: ImageStore) -> Result<()> {
    if from.force_compress {
        return Err(Error::unimplemented("layers cannot be compressed while they are imported")
            .hint("convert the image once it is imported"));
    }
    let archive = window::receive(work.stream(&from.stream)?);
    work.reporter.step("Importing".to_owned());
    let snapshotters: Vec<Option<String>> =
        to.unpacks.iter().map(|unpack| Some(unpack.snapshotter.clone()).filter(|name| !name.is_empty())).collect();
    let snapshotter = match snapshotters.as_slice() {
        [] => None,
        [one] => one.clone(),
        _ => return Err(Error::unimplemented("an archive is unpacked by one snapshotter at a time")),
    };
    let options = Import {
        platforms: selection(&to.platforms)?,
        unpack: if to.unpacks.is_empty() { Unpack::No } else { Unpack::Yes },
        snapshotter,
        labels: to.labels.clone().into_iter().collect(),
        verifier: work.pull.verifier.clone(),
        stop: work.stop.clone(),
        ..Import::new(naming(&to)?)
    };
    let imported = windlass::transfer::import(work.host, work.namespace, archive, &options, work.tracker()).await?;
    for image in &imported.images {
        work.hold(&image.target).await?;
        work.reporter.ended("saved", image.name.as_str(), &image.target);
    }
    work.reporter.totals("Completed import".to_owned());
    Ok(())
}

/// Says what images are called: the name of the destination is the index's, and a prefix is what tags are put behind.
fn naming(to: &ImageStore) -> Result<Naming> {
    let mut naming = Naming::new("");
    naming.complete = |name| familiar::parse(name).map(|reference| reference.to_string());
    naming.index = Some(to.name.as_str()).filter(|name| !name.is_empty()).map(str::parse).transpose()?;
    for reference in &to.extra_references {
        if !reference.is_prefix {
            return Err(Error::unimplemented(format!("image {:?} of an archive cannot be picked", reference.name))
                .hint("give a prefix of names"));
        }
        naming.base.clone_from(&reference.name);
        naming.only_base = !reference.allow_overwrite;
        naming.digests = match (reference.add_digest, reference.skip_named_digest) {
            (false, _) => naming.digests,
            (true, true) => Digests::Unnamed,
            (true, false) => Digests::All,
        };
    }
    Ok(naming)
}

/// Writes images as an archive to the client.
pub(super) async fn export(work: &Work<'_>, from: ImageStore, to: ImageExportStream) -> Result<()> {
    let services = work.host.services(&work.namespace.clone().into()).await?;
    let images = images(&services, &from).await?;
    let sender = Sender::new(work.stream(&to.stream)?);
    let options = Export {
        platforms: match to.platforms.as_slice() {
            _ if to.all_platforms => Selection::All,
            // As containerd has it, and unlike a pull: this machine's. Of the others most images have no layers here.
            [] => Selection::default(),
            platforms => selection(platforms)?,
        },
        docker: if to.skip_compatibility_manifest { Docker::No } else { Docker::Yes },
        skip_non_distributable: to.skip_non_distributable,
        familiar: familiar::short,
        stop: work.stop.clone(),
    };
    work.reporter.step("Exporting".to_owned());
    let (reader, mut writer) = tokio::io::simplex(BUFFER);
    let write = async {
        windlass::transfer::export(work.host, work.namespace, &images, &options, &mut writer, work.tracker()).await?;
        writer.shutdown().await.attempt(|| "end the archive".to_owned())
    };
    let (mut write, mut send) = (pin!(write), pin!(send(reader, sender)));
    tokio::select! {
        // An archive that is not whole is broken off, and not ended.
        written = &mut write => {
            written?;
            send.await?;
        }
        // Nobody reads any more: the export hears of it, and ends in order.
        sent = &mut send => {
            let written = write.await;
            sent.and(written)?;
        }
    }
    work.reporter.totals("Completed export".to_owned());
    Ok(())
}

/// Sends back what the client sends: containerd does, and its clients try streams by it.
pub(super) async fn echo(work: &Work<'_>, from: &ImageImportStream, to: &ImageExportStream) -> Result<()> {
    if from.media_type != to.media_type {
        return Err(Error::unimplemented(format!("a {:?} is not made a {:?}", from.media_type, to.media_type)));
    }
    let mut received = window::receive(work.stream(&from.stream)?);
    let mut sender = Sender::new(work.stream(&to.stream)?);
    while let Some(part) = received.try_next().await? {
        sender.send(part).await?;
    }
    sender.finish().await
}

async fn send(mut archive: impl AsyncRead + Unpin, mut sender: Sender) -> Result<()> {
    loop {
        let mut part = BytesMut::with_capacity(BUFFER / 4);
        if archive.read_buf(&mut part).await.attempt(|| "read the archive".to_owned())? == 0 {
            return sender.finish().await;
        }
        sender.send(part.freeze()).await?;
    }
}
