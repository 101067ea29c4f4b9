//! The suite of [`content::Store`](windlass_core::content::Store).

mod commit;
mod copy;
mod ingest;
mod record;
mod reopen;
mod sparse;
mod tail;

pub use commit::*;
pub use copy::*;
pub use ingest::*;
pub use record::*;
pub use reopen::*;
pub use sparse::*;
pub use tail::*;

use bytes::Bytes;
use windlass_core::Digest;
use windlass_core::content::{Commit, Expected, Info, Store};

use super::parse;

/// Expands to the tests of a content store; see [`suite`](crate::suite).
#[macro_export]
macro_rules! content_suite {
    ($name:ident, $make:expr $(, except [$($out:ident)*])? $(,)?) => {
        mod $name {
            use super::*;
            $crate::content_suite!(@fresh $make, [$($($out)*)?]);
        }
    };
    ($name:ident, $make:expr, persistent $(,)?) => {
        mod $name {
            use super::*;
            $crate::content_suite!(@fresh $make, []);
            $crate::suite_cases!(persistent content, dyn $crate::contract::content::Store, $make, [
                blobs_and_labels_survive_a_restart
                a_deleted_blob_stays_deleted_after_a_restart
                an_ingest_continues_after_a_restart
                what_was_declared_survives_a_restart
            ]);
        }
    };
    (@fresh $make:expr, [$($out:ident)*]) => {
        $crate::suite_cases!(content, dyn $crate::contract::content::Store, $make, [
            a_blob_is_read_as_it_was_written
            an_empty_blob_is_a_blob
            a_blob_of_several_megabytes_arrives_in_odd_pieces
            read_at_any_offset
            an_absent_blob_is_not_found
            read_all_refuses_more_than_its_limit
            a_reader_outlives_the_deletion_of_its_blob
            a_second_writer_on_a_ref_is_refused
            of_many_openers_at_once_exactly_one_wins
            writers_on_different_refs_do_not_meet
            a_dropped_writer_leaves_a_resumable_ingest
            a_closed_ingest_says_when_it_was_written_last
            a_writer_that_was_never_written_to_can_be_opened_again
            any_ref_is_only_a_name
            content_that_is_here_is_not_written_again
            an_ingest_declared_otherwise_is_refused
            an_ingest_that_is_longer_than_what_is_declared_is_refused
            what_is_declared_later_counts
            the_status_tells_what_was_declared
            the_store_and_the_writer_agree_on_the_status
            statuses_by_filter
            a_digest_before_the_commit_is_that_of_what_is_here
            too_many_bytes_are_refused
            truncate_then_write
            a_resumed_ingest_is_truncated_and_continued
            truncate_beyond_the_end_is_refused
            abort_discards_the_ingest
            abort_is_refused_while_a_writer_holds_the_ingest
            abort_of_an_absent_ingest_is_not_found
            content_without_expectations_is_committed_under_its_sha256_digest
            every_algorithm_addresses_a_blob
            an_algorithm_named_at_the_commit_hashes_a_resumed_ingest_too
            a_wrong_digest_at_commit_discards_the_ingest
            a_wrong_size_at_commit_discards_the_ingest
            expectations_can_be_declared_at_commit
            commit_of_a_blob_that_is_there_answers_already_exists
            a_blob_under_construction_is_invisible
            labels_given_at_commit_are_recorded
            the_store_sets_the_times
            write_blob_succeeds_whether_or_not_it_is_there
            write_blob_starts_over_what_was_left
            list_by_filter
            update_replaces_all_labels_with_an_empty_mask
            labels_by_mask
            update_with_an_unknown_field_is_refused
            update_of_an_absent_blob_is_not_found
            labels_over_the_limit_are_refused
            labels_refused_at_the_commit_cost_no_bytes
            delete_removes_the_record
            delete_of_an_absent_blob_is_not_found
            a_deleted_blob_can_be_brought_again
            a_copy_continues_from_any_kind_of_source
            a_copy_continues_from_a_blob_that_is_deleted
            a_copy_asks_only_for_what_is_missing
            a_copy_without_a_declared_size_ends_where_the_source_does
            a_copy_whose_source_ends_early_can_be_continued
            a_copy_whose_source_is_shorter_than_what_is_here_is_refused_where_no_size_is_declared
            a_copy_of_another_size_than_was_declared_is_refused
            a_copy_from_a_source_that_begins_too_late_is_refused
            a_copy_of_what_is_in_a_file_continues
            a_writer_reads_all_that_it_is_given_of_a_file_or_nothing
            more_of_a_file_than_was_declared_is_refused
            a_file_that_ends_too_early_is_said_and_what_is_here_continued
        ], except [$($out)*]);
    };
}

