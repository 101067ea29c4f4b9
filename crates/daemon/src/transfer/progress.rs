//! Progress of a transfer, over the stream that its client opened for it.
//!
//! Every object that changed is sent again, ten times a second at most, with containerd's words for what it does, and ours where
//! containerd has none. Objects stand below the image, once it is known: that is how `ctr` draws them.
//! [docs/progress.md](../../../../docs/progress.md) has the table. A client of ours gets messages of ours, which have all that a
//! tracker shows.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use windlass_core::progress::{Object, State, Tracker};
use windlass_core::{Descriptor as Found, Digest, Result};
use windlass_grpc::streaming::Stream;
use windlass_grpc::transfer::progress::Told;
use windlass_proto::containerd::types::Descriptor;
use windlass_proto::containerd::types::transfer::Progress;
use windlass_proto::windlass::services::transfer::v1 as ours;

/// How long at least between two reports.
const INTERVAL: Duration = Duration::from_millis(100);
/// How many steps wait to be sent; a step more is left out.
const STEPS: usize = 256;
/// How long a client may take for the last report.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whose messages a client understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Messages {
    /// containerd's.
    Containerd,
    /// Ours.
    Ours,
}

/// A step of the whole.
enum Step {
    /// It comes before what the objects do.
    Begun(Progress),
    /// It is about what the objects belong to.
    Image(Progress),
    /// It comes after what the objects did.
    Ended(Progress),
    /// What came of it, for those who get our messages.
    Pulled(ours::Pulled),
}

/// Reports while it lives, if anybody wants to know.
pub(super) struct Reporter {
    tracker: Tracker,
    steps: mpsc::Sender<Step>,
    ended: Option<oneshot::Sender<()>>,
    /// Resolves when the last report was sent, or never can be.
    sent: Option<oneshot::Receiver<()>>,
    task: Option<JoinHandle<()>>,
}

impl Reporter {
    /// Reports to a stream, or to nobody.
    pub(super) fn start(stream: Option<Stream>, messages: Messages) -> Self {
        let tracker = Tracker::new();
        let (steps, waiting) = mpsc::channel(STEPS);
        let (ended, end) = oneshot::channel();
        let (done, sent) = oneshot::channel();
        let reports =
            |stream| Report { tracker: tracker.clone(), stream, messages, steps: waiting, shown: Shown::default() };
        let task = stream.map(|stream| tokio::spawn(reports(stream).run(end, done)));
        Self { tracker, steps, ended: Some(ended), sent: Some(sent), task }
    }

    /// Returns what the work notes its progress in.
    pub(super) fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// Tells of a step of the whole.
    pub(super) fn step(&self, event: String) {
        // Progress that cannot be shown is no reason to wait.
        let _ = self.steps.try_send(Step::Begun(Progress { event, ..Progress::default() }));
    }

    /// Tells what the objects belong to, and what is done with it.
    pub(super) fn image(&self, event: &str, name: &str, target: &Found) {
        let _ = self.steps.try_send(Step::Image(of_image(event, name, target)));
    }

    /// Tells what became of an image.
    pub(super) fn ended(&self, event: &str, name: &str, target: &Found) {
        let _ = self.steps.try_send(Step::Ended(of_image(event, name, target)));
    }

    /// Tells the last step, with how many bytes were moved, of how many that were needed.
    pub(super) fn totals(&self, event: String) {
        let totals = self.tracker.totals();
        let (progress, total) = (signed(totals.moved()), signed(totals.moved().saturating_add(totals.reused)));
        let _ = self.steps.try_send(Step::Ended(Progress { event, progress, total, ..Progress::default() }));
    }

    /// Tells what came of a pull.
    pub(super) fn pulled(&self, pulled: ours::Pulled) {
        let _ = self.steps.try_send(Step::Pulled(pulled));
    }

