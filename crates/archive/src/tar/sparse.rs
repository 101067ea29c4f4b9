//! Where the data of a sparse file belongs.

use std::collections::VecDeque;

use windlass_core::{Error, Result};

use super::number::decimal;
use super::{BLOCK, MAX_SPECIAL};

/// The stretches of a sparse file that have data, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Map {
    stretches: VecDeque<(u64, u64)>,
    end: u64,
    data: u64,
}

impl Map {
    /// The map of a file without holes.
    pub(super) fn whole(size: u64) -> Self {
        let stretches = if size == 0 { VecDeque::new() } else { VecDeque::from([(0, size)]) };
        Self { stretches, end: size, data: size }
    }

    /// Adds a stretch after the ones before.
    pub(super) fn push(&mut self, offset: i64, length: i64) -> Result<()> {
        let (Ok(offset), Ok(length)) = (u64::try_from(offset), u64::try_from(length)) else {
            return Err(Error::data_loss("a sparse map has a negative number"));
        };
        let end = offset.checked_add(length).filter(|end| i64::try_from(*end).is_ok());
        let (Some(end), true) = (end, offset >= self.end) else {
            return Err(Error::data_loss("the stretches of a sparse map overlap or go too far"));
        };
        self.end = end;
        self.data += length;
        if length > 0 {
            self.stretches.push_back((offset, length));
        }
        Ok(())
    }

    /// Checks the map against the size of the file and the bytes that the archive has for it.
    pub(super) fn check(&self, size: u64, stored: u64) -> Result<()> {
        if self.end > size {
            return Err(Error::data_loss(format!("a sparse map ends at {} in a file of {size} bytes", self.end)));
        }
        if self.data != stored {
            return Err(Error::data_loss(format!("a sparse map tells of {} bytes, {stored} are there", self.data)));
        }
        Ok(())
    }

    /// Takes up to `limit` bytes off the front: where they belong and how many they are; none when all is taken.
    pub(super) fn take(&mut self, limit: usize) -> Option<(u64, usize)> {
        let (offset, length) = self.stretches.front_mut()?;
        let at = *offset;
        let count = usize::try_from(*length).unwrap_or(usize::MAX).min(limit);
        *offset += count as u64;
        *length -= count as u64;
        if *length == 0 {
            self.stretches.pop_front();
        }
        Some((at, count))
    }

    /// Tells whether all is taken.
    pub(super) fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }

    /// Reads the map of PAX formats 0.0 and 0.1: offsets and lengths in turn.
    pub(super) fn of_list(list: &[u8], count: Option<&[u8]>) -> Result<Self> {
        let mut map = Self::default();
        let mut numbers = list.split(|byte| *byte == b',').filter(|_| !list.is_empty());
        let mut found = 0;
        while let Some(offset) = numbers.next() {
            let length = numbers.next().ok_or_else(|| Error::data_loss("a sparse map has an odd count of numbers"))?;
            map.push(decimal(offset)?, decimal(length)?)?;
            found += 1;
        }
        if let Some(count) = count
            && decimal(count)? != found
        {
            return Err(Error::data_loss("a sparse map does not have as many places as it says"));
        }
        Ok(map)
    }
}

/// Reads the map of PAX format 1.0: decimal lines in whole blocks before the data.
#[derive(Debug, Clone, Default)]
pub(super) struct MapText {
    map: Map,
    /// How many numbers are still to come; unknown before the first line.
    left: Option<u64>,
    offset: Option<i64>,
    line: Vec<u8>,
    read: u64,
}

impl MapText {
    /// Reads a block; returns the map when it is complete.
    pub(super) fn block(&mut self, block: &[u8; BLOCK]) -> Result<Option<Map>> {
        self.read += BLOCK as u64;
        if self.read > MAX_SPECIAL {
            return Err(Error::data_loss(format!("a sparse map has more than {MAX_SPECIAL} bytes")));
        }
        for byte in block {
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() > 20 {
                    return Err(Error::data_loss("a line of a sparse map is no number"));
                }
                continue;
            }
            let number = decimal(&std::mem::take(&mut self.line))?;
            if self.number(number)? {
                return Ok(Some(std::mem::take(&mut self.map)));
            }
        }
        Ok(None)
    }

    /// Takes the next number; returns whether it was the last one.
    fn number(&mut self, number: i64) -> Result<bool> {
        let Some(left) = self.left else {
            let places = u64::try_from(number).ok().and_then(|places| places.checked_mul(2));
            self.left = Some(places.ok_or_else(|| Error::data_loss("a sparse map has a negative number"))?);
            return Ok(self.left == Some(0));
        };
        match self.offset.take() {
            None => self.offset = Some(number),
            Some(offset) => self.map.push(offset, number)?,
        }
        self.left = Some(left - 1);
        Ok(left == 1)
    }

    /// Returns how many bytes of the archive the map took.
    pub(super) fn read(&self) -> u64 {
        self.read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_hands_out_its_stretches_in_pieces() {
        let mut map = Map::of_list(b"0,3,10,2,20,0", Some(b"3")).unwrap();
        map.check(20, 5).unwrap();
        assert_eq!(
            [map.take(2), map.take(2), map.take(9), map.take(9)],
            [Some((0, 2)), Some((2, 1)), Some((10, 2)), None]
        );
    }

    #[test]
    fn impossible_maps_are_refused() {
        for list in ["0,5,4,1", "0", "-1,1", "0,-1", "9223372036854775807,1", "a,1", "0,1,"] {
            assert!(Map::of_list(list.as_bytes(), None).is_err(), "{list}");
        }
        assert!(Map::of_list(b"0,1", Some(b"2")).is_err());
        assert!(Map::of_list(b"", Some(b"0")).unwrap().is_empty());
        assert!(Map::of_list(b"0,5", None).unwrap().check(4, 5).is_err());
        assert!(Map::of_list(b"0,5", None).unwrap().check(5, 4).is_err());
    }
}
