//! Layers over the wire: `containerd.services.diff.v1.Diff`.
//!
//! `Apply` writes a layer of the namespace's content to the directory behind the mounts it is given. Whiteouts are written as the
//! mounts tell; so a client that applies layers side by side, and puts them onto their parents at the commit, does as
//! containerd's own does: it names the directory of a bind mount as the upper directory of an overlay without layers below. A
//! layer that then turns out to need what is below it is refused, with details of the reason [`NEEDS_PARENT`]: it has to
//! be applied to a snapshot on its parent.
//!
//! `sync_fs` asks for nothing that is not done: snapshotters here bring the files of a snapshot to the disk at its commit.
//! `payloads` are for processors of other media types, of which there are none here; they are not looked at.

use std::sync::Arc;

use async_trait::async_trait;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use windlass_core::content::{IngestRef, Provider};
use windlass_core::diff::{Applied, Applier, CompareOptions, Comparer, Whiteouts};
use windlass_core::progress::{State, Task};
use windlass_core::snapshot::Mount;
use windlass_core::{Descriptor, DiffId, Error, Host, MediaType, Result, Scope};
use windlass_proto::containerd::services::diff::v1 as wire;
use windlass_proto::containerd::services::diff::v1::diff_client::DiffClient;
use windlass_proto::containerd::services::diff::v1::diff_server::Diff;

use crate::error::{self, Answer as _, Reply as _, to_status};
use crate::{MAX_MESSAGE, mount, scope, wire as messages};

/// The reason of the status of a layer that has to be applied onto its parent; the metadata has the entry as `path`.
pub const NEEDS_PARENT: &str = "needs-parent";
/// Where [`NEEDS_PARENT`] has the entry.
const PATH: &str = "path";

/// Answers with the layers of a host.
pub struct Server {
    host: Arc<dyn Host>,
}

impl Server {
    /// Serves a host.
    pub fn new(host: Arc<dyn Host>) -> Self {
        Self { host }
    }
}

/// Makes the status of a layer that cannot be applied without what is below it.
fn needs_parent(layer: &Descriptor, path: String) -> Status {
    let message = format!("layer {}: entry {path:?} stands on the layers below", layer.digest);
    error::with_details(Code::FailedPrecondition, message, NEEDS_PARENT, [(PATH.to_owned(), path)].into())
}

#[tonic::async_trait]
impl Diff for Server {
    async fn apply(&self, request: Request<wire::ApplyRequest>) -> Result<Response<wire::ApplyResponse>, Status> {
        let services = scope::services(&*self.host, &request).await?;
        let request = request.into_inner();
        let apply = async {
            let layer = request.diff.ok_or_else(|| Error::invalid_argument("no layer is given"))?;
            let (layer, mounts) = (messages::descriptor(layer)?, mount::mounts(request.mounts));
            let content: &dyn Provider = &*services.content;
            let applied = services.applier.apply(content, &layer, &mounts, Whiteouts::AsMounted, None).await?;
            Ok((layer, applied))
        };
        match apply.await.map_err(|error| to_status(&error))? {
            (layer, Applied::NeedsParent { path }) => Err(needs_parent(&layer, path)),
            (_, Applied::Complete { diff_id, size }) => {
                let applied = Descriptor::new(MediaType::OCI_LAYER, diff_id.0, size);
                Ok(Response::new(wire::ApplyResponse { applied: Some(messages::descriptor_message(&applied)) }))
            }
        }
    }

    async fn diff(&self, request: Request<wire::DiffRequest>) -> Result<Response<wire::DiffResponse>, Status> {
        let services = scope::services(&*self.host, &request).await?;
        let diff = async {
            let request = request.into_inner();
            let media_type = match request.media_type.as_str() {
                // As containerd has it.
                "" => MediaType::OCI_LAYER_GZIP,
                text => text,
            };
            let ingest: Option<IngestRef> = if request.r#ref.is_empty() { None } else { Some(request.r#ref.parse()?) };
            let options = CompareOptions {
                ingest,
                labels: messages::labels(request.labels),
                source_date_epoch: request.source_date_epoch.map(|time| time.seconds),
                ..CompareOptions::new(media_type)
            };
            let (left, right) = (mount::mounts(request.left), mount::mounts(request.right));
            let layer = services.comparer.compare(&left, &right, options).await?;
            Ok(wire::DiffResponse { diff: Some(messages::descriptor_message(&layer)) })
        };
        diff.await.reply()
    }
}

