//! gzip framing, RFC 1952, around raw deflate: several members on end, each with its checksum and size verified.
//!
//! The framing is done here and not by the inflater, because tools that make layers seekable write a member per file,
//! and one inflater serves them all.

use crc32fast::Hasher as Crc;
use windlass_core::{Error, Result};

use super::inflate::Inflate;
use super::{Output, Step};

/// The bits of a header's flag byte, RFC 1952, section 2.3.1.
mod flag {
    pub(super) const HEADER_CRC: u8 = 1 << 1;
    pub(super) const EXTRA: u8 = 1 << 2;
    pub(super) const NAME: u8 = 1 << 3;
    pub(super) const COMMENT: u8 = 1 << 4;
    pub(super) const RESERVED: u8 = 0b1110_0000;
}

/// A gzip stream being read.
pub struct Gzip {
    state: State,
    /// The optional fields of the header that are still to come.
    flags: u8,
    header_crc: Crc,
    inflate: Inflate,
    crc: Crc,
}

/// What comes next.
enum State {
    /// The fixed part of a header.
    Fixed(Field<10>),
    /// The length of the extra field.
    ExtraLength(Field<2>),
    /// That many bytes of the extra field.
    Extra(usize),
    /// The name or the comment, up to its NUL.
    Text,
    /// The checksum of the header.
    HeaderCrc(Field<2>),
    /// Deflated data.
    Body,
    /// Checksum and size.
    Trailer(Field<8>),
    /// Another member, or the end, or zeros up to the end, as tapes have them.
    Between,
    /// Zeros up to the end.
    Zeros,
}

/// A field of `N` bytes that may be cut over several inputs.
#[derive(Clone, Copy)]
struct Field<const N: usize> {
    bytes: [u8; N],
    filled: usize,
}

impl<const N: usize> Field<N> {
    const EMPTY: Self = Self { bytes: [0; N], filled: 0 };

    /// Takes what is missing; returns how much that was, and the field when it is complete.
    fn take(&mut self, input: &[u8]) -> (usize, Option<[u8; N]>) {
        let mut count = 0;
        for (to, from) in self.bytes.iter_mut().skip(self.filled).zip(input) {
            *to = *from;
            count += 1;
        }
        self.filled += count;
        (count, (self.filled == N).then_some(self.bytes))
    }
}

