//! Blobs that are brought again.

use windlass_core::progress::Tracker;
use windlass_core::{Leased, Namespace, image, lease};
use windlass_transfer::repair;

use crate::site::{Site, three_layers};

#[tokio::test]
async fn a_blob_that_is_brought_again_says_where_it_came_from() {
    let bundle = three_layers().build();
    let site = Site::serving(&bundle);
    let leased = Leased::acquire(&site.host, &Namespace::default(), lease::Options::default()).await.unwrap();
    let source: image::Name = site.reference.to_string().parse().unwrap();
    for descriptor in bundle.image().layers.iter().chain([&bundle.root]) {
        let sources = std::slice::from_ref(&source);
        repair::fetch(&leased, &site.remote, descriptor, sources, &Tracker::new()).await.unwrap();
        let labels = leased.content.info(&descriptor.digest).await.unwrap().labels;
        assert_eq!(labels.get("containerd.io/distribution.source.registry.test"), Some("app"), "{descriptor:?}");
        let again = repair::sources(&descriptor.digest, [&labels], []);
        assert_eq!(again, [format!("registry.test/app@{}", descriptor.digest).parse().unwrap()]);
    }
}
