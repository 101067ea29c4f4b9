//! Lists in pieces: they grow without being copied, and what they have in reserve is never more than a piece.

/// How many items a piece has.
const ITEMS: usize = 1024;

/// How many bytes of text a piece has.
const BYTES: usize = 1 << 16;

/// A list whose items stay where they are.
#[derive(Debug)]
pub(crate) struct Pieces<T> {
    pieces: Vec<Vec<T>>,
    /// How many items there is memory for.
    room: usize,
}

impl<T> Default for Pieces<T> {
    fn default() -> Self {
        Self { pieces: Vec::new(), room: 0 }
    }
}

impl<T> Pieces<T> {
    pub(crate) fn len(&self) -> usize {
        let last = self.pieces.last().map_or(0, Vec::len);
        self.pieces.len().saturating_sub(1) * ITEMS + last
    }

    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        self.pieces.get(at / ITEMS)?.get(at % ITEMS)
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.pieces.get_mut(at / ITEMS)?.get_mut(at % ITEMS)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flatten()
    }

    pub(super) fn push(&mut self, item: T) {
        if let Some(piece) = self.pieces.last_mut().filter(|piece| piece.len() < ITEMS) {
            let before = piece.capacity();
            // The first one grows as it is needed: most trees are small.
            if piece.len() == before {
                piece.reserve_exact(before.min(ITEMS - before));
            }
            piece.push(item);
            self.room += piece.capacity() - before;
        } else {
            let mut piece = Vec::with_capacity(if self.pieces.is_empty() { 32 } else { ITEMS });
            piece.push(item);
            self.room += piece.capacity();
            self.pieces.push(piece);
        }
    }

    /// How many bytes of memory there are for items.
    pub(super) fn memory(&self) -> u64 {
        (self.room * size_of::<T>()) as u64
    }
}

/// Texts, each at a place that says which piece it is in.
#[derive(Debug, Default)]
pub(super) struct Text {
    pieces: Vec<Vec<u8>>,
    room: usize,
}

impl Text {
    /// Keeps a text; returns its place, or nothing when there are too many.
    pub(super) fn keep(&mut self, text: &[u8]) -> Option<u32> {
        if self.pieces.last().is_none_or(|piece| piece.len() >= BYTES || piece.len() + text.len() > BYTES) {
            self.pieces.push(Vec::new());
        }
        let piece = u32::try_from(self.pieces.len().checked_sub(1)?).ok()?;
        let last = self.pieces.last_mut()?;
        let place = piece.checked_mul(1 << 16)? | u32::try_from(last.len()).ok()?;
        let before = last.capacity();
        if last.len() + text.len() > before {
            let wanted = (before * 2).clamp(1 << 10, BYTES).max(last.len() + text.len());
            last.reserve_exact(wanted - last.len());
        }
        last.extend_from_slice(text);
        self.room += last.capacity() - before;
        Some(place)
    }

    /// Returns so many bytes of the text at a place.
    pub(super) fn get(&self, place: u32, length: usize) -> Option<&[u8]> {
        let at = (place & 0xffff) as usize;
        self.pieces.get((place >> 16) as usize)?.get(at..)?.get(..length)
    }

    /// How many bytes of memory there are for texts.
    pub(super) fn memory(&self) -> u64 {
        self.room as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_where_they_were_put_and_little_is_in_reserve() {
        let mut pieces = Pieces::default();
        for number in 0..10_000usize {
            pieces.push(number);
            assert!(pieces.room - pieces.len() < ITEMS && pieces.room <= 2 * pieces.len().max(16));
        }
        assert_eq!(pieces.len(), 10_000);
        assert!((0..10_000).all(|number| pieces.get(number) == Some(&number)));
        assert_eq!((pieces.get(10_000), pieces.iter().count()), (None, 10_000));
        if let Some(item) = pieces.get_mut(5_000) {
            *item = 7;
        }
        assert_eq!(pieces.iter().sum::<usize>(), 10_000 * 9_999 / 2 - 5_000 + 7);
        assert_eq!(pieces.memory(), (10 * ITEMS * size_of::<usize>()) as u64);
    }

    #[test]
    fn texts_of_any_length_come_back() {
        let mut text = Text::default();
        let lengths = [0, 1, 300, BYTES - 301, 5, BYTES, 3 * BYTES + 1, 0, 17];
        let of = |number: usize| vec![u8::try_from(number).unwrap(); lengths[number]];
        let places: Vec<u32> = (0..lengths.len()).map(|number| text.keep(&of(number)).unwrap()).collect();
        for (number, place) in places.iter().enumerate() {
            assert_eq!(text.get(*place, lengths[number]), Some(&of(number)[..]), "{number}");
        }
        assert_eq!(text.get(places[8], 18), None);
        assert_eq!(text.get(u32::MAX, 0), None);
        let all: usize = lengths.iter().sum();
        assert!(usize::try_from(text.memory()).unwrap() < all + 2 * BYTES);
    }

    #[test]
    fn there_is_an_end_to_places() {
        let mut text = Text { pieces: vec![Vec::new(); 1 << 16], room: 0 };
        text.pieces[(1 << 16) - 1] = vec![0; BYTES - 1];
        assert_eq!(text.keep(b"a"), Some(u32::MAX));
        assert_eq!(text.keep(b"b"), None);
    }
}
