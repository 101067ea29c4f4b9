//! Calls whose authority is the path of a socket.
//!
//! Clients made of gRPC's C core, which those in Python, C++ and Ruby are, name the path of a unix socket as the authority of their
//! calls, as `%2Frun%2Fcontainerd%2Fcontainerd.sock`. RFC 3986 (section 3.2.2) allows that; the library that reads HTTP/2 here
//! takes it for malformed and resets the call. Nobody here looks at the authority, so on its way there `%` becomes `-`: one byte for one,
//! because both ends count the bytes of headers that they remember (RFC 7541, section 4.1).
//!
//! Frames are those of RFC 9113, section 4.1, and header blocks those of RFC 7541, section 6. What is neither passes as it is, for
//! the library to say so. Compressed strings pass as well: the C core compresses none.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// How many bytes a connection begins with.
const PREFACE: usize = 24;
/// The head of a frame: its length, type, flags and stream.
const HEAD: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The name of the field, and its index in the static table.
const NAME: &[u8] = b":authority";
const INDEX: u64 = 1;
/// The bit of a string's head that says that it is compressed.
const COMPRESSED: u8 = 0x80;

/// A connection of a client that may be one of those.
#[derive(Debug)]
pub(crate) struct Lenient<S> {
    inner: S,
    authority: Authority,
}

impl<S> Lenient<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, authority: Authority::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.authority.pass(buffer.filled_mut().get_mut(before..).unwrap_or_default());
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<S: Connected> Connected for Lenient<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.inner.connect_info()
    }
}

/// Reads along what a client sends, however it is cut.
#[derive(Debug)]
struct Authority {
    at: At,
    block: Block,
}

/// Where in the frames.
#[derive(Debug)]
enum At {
    Preface(usize),
    Head([u8; HEAD], usize),
    /// So many bytes that are passed over, and how many of a header block and of its padding follow them.
    Passing {
        before: u32,
        block: u32,
        padding: u32,
    },
    /// The length of the padding, and what there is behind it.
    PadLength {
        before: u32,
        rest: u32,
    },
}

/// Where in a header block, which may go on in the next frame.
#[derive(Debug, Clone, Copy)]
enum Block {
    Field,
    /// An integer goes on: what there is of it, how far the next byte is shifted, and what it is.
    Integer {
        value: u64,
        shift: u32,
        of: Integer,
    },
    NameHead,
    /// How many bytes are left of a name, and, if it may be that of an authority, how many have come.
    Name {
        left: u64,
        same: Option<usize>,
    },
    ValueHead {
        of_authority: bool,
    },
    Value {
        left: u64,
        of_authority: bool,
    },
}

#[derive(Debug, Clone, Copy)]
enum Integer {
    /// Of a field that is nothing but a number.
    Whole,
    /// The name of a field, by where it is in a table.
    Index,
    NameLength {
        same: Option<usize>,
    },
    ValueLength {
        of_authority: bool,
    },
}

impl Default for Authority {
    fn default() -> Self {
        Self { at: At::Preface(PREFACE), block: Block::Field }
    }
}

impl Authority {
    /// Reads what has come, and changes what has to be.
    fn pass(&mut self, mut bytes: &mut [u8]) {
        loop {
            if let Some(passed) = self.at.skip(bytes) {
                bytes = bytes.get_mut(passed..).unwrap_or_default();
                continue;
            }
            let Some((byte, _)) = bytes.split_first_mut() else { return };
            let passed = match &mut self.at {
                At::Preface(left) => {
                    let passed = (*left).min(bytes.len());
                    *left -= passed;
                    if *left == 0 {
                        self.at = At::Head([0; HEAD], 0);
                    }
                    passed
                }
                At::Head(head, have) => {
                    if let Some(place) = head.get_mut(*have) {
                        *place = *byte;
                    }
                    *have += 1;
                    if *have == HEAD {
                        let (at, begins) = At::behind(*head);
                        self.at = at;
                        if begins {
                            self.block = Block::Field;
                        }
                    }
                    1
                }
                At::PadLength { before, rest } => {
                    let padding = u32::from(*byte).min(*rest);
                    self.at = At::Passing { before: *before, block: *rest - padding, padding }.or_head();
                    1
                }
                At::Passing { before: left @ 1.., .. } | At::Passing { block: 0, padding: left, .. } => {
                    let passed = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    *left = left.saturating_sub(u32::try_from(passed).unwrap_or(u32::MAX));
                    self.end_frame();
                    passed
                }
                At::Passing { block, .. } => {
                    *block -= 1;
                    self.block = self.block.next(byte);
                    self.end_frame();
                    1
                }
            };
            bytes = bytes.get_mut(passed.max(1)..).unwrap_or_default();
        }
    }