/// Expands to the tests of a content store that can be read behind its writers, and written at several places: the traits
/// leave both to the implementation. See [`suite`](crate::suite).
#[macro_export]
macro_rules! one_pass_suite {
    ($name:ident, $make:expr $(,)?) => {
        mod $name {
            use super::*;
            $crate::one_pass_suite!(@fresh $make);
        }
    };
    ($name:ident, $make:expr, persistent $(,)?) => {
        mod $name {
            use super::*;
            $crate::one_pass_suite!(@fresh $make);
            $crate::suite_cases!(persistent content, dyn $crate::contract::content::Store, $make, [
                gaps_survive_a_restart
            ]);
        }
    };
    (@fresh $make:expr) => {
        $crate::suite_cases!(content, dyn $crate::contract::content::Store, $make, [
            a_tail_reads_what_was_written
            a_tail_reads_what_the_writer_read_of_a_file
            a_tail_waits_at_the_edge
            a_tail_follows_a_writer_to_the_blob
            a_tail_of_a_resumed_ingest_begins_with_what_is_here
            a_tail_ends_when_the_writer_is_dropped
            a_tail_ends_when_the_writer_cuts_back
            a_tail_ends_when_the_digest_is_wrong
            a_tail_outlives_a_commit_of_what_is_here_already
            without_a_declared_size_there_is_no_tail
            an_ingest_is_written_in_any_order
            an_ingest_is_written_at_several_places_at_once
            gaps_are_left_to_the_next_writer
            what_was_appended_is_continued_at_several_places
            bytes_that_are_here_are_not_written_again
            a_commit_with_a_gap_is_refused_and_keeps_the_ingest
            a_sparse_ingest_with_a_wrong_digest_is_discarded
            a_write_beyond_the_declared_size_is_refused
            a_tail_behind_a_sparse_writer_reads_up_to_the_first_gap
            a_tail_of_little_content_becomes_one_behind_a_sparse_writer
            appending_gives_up_what_is_behind_the_first_gap
            cutting_back_gives_up_what_is_behind
            a_writer_with_several_hands_does_not_append
            the_hands_of_a_writer_go_with_it
        ]);
    };
}

fn expected(bytes: &[u8]) -> Expected {
    Expected { digest: Some(Digest::sha256(bytes)), size: Some(bytes.len() as u64) }
}

/// Brings bytes under a ref with nothing declared.
async fn bring(store: &dyn Store, ingest: &str, bytes: &Bytes) -> Info {
    let mut writer = store.writer(&parse(ingest), Expected::default()).await.unwrap();
    writer.write(bytes.clone()).await.unwrap();
    writer.commit(Commit::default()).await.unwrap()
}

/// Reads a whole blob by its digest alone.
async fn read(store: &dyn Store, digest: &Digest) -> Bytes {
    use windlass_core::content::ProviderExt as _;
    let descriptor = windlass_core::Descriptor::new(windlass_core::MediaType::OCTET_STREAM, digest.clone(), 0);
    store.read_all(&descriptor, u64::MAX).await.unwrap()
}
