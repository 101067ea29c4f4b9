//! Snapshots over the wire: `containerd.services.snapshots.v1.Snapshots`.
//!
//! Every request names its snapshotter; none, or one that is not here, is `InvalidArgument`, as in containerd.
//!
//! The mounts of the snapshotter `erofs` have types that this project made up. A foreign client can prepare, commit and list
//! snapshots there, and have the daemon apply layers to them by the mounts it was given; it cannot mount them itself, and the
//! kernel refuses the types if it tries. Clients that mount want `overlayfs` or `native`.

mod remote;

use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use tonic::{Request, Response, Status};
use windlass_core::field::FieldMask;
use windlass_core::snapshot::{Commit, Info, Key, Name, Snapshotter, State};
use windlass_core::{Error, Host, Kind, Labels, Result, ResultExt as _};
use windlass_proto::containerd::services::snapshots::v1 as wire;
use windlass_proto::containerd::services::snapshots::v1::snapshots_server::Snapshots;

use crate::error::{Reply as _, to_status};
use crate::{mount, scope, time, wire as messages};

pub use remote::Remote;

/// How many snapshots one message of a list has at most, as containerd has it.
const PAGE: usize = 100;

/// Answers with the snapshots of a host.
pub struct Server {
    host: Arc<dyn Host>,
}

impl Server {
    /// Serves a host.
    pub fn new(host: Arc<dyn Host>) -> Self {
        Self { host }
    }

    /// Returns the snapshotter that a request names.
    async fn snapshotter<T>(&self, request: &Request<T>, name: &str) -> Result<Arc<dyn Snapshotter>, Status> {
        let services = scope::services(&*self.host, request).await?;
        let found = services.snapshotters.get(name).cloned();
        found.ok_or_else(|| to_status(&unknown(name, services.snapshotters.keys())))
    }
}

fn unknown<'a>(name: &str, there: impl Iterator<Item = &'a String>) -> Error {
    let what = if name.is_empty() {
        "no snapshotter is named".to_owned()
    } else {
        format!("snapshotter {name:?} is not here")
    };
    let there: Vec<&str> = there.map(String::as_str).collect();
    Error::invalid_argument(what).hint(format!("there are: {}", there.join(", ")))
}

fn message(info: Info) -> wire::Info {
    wire::Info {
        name: info.key.to_string(),
        parent: info.parent.map(|parent| parent.to_string()).unwrap_or_default(),
        kind: match info.state {
            State::Active => wire::Kind::Active,
            State::View => wire::Kind::View,
            State::Committed => wire::Kind::Committed,
        }
        .into(),
        created_at: time::to_wire(info.created_at),
        updated_at: time::to_wire(info.updated_at),
        labels: messages::label_map(info.labels),
    }
}

/// Reads a record; the state is one that it has if the message does not say.
fn record(info: Option<wire::Info>) -> Result<Info> {
    let info = info.ok_or_else(|| Error::invalid_argument("no snapshot is given"))?;
    let state = match info.kind() {
        wire::Kind::View => State::View,
        wire::Kind::Committed => State::Committed,
        wire::Kind::Active | wire::Kind::Unknown => State::Active,
    };
    Ok(Info {
        state,
        key: info.name.parse()?,
        parent: parent(&info.parent)?,
        labels: messages::labels(info.labels),
        created_at: time::from_wire(info.created_at)?,
        updated_at: time::from_wire(info.updated_at)?,
    })
}

/// Reads the name of a parent; an empty one is none.
fn parent(text: &str) -> Result<Option<Name>> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

/// Leaves a snapshot that was committed just now only the labels of its commit: in containerd those of the active one end with it,
/// where the contract keeps them.
async fn only_labels(snapshotter: &dyn Snapshotter, name: &Name, labels: Labels) -> Result<()> {
    let set = async {
        let info = snapshotter.stat(name.as_key()).await?;
        if info.labels == labels {
            return Ok(());
        }
        snapshotter.update(&Info { labels, ..info }, &FieldMask::parse(["labels"])?).await.map(|_| ())
    };
    match set.await {
        // Nothing kept it, and a collection has been there already.
        Err(error) if error.is(Kind::NotFound) => Ok(()),
        set => set.context(|| format!("set the labels of {name}, which is committed")),
    }
}

#[tonic::async_trait]
impl Snapshots for Server {
    async fn prepare(
        &self,
        request: Request<wire::PrepareSnapshotRequest>,
    ) -> Result<Response<wire::PrepareSnapshotResponse>, Status> {
        let snapshotter = self.snapshotter(&request, &request.get_ref().snapshotter).await?;
        let prepare = async {
            let request = request.into_inner();
            let (key, parent): (Key, _) = (request.key.parse()?, parent(&request.parent)?);
            let mounts = snapshotter.prepare(&key, parent.as_ref(), messages::labels(request.labels)).await?;
            Ok(wire::PrepareSnapshotResponse { mounts: mount::messages(mounts) })
        };
        prepare.await.reply()
    }

