//! An archive's bytes, as its members: expanded and parsed beside the threads that drive everything else.

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use windlass_archive::compression::Expander;
use windlass_archive::tar::{Entry, Event, Parser};
use windlass_core::{ByteStream, Error, Result};

/// How large the parts of a member are.
const PART: usize = 256 << 10;

/// How many parts may wait, on either side.
const WAITING: usize = 4;

/// What comes next in an archive.
#[derive(Debug)]
pub(super) enum Item {
    /// A member begins.
    Entry(Box<Entry>),
    /// Bytes of the member, without gaps.
    Data(Bytes),
    /// The member is complete.
    End,
}

/// An archive being read. Dropping it ends the reading.
pub(super) struct Members {
    items: mpsc::Receiver<Result<Item>>,
    _work: JoinSet<()>,
}

impl Members {
    /// Begins to read.
    pub(super) fn of(mut archive: ByteStream) -> Self {
        let (bytes_in, bytes) = mpsc::channel::<Result<Bytes>>(WAITING);
        let (items_in, items) = mpsc::channel(WAITING);
        let mut work = JoinSet::new();
        work.spawn(async move {
            while let Some(part) = archive.next().await {
                if bytes_in.send(part).await.is_err() {
                    // The archive has ended before the stream; or nobody reads it any more.
                    break;
                }
            }
        });
        work.spawn_blocking(move || {
            let mut reading =
                Reading { parser: Parser::new(), items: items_in, part: BytesMut::new(), at: 0, ended: false };
            if let Err(error) = reading.all(bytes) {
                let _ = reading.items.blocking_send(Err(error));
            }
        });
        Self { items, _work: work }
    }

    /// Returns what comes next; nothing at the end of a whole archive.
    pub(super) async fn next(&mut self) -> Result<Option<Item>> {
        self.items.recv().await.transpose()
    }
}

struct Reading {
    parser: Parser,
    items: mpsc::Sender<Result<Item>>,
    part: BytesMut,
    /// Where in the member the next bytes are expected.
    at: u64,
    /// Whether the archive's end mark was read.
    ended: bool,
}

impl Reading {
    fn all(&mut self, mut bytes: mpsc::Receiver<Result<Bytes>>) -> Result<()> {
        let mut expander = Expander::default();
        while let Some(part) = bytes.blocking_recv() {
            expander.push(&part?, &mut |plain| self.parse(plain))?;
        }
        expander.finish(&mut |plain| self.parse(plain))?;
        if self.ended { Ok(()) } else { self.parser.finish() }
    }

    fn parse(&mut self, mut input: &[u8]) -> Result<()> {
        while !self.ended {
            match self.parser.next(&mut input)? {
                Event::NeedInput => return Ok(()),
                Event::Entry(entry) => {
                    self.at = 0;
                    self.send(Item::Entry(entry))?;
                }
                Event::Data { offset, bytes } => {
                    // A sparse member: nobody writes archives of images like that.
                    if offset != self.at {
                        return Err(Error::failed_precondition("the archive has sparse files")
                            .hint("write it again without --sparse"));
                    }
                    self.at += bytes.len() as u64;
                    self.part.extend_from_slice(bytes);
                    if self.part.len() >= PART {
                        self.flush()?;
                    }
                }
                Event::EndOfEntry => {
                    self.flush()?;
                    self.send(Item::End)?;
                }
                Event::End => self.ended = true,
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        let part = self.part.split().freeze();
        self.send(Item::Data(part))
    }

    fn send(&self, item: Item) -> Result<()> {
        self.items.blocking_send(Ok(item)).map_err(|_| Error::canceled("nobody reads the archive any more"))
    }
}
