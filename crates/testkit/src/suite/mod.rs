//! Conformance suites: every sentence of a trait's documentation is a case, named as that sentence.
//!
//! A suite is a macro that expands to a module with one `#[test]` per case. Its first argument names the module, its
//! second makes a fresh implementation below an empty directory, which lives as long as the case:
//!
//! ```
//! use std::path::Path;
//! use std::sync::Arc;
//! use windlass_testkit::memory::Content;
//!
//! windlass_testkit::content_suite!(memory, async |_: &Path| Arc::new(Content::default()));
//! ```
//!
//! An implementation that keeps its state on disk adds the word `persistent`: its maker is then called twice on one
//! directory, the first result being dropped before.
//!
//! An implementation to which a case cannot apply names it: `except [case]` after the maker, with the reason beside it. Only the
//! wire has such cases, where its messages have no room for what they ask.
//!
//! A case gets the trait object alone; it needs neither a runtime nor this crate's traits in the caller's scope.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a case fails by panicking")]
#![expect(missing_docs, reason = "the names of the cases are sentences")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use windlass_core::{Kind, Result};

pub mod comparer;
pub mod container;
pub mod content;
pub mod event;
pub mod host;
pub mod image;
pub mod lease;
pub mod namespace;
pub mod snapshotter;

/// How long a case may take before it counts as stuck.
const PATIENCE: Duration = Duration::from_mins(2);

/// How far a recorded time may lie before the clock was read: records may round to seconds.
const ROUNDING: Duration = Duration::from_secs(2);

/// Runs a case on a fresh subject below a directory of its own.
pub fn run<S: ?Sized>(make: impl AsyncFnOnce(&Path) -> Arc<S>, case: impl AsyncFnOnce(&S)) {
    block_on(async {
        let root = tempfile::tempdir().expect("a temporary directory can be made");
        let subject = make(root.path()).await;
        case(&*subject).await;
    });
}

/// Runs a case that makes its subject several times on one directory.
pub fn run_persistent(case: impl AsyncFnOnce(&Path)) {
    block_on(async {
        let root = tempfile::tempdir().expect("a temporary directory can be made");
        case(root.path()).await;
    });
}

fn block_on(case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be made");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, case).await.expect("the case is stuck") });
}

/// Expands to the tests of a suite.
#[doc(hidden)]
#[macro_export]
macro_rules! suite_cases {
    ($suite:ident, $subject:ty, $make:expr, [$($case:ident)*]) => { $(
        #[test]
        fn $case() {
            $crate::suite::run::<$subject>(
                async |root| {
                    let made: ::std::sync::Arc<$subject> = ($make)(root).await;
                    made
                },
                async |subject| $crate::suite::$suite::$case(subject).await,
            );
        }
    )* };
    ($suite:ident, $subject:ty, $make:expr, [$($case:ident)*], except [$($out:ident)*]) => {
        // What is left out exists.
        $( const _: () = { #[expect(unused_imports, reason = "only looked up")] use $crate::suite::$suite::$out as _; }; )*
        $crate::suite_cases!(@except ($) $suite, $subject, $make, [$($case)*], [$($out)*]);
    };
    (@except ($d:tt) $suite:ident, $subject:ty, $make:expr, [$($case:ident)*], [$($out:ident)*]) => {
        macro_rules! unless_left_out {
            $( ($out) => {}; )*
            ($d case:ident) => { $crate::suite_cases!($suite, $subject, $make, [$d case]); };
        }
        $( unless_left_out!($case); )*
    };
    (persistent $suite:ident, $subject:ty, $make:expr, [$($case:ident)*]) => { $(
        #[test]
        fn $case() {
            let make = async |root: &::std::path::Path| {
                let made: ::std::sync::Arc<$subject> = ($make)(root).await;
                made
            };
            $crate::suite::run_persistent(async |root| $crate::suite::$suite::$case(&make, root).await);
        }
    )* };
}

/// Bytes that look random and are always the same: compression and deduplication find nothing in them.
fn sample(seed: u64, length: usize) -> Bytes {
    // xorshift64*, Vigna 2016: any generator without short cycles would do.
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    let mut bytes: Vec<u8> = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend(next());
    }
    bytes.truncate(length);
    bytes.into()
}

/// Asserts that something failed, and as which kind.
#[track_caller]
fn assert_kind<T>(result: Result<T>, kind: Kind, what: &str) {
    match result {
        Ok(_) => panic!("{what} succeeded instead of failing as {kind:?}"),
        Err(error) => assert_eq!(error.kind(), kind, "{what}: {error:?}"),
    }
}

/// Asserts that a time was set by the subject since `before`.
#[track_caller]
fn assert_recent(time: SystemTime, before: SystemTime) {
    assert!(time + ROUNDING >= before, "{time:?} lies before the call at {before:?}");
    assert!(time <= SystemTime::now() + ROUNDING, "{time:?} lies in the future");
}

fn parse<T: std::str::FromStr<Err = windlass_core::Error>>(text: &str) -> T {
    text.parse().expect("the literal is well-formed")
}

fn filters<const N: usize>(texts: [&str; N]) -> Vec<windlass_core::filter::Filter> {
    texts.into_iter().map(parse).collect()
}

fn mask<const N: usize>(paths: [&str; N]) -> windlass_core::field::FieldMask {
    windlass_core::field::FieldMask::parse(paths).expect("the mask is well-formed")
}

async fn collect<T>(listing: windlass_core::Listing<T>) -> Vec<T> {
    use futures::TryStreamExt as _;
    listing.try_collect().await.expect("the listing is whole")
}

#[cfg(test)]
mod tests {
    /// Every public case of a file has to be in the list of its macro, or it never runs.
    #[test]
    fn no_case_is_forgotten() {
        for (file, list, sources) in [
            ("comparer", include_str!("comparer.rs"), &[][..]),
            ("container", include_str!("container.rs"), &[]),
            (
                "content",
                include_str!("content.rs"),
                &[
                    include_str!("content/commit.rs"),
                    include_str!("content/ingest.rs"),
                    include_str!("content/record.rs"),
                    include_str!("content/reopen.rs"),
                    include_str!("content/sparse.rs"),
                    include_str!("content/tail.rs"),
                ],
            ),
            ("event", include_str!("event.rs"), &[]),
            ("host", include_str!("host.rs"), &[]),
            ("image", include_str!("image.rs"), &[]),
            ("lease", include_str!("lease.rs"), &[]),
            ("namespace", include_str!("namespace.rs"), &[]),
            (
                "snapshotter",
                include_str!("snapshotter.rs"),
                &[
                    include_str!("snapshotter/begin.rs"),
                    include_str!("snapshotter/commit.rs"),
                    include_str!("snapshotter/record.rs"),
                    include_str!("snapshotter/reopen.rs"),
                ],
            ),
        ] {
            let listed: Vec<&str> = list.lines().map(str::trim).collect();
            for line in sources.iter().chain([&list]).flat_map(|source| source.lines()) {
                let Some(rest) = line.strip_prefix("pub async fn ") else { continue };
                let case = rest.split(['(', '<']).next().unwrap();
                assert!(listed.contains(&case), "{file}: {case} is not in the list of the macro");
            }
        }
    }
}
