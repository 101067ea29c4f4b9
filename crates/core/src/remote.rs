//! Remotes: where a name's content comes from and where it can be brought.
//!
//! The interface answers one question: what is written into the metadata store? Discovery, trust, mirrors and
//! credentials stay behind it.

use std::sync::Arc;

use async_trait::async_trait;

use crate::ByteStream;
use crate::content::Writer;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::{Attempt, Error, Result};
use crate::image::Name;
use crate::reference::Reference;

/// What a reference turned out to mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The name to record.
    pub name: Name,
    /// What the name points at.
    pub descriptor: Descriptor,
}

/// Turns references into names and descriptors, and gives access to the content of a name.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// Finds out what a reference means; the caller need not know whether it is a tag or a digest.
    ///
    /// # Errors
    /// `NotFound` saying which of host, repository and object is missing; `Unauthenticated`, `PermissionDenied`,
    /// `Unavailable`; `InvalidArgument` for a reference that is not this resolver's.
    async fn resolve(&self, reference: &Reference) -> Result<Resolved>;

    /// Returns a fetcher for the content of a name and its children.
    async fn fetcher(&self, name: &Name) -> Result<Arc<dyn Fetcher>>;

    /// Returns a pusher to a name.
    ///
    /// # Errors
    /// `Unimplemented` when nothing can be pushed there.
    async fn pusher(&self, name: &Name) -> Result<Arc<dyn Pusher>>;

    /// Lists what is attached to a manifest of a name: signatures, lists of parts, and whatever else names it as its
    /// subject; with a type, only artifacts of that.
    ///
    /// # Errors
    /// Those of [`Resolver::resolve`], but that nothing is attached is none; `Unimplemented` when this remote keeps no such
    /// list.
    async fn referrers(&self, name: &Name, subject: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
        let _ = (subject, artifact_type);
        Err(Error::unimplemented(format!("where {name} is from, nothing is known of what is attached to it")))
    }
}

/// The part of some content that is wanted, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByteRange {
    /// The first byte.
    pub start: u64,
    /// The byte after the last one; everything when absent.
    pub end: Option<u64>,
}

impl ByteRange {
    /// Everything from `start` on.
    pub fn from(start: u64) -> Self {
        Self { start, end: None }
    }
}

/// Content on its way.
pub struct Body {
    /// Where in the content the stream begins: before the start that was asked for when the remote cannot seek, and the
    /// receiver skips.
    pub offset: u64,
    /// The size of the whole content, if the remote says; a hint.
    pub size: Option<u64>,
    /// The bytes, unverified.
    pub stream: ByteStream,
}

/// Leave to transfer one part more at the same time, beside what runs from the same place. It ends when it is dropped.
pub struct Lane(#[expect(dead_code, reason = "it is held for what its drop does")] Box<dyn Send + Sync>);

impl Lane {
    /// Makes one of whatever is to be dropped when the transfer is over.
    pub fn new(held: impl Send + Sync + 'static) -> Self {
        Self(Box::new(held))
    }
}

/// What is wrong with what came of some content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It is not what its digest says: nothing of it is used.
    Wrong,
    /// It breaks off again and again, and nothing more comes: what came before is used.
    Broken,
}

/// Fetches content by descriptor; usable concurrently.
#[async_trait]
pub trait Fetcher: Send + Sync {
    /// Opens content. The bytes are what the remote sends: whoever uses them verifies them. Media type and size of the
    /// descriptor are hints about where to look.
    ///
    /// # Errors
    /// `NotFound`, `Unauthenticated`, `PermissionDenied`, `Unavailable`; `OutOfRange` when the content is shorter than
    /// the start of the range.
    ///
    /// # Cancel safety
    /// Dropping the call or the stream closes the transfer.
    async fn fetch(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body>;

    /// Asks for leave to transfer one part more of some content at the same time, beside the one transfer that everybody
    /// may have. None when the place it comes from would give no more for it now, or cannot send parts: ask again while
    /// bytes move.
    fn lane(&self) -> Option<Lane> {
        None
    }

    /// Returns who was asked for some content that came, so that it can be said when that is wrong; none when that is not known.
    fn origin(&self, _digest: &Digest) -> Option<Attempt> {
        None
    }

    /// Says what is wrong with what came of some content. Where that helps, it is asked for elsewhere from now on, and is worth
    /// another try.
    ///
    /// # Errors
    /// The error that is given, with who was asked, when nobody is left to be asked.
    fn pass_over(&self, _digest: &Digest, _trouble: Trouble, error: Error) -> Result<()> {
        Err(error)
    }

    /// Says that nothing is used of what came of some content so far, whoever sent it.
    fn start_over(&self, _digest: &Digest) {}

    /// Says that what was sent in parts did not make up the content: no more lanes to the place it comes from.
    fn distrust_parts(&self) {}
}

/// What comes of the wish to push some content.
pub enum Push {
    /// The remote has it.
    Exists,
    /// The remote has taken it over from another repository of its own.
    Mounted {
        /// The repository.
        from: String,
    },
    /// It is to be written; [`Writer::commit`] makes it the remote's.
    Upload(Box<dyn Writer>),
}

/// Pushes content by descriptor; a push is an ingest. Usable concurrently.
///
/// What content refers to is pushed before it. A remote of names lets its name point at the content that the name has the
/// digest of, or, if it has none, at the manifest that was pushed last.
#[async_trait]
pub trait Pusher: Send + Sync {
    /// Opens the ingest of some content at the remote, unless the remote has it. Where the content came from, as the
    /// annotations [`SOURCE_LABEL`] of the descriptor tell, is where a remote may take it over from.
    ///
    /// The ingest begins where an earlier one of this pusher was cut off, if the remote still has that. A writer whose write
    /// has failed says in [`Writer::status`] where it goes on.
    ///
    /// # Errors
    /// `Unauthenticated`, `PermissionDenied`, `Unavailable`; `Unimplemented` when the remote takes no such content.
    async fn push(&self, descriptor: &Descriptor) -> Result<Push>;
}

/// The prefix of the labels of a blob, and of the annotations of a descriptor that is pushed, which tell where the content
/// came from: the host follows, the repositories are the value, separated by commas. As containerd has it.
pub const SOURCE_LABEL: &str = "containerd.io/distribution.source.";
