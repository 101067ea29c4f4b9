//! The engine passes the suite of a host, and what it hands out passes the suites of the traits.

use std::path::Path;
use std::sync::Arc;

use windlass::core::{Host, Namespace, Services};
use windlass::{EROFS, Engine, NATIVE};

async fn engine(root: &Path) -> Arc<Engine> {
    Arc::new(Engine::open(root.join("root")).await.unwrap())
}

async fn services(root: &Path) -> Services {
    engine(root).await.services(&Namespace::default().into()).await.unwrap()
}

windlass_testkit::host_suite!(host, engine);
windlass_testkit::comparer_suite!(comparer, engine);
windlass_testkit::comparer_suite!(comparer_of_images, async |root: &Path| {
    Arc::new(Engine::builder(root.join("root")).default_snapshotter(EROFS).open().await.unwrap())
});
windlass_testkit::comparer_suite!(comparer_of_copies, async |root: &Path| {
    Arc::new(Engine::builder(root.join("root")).default_snapshotter(NATIVE).open().await.unwrap())
});
windlass_testkit::content_suite!(content, async |root: &Path| services(root).await.content);
windlass_testkit::image_suite!(images, async |root: &Path| services(root).await.images);
windlass_testkit::lease_suite!(leases, async |root: &Path| services(root).await.leases);
windlass_testkit::namespace_suite!(namespaces, async |root: &Path| services(root).await.namespaces);
windlass_testkit::container_suite!(containers, async |root: &Path| services(root).await.containers);
windlass_testkit::event_suite!(events, async |root: &Path| services(root).await.events);
