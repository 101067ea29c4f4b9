//! Which bytes of something are here: a set of ranges that do not touch.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A set of byte ranges, kept in order and as few as possible.
///
/// ```
/// use windlass_core::content::Ranges;
///
/// let mut here = Ranges::default();
/// here.insert(0..10);
/// here.insert(20..30);
/// assert_eq!(here.missing(0..40), [10..20, 30..40]);
/// here.insert(10..20);
/// assert_eq!(here.prefix(), 30);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds a range; an empty one changes nothing.
    pub fn insert(&mut self, range: Range<u64>) {
        let Range { mut start, mut end } = range;
        if start >= end {
            return;
        }
        // Whatever touches it becomes a part of it.
        while let Some((&from, &to)) = self.0.range(..=end).next_back().filter(|(_, to)| **to >= start) {
            self.0.remove(&from);
            start = start.min(from);
            end = end.max(to);
        }
        self.0.insert(start, end);
    }

    /// Takes a range away.
    pub fn remove(&mut self, range: &Range<u64>) {
        while let Some((&from, &to)) =
            self.0.range(..range.end).next_back().filter(|(_, to)| **to > range.start && range.start < range.end)
        {
            self.0.remove(&from);
            if from < range.start {
                self.0.insert(from, range.start);
            }
            if to > range.end {
                self.0.insert(range.end, to);
            }
        }
    }

    /// Returns what of a range is not in the set, in order.
    pub fn missing(&self, within: Range<u64>) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        let mut at = self.around(within.start).map_or(within.start, |range| range.end);
        while at < within.end {
            let next = self.0.range(at..).next().map_or((within.end, within.end), |(from, to)| (*from, *to));
            missing.push(at..next.0.min(within.end));
            at = next.1;
        }
        missing
    }

    /// Tells whether anything of a range is in the set.
    pub fn overlaps(&self, range: &Range<u64>) -> bool {
        range.start < range.end && self.0.range(..range.end).next_back().is_some_and(|(_, to)| *to > range.start)
    }

    /// Returns the range of the set that a byte is in.
    pub fn around(&self, at: u64) -> Option<Range<u64>> {
        self.0.range(..=at).next_back().map(|(from, to)| *from..*to).filter(|range| range.contains(&at))
    }

    /// Returns how many bytes there are from the beginning to the first gap.
    pub fn prefix(&self) -> u64 {
        self.around(0).map_or(0, |range| range.end)
    }

    /// Returns how many bytes the set has at `start` and behind it.
    pub fn length_from(&self, start: u64) -> u64 {
        self.iter().map(|range| range.end.saturating_sub(range.start.max(start))).sum()
    }

    /// Returns where the last range ends.
    pub fn end(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(_, to)| *to)
    }

    /// Returns the ranges in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(from, to)| *from..*to)
    }

    /// Tells whether there is nothing in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Range<u64>> for Ranges {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut all = Self::default();
        ranges.into_iter().for_each(|range| all.insert(range));
        all
    }
}

impl From<Vec<(u64, u64)>> for Ranges {
    fn from(pairs: Vec<(u64, u64)>) -> Self {
        pairs.into_iter().map(|(from, to)| from..to).collect()
    }
}

impl From<Ranges> for Vec<(u64, u64)> {
    fn from(ranges: Ranges) -> Self {
        ranges.0.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const END: u64 = 40;

    proptest! {
        /// What it says is what a set of single bytes says.
        #[test]
        fn ranges_are_a_set_of_bytes(steps in prop::collection::vec((any::<bool>(), 0..END, 0..END), 0..30)) {
            let mut ranges = Ranges::default();
            let mut bytes = [false; 40];
            for (adds, from, to) in steps {
                if adds {
                    ranges.insert(from..to);
                } else {
                    ranges.remove(&(from..to));
                }
                (from..to).for_each(|at| bytes[usize::try_from(at).unwrap()] = adds);
            }
            let has = |at: u64| bytes[usize::try_from(at).unwrap()];
            let listed: Vec<_> = ranges.iter().collect();
            prop_assert!(listed.windows(2).all(|two| two[0].end < two[1].start), "{listed:?}");
            for at in 0..END {
                prop_assert_eq!(listed.iter().any(|range| range.contains(&at)), has(at));
                prop_assert_eq!(ranges.around(at).is_some(), has(at));
                prop_assert_eq!(ranges.length_from(at), (at..END).filter(|at| has(*at)).count() as u64);
                for to in at..END {
                    prop_assert_eq!(ranges.overlaps(&(at..to)), (at..to).any(has));
                    let missing: Vec<u64> = ranges.missing(at..to).into_iter().flatten().collect();
                    prop_assert_eq!(missing, (at..to).filter(|at| !has(*at)).collect::<Vec<_>>());
                }
            }
            prop_assert_eq!(ranges.prefix(), (0..END).take_while(|at| has(*at)).count() as u64);
            prop_assert_eq!(ranges.end(), (0..END).rev().find(|at| has(*at)).map_or(0, |at| at + 1));
            prop_assert_eq!(ranges.is_empty(), listed.is_empty());
            let pairs: Vec<(u64, u64)> = ranges.clone().into();
            prop_assert_eq!(Ranges::from(pairs), ranges);
        }
    }
}
