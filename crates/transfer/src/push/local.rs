//! What is pushed from here, and what of it is not here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use windlass_core::content::{self, DROPPED_LABEL, ProviderExt as _, ReaderAt, Source, Store};
use windlass_core::field::FieldMask;
use windlass_core::remote::{Body, ByteRange, Fetcher, Resolver, SOURCE_LABEL, Trouble};
use windlass_core::{Descriptor, Digest, Error, Kind, Labels, Reference, Result, image};

use super::{Missing, Object, Origin};
use crate::documents;
use crate::fetch::read_document;
use crate::repair::sources;

/// The content of a namespace, and where its content came from.
pub(super) struct Local {
    content: Arc<dyn Store>,
    resolver: Arc<dyn Resolver>,
    target: Digest,
    name: Option<image::Name>,
    missing: Missing,
    /// Host and repository that it goes to, if they are a registry's.
    to: Option<(String, String)>,
    /// What is not here and was asked for elsewhere.
    elsewhere: Mutex<BTreeMap<Digest, Elsewhere>>,
}

impl Local {
    pub(super) fn new(
        content: Arc<dyn Store>,
        resolver: Arc<dyn Resolver>,
        object: &Object,
        missing: Missing,
        to: &Reference,
    ) -> Self {
        let to = to.host().zip(to.repository()).map(|(host, repository)| (host.to_owned(), repository.to_owned()));
        let (target, name) = (object.target.digest.clone(), object.name.clone());
        Self { content, resolver, target, name, missing, to, elsewhere: Mutex::default() }
    }

