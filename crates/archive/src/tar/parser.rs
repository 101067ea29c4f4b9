//! The state machine that turns buffers into events.

use windlass_core::{Error, Result, ResultExt};

use super::entry::{Data, Extended};
use super::header::{Block, Format, Header, is_zero, old_sparse, old_sparse_more};
use super::number::text;
use super::pax::Pax;
use super::sparse::{Map, MapText};
use super::{BLOCK, Entry, Event, MAX_SPECIAL};

/// A tar archive being read.
///
/// ```
/// use windlass_archive::tar::{Event, Parser};
///
/// let mut parser = Parser::new();
/// let archive = [0u8; 1024]; // two zero blocks: an archive of nothing
/// let mut input = &archive[..];
/// assert_eq!(parser.next(&mut input).unwrap(), Event::End);
/// parser.finish().unwrap();
/// ```
#[derive(Debug)]
pub struct Parser {
    state: State,
    /// The part of a block that came before the buffer ended.
    block: Block,
    filled: usize,
    /// How many bytes of the archive are used.
    position: u64,
    extended: Extended,
}

#[derive(Debug)]
enum State {
    /// A header or the end mark comes next.
    Header,
    /// One zero block was read.
    Ending,
    /// The payload of an extended header or a long name is being collected.
    Special { kind: u8, left: u64, padding: u64, bytes: Vec<u8> },
    /// Further blocks of an old GNU sparse map come before the entry's data.
    OldSparse(Box<OldSparse>),
    /// The map of a PAX 1.0 sparse file comes before the entry's data.
    MapText { text: Box<MapText>, size: u64, stored: u64 },
    /// Data of an entry.
    Data { map: Map, padding: u64 },
    /// Bytes after the data that fill up a block.
    Padding(u64),
    /// The end mark was read.
    End,
}

