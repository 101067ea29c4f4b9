//! Directories in OCI layout as remotes: OCI image-spec, `image-layout.md`.
//!
//! A tag is the annotation `org.opencontainers.image.ref.name` of an entry in `index.json`. Without a tag, the only entry is
//! meant. A digest need not be in `index.json`, and its beginning is enough when nothing else begins so.

mod directory;
mod pusher;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use windlass_core::digest::Algorithm;
use windlass_core::document::{Index, MAX_MANIFEST_SIZE, Manifest};
use windlass_core::media_type::Role;
use windlass_core::reference::{Object, ObjectDigest};
use windlass_core::remote::{Body, ByteRange, Fetcher, Resolved};
use windlass_core::{Descriptor, Digest, Error, Kind, MediaType, Reference, Result};

use crate::error::printable;
use crate::fetcher::check_range;
use crate::manifest;
use crate::referrers::fallback_tag;
use directory::{Directory, blocking};
pub(crate) use pusher::LayoutPusher;

/// The version of the layout that is understood.
const VERSION: &str = "1.0.0";
/// The annotation that holds a tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// How many names an error lists.
const LISTED: usize = 10;

/// Finds out what a reference into a layout means.
pub(crate) async fn resolve(path: &str, reference: &Reference) -> Result<Resolved> {
    let name = reference.to_string().parse()?;
    let (path, object) = (path.to_owned(), reference.object().cloned());
    let descriptor = blocking(move || Layout::open(&path)?.resolve(object.as_ref())).await?;
    Ok(Resolved { name, descriptor })
}

/// Lists what in a layout names a manifest as its subject: entries of `index.json`, and those of the index under the tag that
/// registries without an API use.
pub(crate) async fn referrers(path: &str, subject: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
    let (path, subject, wanted) = (path.to_owned(), subject.clone(), artifact_type.map(str::to_owned));
    let mut referrers = blocking(move || Layout::open(&path)?.referrers(&subject)).await?;
    referrers.retain(|descriptor| wanted.is_none() || descriptor.artifact_type == wanted);
    Ok(referrers)
}

/// Lists the tags of a layout, in the order of its index.
pub(crate) async fn tags(path: String) -> Result<Vec<String>> {
    let index = blocking(move || Layout::open(&path)?.index()).await?;
    Ok(index.manifests.iter().filter_map(tag_of).map(str::to_owned).collect())
}

/// A directory whose version has been checked. Its methods block.
struct Layout {
    directory: Directory,
}

