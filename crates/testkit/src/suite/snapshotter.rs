//! The suite of [`snapshot::Snapshotter`](windlass_core::snapshot::Snapshotter).
//!
//! Files are written and found through [`Mounted`], so that a case needs no privilege to mount.

mod begin;
mod commit;
mod record;
mod reopen;

pub use begin::*;
pub use commit::*;
pub use record::*;
pub use reopen::*;

use windlass_core::Labels;
use windlass_core::snapshot::{Commit, Key, Name, Snapshotter};

use super::parse;
use crate::mounted::Mounted;

/// Expands to the tests of a snapshotter; see [`suite`](crate::suite).
#[macro_export]
macro_rules! snapshotter_suite {
    ($name:ident, $make:expr $(,)?) => {
        mod $name {
            use super::*;
            $crate::snapshotter_suite!(@fresh $make);
        }
    };
    ($name:ident, $make:expr, persistent $(,)?) => {
        mod $name {
            use super::*;
            $crate::snapshotter_suite!(@fresh $make);
            $crate::suite_cases!(persistent snapshotter, dyn $crate::contract::snapshot::Snapshotter, $make, [
                snapshots_survive_a_restart
                a_removed_snapshot_stays_removed_after_a_restart
            ]);
        }
    };
    (@fresh $make:expr) => {
        $crate::suite_cases!(snapshotter, dyn $crate::contract::snapshot::Snapshotter, $make, [
            a_snapshotter_that_is_ready_says_so_and_makes_nothing
            a_prepared_snapshot_is_active_and_writable
            mounts_are_the_same_every_time
            a_view_is_read_only
            a_taken_key_is_refused
            of_many_prepares_at_once_exactly_one_wins
            keys_and_names_live_in_one_space
            any_key_is_only_a_name
            an_absent_parent_is_not_found
            a_parent_must_be_committed
            target_label_answers_already_exists
            a_target_that_is_not_here_is_prepared
            mounts_of_a_committed_snapshot_are_refused
            an_absent_snapshot_is_not_found
            files_show_through_the_whole_stack
            writes_stay_in_their_own_snapshot
            a_stack_of_forty_snapshots
            a_committed_snapshot_has_its_name_parent_and_labels
            commit_frees_the_key
            a_taken_name_leaves_the_active_snapshot
            only_an_active_snapshot_is_committed
            a_committed_snapshot_can_be_committed_upon
            rebase_at_commit
            layers_rebased_in_any_order_stack_as_named
            a_parent_that_cannot_be_set_is_refused
            a_snapshot_with_children_is_not_removed
            every_state_can_be_removed
            removal_of_a_key_frees_it
            usage_counts_the_snapshot_alone
            walk_with_filters
            labels_of_a_snapshot_by_mask
            update_of_all_labels_of_a_snapshot
            update_of_an_unknown_field_of_a_snapshot_is_refused
            long_labels_of_a_snapshot_are_refused
            the_snapshotter_sets_the_times
            a_committed_snapshot_is_as_old_as_its_commit
            cleanup_keeps_what_is_recorded
        ]);
    };
}

fn key(text: &str) -> Key {
    parse(text)
}

fn name(text: &str) -> Name {
    parse(text)
}

/// Prepares a snapshot and returns the directories behind it.
async fn prepare(snapshotter: &dyn Snapshotter, text: &str, parent: Option<&str>) -> Mounted {
    let parent = parent.map(name);
    Mounted::of(&snapshotter.prepare(&key(text), parent.as_ref(), Labels::new()).await.unwrap()).unwrap()
}

/// Makes a view of a committed snapshot, under a key of its own, and returns the directories behind it.
async fn view(snapshotter: &dyn Snapshotter, parent: &str) -> Mounted {
    let view = key(&format!("view of {parent}"));
    Mounted::of(&snapshotter.view(&view, Some(&name(parent)), Labels::new()).await.unwrap()).unwrap()
}

/// Commits a layer that has one file, `<text>` with its own name as content.
async fn commit_layer(snapshotter: &dyn Snapshotter, text: &str, parent: Option<&str>) {
    let active = format!("active {text}");
    prepare(snapshotter, &active, parent).await.write(text, text.as_bytes()).unwrap();
    snapshotter.commit(&name(text), &key(&active), Commit::default()).await.unwrap();
}