    /// Sends what is left. The stream is closed by and by: clients of others close their end late, and nobody waits for that.
    pub(super) async fn end(mut self) {
        drop(self.ended.take());
        if let Some(sent) = self.sent.take()
            && tokio::time::timeout(PATIENCE, sent).await.is_ok()
        {
            // It ends within its own patience.
            drop(self.task.take());
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// What is reported, to whom.
struct Report {
    tracker: Tracker,
    stream: Stream,
    messages: Messages,
    steps: mpsc::Receiver<Step>,
    shown: Shown,
}

impl Report {
    async fn run(mut self, mut end: oneshot::Receiver<()>, done: oneshot::Sender<()>) {
        let mut told = Told::default();
        loop {
            let ended = tokio::time::timeout(INTERVAL, &mut end).await.is_ok();
            let sent = match self.messages {
                Messages::Containerd => self.send_theirs().await,
                Messages::Ours => self.send_ours(&mut told).await,
            };
            if sent.is_err() {
                // Whoever does not want to know any more need not.
                return;
            }
            if ended {
                break;
            }
        }
        drop(done);
        let _ = tokio::time::timeout(PATIENCE, self.stream.finish()).await;
    }

    async fn send_theirs(&mut self) -> Result<()> {
        let (mut messages, mut last) = (Vec::new(), Vec::new());
        while let Ok(step) = self.steps.try_recv() {
            match step {
                Step::Begun(step) => messages.push(step),
                Step::Image(step) => {
                    self.shown.image = Some(step.name.clone());
                    messages.push(step);
                }
                Step::Ended(step) => last.push(step),
                Step::Pulled(_) => {}
            }
        }
        messages.extend(self.tracker.snapshot().into_iter().filter_map(|object| self.shown.changed(object)));
        for message in messages.into_iter().chain(last) {
            self.stream.send(&message).await?;
        }
        Ok(())
    }

    async fn send_ours(&mut self, told: &mut Told) -> Result<()> {
        let mut pulled = None;
        while let Ok(step) = self.steps.try_recv() {
            match step {
                Step::Pulled(it) => pulled = Some(it),
                // Objects say the rest.
                Step::Begun(_) | Step::Image(_) | Step::Ended(_) => {}
            }
        }
        if let Some(news) = told.news(&self.tracker, pulled) {
            self.stream.send(&news).await?;
        }
        Ok(())
    }
}

/// What was sent so far.
#[derive(Default)]
struct Shown {
    /// What the objects belong to.
    image: Option<String>,
    /// The state of each object.
    states: HashMap<String, State>,
}

impl Shown {
    /// Returns what is to be sent about an object; nothing when it is as it was.
    fn changed(&mut self, object: Object) -> Option<Progress> {
        let Object { id, state, size, .. } = object;
        if self.states.get(&id) == Some(&state) {
            return None;
        }
        let (event, progress, total) = words(&state, size.unwrap_or_default());
        let desc = id.split_once('-').and_then(|(_, digest)| digest.parse::<Digest>().ok()).map(|digest| Descriptor {
            digest: digest.to_string(),
            size: signed(total),
            ..Descriptor::default()
        });
        let parents = self.image.clone().filter(|image| *image != id).into_iter().collect();
        self.states.insert(id.clone(), state);
        Some(Progress { event, name: id, parents, progress: signed(progress), total: signed(total), desc })
    }
}

/// Writes a descriptor, as messages have it.
pub(super) fn descriptor(descriptor: &Found) -> Descriptor {
    Descriptor {
        media_type: descriptor.media_type.to_string(),
        digest: descriptor.digest.to_string(),
        size: signed(descriptor.size),
        annotations: descriptor.annotations.clone().into_iter().collect(),
    }
}

fn of_image(event: &str, name: &str, target: &Found) -> Progress {
    let desc = Some(descriptor(target));
    Progress { event: event.to_owned(), name: name.to_owned(), desc, ..Progress::default() }
}

/// Returns the word for a state, and how far it is.
fn words(state: &State, size: u64) -> (String, u64, u64) {
    let plain = |word: &str| (word.to_owned(), 0, 0);
    let whole = |word: &str| (word.to_owned(), size, size);
    match state {
        State::Queued => plain("waiting"),
        State::Resolving => plain("resolving"),
        State::Resolved => plain("resolved"),
        State::Fetching { offset, total } => ("downloading".to_owned(), *offset, *total),
        State::Uploading { offset, total } => ("uploading".to_owned(), *offset, *total),
        State::Mounted { from } => (format!("mounted from {from}"), 0, 0),
        State::Exists => whole("already exists"),
        State::Fetched => whole("downloaded"),
        State::Unpacking { offset, total } => ("extracting".to_owned(), *offset, *total),
        State::Checking { offset, total } => ("checking".to_owned(), *offset, *total),
        State::Waiting { reason } => (format!("waiting: {reason}"), 0, 0),
        State::Retrying { reason } => (format!("retrying: {reason}"), 0, 0),
        State::Done => whole("complete"),
        State::Failed { reason } => (format!("failed: {reason}"), 0, 0),
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_told_of_when_it_changes() {
        let tracker = Tracker::new();
        let digest = Digest::sha256(b"x");
        let task = tracker.task(format!("layer-{digest}"));
        task.set(State::Fetching { offset: 1, total: 2 });
        let mut shown = Shown::default();
        let of = |shown: &mut Shown| -> Vec<Progress> {
            tracker.snapshot().into_iter().filter_map(|object| shown.changed(object)).collect()
        };
        let told = of(&mut shown);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].event.as_str(), told[0].progress, told[0].total), ("downloading", 1, 2));
        assert_eq!(told[0].desc.as_ref().unwrap().digest, digest.to_string());
        assert!(of(&mut shown).is_empty());
        shown.image = Some("registry.test/app:1".to_owned());
        task.set(State::Done);
        let told = of(&mut shown);
        assert_eq!((told[0].event.as_str(), told[0].progress, told[0].total), ("complete", 2, 2));
        assert_eq!(told[0].parents, ["registry.test/app:1"]);
    }
}
