//! Room for what comes out of a decompressor.
//!
//! A compressed stream refers back to its own output. So that nothing needs to be kept twice, the last of what came out
//! stays in front of the room for the next: a buffer that follows another one begins with a copy of its end.

/// How far back a deflated stream may refer, RFC 1951, section 2.
pub(super) const WINDOW: usize = 32 << 10;

/// A buffer that a [`super::Decompressor`] fills.
///
/// ```text
///   0            WINDOW              end            WINDOW + room
///   ├── before ──┼───── content ─────┼───── free ─────┤
/// ```
#[derive(Default)]
pub struct Output {
    /// Empty, or longer than the window.
    pub(super) bytes: Vec<u8>,
    /// Where the content ends.
    pub(super) end: usize,
}

impl Output {
    /// Makes one with room for so many bytes.
    pub fn new(room: usize) -> Self {
        if room == 0 {
            return Self::default();
        }
        Self { bytes: vec![0; WINDOW + room], end: WINDOW }
    }

    /// Whether there is no more room.
    pub fn is_full(&self) -> bool {
        self.end == self.bytes.len()
    }

    /// Returns what came out.
    pub fn content(&self) -> &[u8] {
        self.bytes.get(WINDOW..self.end).unwrap_or_default()
    }

    /// Empties this buffer, and makes it the one that is filled after `before`.
    pub fn follow(&mut self, before: &Self) {
        let from = before.end.checked_sub(WINDOW).and_then(|start| before.bytes.get(start..before.end));
        if let (Some(to), Some(from)) = (self.bytes.get_mut(..WINDOW), from) {
            to.copy_from_slice(from);
        }
        self.end = self.bytes.len().min(WINDOW);
    }

    /// Empties this buffer, and makes it the one that is filled after itself.
    pub fn turn(&mut self) {
        if let Some(start) = self.end.checked_sub(WINDOW) {
            self.bytes.copy_within(start..self.end, 0);
        }
        self.end = self.bytes.len().min(WINDOW);
    }

    /// Returns the free part.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Output({} of {})", self.end.saturating_sub(WINDOW), self.bytes.len().saturating_sub(WINDOW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_out_stays_before_what_comes() {
        let mut first = Output::new(3);
        first.room().copy_from_slice(b"abc");
        first.end += 3;
        assert!(first.is_full());
        let mut second = Output::new(10);
        second.follow(&first);
        assert_eq!((second.content(), second.is_full()), (&b""[..], false));
        assert_eq!(second.bytes[WINDOW - 3..WINDOW], *b"abc");
        second.room()[..2].copy_from_slice(b"de");
        second.end += 2;
        assert_eq!(second.content(), b"de");
        second.turn();
        assert_eq!(second.content(), b"");
        assert_eq!(second.bytes[WINDOW - 5..WINDOW], *b"abcde");
    }

    #[test]
    fn a_buffer_without_room_is_full_and_empty() {
        let mut none = Output::default();
        none.turn();
        none.follow(&Output::new(1));
        assert!(none.is_full() && none.content().is_empty());
        let mut some = Output::new(1);
        some.follow(&none);
        assert!(!some.is_full() && some.content().is_empty());
    }
}
