//! The uploads of a push: what fails for a reason that may pass is tried again, from where it was cut off.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use windlass_core::content::{Commit, Source, Writer, copy_telling};
use windlass_core::progress::{State, Task, Tracker};
use windlass_core::remote::{self, Pusher};
use windlass_core::{Descriptor, Result, ResultExt as _};

use super::Push;
use super::tree::{Origin, Tree};
use crate::budget::{Budget, Paced, Priority};
use crate::fetch::Patience;

/// The codes of errors that say that what was read is not what was to be pushed.
const WRONG_SOURCE: [&str; 2] = ["source-mismatch", "size-mismatch"];

/// What is uploaded, from where, and to where.
pub(crate) struct Upload<'a> {
    origin: &'a dyn Origin,
    pusher: &'a dyn Pusher,
    progress: &'a Tracker,
    at_once: usize,
    /// That of the process, and that of the push.
    budgets: [Budget; 2],
    priority: Priority,
    uploaded: AtomicU64,
    mounted: AtomicU64,
    existing: AtomicU64,
}

impl<'a> Upload<'a> {
    pub(crate) fn new(origin: &'a dyn Origin, pusher: &'a dyn Pusher, progress: &'a Tracker, options: &Push) -> Self {
        let at_once = options.concurrent_uploads.max(1);
        let (budgets, priority) = ([options.budget.clone(), Budget::new(options.limit_rate)], options.priority);
        let (uploaded, mounted, existing) = Default::default();
        Self { origin, pusher, progress, at_once, budgets, priority, uploaded, mounted, existing }
    }

    /// Returns how many bytes were sent, mounted, and there already.
    pub(crate) fn totals(&self) -> [u64; 3] {
        [&self.uploaded, &self.mounted, &self.existing].map(|total| total.load(Ordering::Relaxed))
    }

    /// Uploads what is not there: blobs, then what refers to them, and last the target.
    pub(crate) async fn run(&self, tree: &Tree) -> Result<()> {
        for blob in &tree.blobs {
            self.task(blob);
        }
        for document in tree.documents.iter().flatten() {
            self.task(document).set(State::Waiting { reason: "for what it refers to".to_owned() });
        }
        for group in std::iter::once(&tree.blobs).chain(&tree.documents) {
            let (mut waiting, mut running) = (group.iter(), FuturesUnordered::new());
            loop {
                while running.len() < self.at_once
                    && let Some(descriptor) = waiting.next()
                {
                    running.push(self.object(tree, descriptor));
                }
                match running.next().await {
                    Some(uploaded) => uploaded?,
                    None => break,
                }
            }
        }
        Ok(())
    }

    fn task(&self, descriptor: &Descriptor) -> Task {
        self.progress.task(descriptor.ingest_ref().as_str())
    }

    async fn object(&self, tree: &Tree, descriptor: &Descriptor) -> Result<()> {
        let task = self.task(descriptor);
        let brought = self.bring(tree, descriptor, &task).await;
        if let Err(error) = &brought {
            task.set(State::Failed { reason: error.to_string() });
        }
        brought.context(|| format!("upload {}", descriptor.ingest_ref()))
    }

    /// Brings one object to the remote, however often that takes.
    async fn bring(&self, tree: &Tree, descriptor: &Descriptor, task: &Task) -> Result<()> {
        let annotations = self.origin.came_from(descriptor).await?;
        let wanted = Descriptor { annotations, ..descriptor.clone() };
        let mut sent = Sent { patience: Patience::default(), furthest: 0 };
        loop {
            match self.attempt(tree, &wanted, task, &mut sent).await {
                Ok(()) => break,
                Err(error) if WRONG_SOURCE.contains(&error.code()) => {
                    let reason = error.to_string();
                    self.origin.is_wrong(descriptor, error)?;
                    task.set(State::Retrying { reason });
                }
                Err(error) if sent.lasts(&error) => sent.patience.back_off(task, &error).await,
                Err(error) => return Err(error),
            }
        }
        self.origin.is_there(descriptor).await
    }

    async fn attempt(&self, tree: &Tree, descriptor: &Descriptor, task: &Task, sent: &mut Sent) -> Result<()> {
        let (state, total) = match self.pusher.push(descriptor).await? {
            remote::Push::Exists => (State::Exists, &self.existing),
            remote::Push::Mounted { from } => (State::Mounted { from }, &self.mounted),
            remote::Push::Upload(mut writer) => {
                let inner: Box<dyn Source> = match tree.made(descriptor) {
                    Some(bytes) => Box::new(bytes),
                    None => self.origin.source(descriptor, tree.parent(descriptor)).await?,
                };
                let mut source = Paced { inner, budgets: self.budgets.clone(), priority: self.priority };
                self.fill(&mut *writer, &mut source, task, sent).await?;
                writer.commit(Commit::default()).await?;
                (State::Done, &self.uploaded)
            }
        };
        if !matches!(state, State::Done) {
            self.progress.add_reused(descriptor.size);
        }
        total.fetch_add(descriptor.size, Ordering::Relaxed);
        task.set(state);
        Ok(())
    }

    /// Writes all of an object; the writer is asked where it goes on after a failure that may pass.
    async fn fill(&self, writer: &mut dyn Writer, source: &mut dyn Source, task: &Task, sent: &mut Sent) -> Result<()> {
        loop {
            let mut last = None;
            let mut report = |offset: u64, total: u64| {
                self.progress.add_uploaded(offset.saturating_sub(last.unwrap_or(offset)));
                last = Some(offset);
                sent.furthest = sent.furthest.max(offset);
                task.set(State::Uploading { offset, total });
            };
            match copy_telling(writer, source, &mut report).await {
                Ok(_) => return Ok(()),
                Err(error) if sent.lasts(&error) => sent.patience.back_off(task, &error).await,
                Err(error) => return Err(error),
            }
        }
    }
}

/// How far an object has come.
struct Sent {
    patience: Patience,
    /// The furthest that it got: beginning again is no progress.
    furthest: u64,
}

impl Sent {
    fn lasts(&mut self, error: &windlass_core::Error) -> bool {
        self.patience.lasts(self.furthest, error)
    }
}