    async fn labels(&self, digest: &Digest) -> Result<Option<Labels>> {
        match self.content.info(digest).await {
            Ok(info) => Ok(Some(info.labels)),
            Err(error) if error.is(Kind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns where something can be had that is not here, or says that it is not.
    async fn elsewhere(&self, descriptor: &Descriptor, parent: Option<&Digest>) -> Result<Elsewhere> {
        let digest = &descriptor.digest;
        if let Some(elsewhere) = self.known_elsewhere().get(digest) {
            return Ok(elsewhere.clone());
        }
        let mut labels = Vec::new();
        for referrer in parent.into_iter().chain([&self.target]) {
            labels.extend(self.labels(referrer).await?);
        }
        let dropped = labels.iter().flat_map(Labels::iter).any(|(key, value)| {
            key.starts_with(DROPPED_LABEL) && value.parse::<Digest>().is_ok_and(|dropped| dropped == *digest)
        });
        if self.missing == Missing::Dropped && !dropped {
            return Err(not_here(descriptor));
        }
        let names = sources(digest, &labels, &self.name);
        if names.is_empty() {
            return Err(not_here(descriptor));
        }
        tracing::info!(%digest, dropped, "streaming what is not here from where it came");
        let elsewhere = Elsewhere::new(self.resolver.clone(), descriptor.clone(), names);
        self.known_elsewhere().insert(digest.clone(), elsewhere.clone());
        Ok(elsewhere)
    }

    fn known_elsewhere(&self) -> MutexGuard<'_, BTreeMap<Digest, Elsewhere>> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says what is not here, and what to do.
fn not_here(descriptor: &Descriptor) -> Error {
    let what = match &descriptor.platform {
        Some(platform) => format!("the image for {platform} ({})", descriptor.digest),
        None => descriptor.ingest_ref().to_string(),
    };
    Error::not_found(format!("{what} is not here")).hint(
        "--platform pushes the platforms that are here, --fetch-missing streams what is missing from where it came, and \
         `dist fetch --all-platforms NAME` brings it here",
    )
}

#[async_trait]
impl Origin for Local {
    async fn document(&self, descriptor: &Descriptor, parent: Option<&Digest>) -> Result<Bytes> {
        match self.content.read_all(descriptor, documents::limit(descriptor)).await {
            Ok(bytes) => {
                content::changed_at_rest(&descriptor.digest, &descriptor.digest.algorithm().digest(&bytes))?;
                Ok(bytes)
            }
            Err(error) if error.is(Kind::NotFound) => self.elsewhere(descriptor, parent).await?.document().await,
            Err(error) => Err(error),
        }
    }

    async fn source(&self, descriptor: &Descriptor, parent: Option<&Digest>) -> Result<Box<dyn Source>> {
        match self.content.reader(descriptor).await {
            Ok(reader) => {
                let reader: Arc<dyn ReaderAt> = Arc::from(reader);
                Ok(Box::new(reader))
            }
            Err(error) if error.is(Kind::NotFound) => Ok(Box::new(self.elsewhere(descriptor, parent).await?)),
            Err(error) => Err(error),
        }
    }

    async fn came_from(&self, descriptor: &Descriptor) -> Result<BTreeMap<String, String>> {
        let labels = self.labels(&descriptor.digest).await?;
        // What was not kept came from where its manifest did.
        let labels = match labels {
            Some(labels) => labels,
            None => self.labels(&self.target).await?.unwrap_or_default(),
        };
        Ok(labels.into_iter().filter(|(key, _)| key.starts_with(SOURCE_LABEL)).collect())
    }

    fn is_wrong(&self, descriptor: &Descriptor, error: Error) -> Result<()> {
        match self.known_elsewhere().get(&descriptor.digest) {
            Some(elsewhere) => elsewhere.is_wrong(error),
            // What is here is what it is.
            None => Err(error),
        }
    }

    async fn is_there(&self, descriptor: &Descriptor) -> Result<()> {
        let Some((host, repository)) = &self.to else { return Ok(()) };
        let mut info = match self.content.info(&descriptor.digest).await {
            Ok(info) => info,
            Err(error) if error.is(Kind::NotFound) => return Ok(()),
            Err(error) => return Err(error),
        };
        let label = format!("{SOURCE_LABEL}{host}");
        let known = info.labels.get(&label).unwrap_or_default();
        let Some(value) = with_repository(known, repository, label.len()) else { return Ok(()) };
        info.labels.set(label.as_str(), value);
        self.content.update(&info, &FieldMask::parse([format!("labels.{label}").as_str()])?).await?;
        Ok(())
    }
}

/// Adds a repository to a list of them, in order, as containerd writes it; none when it is there already, or when the list
/// is as long as a label may be.
fn with_repository(known: &str, repository: &str, label: usize) -> Option<String> {
    let mut all: Vec<&str> = known.split(',').map(str::trim).filter(|it| !it.is_empty()).collect();
    if all.contains(&repository) {
        return None;
    }
    all.push(repository);
    all.sort_unstable();
    Some(all.join(",")).filter(|value| value.len() + label <= Labels::MAX_LEN)
}

/// Content that is not here, and is read where it can be had. Cheap to clone; a clone is of the same content.
#[derive(Clone)]
struct Elsewhere(Arc<Places>);

/// Where some content can be had.
struct Places {
    resolver: Arc<dyn Resolver>,
    descriptor: Descriptor,
    left: Mutex<Left>,
}

/// What is left of the places.
struct Left {
    /// The names that it can be had under, the likeliest first, and who fetches under them, who knows whom not to ask again.
    names: Vec<(image::Name, Option<Arc<dyn Fetcher>>)>,
    /// The name under which it was had last.
    last: Option<image::Name>,
}

impl Elsewhere {
    fn new(resolver: Arc<dyn Resolver>, descriptor: Descriptor, names: Vec<image::Name>) -> Self {
        let names = names.into_iter().map(|name| (name, None)).collect();
        Self(Arc::new(Places { resolver, descriptor, left: Mutex::new(Left { names, last: None }) }))
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.0.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads under one name after another until that succeeds.
    async fn first<T, R: Future<Output = Result<T>>>(&self, read: impl Fn(Arc<dyn Fetcher>) -> R) -> Result<T> {
        let mut failed = not_here(&self.0.descriptor);
        let names = self.left().names.clone();
        for (name, fetcher) in names {
            let attempt = async {
                let fetcher = match fetcher {
                    Some(fetcher) => fetcher,
                    None => self.fetcher(&name).await?,
                };
                read(fetcher).await
            };
            match attempt.await {
                Ok(read) => {
                    self.left().last = Some(name);
                    return Ok(read);
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn fetcher(&self, name: &image::Name) -> Result<Arc<dyn Fetcher>> {
        let fetcher = self.0.resolver.fetcher(name).await?;
        let mut left = self.left();
        if let Some((_, known)) = left.names.iter_mut().find(|(other, _)| other == name) {
            *known = Some(fetcher.clone());
        }
        Ok(fetcher)
    }

    /// Reads all of a document, and verifies it.
    async fn document(&self) -> Result<Bytes> {
        let descriptor = &self.0.descriptor;
        self.first(|fetcher| async move { read_document(&*fetcher, descriptor).await }).await
    }

    /// Says that what was read last is not it: somebody else is asked from now on, under the same name or another one.
    fn is_wrong(&self, error: Error) -> Result<()> {
        let mut left = self.left();
        let last = left.names.iter().position(|(name, _)| left.last.as_ref() == Some(name));
        let Some((at, (_, Some(fetcher)))) = last.and_then(|at| Some((at, left.names.get(at)?))) else {
            return Err(error);
        };
        let passed_over = fetcher.pass_over(&self.0.descriptor.digest, Trouble::Wrong, error);
        if passed_over.is_err() && left.names.len() > 1 {
            left.names.remove(at);
            return Ok(());
        }
        passed_over
    }
}

#[async_trait]
impl Source for Elsewhere {
    async fn open(&mut self, offset: u64) -> Result<Body> {
        let descriptor = &self.0.descriptor;
        self.first(|fetcher| async move { fetcher.fetch(descriptor, ByteRange::from(offset)).await }).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::{StreamExt as _, TryStreamExt as _, stream};
    use windlass_core::remote::{Pusher, Resolved};

    use super::*;

    /// Has something else than was asked for under every name, by two hosts each, and nothing under those that begin with `gone`.
    struct Liars;

    struct Under {
        name: image::Name,
        passed_over: AtomicUsize,
    }

    #[async_trait]
    impl Resolver for Liars {
        async fn resolve(&self, _: &Reference) -> Result<Resolved> {
            Err(Error::unimplemented("nobody asks"))
        }

        async fn fetcher(&self, name: &image::Name) -> Result<Arc<dyn Fetcher>> {
            if name.as_str().starts_with("gone") {
                return Err(Error::unavailable("gone"));
            }
            Ok(Arc::new(Under { name: name.clone(), passed_over: AtomicUsize::new(0) }))
        }

        async fn pusher(&self, _: &image::Name) -> Result<Arc<dyn Pusher>> {
            Err(Error::unimplemented("nobody asks"))
        }
    }

    #[async_trait]
    impl Fetcher for Under {
        async fn fetch(&self, _: &Descriptor, _: ByteRange) -> Result<Body> {
            let bytes = format!("{} {}", self.name, self.passed_over.load(Ordering::Relaxed));
            Ok(Body { offset: 0, size: None, stream: stream::once(async { Ok(bytes.into()) }).boxed() })
        }

        fn pass_over(&self, _: &Digest, _: Trouble, error: Error) -> Result<()> {
            match self.passed_over.fetch_add(1, Ordering::Relaxed) {
                0 => Ok(()),
                _ => Err(error),
            }
        }
    }

    #[tokio::test]
    async fn whoever_is_left_is_asked_host_by_host_and_name_by_name() {
        let names = ["gone/a", "one", "gone/b", "two"].map(|name| name.parse().unwrap());
        let descriptor = Descriptor::of("text/plain", b"right");
        let mut elsewhere = Elsewhere::new(Arc::new(Liars), descriptor, names.into());
        let wrong = || Error::data_loss("it is another one");
        assert!(elsewhere.is_wrong(wrong()).is_err(), "nobody was asked");
        for expected in ["one 0", "one 1", "two 0", "two 1"] {
            for _ in 0..2 {
                let body = elsewhere.open(0).await.unwrap();
                let sent: Vec<Bytes> = body.stream.try_collect().await.unwrap();
                assert_eq!(sent.concat(), expected.as_bytes());
            }
            elsewhere.clone().is_wrong(wrong()).unwrap();
        }
        assert!(
            elsewhere.open(0).await.is_err_and(|error| error.is(Kind::Unavailable)),
            "those that are gone are left"
        );
    }

    #[test]
    fn a_repository_is_added_once_and_in_order() {
        assert_eq!(with_repository("", "b", 0).as_deref(), Some("b"));
        assert_eq!(with_repository("b", "a", 0).as_deref(), Some("a,b"));
        assert_eq!(with_repository("a,b", "b", 0), None);
        assert_eq!(with_repository("a", "b", Labels::MAX_LEN), None);
    }
}
