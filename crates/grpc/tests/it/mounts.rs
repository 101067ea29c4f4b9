//! Activations over the wire.

use tempfile::TempDir;
use windlass_core::activation::Options;
use windlass_core::field::FieldMask;
use windlass_core::snapshot::Mount;
use windlass_core::{Kind, Labels, Namespace};

use crate::client;

#[tokio::test]
async fn an_activation_is_made_found_labelled_listed_and_ended() {
    let root = TempDir::new().unwrap();
    let source = root.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "x").unwrap();
    let activations = client(root.path()).await.activations();
    let (namespace, name) = (Namespace::default(), "a".parse().unwrap());
    let bind = || Mount {
        kind: "bind".to_owned(),
        source: source.display().to_string(),
        target: String::new(),
        options: vec!["rbind".to_owned(), "ro".to_owned()],
    };
    let plain = activations.activate(&namespace, &name, vec![bind()], Options::default()).await;
    assert_eq!(plain.unwrap_err().kind(), Kind::Unimplemented, "the caller can mount that");
    let options = Options { labels: Labels::new().with("a", "1"), temporary: true };
    let made = activations.activate(&namespace, &name, vec![bind()], options.clone()).await.unwrap();
    assert_eq!((made.active.len(), made.system.len(), &made.labels), (1, 1, &options.labels));
    assert_eq!(made.system[0].source, made.active[0].mount_point);
    assert_eq!(std::fs::read_to_string(format!("{}/file", made.active[0].mount_point)).unwrap(), "x");
    let again = activations.activate(&namespace, &name, vec![bind()], options).await;
    assert_eq!(again.unwrap_err().kind(), Kind::AlreadyExists);
    assert_eq!(activations.info(&namespace, &name).await.unwrap(), made);

    let mask = FieldMask::parse(["labels.b"]).unwrap();
    let labels = Labels::new().with("b", "2");
    let updated = activations.update(&namespace, &name, &labels, &mask).await.unwrap();
    assert_eq!(updated.labels, Labels::new().with("a", "1").with("b", "2"));
    let list = async |filter: &str| activations.list(&namespace, &[filter.parse().unwrap()]).await.unwrap();
    assert_eq!(list("labels.b==2").await, [updated]);
    assert_eq!(list("name==other").await, []);

    activations.deactivate(&namespace, &name).await.unwrap();
    assert_eq!(activations.info(&namespace, &name).await.unwrap_err().kind(), Kind::NotFound);
    assert!(!std::path::Path::new(&made.active[0].mount_point).exists());
}
