//! The snapshots of a daemon.

use async_trait::async_trait;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use tonic::Request;
use tonic::transport::Channel;
use windlass_core::field::FieldMask;
use windlass_core::filter::Filter;
use windlass_core::snapshot::{Capabilities, Commit, Info, Key, Mount, Name, Snapshotter, Usage};
use windlass_core::{Kind, Labels, Listing, Result, Scope};
use windlass_proto::containerd::services::snapshots::v1 as wire;
use windlass_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;

use super::{message, record};
use crate::error::{Answer as _, from_status};
use crate::{MAX_MESSAGE, mount, scope, wire as messages};

/// A snapshotter of a daemon, as seen from a scope.
pub struct Remote {
    client: SnapshotsClient<Channel>,
    scope: Scope,
    name: String,
    capabilities: Capabilities,
}

impl Remote {
    /// Returns the snapshotter of that name at the other end of a channel.
    pub fn new(channel: Channel, scope: Scope, name: String, capabilities: Capabilities) -> Self {
        let client = SnapshotsClient::new(channel);
        let client = client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        Self { client, scope, name, capabilities }
    }

    fn request<T>(&self, message: T) -> Result<Request<T>> {
        scope::request(&self.scope, message)
    }
}

fn text(parent: Option<&Name>) -> String {
    parent.map(ToString::to_string).unwrap_or_default()
}

#[async_trait]
impl Snapshotter for Remote {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn stat(&self, key: &Key) -> Result<Info> {
        let request = wire::StatSnapshotRequest { snapshotter: self.name.clone(), key: key.to_string() };
        record(self.client.clone().stat(self.request(request)?).await.answer()?.info)
    }

    async fn update(&self, info: &Info, mask: &FieldMask) -> Result<Info> {
        let request = wire::UpdateSnapshotRequest {
            snapshotter: self.name.clone(),
            info: Some(message(info.clone())),
            update_mask: messages::mask_paths(mask),
        };
        record(self.client.clone().update(self.request(request)?).await.answer()?.info)
    }

    async fn usage(&self, key: &Key) -> Result<Usage> {
        let request = wire::UsageRequest { snapshotter: self.name.clone(), key: key.to_string() };
        let usage = self.client.clone().usage(self.request(request)?).await.answer()?;
        let number = |what: &str, number: i64| messages::size(&format!("the {what} of snapshot {key},"), number);
        Ok(Usage { inodes: number("inodes", usage.inodes)?, bytes: number("size", usage.size)? })
    }

    async fn mounts(&self, key: &Key) -> Result<Vec<Mount>> {
        let request = wire::MountsRequest { snapshotter: self.name.clone(), key: key.to_string() };
        Ok(mount::mounts(self.client.clone().mounts(self.request(request)?).await.answer()?.mounts))
    }

    async fn prepare(&self, key: &Key, parent: Option<&Name>, labels: Labels) -> Result<Vec<Mount>> {
        let request = wire::PrepareSnapshotRequest {
            snapshotter: self.name.clone(),
            key: key.to_string(),
            parent: text(parent),
            labels: messages::label_map(labels),
        };
        Ok(mount::mounts(self.client.clone().prepare(self.request(request)?).await.answer()?.mounts))
    }

    async fn view(&self, key: &Key, parent: Option<&Name>, labels: Labels) -> Result<Vec<Mount>> {
        let request = wire::ViewSnapshotRequest {
            snapshotter: self.name.clone(),
            key: key.to_string(),
            parent: text(parent),
            labels: messages::label_map(labels),
        };
        Ok(mount::mounts(self.client.clone().view(self.request(request)?).await.answer()?.mounts))
    }

    async fn commit(&self, name: &Name, key: &Key, commit: Commit) -> Result<()> {
        // On the wire a commit says all labels.
        let mut labels = match self.stat(key).await {
            Err(error) if error.is(Kind::NotFound) => Labels::new(),
            active => active?.labels,
        };
        labels.extend(&commit.labels);
        let request = wire::CommitSnapshotRequest {
            snapshotter: self.name.clone(),
            name: name.to_string(),
            key: key.to_string(),
            labels: messages::label_map(labels),
            parent: text(commit.parent.as_ref()),
        };
        self.client.clone().commit(self.request(request)?).await.answer()
    }

    async fn remove(&self, key: &Key) -> Result<()> {
        let request = wire::RemoveSnapshotRequest { snapshotter: self.name.clone(), key: key.to_string() };
        self.client.clone().remove(self.request(request)?).await.answer()
    }

    fn walk(&self, filters: &[Filter]) -> Listing<Info> {
        let filters = messages::filter_texts(filters);
        let request = self.request(wire::ListSnapshotsRequest { snapshotter: self.name.clone(), filters });
        let mut client = self.client.clone();
        let call = async move { client.list(request?).await.answer() };
        let infos = |page: wire::ListSnapshotsResponse| stream::iter(page.info).map(|info| record(Some(info)));
        let pages = stream::once(call.boxed()).map_ok(|pages| pages.map_err(|status| from_status(&status)));
        pages.try_flatten().map_ok(infos).try_flatten().boxed()
    }

    async fn cleanup(&self) -> Result<()> {
        let request = wire::CleanupRequest { snapshotter: self.name.clone() };
        self.client.clone().cleanup(self.request(request)?).await.answer()
    }
}
