//! The conformance suites of the contract.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use windlass_core::{Host, Result, Scope, Services};
use windlass_store::Store;
use windlass_testkit::memory::{Applier, Comparer, Events, Room};

use super::{SNAPSHOTTER, open, scope};

windlass_testkit::content_suite!(content, async |root: &Path| open(root).await.content(&scope("default")), persistent);
windlass_testkit::one_pass_suite!(
    one_pass,
    async |root: &Path| open(root).await.content(&scope("default")),
    persistent
);
windlass_testkit::image_suite!(image, async |root: &Path| open(root).await.images(&scope("default")));
windlass_testkit::container_suite!(container, async |root: &Path| open(root).await.containers(&scope("default")));
windlass_testkit::lease_suite!(lease, async |root: &Path| open(root).await.leases(&scope("default").namespace));
windlass_testkit::namespace_suite!(namespace, async |root: &Path| open(root).await.namespaces());
windlass_testkit::snapshotter_suite!(snapshotter, async |root: &Path| {
    open(root).await.snapshotters(&scope("default")).remove(SNAPSHOTTER).unwrap()
});
windlass_testkit::host_suite!(host, async |root: &Path| Arc::new(StoreHost(open(root).await)));

/// The store's services as those of a host; the engine does the same.
struct StoreHost(Store);

#[async_trait]
impl Host for StoreHost {
    async fn services(&self, scope: &Scope) -> Result<Services> {
        Ok(Services {
            scope: scope.clone(),
            content: self.0.content(scope),
            images: self.0.images(scope),
            containers: self.0.containers(scope),
            leases: self.0.leases(&scope.namespace),
            namespaces: self.0.namespaces(),
            snapshotters: self.0.snapshotters(scope).into(),
            default_snapshotter: SNAPSHOTTER.to_owned(),
            applier: Arc::new(Applier::new()),
            comparer: Arc::new(Comparer::new(self.0.content(scope))),
            collector: Some(Arc::new(self.0.clone())),
            summaries: None,
            events: Arc::new(Events::default()),
            room: Arc::new(Room::default()),
            claims: windlass_core::claim::Claims::default(),
        })
    }
}
