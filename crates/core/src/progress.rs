//! Progress as state: workers update a tracker, and whoever wants to show it samples the tracker.
//!
//! A [`Tracker`] holds one [`Object`] per resource of a running operation, in the order they appeared. Bars, JSON lines
//! and a stream over the wire are all made of [`Tracker::snapshot`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// What an object is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum State {
    /// Nothing yet: it waits for a place.
    Queued,
    /// Being resolved.
    Resolving,
    /// Resolved.
    Resolved,
    /// Being fetched.
    Fetching {
        /// Bytes that are here.
        offset: u64,
        /// Bytes that there will be.
        total: u64,
    },
    /// Here already: nothing to fetch.
    Exists,
    /// Fetched.
    Fetched,
    /// Being unpacked.
    Unpacking {
        /// Compressed bytes used.
        offset: u64,
        /// Compressed bytes in all.
        total: u64,
    },
    /// Being checked.
    Checking {
        /// Bytes that were read.
        offset: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Being uploaded.
    Uploading {
        /// Bytes that are there.
        offset: u64,
        /// Bytes that there will be.
        total: u64,
    },
    /// Taken over by the remote from another repository of its own: nothing to upload.
    Mounted {
        /// The repository.
        from: String,
    },
    /// Waiting for another operation that does the same.
    Waiting {
        /// What it waits for.
        reason: String,
    },
    /// About to try again.
    Retrying {
        /// Why.
        reason: String,
    },
    /// Done.
    Done,
    /// Failed.
    Failed {
        /// Why.
        reason: String,
    },
}

impl State {
    /// Returns how large the object is in bytes, where the state says so.
    fn total(&self) -> Option<u64> {
        match self {
            Self::Fetching { total, .. }
            | Self::Unpacking { total, .. }
            | Self::Checking { total, .. }
            | Self::Uploading { total, .. } => Some(*total),
            _ => None,
        }
    }
}

/// One resource of a running operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Object {
    /// What it is called: a reference, or the ingest ref of some content.
    pub id: String,
    /// What it is doing.
    #[serde(flatten)]
    pub state: State,
    /// How large it is in bytes, once a state has said so.
    #[serde(skip)]
    pub size: Option<u64>,
    /// How far it is unpacked, while it is still on its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpack: Option<State>,
    /// How long no byte of it has come, while it should: absent below a second.
    #[serde(rename = "stalled_ms", skip_serializing_if = "Option::is_none", serialize_with = "stalled_milliseconds")]
    pub stalled: Option<Duration>,
    /// How long it has been known.
    #[serde(rename = "elapsed_ms", serialize_with = "milliseconds")]
    pub elapsed: Duration,
}

#[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
fn stalled_milliseconds<S: serde::Serializer>(stalled: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    milliseconds(&stalled.unwrap_or_default(), serializer)
}

fn milliseconds<S: serde::Serializer>(elapsed: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

/// What an operation moved, in bytes of content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Bytes that came from the remote.
    pub downloaded: u64,
    /// Bytes that were here already.
    pub reused: u64,
    /// Bytes that went to the remote.
    #[serde(skip_serializing_if = "is_none")]
    pub uploaded: u64,
}

impl Totals {
    /// Returns how many bytes went one way or the other.
    pub fn moved(&self) -> u64 {
        self.downloaded.saturating_add(self.uploaded)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference to the field")]
fn is_none(bytes: &u64) -> bool {
    *bytes == 0
}

/// The progress of one operation. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Tracker(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    objects: Vec<Tracked>,
    totals: Totals,
}

#[derive(Debug)]
struct Tracked {
    id: String,
    state: State,
    size: Option<u64>,
    /// What its unpacking is doing, when that is told apart.
    unpack: Option<State>,
    began: Instant,
    ended: Option<Instant>,
    /// When its state changed last.
    moved: Instant,
}

impl Tracked {
    fn new(id: String) -> Self {
        let now = Instant::now();
        Self { id, state: State::Queued, size: None, unpack: None, began: now, ended: None, moved: now }
    }

    fn object(&self) -> Object {
        let is_here = matches!(self.state, State::Fetched | State::Exists | State::Done);
        let (state, unpack) = match &self.unpack {
            Some(unpack) if is_here || matches!(unpack, State::Failed { .. }) => (unpack, None),
            unpack => (&self.state, unpack.clone()),
        };
        let stalled = matches!(state, State::Fetching { .. } | State::Uploading { .. })
            .then(|| self.moved.elapsed())
            .filter(|it| *it >= STALL);
        let elapsed = self.ended.unwrap_or_else(Instant::now).duration_since(self.began);
        Object { id: self.id.clone(), state: state.clone(), size: self.size, unpack, stalled, elapsed }
    }

    fn set(&mut self, part: Part, state: State) {
        let ended = matches!(
            state,
            State::Done | State::Exists | State::Mounted { .. } | State::Failed { .. } | State::Resolved
        );
        self.ended = ended.then(Instant::now);
        self.size = state.total().or(self.size);
        match part {
            Part::Unpacking => self.unpack = Some(state),
            Part::Whole if self.state == state => {}
            Part::Whole => (self.state, self.moved) = (state, Instant::now()),
        }
    }
}

/// How long no byte has to come until that is worth telling.
const STALL: Duration = Duration::from_secs(1);

impl Tracker {
    /// Makes a tracker without objects.
    pub fn new() -> Self {
        Self::default()
    }

    // A panic while the lock was held cannot leave a half-made state behind: every change is one assignment.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the task of the object of that id, known from now on.
    pub fn task(&self, id: impl Into<String>) -> Task {
        let id = id.into();
        let mut inner = self.lock();
        let index = inner.objects.iter().position(|object| object.id == id).unwrap_or_else(|| {
            inner.objects.push(Tracked::new(id));
            inner.objects.len() - 1
        });
        Task { tracker: self.clone(), index, part: Part::Whole }
    }

