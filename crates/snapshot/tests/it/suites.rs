//! The conformance suite of the trait, on both snapshotters.

use std::path::Path;
use std::sync::Arc;

use windlass_core::snapshot::Snapshotter;
use windlass_snapshot::native::Native;
use windlass_snapshot::overlay::Overlay;

async fn overlay(root: &Path) -> Arc<dyn Snapshotter> {
    Arc::new(Overlay::open(root).await.unwrap())
}

async fn native(root: &Path) -> Arc<dyn Snapshotter> {
    Arc::new(Native::open(root).await.unwrap())
}

windlass_testkit::snapshotter_suite!(overlayfs, async |root: &Path| overlay(root).await, persistent);

/// All cases but one: a native snapshot is a copy, and takes up what its parent takes up.
mod native_copies {
    use super::*;

    windlass_testkit::suite_cases!(snapshotter, dyn Snapshotter, async |root: &Path| native(root).await, [
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
        walk_with_filters
        labels_of_a_snapshot_by_mask
        update_of_all_labels_of_a_snapshot
        update_of_an_unknown_field_of_a_snapshot_is_refused
        long_labels_of_a_snapshot_are_refused
        the_snapshotter_sets_the_times
        cleanup_keeps_what_is_recorded
    ]);
    windlass_testkit::suite_cases!(persistent snapshotter, async |root: &Path| native(root).await, [
        snapshots_survive_a_restart
        a_removed_snapshot_stays_removed_after_a_restart
    ]);
}
