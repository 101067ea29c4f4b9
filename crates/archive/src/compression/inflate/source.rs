//! The compressed bits.

/// Compressed bytes that are here.
pub(super) struct Source<'a> {
    pub(super) bytes: &'a [u8],
    /// How many of them were taken.
    pub(super) read: usize,
}

impl Source<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.read)?;
        self.read += 1;
        Some(*byte)
    }

    /// Returns what was not taken.
    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.read..).unwrap_or_default()
    }
}

/// Bits that were taken and not used; between two calls only those of something that is not complete.
///
/// Bytes are taken one at a time as they are needed, or given back. So when the stream ends, none of what follows it was taken.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Bits {
    /// The next bit is the lowest. Those above `count` are 0.
    pub(super) buffer: u64,
    pub(super) count: u32,
}

impl Bits {
    /// Sees to it that there are at least so many bits, at most 56. Returns false when the source has too few.
    pub(super) fn need(&mut self, count: u32, source: &mut Source<'_>) -> bool {
        while self.count < count {
            let Some(byte) = source.byte() else { return false };
            self.buffer |= u64::from(byte) << self.count;
            self.count += 8;
        }
        true
    }

    /// Takes bytes ahead, when that is quick.
    pub(super) fn fill(&mut self, source: &mut Source<'_>) {
        if let Some(word) = source.rest().first_chunk::<8>() {
            let bytes = (63 - self.count) >> 3;
            self.buffer |= (u64::from_le_bytes(*word) & ((1 << (bytes * 8)) - 1)) << self.count;
            self.count += bytes * 8;
            source.read += bytes as usize;
        }
    }

    /// Gives back whole bytes, which have to be of this source.
    pub(super) fn give_back(&mut self, source: &mut Source<'_>) {
        source.read = source.read.saturating_sub((self.count >> 3) as usize);
        self.count &= 7;
        self.buffer &= (1 << self.count) - 1;
    }

    /// Returns that many bits, at most 16, and drops them. They have to be there.
    #[expect(clippy::cast_possible_truncation, reason = "at most 16 bits are taken")]
    pub(super) fn take(&mut self, count: u32) -> u16 {
        let value = self.buffer & ((1 << count) - 1);
        self.skip(count);
        value as u16
    }

    /// Drops bits that are there.
    pub(super) fn skip(&mut self, count: u32) {
        self.buffer >>= count;
        self.count = self.count.saturating_sub(count);
    }

    /// Drops the rest of the byte that was begun.
    pub(super) fn align(&mut self) {
        self.skip(self.count % 8);
    }
}