/// What applies and compares layers in a daemon.
pub struct Remote {
    client: DiffClient<Channel>,
    scope: Scope,
}

impl Remote {
    /// Returns that at the other end of a channel, as seen from a scope.
    pub fn new(channel: Channel, scope: Scope) -> Self {
        let client = DiffClient::new(channel);
        Self { client: client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE), scope }
    }
}

/// Names the directory of a lone bind mount as the upper one of an overlay, so that whiteouts are written for one. Nobody mounts
/// that.
fn as_overlay(mounts: &[Mount]) -> Vec<Mount> {
    match mounts {
        [mount] if mount.kind == "bind" => {
            let mut options: Vec<String> =
                mount.options.iter().filter(|option| !["bind", "rbind"].contains(&option.as_str())).cloned().collect();
            options.push(format!("upperdir={}", mount.source));
            vec![Mount { kind: "overlay".into(), source: "overlay".into(), target: mount.target.clone(), options }]
        }
        others => others.to_vec(),
    }
}

#[async_trait]
impl Applier for Remote {
    /// The daemon reads the layer from its own content, whatever `content` is.
    async fn apply(
        &self,
        _content: &dyn Provider,
        layer: &Descriptor,
        mounts: &[Mount],
        whiteouts: Whiteouts,
        task: Option<&Task>,
    ) -> Result<Applied> {
        let progress = |offset| {
            if let Some(task) = task {
                task.set(State::Unpacking { offset, total: layer.size });
            }
        };
        progress(0);
        let mounts = match whiteouts {
            Whiteouts::AsMounted => mounts.to_vec(),
            Whiteouts::Overlay => as_overlay(mounts),
        };
        let request = wire::ApplyRequest {
            diff: Some(messages::descriptor_message(layer)),
            mounts: mount::messages(mounts),
            ..wire::ApplyRequest::default()
        };
        let answer = self.client.clone().apply(scope::request(&self.scope, request)?).await;
        if let Err(status) = &answer
            && let Some(mut info) = error::details(status).filter(|info| info.reason == NEEDS_PARENT)
        {
            return Ok(Applied::NeedsParent { path: info.metadata.remove(PATH).unwrap_or_default() });
        }
        let applied = answer.answer()?.applied;
        let applied = applied.ok_or_else(|| Error::internal("the daemon applied a layer and does not say which"))?;
        let applied = messages::descriptor(applied)?;
        progress(layer.size);
        Ok(Applied::Complete { diff_id: DiffId(applied.digest), size: applied.size })
    }
}

#[async_trait]
impl Comparer for Remote {
    async fn compare(&self, lower: &[Mount], upper: &[Mount], options: CompareOptions) -> Result<Descriptor> {
        let request = wire::DiffRequest {
            left: mount::messages(lower.to_vec()),
            right: mount::messages(upper.to_vec()),
            media_type: options.media_type.to_string(),
            r#ref: options.ingest.map(|ingest| ingest.to_string()).unwrap_or_default(),
            labels: messages::label_map(options.labels),
            source_date_epoch: options.source_date_epoch.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
        };
        let answer = self.client.clone().diff(scope::request(&self.scope, request)?).await.answer()?;
        messages::descriptor(
            answer.diff.ok_or_else(|| Error::internal("the daemon made a layer and does not say which"))?,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_mount_is_named_as_an_upper_directory() {
        let bind = Mount {
            kind: "bind".into(),
            source: "/s/1/fs".into(),
            target: String::new(),
            options: vec!["rbind".into(), "rw".into()],
        };
        let [overlay] = &as_overlay(std::slice::from_ref(&bind))[..] else { panic!("one mount") };
        assert_eq!(
            (overlay.kind.as_str(), overlay.options.clone()),
            ("overlay", vec!["rw".into(), "upperdir=/s/1/fs".into()])
        );
        let two = [bind.clone(), bind];
        assert_eq!(as_overlay(&two), two);
    }

    #[test]
    fn a_layer_that_needs_its_parent_says_which_entry() {
        let status = needs_parent(&Descriptor::of(MediaType::OCI_LAYER, b"x"), "a/b".to_owned());
        let info = error::details(&status).unwrap();
        assert_eq!((info.reason.as_str(), info.metadata.get("path").unwrap().as_str()), (NEEDS_PARENT, "a/b"));
        assert_eq!(error::from_status(&status).kind(), windlass_core::Kind::FailedPrecondition);
    }
}
