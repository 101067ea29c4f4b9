//! The engine passes the suite of a host, and what it hands out passes the suites of the traits.

use std::path::Path;
use std::sync::Arc;

use windlass::Engine;
use windlass::core::{Host, Namespace, Services};

async fn engine(root: &Path) -> Arc<Engine> {
    Arc::new(Engine::open(root.join("root")).await.unwrap())
}

async fn services(root: &Path) -> Services {
    engine(root).await.services(&Namespace::default().into()).await.unwrap()
}

windlass_testkit::host_suite!(host, engine);
windlass_testkit::content_suite!(content, async |root: &Path| services(root).await.content);
windlass_testkit::image_suite!(images, async |root: &Path| services(root).await.images);
windlass_testkit::lease_suite!(leases, async |root: &Path| services(root).await.leases);
windlass_testkit::namespace_suite!(namespaces, async |root: &Path| services(root).await.namespaces);
windlass_testkit::container_suite!(containers, async |root: &Path| services(root).await.containers);