    /// Returns all objects as they are now, in the order they appeared.
    pub fn snapshot(&self) -> Vec<Object> {
        self.lock().objects.iter().map(Tracked::object).collect()
    }

    /// Returns what was moved so far.
    pub fn totals(&self) -> Totals {
        self.lock().totals
    }

    /// Counts bytes that came from the remote.
    pub fn add_downloaded(&self, bytes: u64) {
        self.lock().totals.downloaded += bytes;
    }

    /// Counts bytes that went to the remote.
    pub fn add_uploaded(&self, bytes: u64) {
        self.lock().totals.uploaded += bytes;
    }

    /// Counts bytes that were here already.
    pub fn add_reused(&self, bytes: u64) {
        self.lock().totals.reused += bytes;
    }
}

/// The handle with which a worker says what one object is doing.
#[derive(Debug, Clone)]
pub struct Task {
    tracker: Tracker,
    index: usize,
    part: Part,
}

/// What of an object a task speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    Unpacking,
}

impl Task {
    /// Returns the task of the object's unpacking, which may go on while the object is still on its way: both are shown.
    pub fn unpacking(&self) -> Self {
        Self { part: Part::Unpacking, ..self.clone() }
    }

    /// Returns the object as it is now.
    pub fn object(&self) -> Option<Object> {
        self.tracker.lock().objects.get(self.index).map(Tracked::object)
    }

    /// Says what the object is doing now.
    pub fn set(&self, state: State) {
        let mut inner = self.tracker.lock();
        if let Some(object) = inner.objects.get_mut(self.index) {
            object.set(self.part, state);
        }
    }

    /// Shows the object as a [snapshot](Tracker::snapshot) of another tracker has it, such as that of a daemon.
    pub fn show(&self, state: State, unpack: Option<State>) {
        let mut inner = self.tracker.lock();
        if let Some(object) = inner.objects.get_mut(self.index) {
            object.unpack = None;
            object.set(Part::Whole, state);
            if let Some(unpack) = unpack {
                object.set(Part::Unpacking, unpack);
            }
        }
    }

    /// Says that nothing is left to do, unless the object was here all along.
    pub fn finish_unless_exists(&self) {
        let mut inner = self.tracker.lock();
        if let Some(object) = inner.objects.get_mut(self.index)
            && object.state != State::Exists
        {
            object.ended = Some(Instant::now());
            object.state = State::Done;
        }
    }

    /// Returns the tracker that the task belongs to.
    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_shows_every_object_once_in_order() {
        let tracker = Tracker::new();
        let layer = tracker.task("layer-1");
        tracker.task("layer-2").set(State::Exists);
        layer.set(State::Fetching { offset: 1, total: 2 });
        tracker.task("layer-1").set(State::Done);
        let states: Vec<_> = tracker.snapshot().into_iter().map(|object| (object.id, object.state)).collect();
        assert_eq!(states, [("layer-1".to_owned(), State::Done), ("layer-2".to_owned(), State::Exists)]);
        let sizes: Vec<_> = tracker.snapshot().into_iter().map(|object| object.size).collect();
        assert_eq!(sizes, [Some(2), None]);
    }

    #[test]
    fn an_object_that_is_fetched_and_unpacked_at_once_shows_both() {
        let tracker = Tracker::new();
        let fetch = tracker.task("layer-1");
        let unpack = fetch.unpacking();
        let shown = || tracker.snapshot().remove(0);
        fetch.set(State::Fetching { offset: 5, total: 9 });
        unpack.set(State::Unpacking { offset: 3, total: 9 });
        let both = shown();
        assert_eq!(both.state, State::Fetching { offset: 5, total: 9 });
        assert_eq!(both.unpack, Some(State::Unpacking { offset: 3, total: 9 }));
        assert!(
            serde_json::to_string(&both)
                .unwrap()
                .contains(r#""total":9,"unpack":{"state":"unpacking","offset":3,"total":9}"#)
        );
        fetch.set(State::Fetched);
        assert_eq!((shown().state, shown().unpack), (State::Unpacking { offset: 3, total: 9 }, None));
        unpack.set(State::Done);
        assert_eq!((shown().state, shown().unpack), (State::Done, None));
    }

    #[test]
    fn an_object_is_shown_as_another_tracker_has_it() {
        let (there, here) = (Tracker::new(), Tracker::new());
        let fetch = there.task("layer-1");
        let shown = || {
            let Object { id, state, unpack, .. } = there.snapshot().remove(0);
            here.task(id).show(state.clone(), unpack.clone());
            let Object { state: again, unpack: unpack_again, .. } = here.snapshot().remove(0);
            assert_eq!((again, unpack_again), (state.clone(), unpack));
            state
        };
        fetch.set(State::Fetching { offset: 5, total: 9 });
        shown();
        fetch.unpacking().set(State::Unpacking { offset: 3, total: 9 });
        shown();
        fetch.set(State::Fetched);
        assert_eq!(shown(), State::Unpacking { offset: 3, total: 9 });
        fetch.unpacking().set(State::Done);
        assert_eq!(shown(), State::Done);
    }

    #[test]
    fn an_object_serialises_flat() {
        let object = Object {
            id: "layer-1".into(),
            state: State::Fetching { offset: 1, total: 2 },
            size: None,
            unpack: None,
            stalled: None,
            elapsed: Duration::from_millis(5),
        };
        assert_eq!(
            serde_json::to_string(&object).unwrap(),
            r#"{"id":"layer-1","state":"fetching","offset":1,"total":2,"elapsed_ms":5}"#
        );
    }
}
