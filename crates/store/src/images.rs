//! Images: names and what they point at, in one namespace.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use windlass_core::field::{FieldMask, FieldPath};
use windlass_core::filter::Filter;
use windlass_core::gc::Node;
use windlass_core::image::{Deletion, Image, Name, Store};
use windlass_core::{Error, Kind, Listing, Namespace, Result, ResultExt, Scope};

use crate::db::schema::IMAGES;
use crate::db::{Key, Links, Transaction, admit, listing, set_links, unlink};
use crate::gc;
use crate::group::Group;
use crate::store::Shared;

/// The images of one namespace. A record is a root by itself, so the scope's lease has nothing to hold.
pub(crate) struct Images {
    pub(crate) shared: Arc<Shared>,
    pub(crate) scope: Scope,
}

#[async_trait]
impl Store for Images {
    async fn get(&self, name: &Name) -> Result<Image> {
        let key = key(&self.scope.namespace, name);
        self.shared.db.read(|view| IMAGES.get(view, &key))?.ok_or_else(|| not_found(&self.scope.namespace, name))
    }

    fn list(&self, filters: &[Filter]) -> Listing<Image> {
        listing(self.shared.clone(), &IMAGES, Key::prefix([self.scope.namespace.as_str()]), filters, |image| image)
    }

    async fn create(&self, image: &Image) -> Result<Image> {
        let image = image.clone();
        self.shared.transact(&self.scope, None, move |group| group.create_image(&image)).await
    }

    async fn update(&self, image: &Image, mask: &FieldMask) -> Result<Image> {
        let (image, mask) = (image.clone(), mask.clone());
        self.shared.transact(&self.scope, None, move |group| group.update_image(&image, &mask)).await
    }

    async fn delete(&self, name: &Name, deletion: Deletion) -> Result<()> {
        let name = name.clone();
        self.shared.transact(&self.scope, None, move |group| group.delete_image(&name)).await?;
        gc::after(&self.shared, deletion).await
    }
}

impl Group<'_> {
    /// Returns the record of an image, as the group has it so far.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn image(&self, name: &Name) -> Result<Image> {
        let namespace = &self.scope.namespace;
        IMAGES.get(self.tx, &key(namespace, name))?.ok_or_else(|| not_found(namespace, name))
    }

    /// Creates the record of an image: [`Store::create`].
    ///
    /// # Errors
    /// As the trait's.
    pub fn create_image(&self, image: &Image) -> Result<Image> {
        let attempt = || format!("create image {}", image.name);
        image.labels.validate().context(attempt)?;
        let now = SystemTime::now();
        let image = Image { created_at: now, updated_at: now, ..image.clone() };
        let namespace = &self.scope.namespace;
        self.member(|tx| {
            if IMAGES.contains(tx, &key(namespace, &image.name))? {
                return Err(Error::already_exists(format!("image {} is in namespace {namespace} already", image.name)));
            }
            admit(tx, self.scope, &[])?;
            put(tx, namespace, &image)
        })?;
        Ok(image)
    }

    /// Changes the fields of an image that the mask names: [`Store::update`].
    ///
    /// # Errors
    /// As the trait's.
    pub fn update_image(&self, image: &Image, mask: &FieldMask) -> Result<Image> {
        let update = |tx: &Transaction| {
            let before = self.image(&image.name)?;
            let image = Image { updated_at: SystemTime::now(), ..changed(before, image, mask)? };
            put(tx, &self.scope.namespace, &image)?;
            Ok(image)
        };
        self.member(update).context(|| format!("update image {}", image.name))
    }

    /// Creates the record of an image or, when the name is taken, points it at the new target.
    ///
    /// # Errors
    /// As those of [`Group::create_image`] and [`Group::update_image`].
    pub fn put_image(&self, image: &Image) -> Result<Image> {
        match self.create_image(image) {
            Err(error) if error.is(Kind::AlreadyExists) => self.update_image(image, &FieldMask::all()),
            created => created,
        }
    }

    /// Deletes the record of an image; what it alone referred to becomes garbage.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn delete_image(&self, name: &Name) -> Result<()> {
        let namespace = &self.scope.namespace;
        self.member(|tx| {
            if !IMAGES.remove(tx, &key(namespace, name))? {
                return Err(not_found(namespace, name));
            }
            unlink(tx, namespace, &Node::Image(name.to_string()))
        })
    }
}

fn key(namespace: &Namespace, name: &Name) -> String {
    Key::of([namespace.as_str(), name.as_str()])
}

fn not_found(namespace: &Namespace, name: &Name) -> Error {
    Error::not_found(format!("image {name} is not in namespace {namespace}"))
        .hint("`dist images ls` lists those there are")
}

fn put(tx: &Transaction, namespace: &Namespace, image: &Image) -> Result<()> {
    IMAGES.put(tx, &key(namespace, &image.name), image)?;
    set_links(tx, namespace, &Node::Image(image.name.to_string()), &links(image))
}

/// Returns what the record of an image refers to.
pub(crate) fn links(image: &Image) -> Links {
    Links::of(&image.labels).on(Some(&Node::Content(image.target.digest.clone())))
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
            assert!(error.is(Kind::InvalidArgument) && error.to_string().contains(paths[0]), "{error}");
        }
    }
}
