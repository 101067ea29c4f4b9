//! Verification: whether an image may be here, asked on every way in before anything of it is stored.
//!
//! ```text
//! what a name means ─► every verifier is asked ─► all of them allow it ─► documents, layers, snapshots, the name
//! ```
//!
//! A [`Verifier`] gets the name by which the image is asked for, its descriptor, and, as [`Documents`], what else is in the
//! same repository: signatures are small documents under tags of their own. [`policy`] is the one that is built in; programs
//! that decide are started by whoever may start programs.
//!
//! Not here: which verifiers there are. Whoever makes the options of a pull, an import or a push says so.

pub mod cosign;
mod documents;
mod pattern;
pub mod policy;
mod rules;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use windlass_core::{Descriptor, Error, Result, ResultExt as _};

pub use documents::{HereOrInRepository, InRepository};

pub(crate) use documents::InArchive;

/// What is to be verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The name by which the image is asked for: of a pull the reference, of an import, and of a record that somebody makes by
    /// hand, the name that would be recorded.
    pub name: &'a str,
    /// What the name points at.
    pub descriptor: &'a Descriptor,
}

/// What a verifier says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The image may be here.
    Allowed {
        /// Why, for the log.
        reason: String,
    },
    /// It may not.
    Refused {
        /// Who says so: a rule of a file, a program.
        by: String,
        /// Why.
        reason: String,
    },
}

/// Small documents from where an image comes from.
#[async_trait]
pub trait Documents: Send + Sync {
    /// Returns what another tag of the image's repository points at; none when there is no such tag.
    ///
    /// # Errors
    /// Those of the remote; that it is not known whether there is one is an error.
    async fn tagged(&self, tag: &str) -> Result<Option<Descriptor>>;

    /// Returns the bytes of a document, which are those of its digest.
    ///
    /// # Errors
    /// `ResourceExhausted` when it has more than `limit` bytes; `DataLoss` when its bytes are others; those of the remote.
    async fn read(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes>;
}

/// Decides whether an image may be here.
#[async_trait]
pub trait Verifier: fmt::Debug + Send + Sync {
    /// Decides.
    ///
    /// # Errors
    /// Why it cannot be decided: the image may then not be here either.
    ///
    /// # Cancel safety
    /// Dropping the call ends whatever it has started.
    async fn verify(&self, subject: &Subject<'_>, documents: &dyn Documents) -> Result<Verdict>;
}

/// Verifiers of which every one has to allow an image, asked in their order.
#[derive(Debug, Clone, Default)]
pub struct All(pub Vec<Arc<dyn Verifier>>);

#[async_trait]
impl Verifier for All {
    async fn verify(&self, subject: &Subject<'_>, documents: &dyn Documents) -> Result<Verdict> {
        let mut reasons = Vec::new();
        for verifier in &self.0 {
            match verifier.verify(subject, documents).await? {
                Verdict::Allowed { reason } => reasons.push(reason),
                refused @ Verdict::Refused { .. } => return Ok(refused),
            }
        }
        Ok(Verdict::Allowed { reason: reasons.join(", ") })
    }
}

/// Asks the verifier, if there is one.
///
/// # Errors
/// `PermissionDenied` saying who refuses the image, and why; that of a verifier that cannot decide.
pub async fn check(
    verifier: Option<&Arc<dyn Verifier>>,
    subject: &Subject<'_>,
    documents: &dyn Documents,
) -> Result<()> {
    let Some(verifier) = verifier else { return Ok(()) };
    let Subject { name, descriptor } = subject;
    let verdict = verifier.verify(subject, documents).await;
    match verdict.context(|| format!("verify {name} ({})", descriptor.digest))? {
        Verdict::Allowed { reason } => {
            tracing::debug!(name, digest = %descriptor.digest, reason, "the image is allowed");
            Ok(())
        }
        Verdict::Refused { by, reason } => {
            Err(Error::permission_denied(format!("{name} ({}) is refused by {by}: {reason}", descriptor.digest))
                .hint("nothing of it is kept; who set the verification up can say what is allowed"))
        }
    }
}
