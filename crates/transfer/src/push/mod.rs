//! A push, told from the top.
//!
//! ```text
//! what is it made of ─► every blob ─► manifests, then indexes ─► the tag ─► note where it is
//! ```
//!
//! What the remote has is not sent, and what it has in another repository it is asked to take over. A tag points at
//! something new only when all of that is there. What is not here is streamed from where it came: layers that were dropped
//! always, anything else when that is wanted.

mod destination;
mod local;
mod tree;
mod upload;

use std::num::NonZeroU64;
use std::sync::Arc;

use serde::Serialize;
use windlass_core::gc::Deletion;
use windlass_core::lease::{self, Resource, ResourceKind};
use windlass_core::platform::Selection;
use windlass_core::progress::Tracker;
use windlass_core::remote::Resolver;
use windlass_core::{Descriptor, Host, Labels, Leased, Namespace, Reference, Result, ResultExt as _, image};

use crate::budget::{Budget, Priority};
use crate::stop::Stop;
use crate::verify::Verifier;
use local::Local;
pub(crate) use tree::{Origin, Tree};
pub(crate) use upload::Upload;

/// The label of a running push's lease: the reference that is pushed to.
pub const LEASE_LABEL: &str = "windlass.dev/push";

/// What is wanted of a push, or of a copy.
#[derive(Debug, Clone)]
pub struct Push {
    /// The platforms, of images that are for several. One alone is pushed without the index; of several an index is made
    /// that has no others.
    pub platforms: Selection,
    /// How many blobs are uploaded at once.
    pub concurrent_uploads: usize,
    /// Whether layers are left out that may not be passed on.
    pub skip_non_distributable: bool,
    /// What becomes of what is not here.
    pub missing: Missing,
    /// Who is asked whether an image may be copied that is not here; nobody when there is none. What is here has been asked for
    /// when it came.
    pub verifier: Option<Arc<dyn Verifier>>,
    /// When it is to stop: the tag then points at what it pointed at before, or at all that was pushed.
    pub stop: Stop,
    /// How many bytes may be sent in a second, in all; any number when there is none.
    pub limit_rate: Option<NonZeroU64>,
    /// What is shared with other transfers of the process.
    pub budget: Budget,
    /// Which of those it gives way to.
    pub priority: Priority,
}

/// What becomes of what is to be pushed and is not here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Missing {
    /// Layers that were dropped are streamed from where they came; anything else is an error.
    #[default]
    Dropped,
    /// Everything is streamed from where it came.
    Fetch,
}

impl Default for Push {
    fn default() -> Self {
        Self {
            platforms: Selection::All,
            concurrent_uploads: 4,
            skip_non_distributable: false,
            missing: Missing::default(),
            verifier: None,
            stop: Stop::default(),
            limit_rate: None,
            budget: Budget::default(),
            priority: Priority::default(),
        }
    }
}

/// What came of a push, or of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pushed {
    /// Where it is.
    pub name: image::Name,
    /// What is there.
    pub target: Descriptor,
    /// Bytes that were sent.
    pub uploaded: u64,
    /// Bytes that the remote took over from other repositories.
    pub mounted: u64,
    /// Bytes that the remote had.
    pub existing: u64,
}

/// What is pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// What it is.
    pub target: Descriptor,
    /// The image that it is of, if any: where else what is missing may be had.
    pub name: Option<image::Name>,
    /// Whether what it refers to is pushed before it.
    pub alone: bool,
}

impl From<&image::Image> for Object {
    fn from(image: &image::Image) -> Self {
        Self { target: image.target.clone(), name: Some(image.name.clone()), alone: false }
    }
}

/// Pushes an image, or any other object that is here.
///
/// # Errors
/// Those of the pusher and the content store, with what was attempted. `NotFound` for what is not here, saying which image
/// or layer it is; `InvalidArgument` for a destination that has another digest.
///
/// # Cancel safety
/// Dropping the call stops it. What was uploaded stays at the remote, without a tag, for as long as the remote keeps such
/// things.
pub async fn push(
    host: &dyn Host,
    namespace: &Namespace,
    resolver: Arc<dyn Resolver>,
    object: &Object,
    to: &Reference,
    options: &Push,
    progress: &Tracker,
) -> Result<Pushed> {
    let lease = lease::Options {
        id: None,
        expiry: Some(lease::DEFAULT_EXPIRY),
        labels: Labels::new().with(LEASE_LABEL, to.to_string()),
    };
    let leased = Leased::acquire(host, namespace, lease).await?;
    let pushed = async {
        // Whoever deletes the image meanwhile does not delete what is being read.
        let target = Resource { kind: ResourceKind::Content, id: object.target.digest.to_string() };
        leased.leases.add_resource(leased.lease(), &target).await?;
        let origin = Local::new(leased.content.clone(), resolver.clone(), object, options.missing, to);
        let tree =
            if object.alone { Tree::alone(&object.target) } else { Tree::of(&origin, &object.target, options).await? };
        carry_out(&*resolver, &origin, tree, to, options, progress).await
    };
    let pushed: Result<Pushed> = options.stop.or(pushed).await;
    let released = leased.release(Deletion::Background).await;
    let pushed = pushed.context(|| format!("push {to}"))?;
    released.map(|()| pushed)
}

/// Pushes what was found out to belong to an object.
pub(crate) async fn carry_out(
    resolver: &dyn Resolver,
    origin: &dyn Origin,
    tree: Tree,
    to: &Reference,
    options: &Push,
    progress: &Tracker,
) -> Result<Pushed> {
    let name = destination::of(to, &tree.target.digest)?;
    let pusher = resolver.pusher(&name).await?;
    let upload = Upload::new(origin, &*pusher, progress, options);
    upload.run(&tree).await?;
    let [uploaded, mounted, existing] = upload.totals();
    Ok(Pushed { name: to.to_string().parse()?, target: tree.target, uploaded, mounted, existing })
}