    async fn view(
        &self,
        request: Request<wire::ViewSnapshotRequest>,
    ) -> Result<Response<wire::ViewSnapshotResponse>, Status> {
        let snapshotter = self.snapshotter(&request, &request.get_ref().snapshotter).await?;
        let view = async {
            let request = request.into_inner();
            let (key, parent): (Key, _) = (request.key.parse()?, parent(&request.parent)?);
            let mounts = snapshotter.view(&key, parent.as_ref(), messages::labels(request.labels)).await?;
            Ok(wire::ViewSnapshotResponse { mounts: mount::messages(mounts) })
        };
        view.await.reply()
    }

    async fn mounts(&self, request: Request<wire::MountsRequest>) -> Result<Response<wire::MountsResponse>, Status> {
        let snapshotter = self.snapshotter(&request, &request.get_ref().snapshotter).await?;
        let mounts = async {
            let mounts = snapshotter.mounts(&request.into_inner().key.parse()?).await?;
            Ok(wire::MountsResponse { mounts: mount::messages(mounts) })
        };
        mounts.await.reply()
    }

    async fn commit(&self, request: Request<wire::CommitSnapshotRequest>) -> Result<Response<()>, Status> {
        let snapshotter = self.snapshotter(&request, &request.get_ref().snapshotter).await?;
        let commit = async {
            let request = request.into_inner();
            let (name, key): (Name, Key) = (request.name.parse()?, request.key.parse()?);
            let commit = Commit { labels: messages::labels(request.labels), parent: parent(&request.parent)? };
            let labels = commit.labels.clone();
            snapshotter.commit(&name, &key, commit).await?;
            only_labels(&*snapshotter, &name, labels).await
        };
        commit.await.reply()
    }

    async fn remove(&self, request: Request<wire::RemoveSnapshotRequest>) -> Result<Response<()>, Status> {
        let snapshotter = self.snapshotter(&request, &request.get_ref().snapshotter).await?;
        let remove = async { snapshotter.remove(&request.into_inner().key.parse()?).await };
        remove.await.reply()
    }

    async fn stat(
        &self,
        request: Request<wire::StatSnapshotRequest>,
    ) -> Result<Response<wire::StatSnapshotResponse>, Status> {
        let snapshotter = self.snapshotter(&request, &request.get_ref().snapshotter).await?;
        let stat = async {
            let info = snapshotter.stat(&request.into_inner().key.parse()?).await?;
            Ok(wire::StatSnapshotResponse { info: Some(message(info)) })
        };
        stat.await.reply()
    }

    async fn update(
        &self,
        request: Request<wire::UpdateSnapshotRequest>,
    ) -> Result<Response<wire::UpdateSnapshotResponse>, Status> {
        let snapshotter = self.snapshotter(&request, &request.get_ref().snapshotter).await?;
        let update = async {
            let request = request.into_inner();
            let (info, mask) = (record(request.info)?, messages::mask(request.update_mask)?);
            let info = snapshotter.update(&info, &mask).await?;
            Ok(wire::UpdateSnapshotResponse { info: Some(message(info)) })
        };
        update.await.reply()
    }

    type ListStream = BoxStream<'static, Result<wire::ListSnapshotsResponse, Status>>;

    async fn list(&self, request: Request<wire::ListSnapshotsRequest>) -> Result<Response<Self::ListStream>, Status> {
        let snapshotter = self.snapshotter(&request, &request.get_ref().snapshotter).await?;
        let list = messages::filters(&request.into_inner().filters).map(|filters| {
            let pages = snapshotter.walk(&filters).map_ok(message).try_chunks(PAGE);
            let page = pages.map_ok(|info| wire::ListSnapshotsResponse { info });
            page.map_err(|error| to_status(&error.1)).boxed()
        });
        list.reply()
    }

    async fn usage(&self, request: Request<wire::UsageRequest>) -> Result<Response<wire::UsageResponse>, Status> {
        let snapshotter = self.snapshotter(&request, &request.get_ref().snapshotter).await?;
        let usage = async {
            let usage = snapshotter.usage(&request.into_inner().key.parse()?).await?;
            Ok(wire::UsageResponse {
                size: messages::size_number(usage.bytes),
                inodes: messages::size_number(usage.inodes),
            })
        };
        usage.await.reply()
    }

    async fn cleanup(&self, request: Request<wire::CleanupRequest>) -> Result<Response<()>, Status> {
        let snapshotter = self.snapshotter(&request, &request.get_ref().snapshotter).await?;
        snapshotter.cleanup().await.reply()
    }
}
