//! Images: names and what they point at, in one namespace.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use windlass_core::field::{FieldMask, FieldPath};
use windlass_core::filter::Filter;
use windlass_core::gc::Node;
use windlass_core::image::{Deletion, Image, Name, Store};
use windlass_core::{Error, Listing, Namespace, Result, ResultExt, Scope};

use crate::db::schema::IMAGES;
use crate::db::{Key, Links, Transaction, admit, listing, set_links, unlink};
use crate::gc;
use crate::store::Shared;

/// The images of one namespace. A record is a root by itself, so the scope's lease has nothing to hold.
pub(crate) struct Images {
    pub(crate) shared: Arc<Shared>,
    pub(crate) scope: Scope,
}

impl Images {
    fn key(&self, name: &Name) -> String {
        Key::of([self.scope.namespace.as_str(), name.as_str()])
    }
}

#[async_trait]
impl Store for Images {
    async fn get(&self, name: &Name) -> Result<Image> {
        let key = self.key(name);
        self.shared.db.read(|view| IMAGES.get(view, &key))?.ok_or_else(|| not_found(&self.scope.namespace, name))
    }

    fn list(&self, filters: &[Filter]) -> Listing<Image> {
        listing(self.shared.clone(), &IMAGES, Key::prefix([self.scope.namespace.as_str()]), filters, |image| image)
    }

    async fn create(&self, image: &Image) -> Result<Image> {
        image.labels.validate().context(|| format!("create image {}", image.name))?;
        let now = SystemTime::now();
        let image = Image { created_at: now, updated_at: now, ..image.clone() };
        let (key, scope) = (self.key(&image.name), self.scope.clone());
        let create = move |tx: &Transaction| {
            if IMAGES.contains(tx, &key)? {
                let namespace = &scope.namespace;
                return Err(Error::already_exists(format!("image {} is in namespace {namespace} already", image.name)));
            }
            admit(tx, &scope, &[])?;
            put(tx, &scope.namespace, &key, &image)?;
            Ok(image.clone())
        };
        self.shared.db.write(create).await
    }

    async fn update(&self, image: &Image, mask: &FieldMask) -> Result<Image> {
        let (key, namespace) = (self.key(&image.name), self.scope.namespace.clone());
        let (change, mask) = (image.clone(), mask.clone());
        let update = move |tx: &Transaction| {
            let before = IMAGES.get(tx, &key)?.ok_or_else(|| not_found(&namespace, &change.name))?;
            let image = Image { updated_at: SystemTime::now(), ..changed(before, &change, &mask)? };
            put(tx, &namespace, &key, &image)?;
            Ok(image)
        };
        self.shared.db.write(update).await.context(|| format!("update image {}", image.name))
    }

    async fn delete(&self, name: &Name, deletion: Deletion) -> Result<()> {
        let (key, namespace, node) = (self.key(name), self.scope.namespace.clone(), Node::Image(name.to_string()));
        let delete = move |tx: &Transaction| {
            unlink(tx, &namespace, &node)?;
            IMAGES.remove(tx, &key)
        };
        if !self.shared.db.write(delete).await? {
            return Err(not_found(&self.scope.namespace, name));
        }
        gc::after(&self.shared, deletion).await
    }
}

fn not_found(namespace: &Namespace, name: &Name) -> Error {
    Error::not_found(format!("image {name} is not in namespace {namespace}"))
        .hint("`dist images ls` lists those there are")
}

fn put(tx: &Transaction, namespace: &Namespace, key: &str, image: &Image) -> Result<()> {
    IMAGES.put(tx, key, image)?;
    let links = Links::of(&image.labels).on(Some(&Node::Content(image.target.digest.clone())));
    set_links(tx, namespace, &Node::Image(image.name.to_string()), &links)
}

/// Returns the record after a change of the fields that the mask names.
fn changed(mut image: Image, change: &Image, mask: &FieldMask) -> Result<Image> {
    if mask.is_all() {
        image.target = change.target.clone();
    }
    for path in mask.apply_to_labels(&mut image.labels, &change.labels) {
        match (path.field(), path.key()) {
            ("target", None) => image.target = change.target.clone(),
            ("annotations", None) => image.target.annotations = change.target.annotations.clone(),
            ("annotations", Some(key)) => match change.target.annotations.get(key) {
                Some(value) => drop(image.target.annotations.insert(key.to_owned(), value.clone())),
                None => drop(image.target.annotations.remove(key)),
            },
            _ => return Err(unknown(path)),
        }
    }
    image.labels.validate()?;
    Ok(image)
}

fn unknown(path: &FieldPath) -> Error {
    Error::invalid_argument(format!("field {path} of an image cannot be changed"))
        .hint("target, labels, labels.<key>, annotations and annotations.<key> can")
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_core::Descriptor;

    fn image(content: &[u8], annotation: &str, label: &str) -> Image {
        let mut target = Descriptor::of("application/vnd.oci.image.manifest.v1+json", content);
        target.annotations.insert("a".into(), annotation.into());
        let mut image = Image::new("redis:7".parse().unwrap(), target);
        image.labels.set("l", label);
        image.labels.set("m", label);
        image
    }

    #[test]
    fn a_mask_changes_what_it_names_and_nothing_else() {
        let (old, new) = (image(b"old", "1", "1"), image(b"new", "2", "2"));
        let apply = |paths: &[&str]| changed(old.clone(), &new, &FieldMask::parse(paths.iter().copied()).unwrap());

        let all = apply(&[]).unwrap();
        assert_eq!((&all.target, &all.labels), (&new.target, &new.labels));

        let target = apply(&["target"]).unwrap();
        assert_eq!((&target.target, &target.labels), (&new.target, &old.labels));

        let label = apply(&["labels.l"]).unwrap();
        assert_eq!((label.labels.get("l"), label.labels.get("m")), (Some("2"), Some("1")));

        let annotation = apply(&["annotations.a"]).unwrap();
        assert_eq!(annotation.target.annotations, new.target.annotations);
        assert_eq!(annotation.target.digest, old.target.digest);

        for paths in [["name"], ["target.digest"], ["created_at"]] {
            let error = apply(&paths).unwrap_err();
            assert!(error.is(windlass_core::Kind::InvalidArgument) && error.to_string().contains(paths[0]), "{error}");
        }
    }
}
