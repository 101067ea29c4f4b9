//! Progress of a transfer in our own messages: all of what a tracker shows, both ways.

use std::collections::HashMap;

use windlass_core::progress::{Object, State, Totals, Tracker};
use windlass_core::{Error, Result};
use windlass_proto::windlass::services::transfer::v1 as wire;

/// What was told of a tracker so far.
#[derive(Default)]
pub struct Told {
    objects: HashMap<String, (State, Option<State>)>,
    totals: Totals,
}

impl Told {
    /// Returns what changed in a tracker since the call before, and what came of it at the end; nothing when nothing did.
    pub fn news(&mut self, tracker: &Tracker, pulled: Option<wire::Pulled>) -> Option<wire::Progress> {
        let changed: Vec<Object> = tracker.snapshot().into_iter().filter(|object| self.is_new(object)).collect();
        let totals = tracker.totals();
        if changed.is_empty() && totals == self.totals && pulled.is_none() {
            return None;
        }
        self.totals = totals;
        let objects = changed.into_iter().map(|Object { id, state, unpack, .. }| {
            let message =
                wire::Object { id: id.clone(), state: Some(of_state(&state)), unpack: unpack.as_ref().map(of_state) };
            self.objects.insert(id, (state, unpack));
            message
        });
        let objects = objects.collect();
        Some(wire::Progress { objects, downloaded: totals.downloaded, reused: totals.reused, pulled })
    }

    fn is_new(&self, object: &Object) -> bool {
        self.objects.get(&object.id).is_none_or(|(state, unpack)| (state, unpack) != (&object.state, &object.unpack))
    }
}

/// What was heard of another tracker so far, and the tracker that shows it.
pub(super) struct Followed<'a> {
    tracker: &'a Tracker,
    totals: Totals,
    /// What came of it, once it was said.
    pub(super) pulled: Option<wire::Pulled>,
}

impl<'a> Followed<'a> {
    pub(super) fn new(tracker: &'a Tracker) -> Self {
        Self { tracker, totals: Totals::default(), pulled: None }
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    /// Shows what is new.
    ///
    /// # Errors
    /// `Internal` for a state that is none.
    pub(super) fn take(&mut self, progress: wire::Progress) -> Result<()> {
        for wire::Object { id, state, unpack } in progress.objects {
            let state = to_state(state.unwrap_or_default())?;
            self.tracker.task(id).show(state, unpack.map(to_state).transpose()?);
        }
        let wire::Progress { downloaded, reused, pulled, .. } = progress;
        self.tracker.add_downloaded(downloaded.saturating_sub(self.totals.downloaded));
        self.tracker.add_reused(reused.saturating_sub(self.totals.reused));
        self.totals = Totals { downloaded, reused, ..self.totals };
        self.pulled = pulled.or(self.pulled.take());
        Ok(())
    }
}

fn of_state(state: &State) -> wire::State {
    let plain = |state: &str| wire::State { state: state.to_owned(), ..wire::State::default() };
    let part = |state: &str, offset: u64, total: u64| wire::State { offset, total, ..plain(state) };
    let why = |state: &str, reason: &str| wire::State { reason: reason.to_owned(), ..plain(state) };
    match state {
        State::Queued => plain("queued"),
        State::Resolving => plain("resolving"),
        State::Resolved => plain("resolved"),
        State::Fetching { offset, total } => part("fetching", *offset, *total),
        State::Exists => plain("exists"),
        State::Fetched => plain("fetched"),
        State::Unpacking { offset, total } => part("unpacking", *offset, *total),
        State::Uploading { offset, total } => part("uploading", *offset, *total),
        State::Mounted { from } => why("mounted", from),
        State::Checking { offset, total } => part("checking", *offset, *total),
        State::Waiting { reason } => why("waiting", reason),
        State::Retrying { reason } => why("retrying", reason),
        State::Done => plain("done"),
        State::Failed { reason } => why("failed", reason),
    }
}

fn to_state(wire: wire::State) -> Result<State> {
    let wire::State { state, offset, total, reason } = wire;
    Ok(match state.as_str() {
        "queued" => State::Queued,
        "resolving" => State::Resolving,
        "resolved" => State::Resolved,
        "fetching" => State::Fetching { offset, total },
        "exists" => State::Exists,
        "fetched" => State::Fetched,
        "unpacking" => State::Unpacking { offset, total },
        "checking" => State::Checking { offset, total },
        "uploading" => State::Uploading { offset, total },
        "mounted" => State::Mounted { from: reason },
        "waiting" => State::Waiting { reason },
        "retrying" => State::Retrying { reason },
        "done" => State::Done,
        "failed" => State::Failed { reason },
        other => return Err(Error::internal(format!("{other:?} is no state of an object"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states() -> Vec<State> {
        let reason = || "why".to_owned();
        vec![
            State::Queued,
            State::Resolving,
            State::Resolved,
            State::Fetching { offset: 1, total: 9 },
            State::Exists,
            State::Fetched,
            State::Unpacking { offset: 2, total: 9 },
            State::Checking { offset: 3, total: 9 },
            State::Uploading { offset: 4, total: 9 },
            State::Mounted { from: reason() },
            State::Waiting { reason: reason() },
            State::Retrying { reason: reason() },
            State::Done,
            State::Failed { reason: reason() },
        ]
    }

    #[test]
    fn every_state_survives_the_wire_and_has_the_name_that_json_has() {
        for state in states() {
            let wire = of_state(&state);
            let json = serde_json::to_value(&state).unwrap();
            assert_eq!(json["state"], wire.state.as_str());
            assert_eq!(to_state(wire).unwrap(), state);
        }
        assert!(to_state(wire::State::default()).is_err());
    }

    #[test]
    fn what_one_tracker_shows_another_one_shows_too() {
        let (there, here) = (Tracker::new(), Tracker::new());
        let (mut told, mut followed) = (Told::default(), Followed::new(&here));
        let layer = there.task("layer-1");
        there.task("layer-2").set(State::Exists);
        layer.set(State::Fetching { offset: 1, total: 9 });
        layer.unpacking().set(State::Unpacking { offset: 1, total: 9 });
        there.add_downloaded(1);
        followed.take(told.news(&there, None).unwrap()).unwrap();
        assert!(told.news(&there, None).is_none(), "nothing changed");
        there.add_downloaded(8);
        there.add_reused(5);
        layer.set(State::Fetched);
        let news = told.news(&there, None).unwrap();
        assert_eq!(news.objects.len(), 1, "only what changed: {news:?}");
        followed.take(news).unwrap();
        let shown = |tracker: &Tracker| {
            let objects = tracker.snapshot().into_iter();
            (objects.map(|it| (it.id, it.state, it.unpack)).collect::<Vec<_>>(), tracker.totals())
        };
        assert_eq!(shown(&here), shown(&there));
    }
}