    /// Goes on to the next frame if this one has ended.
    fn end_frame(&mut self) {
        if let At::Passing { before: 0, block: 0, padding: 0 } = self.at {
            self.at = At::Head([0; HEAD], 0);
        }
    }
}

impl At {
    /// Returns how long a frame is that is here as a whole and has nothing to change.
    fn skip(&self, bytes: &[u8]) -> Option<usize> {
        let Self::Head(_, 0) = self else { return None };
        let (head, payload) = bytes.split_first_chunk::<HEAD>()?;
        let [a, b, c, kind, flags, ..] = *head;
        let payload = payload.get(..usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?)?;
        let has_nothing = match kind {
            // The whole block: where it would end is the end of it.
            HEADERS => flags & END_HEADERS != 0 && !payload.contains(&b'%'),
            kind => kind != CONTINUATION,
        };
        has_nothing.then_some(HEAD + payload.len())
    }

    /// What follows the head of a frame, and whether a header block begins there.
    fn behind(head: [u8; HEAD]) -> (Self, bool) {
        let [a, b, c, kind, flags, ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let (before, padded) = match kind {
            HEADERS => (if flags & PRIORITY == 0 { 0 } else { 5 }, flags & PADDED != 0),
            CONTINUATION => (0, false),
            _ => (length, false),
        };
        let before = before.min(length);
        let at = if padded && length > before {
            Self::PadLength { before, rest: length - before - 1 }
        } else {
            Self::Passing { before, block: length - before, padding: 0 }.or_head()
        };
        (at, kind == HEADERS)
    }

    /// The next head in place of nothing.
    fn or_head(self) -> Self {
        match self {
            Self::Passing { before: 0, block: 0, padding: 0 } => Self::Head([0; HEAD], 0),
            other => other,
        }
    }
}

impl Block {
    /// Reads a byte of the block.
    fn next(self, byte: &mut u8) -> Self {
        match self {
            Self::Field => match *byte {
                0x80.. => Self::integer(*byte, 7, Integer::Whole),
                0x40.. => Self::integer(*byte, 6, Integer::Index),
                0x20.. => Self::integer(*byte, 5, Integer::Whole),
                _ => Self::integer(*byte, 4, Integer::Index),
            },
            Self::Integer { value, shift, of } => {
                let more = u64::from(*byte & 0x7f).checked_shl(shift).unwrap_or(u64::MAX);
                let value = value.saturating_add(more);
                if *byte & 0x80 == 0 {
                    Self::read(value, of)
                } else {
                    Self::Integer { value, shift: shift.saturating_add(7), of }
                }
            }
            Self::NameHead => {
                let same = (*byte & COMPRESSED == 0).then_some(0);
                Self::integer(*byte, 7, Integer::NameLength { same })
            }
            Self::Name { left, same } => {
                let same = same.filter(|same| NAME.get(*same) == Some(byte)).map(|same| same + 1);
                if left > 1 { Self::Name { left: left - 1, same } } else { Self::behind_name(same) }
            }
            Self::ValueHead { of_authority } => {
                let of_authority = of_authority && *byte & COMPRESSED == 0;
                Self::integer(*byte, 7, Integer::ValueLength { of_authority })
            }
            Self::Value { left, of_authority } => {
                if of_authority && *byte == b'%' {
                    *byte = b'-';
                }
                if left > 1 { Self::Value { left: left - 1, of_authority } } else { Self::Field }
            }
        }
    }

    /// Reads the first byte of an integer, of which so many bits belong to it.
    fn integer(byte: u8, bits: u32, of: Integer) -> Self {
        let most = (1u64 << bits) - 1;
        match u64::from(byte) & most {
            value if value == most => Self::Integer { value, shift: 0, of },
            value => Self::read(value, of),
        }
    }

