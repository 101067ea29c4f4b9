//! What is repaired before what: nothing is removed that a repair may still need.

use windlass_core::fsck::{Finding, Problem};

use super::Failed;

/// Returns what is to be repaired first: leftovers that are bytes or layers go when nothing else is wrong any more, because
/// whatever lacks a record may be just that.
pub(super) fn first(findings: Vec<Finding>) -> Vec<Finding> {
    let (spare, first): (Vec<Finding>, Vec<Finding>) =
        findings.into_iter().partition(|finding| is_spare(&finding.problem));
    if first.is_empty() { spare } else { first }
}

/// Keeps leftovers that something needs which could not be repaired.
pub(super) fn spare(found: &[Finding], failed: &mut Failed) {
    for finding in found.iter().filter(|finding| is_spare(&finding.problem)) {
        if failed.keys().any(|of| needs(of, &finding.problem)) {
            let reason = "it is kept: what could not be repaired may need it".to_owned();
            failed.entry(finding.problem.clone()).or_insert(reason);
        }
    }
}

/// Tells whether a repair records blobs whose bytes nobody has looked at, or with sizes that nobody has compared.
pub(super) fn uncovers(turn: &[Finding]) -> bool {
    turn.iter().any(|finding| matches!(finding.problem, Problem::RecordDamaged { .. } | Problem::TargetMissing { .. }))
}

fn is_spare(problem: &Problem) -> bool {
    matches!(
        problem,
        Problem::BlobUnrecorded { .. } | Problem::SnapshotUnrecorded { .. } | Problem::WrittenWithoutSyncs
    )
}

fn needs(failed: &Problem, spare: &Problem) -> bool {
    match (failed, spare) {
        (Problem::TargetMissing { .. } | Problem::RecordDamaged { .. }, Problem::BlobUnrecorded { .. }) => true,
        (
            Problem::SnapshotMissing { snapshotter, .. }
            | Problem::ParentMissing { snapshotter, .. }
            | Problem::SnapshotLost { snapshotter, .. },
            Problem::SnapshotUnrecorded { snapshotter: of, .. },
        ) => snapshotter == of,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_core::{Digest, Namespace};

    fn missing() -> Problem {
        let (name, target) = ("a/b:1".parse().unwrap(), Digest::sha256(b"index"));
        Problem::TargetMissing { namespace: Namespace::default(), name, target, size: 5 }
    }

    fn unrecorded() -> Problem {
        Problem::BlobUnrecorded { digest: Digest::sha256(b"index"), size: 5 }
    }

    #[test]
    fn a_leftover_goes_when_nothing_else_is_wrong() {
        let problems =
            |findings: Vec<Finding>| -> Vec<Problem> { findings.into_iter().map(|finding| finding.problem).collect() };
        assert_eq!(problems(first(vec![Finding::new(unrecorded()), Finding::new(missing())])), [missing()]);
        assert_eq!(problems(first(vec![Finding::new(unrecorded())])), [unrecorded()]);
    }

    #[test]
    fn a_leftover_stays_while_something_needs_it_that_could_not_be_repaired() {
        let mut failed = Failed::new();
        spare(&[Finding::new(unrecorded())], &mut failed);
        assert!(failed.is_empty());
        failed.insert(missing(), "offline".to_owned());
        spare(&[Finding::new(unrecorded())], &mut failed);
        assert!(failed.contains_key(&unrecorded()));
    }
}