impl Layout {
    fn open(path: &str) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            image_layout_version: String,
        }
        let directory = Directory::open(path)?;
        let bytes = directory.read("oci-layout", MAX_MANIFEST_SIZE).map_err(|error| match error.kind() {
            Kind::NotFound => Error::not_found(format!("{path} is not an OCI layout: it has no file oci-layout"))
                .hint("name the directory that holds oci-layout, index.json and blobs"),
            _ => error,
        })?;
        let version: Version = serde_json::from_slice(&bytes)
            .map_err(|e| Error::invalid_argument(format!("oci-layout in {path} is malformed")).source(e))?;
        if version.image_layout_version != VERSION {
            return Err(Error::unimplemented(format!(
                "layout {path} has version {}, and {VERSION} is understood",
                printable(&version.image_layout_version)
            ))
            .hint("write the image again with a current tool"));
        }
        Ok(Self { directory })
    }

    fn path(&self) -> &str {
        self.directory.path()
    }

    fn index(&self) -> Result<Index> {
        let path = self.path();
        let bytes = self.directory.read("index.json", MAX_MANIFEST_SIZE)?;
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::invalid_argument(format!("index.json in layout {path} is malformed")).source(e))
    }

    fn resolve(&self, object: Option<&Object>) -> Result<Descriptor> {
        let index = self.index()?;
        let found = match (object.and_then(Object::object_digest), object.and_then(Object::tag)) {
            (Some(ObjectDigest::Full(digest)), _) => self.by_digest(&index, digest)?,
            (Some(ObjectDigest::Partial(beginning)), _) => {
                self.by_digest(&index, &self.complete(&index, beginning)?)?
            }
            (None, Some(tag)) => self.by_tag(&index, tag)?,
            (None, None) => self.only(&index)?,
        };
        manifest::refuse_schema1(&format!("manifest {} in {}", found.digest, self.path()), &found.media_type)?;
        // Annotations of the entry, such as its tag, are about its place in this directory.
        Ok(Descriptor::new(found.media_type, found.digest, found.size))
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let index = self.index()?;
        let listed = match self.by_tag(&index, &fallback_tag(subject)) {
            Ok(list) => self.read(&list).and_then(|bytes| crate::referrers::parse(&bytes))?,
            Err(error) if error.is(Kind::NotFound) => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut found: BTreeMap<Digest, Descriptor> = listed.into_iter().map(|it| (it.digest.clone(), it)).collect();
        for entry in index.manifests.into_iter().filter(|entry| entry.media_type.role() == Role::Manifest) {
            // What is not here, or is no manifest, names nothing as its subject.
            let Ok(manifest) = self.read(&entry).and_then(|bytes| Manifest::parse(&entry, &bytes)) else { continue };
            if manifest.subject.is_some_and(|it| it.digest == *subject) && !found.contains_key(&entry.digest) {
                let kind = manifest.artifact_type.unwrap_or_else(|| manifest.config.media_type.to_string());
                let descriptor = Descriptor::new(entry.media_type, entry.digest, entry.size);
                let attached =
                    Descriptor { artifact_type: Some(kind), annotations: manifest.annotations, ..descriptor };
                found.insert(attached.digest.clone(), attached);
            }
        }
        Ok(found.into_values().collect())
    }

    /// Reads a document whole.
    fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        self.directory.read(&blob_path(&descriptor.digest), MAX_MANIFEST_SIZE)
    }

    fn by_tag(&self, index: &Index, tag: &str) -> Result<Descriptor> {
        let mut found = index.manifests.iter().filter(|entry| tag_of(entry) == Some(tag));
        let Some(first) = found.next() else {
            return Err(Error::not_found(format!("tag {tag:?} is not in layout {}", self.path())).hint(listing(index)));
        };
        match found.find(|other| other.digest != first.digest) {
            Some(other) => Err(Error::failed_precondition(format!(
                "tag {tag:?} in layout {} is ambiguous: {} and {}",
                self.path(),
                first.digest,
                other.digest
            ))
            .hint("name the one that is meant by its digest")),
            None => Ok(first.clone()),
        }
    }

    fn only(&self, index: &Index) -> Result<Descriptor> {
        match index.manifests.as_slice() {
            [] => {
                Err(Error::not_found(format!("layout {} is empty", self.path()))
                    .hint("its index.json has no manifests"))
            }
            [only] => Ok(only.clone()),
            several => Err(Error::invalid_argument(format!(
                "layout {} has {} manifests, and the reference says not which",
                self.path(),
                several.len()
            ))
            .hint(listing(index))),
        }
    }

    /// Returns the descriptor of something that is in the index, or else only among the blobs.
    fn by_digest(&self, index: &Index, digest: &Digest) -> Result<Descriptor> {
        if let Some(entry) = index.manifests.iter().find(|entry| entry.digest == *digest) {
            return Ok(entry.clone());
        }
        let what = format!("{digest} in {}", self.path());
        let bytes = self.directory.read(&blob_path(digest), MAX_MANIFEST_SIZE).map_err(|error| match error.kind() {
            Kind::NotFound => {
                Error::not_found(format!("{digest} is not in layout {}", self.path())).hint(listing(index))
            }
            _ => error,
        })?;
        let found = digest.algorithm().digest(&bytes);
        if found != *digest {
            return Err(Error::data_loss(format!("the content of {what} has the digest {found}"))
                .hint("the directory is damaged; copy the image again"));
        }
        let media_type = manifest::media_type(&what, &MediaType::default(), &bytes)?;
        Ok(Descriptor::new(media_type, digest.clone(), bytes.len() as u64))
    }

    /// Returns the one digest that begins so.
    fn complete(&self, index: &Index, beginning: &str) -> Result<Digest> {
        let mut digests: Vec<Digest> = index.manifests.iter().map(|entry| entry.digest.clone()).collect();
        let algorithms = self.directory.names("blobs")?;
        for algorithm in algorithms.iter().filter(|name| name.parse::<Algorithm>().is_ok()) {
            let names = self.directory.names(&format!("blobs/{algorithm}"))?;
            digests.extend(names.iter().filter_map(|hex| format!("{algorithm}:{hex}").parse().ok()));
        }
        digests.retain(|digest| digest.to_string().starts_with(beginning));
        digests.sort();
        digests.dedup();
        match digests.as_slice() {
            [only] => Ok(only.clone()),
            [] => Err(Error::not_found(format!(
                "nothing in layout {} has a digest that begins with {beginning}",
                self.path()
            ))
            .hint(listing(index))),
            several => Err(Error::invalid_argument(format!(
                "{} digests in layout {} begin with {beginning}",
                several.len(),
                self.path()
            ))
            .hint("write more of the digest")),
        }
    }
}

fn tag_of(entry: &Descriptor) -> Option<&str> {
    entry.annotations.get(REF_NAME).map(String::as_str)
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// Says what there is to choose from.
fn listing(index: &Index) -> String {
    let entries: BTreeMap<&Digest, Option<&str>> =
        index.manifests.iter().map(|entry| (&entry.digest, tag_of(entry))).collect();
    let names: Vec<String> = entries
        .iter()
        .take(LISTED)
        .map(|(digest, tag)| tag.map_or_else(|| format!("@{digest}"), |tag| format!(":{}", printable(tag))))
        .collect();
    let more = if entries.len() > LISTED { ", …" } else { "" };
    if names.is_empty() {
        "its index.json has no manifests".to_owned()
    } else {
        format!("there are {}{more}", names.join(", "))
    }
}

/// Fetches out of a layout.
pub(crate) struct LayoutFetcher {
    layout: Arc<Layout>,
}

impl LayoutFetcher {
    pub(crate) async fn open(path: &str) -> Result<Self> {
        let path = path.to_owned();
        let layout = blocking(move || Layout::open(&path)).await?;
        Ok(Self { layout: Arc::new(layout) })
    }
}

#[async_trait]
impl Fetcher for LayoutFetcher {
    async fn fetch(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        check_range(descriptor, range)?;
        let (layout, digest) = (self.layout.clone(), descriptor.digest.clone());
        let file = blocking(move || {
            layout.directory.file(&blob_path(&digest)).map_err(|error| match error.kind() {
                Kind::NotFound => Error::not_found(format!("blob {digest} is not in layout {}", layout.path()))
                    .hint("the directory is incomplete; copy the image again"),
                _ => error,
            })
        })
        .await?;
        let size = file.size();
        if range.start > size {
            return Err(Error::out_of_range(format!(
                "blob {} in layout {} has {size} bytes, and is wanted from byte {}",
                descriptor.digest,
                self.layout.path(),
                range.start
            ))
            .hint("its size differs from what its manifest says; copy the image again"));
        }
        let end = range.end.unwrap_or(size).min(size);
        Ok(Body { offset: range.start, size: Some(size), stream: file.into_stream(range.start, end) })
    }
}