    /// What follows an integer.
    fn read(value: u64, of: Integer) -> Self {
        match of {
            Integer::Whole => Self::Field,
            // It is in no table, and follows.
            Integer::Index if value == 0 => Self::NameHead,
            Integer::Index => Self::ValueHead { of_authority: value == INDEX },
            Integer::NameLength { same } if value == 0 => Self::behind_name(same),
            Integer::NameLength { same } => Self::Name { left: value, same },
            Integer::ValueLength { .. } if value == 0 => Self::Field,
            Integer::ValueLength { of_authority } => Self::Value { left: value, of_authority },
        }
    }

    fn behind_name(same: Option<usize>) -> Self {
        Self::ValueHead { of_authority: same == Some(NAME.len()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PERCENT: &[u8] = b"%2Frun%2Fd.sock";
    const DASH: &[u8] = b"-2Frun-2Fd.sock";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// A literal whose name has an index of the static table.
    fn literal(first: u8, value: &[u8]) -> Vec<u8> {
        assert!(value.len() < 127);
        [&[first, u8::try_from(value.len()).unwrap()], value].concat()
    }

    /// What a client sends whose authority is that, with the same text where it is something else.
    fn sent(authority: &[u8]) -> Vec<u8> {
        let long = b"/%".repeat(200);
        let path = [&[0x44, 0x7f, 0x91, 0x02], long.as_slice()].concat();
        let named = |name: &[u8], value: &[u8]| [literal(0x40, name), literal(0, value)[1..].to_vec()].concat();
        let others = [named(b":authorit", PERCENT), named(b":authority2", PERCENT), named(b"", PERCENT)].concat();
        let block = [&[0x83, 0x3f, 0xe1, 0x1f], &path[..], &literal(0x41, authority), &others].concat();
        let block = [block, named(b":authority", authority), literal(0x11, b""), vec![0xbe]].concat();
        let padded = [&[3][..], &[9; 5], &block[..100], b"%%%"].concat();
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(4, 0, b""),
            frame(HEADERS, PADDED | PRIORITY, &padded),
            frame(CONTINUATION, 0, b""),
            frame(CONTINUATION, END_HEADERS, &block[100..]),
            frame(0, 1, &literal(0x41, PERCENT)),
            frame(HEADERS, END_HEADERS, &literal(0x41, b"plain")),
            frame(HEADERS, END_HEADERS, &literal(0x41, authority)),
        ]
        .concat()
    }

    #[test]
    fn a_percent_sign_in_an_authority_is_a_dash_however_it_comes() {
        let (percent, dash) = (sent(PERCENT), sent(DASH));
        assert_eq!(dash.iter().zip(&percent).filter(|(one, other)| one != other).count(), 6);
        for at in 0..percent.len() {
            let (mut authority, mut bytes) = (Authority::default(), percent.clone());
            let (first, second) = bytes.split_at_mut(at);
            authority.pass(first);
            authority.pass(second);
            assert!(bytes == dash, "cut at {at}");
        }
        let (mut authority, mut bytes) = (Authority::default(), percent);
        for byte in &mut bytes {
            authority.pass(std::slice::from_mut(byte));
        }
        assert!(bytes == dash, "byte by byte");
    }

    #[test]
    fn a_compressed_authority_stays_as_it_is() {
        let compressed = [vec![0; PREFACE], frame(HEADERS, END_HEADERS, &[0x41, 0x82, b'%', b'%'])].concat();
        let mut bytes = compressed.clone();
        Authority::default().pass(&mut bytes);
        assert_eq!(bytes, compressed);
    }

    proptest! {
        #[test]
        fn nothing_but_percent_signs_changes(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..20)) {
            let mut authority = Authority::default();
            authority.pass(&mut [0; PREFACE]);
            for part in parts {
                let mut bytes = part.clone();
                authority.pass(&mut bytes);
                for (before, after) in part.iter().zip(&bytes) {
                    prop_assert!(before == after || (*before, *after) == (b'%', b'-'));
                }
            }
        }
    }
}
