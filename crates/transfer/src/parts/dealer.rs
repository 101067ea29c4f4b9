//! Who downloads which part: a pure account of what of a blob is here, being fetched, and free to be taken.
//!
//! Parts are dealt from the front, so that what follows the download is not kept waiting, and never far ahead of the
//! first byte that is missing. Whoever is alone takes all that is left, in one request; when another one comes, that is
//! cut.

use std::collections::BTreeMap;
use std::ops::Range;

/// Which part.
pub(super) type Id = u64;

/// The account.
#[derive(Debug)]
pub(super) struct Dealer {
    total: u64,
    /// What nobody fetches, from start to end.
    free: BTreeMap<u64, u64>,
    /// What is being fetched: the next byte, and the end.
    taken: BTreeMap<Id, Range<u64>>,
    next: Id,
    /// How large a part is.
    size: u64,
    /// How far after the first missing byte a part may begin.
    reach: u64,
}

impl Dealer {
    pub(super) fn new(total: u64, gaps: &[Range<u64>], size: u64, reach: u64) -> Self {
        let gaps = gaps.iter().filter(|gap| gap.start < gap.end);
        Self {
            total,
            free: gaps.map(|gap| (gap.start, gap.end.min(total))).collect(),
            taken: BTreeMap::new(),
            next: 0,
            size: size.max(1),
            reach,
        }
    }

    /// Returns how many bytes are here.
    pub(super) fn here(&self) -> u64 {
        let free: u64 = self.free.iter().map(|(start, end)| end - start).sum();
        let taken: u64 = self.taken.values().map(|part| part.end - part.start).sum();
        self.total - free - taken
    }

    /// Returns the first byte that is missing.
    fn edge(&self) -> u64 {
        let taken = self.taken.values().map(|part| part.start);
        taken.chain(self.free.keys().next().copied()).min().unwrap_or(self.total)
    }

    /// Takes the next part; all of a gap when `alone`. None when nothing is left, or nothing near enough.
    pub(super) fn take(&mut self, alone: bool) -> Option<(Id, Range<u64>)> {
        let limit = self.edge().saturating_add(self.reach);
        if self.free.first_key_value().is_none_or(|(start, _)| *start >= limit) {
            self.cut();
        }
        let (&start, &gap) = self.free.first_key_value().filter(|(start, _)| **start < limit)?;
        self.free.remove(&start);
        let end = if alone { gap } else { gap.min(start.saturating_add(self.size)) };
        if end < gap {
            self.free.insert(end, gap);
        }
        let id = self.next;
        self.next += 1;
        self.taken.insert(id, start..end);
        Some((id, start..end))
    }

    /// Frees what somebody has who took more than two parts' worth, but for the next part.
    fn cut(&mut self) {
        let size = self.size;
        if let Some(part) = self.taken.values_mut().find(|part| part.end - part.start > 2 * size) {
            let at = part.start + size;
            self.free.insert(at, part.end);
            part.end = at;
        }
    }

    /// Tells whether nobody fetches the first byte that is missing.
    pub(super) fn front_is_free(&self) -> bool {
        self.free.keys().next().is_some_and(|start| *start == self.edge())
    }

    /// Accounts for bytes that came for a part: returns where they belong, and how many of them.
    pub(super) fn came(&mut self, id: Id, length: usize) -> Range<u64> {
        let Some(part) = self.taken.get_mut(&id) else { return 0..0 };
        let at = part.start;
        part.start = part.end.min(at.saturating_add(length as u64));
        let came = at..part.start;
        if part.start == part.end {
            self.taken.remove(&id);
        }
        came
    }

    /// Tells whether all of a part has come.
    pub(super) fn is_complete(&self, id: Id) -> bool {
        !self.taken.contains_key(&id)
    }

    /// Frees what has not come of a part.
    pub(super) fn give_back(&mut self, id: Id) {
        if let Some(part) = self.taken.remove(&id) {
            let end = self.free.remove(&part.end).unwrap_or(part.end);
            self.free.insert(part.start, end);
        }
    }