#[derive(Debug)]
struct OldSparse {
    header: Header,
    map: Map,
    size: u64,
    blocks: u64,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl Parser {
    /// Starts at the beginning of an archive.
    pub fn new() -> Self {
        Self { state: State::Header, block: [0; BLOCK], filled: 0, position: 0, extended: Extended::default() }
    }

    /// Returns how many bytes of the archive are used.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Returns what comes next, taking what it uses off the front of `input`.
    ///
    /// # Errors
    /// `DataLoss` for a damaged archive, `FailedPrecondition` for something that is sound but not supported. The parser
    /// is of no use afterwards.
    pub fn next<'input>(&mut self, input: &mut &'input [u8]) -> Result<Event<'input>> {
        let before = self.position;
        self.step(input).context(|| format!("read the tar archive at byte {before}"))
    }

    /// Tells that there is no more input.
    ///
    /// An archive may lack its end mark, and the padding of its last member, but nothing else.
    ///
    /// # Errors
    /// `DataLoss` when the archive stops in the middle.
    pub fn finish(&self) -> Result<()> {
        let complete = match &self.state {
            State::Header => self.filled == 0 && self.extended == Extended::default(),
            State::Ending => self.filled == 0,
            State::Padding(_) => self.extended == Extended::default(),
            State::End => true,
            State::Special { .. } | State::OldSparse(_) | State::MapText { .. } | State::Data { .. } => false,
        };
        if complete {
            return Ok(());
        }
        Err(Error::data_loss(format!("the tar archive is cut off at byte {}", self.position)))
    }

    fn step<'input>(&mut self, input: &mut &'input [u8]) -> Result<Event<'input>> {
        loop {
            match &mut self.state {
                State::Header => {
                    let Some(block) = self.take_block(input) else { return Ok(Event::NeedInput) };
                    if is_zero(&block) {
                        self.state = State::Ending;
                    } else if let Some(entry) = self.header(&block)? {
                        return Ok(Event::Entry(entry));
                    }
                }
                State::Ending => {
                    let Some(block) = self.take_block(input) else { return Ok(Event::NeedInput) };
                    if !is_zero(&block) {
                        return Err(Error::data_loss("a zero block is followed by something else"));
                    }
                    self.state = State::End;
                }
                State::Special { left, bytes, .. } => {
                    let part = split(input, *left);
                    if part.is_empty() && *left > 0 {
                        return Ok(Event::NeedInput);
                    }
                    *left -= part.len() as u64;
                    self.position += part.len() as u64;
                    bytes.extend_from_slice(part);
                    if *left == 0 {
                        self.special()?;
                    }
                }
                State::OldSparse(_) => {
                    let Some(block) = self.take_block(input) else { return Ok(Event::NeedInput) };
                    if let Some(entry) = self.old_sparse(&block)? {
                        return Ok(Event::Entry(entry));
                    }
                }
                State::MapText { .. } => {
                    let Some(block) = self.take_block(input) else { return Ok(Event::NeedInput) };
                    self.map_text(&block)?;
                }
                State::Data { .. } => return Ok(self.data(input)),
                State::Padding(left) => {
                    let part = split(input, *left);
                    *left -= part.len() as u64;
                    self.position += part.len() as u64;
                    if *left > 0 {
                        return Ok(Event::NeedInput);
                    }
                    self.state = State::Header;
                }
                State::End => return Ok(Event::End),
            }
        }
    }

    fn data<'input>(&mut self, input: &mut &'input [u8]) -> Event<'input> {
        let State::Data { map, padding } = &mut self.state else { return Event::NeedInput };
        if map.is_empty() {
            self.state = State::Padding(*padding);
            return Event::EndOfEntry;
        }
        let Some((offset, count)) = map.take(input.len()).filter(|(_, count)| *count > 0) else {
            return Event::NeedInput;
        };
        self.position += count as u64;
        Event::Data { offset, bytes: split(input, count as u64) }
    }

    /// Takes a whole block, over as many calls as it needs.
    fn take_block(&mut self, input: &mut &[u8]) -> Option<Block> {
        let rest = self.block.get_mut(self.filled..)?;
        let part = split(input, rest.len() as u64);
        rest.get_mut(..part.len())?.copy_from_slice(part);
        self.filled += part.len();
        self.position += part.len() as u64;
        if self.filled < BLOCK {
            return None;
        }
        self.filled = 0;
        Some(self.block)
    }

    /// Reads a header block and goes where it leads; returns the entry that begins with it, if one does.
    fn header(&mut self, block: &Block) -> Result<Option<Box<Entry>>> {
        let header = Header::parse(block)?;
        match header.kind {
            b'x' | b'g' | b'L' | b'K' => {
                if header.size > MAX_SPECIAL {
                    return Err(Error::data_loss(format!(
                        "an extended header has {} bytes, more than {MAX_SPECIAL}",
                        header.size
                    )));
                }
                let padding = padding(header.size);
                self.state = State::Special { kind: header.kind, left: header.size, padding, bytes: Vec::new() };
                Ok(None)
            }
            b'S' => {
                // star has the same letter with another layout.
                if header.format != Format::Gnu {
                    return Err(Error::data_loss("a sparse file is not in GNU's format"));
                }
                let mut map = Map::default();
                let (size, more) = old_sparse(block, &mut map)?;
                if more {
                    self.state = State::OldSparse(Box::new(OldSparse { header, map, size, blocks: 0 }));
                    return Ok(None);
                }
                self.entry(&header, Some((map, size))).map(Some)
            }
            _ => self.entry(&header, None).map(Some),
        }
    }

    fn old_sparse(&mut self, block: &Block) -> Result<Option<Box<Entry>>> {
        let State::OldSparse(sparse) = &mut self.state else { return Ok(None) };
        sparse.blocks += 1;
        if sparse.blocks * BLOCK as u64 > MAX_SPECIAL {
            return Err(Error::data_loss(format!("a sparse map has more than {MAX_SPECIAL} bytes")));
        }
        if old_sparse_more(block, &mut sparse.map)? {
            return Ok(None);
        }
        let (header, map, size) = (sparse.header.clone(), std::mem::take(&mut sparse.map), sparse.size);
        self.entry(&header, Some((map, size))).map(Some)
    }

    /// Keeps what an extended header or long name said, which is complete.
    fn special(&mut self) -> Result<()> {
        let State::Special { kind, padding, bytes, .. } = &mut self.state else { return Ok(()) };
        match kind {
            b'x' => self.extended.pax = Some(Pax::parse(bytes)?),
            // A global header is for all entries that follow; Go's reader, and with it every engine that reads layers,
            // does not apply it. It must be well-formed all the same.
            b'g' => drop(Pax::parse(bytes)?),
            b'L' => self.extended.long_name = Some(text(bytes).to_vec()),
            _ => self.extended.long_link = Some(text(bytes).to_vec()),
        }
        self.state = State::Padding(*padding);
        Ok(())
    }

    fn map_text(&mut self, block: &Block) -> Result<()> {
        let State::MapText { text, size, stored } = &mut self.state else { return Ok(()) };
        if text.read() + BLOCK as u64 > *stored {
            return Err(Error::data_loss("a sparse map is longer than the entry"));
        }
        if let Some(map) = text.block(block)? {
            map.check(*size, *stored - text.read())?;
            let padding = padding(*stored);
            self.state = State::Data { map, padding };
        }
        Ok(())
    }

    /// Begins an entry: the header, corrected by the extended headers before it.
    fn entry(&mut self, header: &Header, old_sparse: Option<(Map, u64)>) -> Result<Box<Entry>> {
        let (entry, data) = std::mem::take(&mut self.extended).describe(header, old_sparse)?;
        self.state = match data {
            Data::None => State::Data { map: Map::default(), padding: 0 },
            Data::Mapped { map, stored } => State::Data { map, padding: padding(stored) },
            Data::MapFirst { size, stored } => State::MapText { text: Box::default(), size, stored },
        };
        Ok(Box::new(entry))
    }
}

/// Takes up to `limit` bytes off the front.
fn split<'input>(input: &mut &'input [u8], limit: u64) -> &'input [u8] {
    let count = usize::try_from(limit).unwrap_or(usize::MAX).min(input.len());
    let (part, rest) = input.split_at_checked(count).unwrap_or_default();
    *input = rest;
    part
}

/// Returns how many bytes fill up the last block.
fn padding(size: u64) -> u64 {
    let over = size % BLOCK as u64;
    if over == 0 { 0 } else { BLOCK as u64 - over }
}