impl Gzip {
    pub(super) fn new() -> Self {
        Self {
            state: State::Fixed(Field::EMPTY),
            flags: 0,
            header_crc: Crc::new(),
            inflate: Inflate::new(),
            crc: Crc::new(),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        matches!(self.state, State::Between | State::Zeros)
    }

    pub(super) fn step(&mut self, input: &[u8], output: &mut Output) -> Result<Step> {
        let mut read = 0;
        loop {
            let rest = input.get(read..).unwrap_or_default();
            if matches!(self.state, State::Body) {
                let step = self.body(rest, output)?;
                read += step.read;
                let stuck = step.read == 0 && matches!(self.state, State::Body);
                if step.written > 0 || stuck {
                    return Ok(Step { read, written: step.written });
                }
            } else if rest.is_empty() {
                return Ok(Step { read, written: 0 });
            } else {
                read += self.frame(rest)?;
            }
        }
    }

    fn body(&mut self, input: &[u8], output: &mut Output) -> Result<Step> {
        let start = output.end;
        let step = self
            .inflate
            .step(input, output)
            .map_err(|damage| Error::data_loss("the gzip stream is damaged").source(damage))?;
        self.crc.update(output.bytes.get(start..output.end).unwrap_or_default());
        if self.inflate.is_complete() {
            self.state = State::Trailer(Field::EMPTY);
        }
        Ok(step)
    }

    /// Reads some of what is around the deflated data; returns how many bytes that were, at least one.
    fn frame(&mut self, input: &[u8]) -> Result<usize> {
        let (used, next) = match &mut self.state {
            State::Fixed(field) => {
                let (used, complete) = field.take(input);
                if let Some([id1, id2, method, flags, ..]) = complete {
                    if [id1, id2, method] != [0x1f, 0x8b, 8] || flags & flag::RESERVED != 0 {
                        return Err(Error::data_loss("what follows is no gzip header"));
                    }
                    self.flags = flags;
                }
                (used, complete.is_some())
            }
            State::ExtraLength(field) => {
                let (used, complete) = field.take(input);
                if let Some(length) = complete {
                    self.header_crc.update(input.get(..used).unwrap_or_default());
                    self.state = State::Extra(usize::from(u16::from_le_bytes(length)));
                    return Ok(used);
                }
                (used, false)
            }
            State::Extra(left) => {
                let used = input.len().min(*left);
                *left -= used;
                (used, *left == 0)
            }
            State::Text => match input.iter().position(|byte| *byte == 0) {
                Some(end) => (end + 1, true),
                None => (input.len(), false),
            },
            State::HeaderCrc(field) => {
                let (used, complete) = field.take(input);
                return complete.map_or(Ok(used), |recorded| self.verify_header(recorded).map(|()| used));
            }
            State::Trailer(field) => {
                let (used, complete) = field.take(input);
                return complete.map_or(Ok(used), |trailer| self.verify(trailer).map(|()| used));
            }
            State::Between | State::Zeros if input.first() == Some(&0) => {
                self.state = State::Zeros;
                return Ok(input.iter().take_while(|byte| **byte == 0).count());
            }
            State::Between => {
                self.restart();
                return Ok(0);
            }
            State::Zeros | State::Body => {
                return Err(Error::data_loss("the gzip stream is followed by something else"));
            }
        };
        self.header_crc.update(input.get(..used).unwrap_or_default());
        if next {
            self.next_field();
        }
        Ok(used)
    }

    /// Ends a header with its checksum, which does not cover itself.
    fn verify_header(&mut self, recorded: [u8; 2]) -> Result<()> {
        let right = u32::from(u16::from_le_bytes(recorded)) == self.header_crc.clone().finalize() & 0xffff;
        self.next_field();
        if right { Ok(()) } else { Err(Error::data_loss("the checksum of a gzip header is wrong")) }
    }

    /// Ends a member: what came out of it must be what its trailer says.
    fn verify(&mut self, trailer: [u8; 8]) -> Result<()> {
        let [c0, c1, c2, c3, s0, s1, s2, s3] = trailer;
        // The size is recorded modulo 2³².
        let size = u64::from(u32::from_le_bytes([s0, s1, s2, s3]));
        let right = u32::from_le_bytes([c0, c1, c2, c3]) == self.crc.clone().finalize()
            && size == self.inflate.total() & u64::from(u32::MAX);
        self.state = State::Between;
        if right { Ok(()) } else { Err(Error::data_loss("the checksum of the gzip stream is wrong")) }
    }

    /// Begins another member.
    fn restart(&mut self) {
        self.inflate.reset();
        self.crc.reset();
        self.header_crc.reset();
        self.state = State::Fixed(Field::EMPTY);
    }

    /// Goes to the next optional field of the header, or to the data.
    fn next_field(&mut self) {
        let (flag, state) = match self.flags {
            flags if flags & flag::EXTRA != 0 => (flag::EXTRA, State::ExtraLength(Field::EMPTY)),
            flags if flags & flag::NAME != 0 => (flag::NAME, State::Text),
            flags if flags & flag::COMMENT != 0 => (flag::COMMENT, State::Text),
            flags if flags & flag::HEADER_CRC != 0 => (flag::HEADER_CRC, State::HeaderCrc(Field::EMPTY)),
            _ => (0, State::Body),
        };
        self.flags &= !flag;
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::write::DeflateEncoder;

    use super::*;

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// A member with every optional field.
    fn member(bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![0x1f, 0x8b, 8, 0b1_1110, 1, 2, 3, 4, 0, 255];
        out.extend_from_slice(&[3, 0]);
        out.extend_from_slice(b"abc");
        out.extend_from_slice(b"name\0comment\0");
        let mut crc = Crc::new();
        crc.update(&out);
        out.extend_from_slice(&crc.clone().finalize().to_le_bytes()[..2]);
        out.extend_from_slice(&deflate(bytes));
        crc.reset();
        crc.update(bytes);
        out.extend_from_slice(&crc.clone().finalize().to_le_bytes());
        out.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
        out
    }

    fn read(stream: &[u8], chunk: usize, room: usize) -> Result<Vec<u8>> {
        let mut gzip = Gzip::new();
        let mut all = Vec::new();
        let mut output = Output::new(room);
        for mut input in stream.chunks(chunk) {
            loop {
                let step = gzip.step(input, &mut output)?;
                input = &input[step.read..];
                all.extend_from_slice(output.content());
                output.turn();
                if step.written == 0 && input.is_empty() {
                    break;
                }
            }
        }
        if gzip.is_complete() { Ok(all) } else { Err(Error::data_loss("cut off")) }
    }

    #[test]
    fn members_with_every_field_are_read_however_they_are_cut() {
        let mut stream = member(b"hello, ");
        stream.extend(member(b""));
        stream.extend(member(b"world"));
        stream.extend([0; 700]);
        for (chunk, room) in [(1, 1), (2, 3), (7, 100), (10_000, 1), (10_000, 100)] {
            assert_eq!(read(&stream, chunk, room).unwrap(), b"hello, world", "{chunk} {room}");
        }
    }

    #[test]
    fn every_flipped_byte_of_a_member_is_noticed_or_harmless() {
        let stream = member(b"hello, world");
        for at in 0..stream.len() {
            let mut damaged = stream.clone();
            damaged[at] ^= 0x20;
            let mut gzip = Gzip::new();
            let mut output = Output::new(64);
            let result = gzip.step(&damaged, &mut output);
            let sound = result.is_ok() && gzip.is_complete();
            assert!(!sound, "byte {at}");
        }
    }

    #[test]
    fn what_follows_the_stream_must_be_zeros_or_a_member() {
        for tail in [&b"garbage"[..], b"\0\0x", &[0x1f, 0x8b, 9, 0, 0, 0, 0, 0, 0, 0]] {
            let mut stream = member(b"x");
            stream.extend(tail);
            assert!(read(&stream, 10_000, 100).is_err(), "{tail:?}");
        }
    }
}