    /// Accounts for bytes at an offset that came in one stream with everything: returns which of them were missing.
    pub(super) fn passed(&mut self, at: u64, length: usize) -> Vec<Range<u64>> {
        let end = at.saturating_add(length as u64);
        let mut missing = Vec::new();
        let gaps: Vec<Range<u64>> = self.free.range(..end).map(|(start, end)| *start..*end).collect();
        for gap in gaps.into_iter().filter(|gap| gap.end > at) {
            self.free.remove(&gap.start);
            let came = gap.start.max(at)..gap.end.min(end);
            for left in [gap.start..came.start, came.end..gap.end].into_iter().filter(|left| left.start < left.end) {
                self.free.insert(left.start, left.end);
            }
            missing.push(came);
        }
        missing
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "a list of ranges may have one")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(total: u64) -> Dealer {
        Dealer::new(total, &[0..total], 10, 40)
    }

    #[test]
    fn who_is_alone_takes_everything_and_is_cut_when_another_comes() {
        let mut dealer = of(100);
        let (first, range) = dealer.take(true).unwrap();
        assert_eq!(range, 0..100);
        assert_eq!(dealer.came(first, 5), 0..5);
        let (second, range) = dealer.take(false).unwrap();
        assert_eq!(range, 15..25);
        assert_eq!(dealer.came(first, 20), 5..15, "cut at 15");
        assert!(dealer.is_complete(first) && !dealer.is_complete(second));
        assert_eq!(dealer.take(false).unwrap().1, 25..35);
        assert_eq!(dealer.here(), 15);
    }

    #[test]
    fn parts_are_dealt_from_the_front_and_not_far_ahead_of_it() {
        let mut dealer = of(100);
        let parts: Vec<_> = std::iter::from_fn(|| dealer.take(false)).collect();
        assert_eq!(parts.iter().map(|(_, range)| range.start).collect::<Vec<_>>(), [0, 10, 20, 30]);
        dealer.came(parts[1].0, 10);
        assert_eq!(dealer.take(false), None, "the first byte is missing still");
        dealer.came(parts[0].0, 10);
        assert_eq!(dealer.take(false).unwrap().1, 40..50);
        dealer.give_back(parts[2].0);
        assert_eq!(dealer.take(false).unwrap().1, 20..30, "what was given back goes first");
    }

    #[test]
    fn a_stream_with_everything_fills_the_gaps_alone() {
        let mut dealer = Dealer::new(100, &[10..20, 50..60], 10, 40);
        assert_eq!(dealer.here(), 80);
        assert_eq!(dealer.passed(0, 15), [10..15]);
        assert_eq!(dealer.passed(15, 40), [15..20, 50..55]);
        assert_eq!(dealer.passed(55, 45), [55..60]);
        assert_eq!((dealer.here(), dealer.take(true)), (100, None));
    }

    proptest! {
        #[test]
        fn whatever_happens_every_byte_comes_once(steps in proptest::collection::vec((0..4u8, 0..30usize), 0..200)) {
            let mut dealer = of(1_000);
            let mut running = Vec::new();
            let mut came = [0u8; 1_000];
            let mut count = |range: Range<u64>| (range.start..range.end).for_each(|at| came[usize::try_from(at).unwrap()] += 1);
            for (step, number) in steps {
                match step {
                    0 => running.extend(dealer.take(running.is_empty()).map(|(id, _)| id)),
                    1 if !running.is_empty() => dealer.give_back(running.swap_remove(number % running.len())),
                    _ if !running.is_empty() => {
                        let id = running[number % running.len()];
                        count(dealer.came(id, number));
                        running.retain(|id| !dealer.is_complete(*id));
                    }
                    _ => {}
                }
            }
            for id in running {
                dealer.give_back(id);
            }
            dealer.passed(0, 1_000).into_iter().for_each(&mut count);
            prop_assert_eq!(dealer.here(), 1_000);
            prop_assert!(came.iter().all(|times| *times == 1));
        }
    }
}
