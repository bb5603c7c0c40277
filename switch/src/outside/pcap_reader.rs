//! Frames of a file in pcap or pcapng form, one after another.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

use super::file_error;
use crate::Error;

/// Bytes of the reader's buffer at first.
const BUFFER: usize = 256 << 10;
/// Bytes of the longest block that is read.
const MAX_BLOCK: usize = 16 << 20;
/// Bytes of an Ethernet header: shorter frames are none.
const MIN_FRAME: usize = 14;

/// What comes next in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A frame.
    Frame,
    /// A frame that can't be given: too long or short, or of another kind of network.
    Skipped,
    /// Nothing more.
    End,
}

/// A file that is being read.
pub struct PcapReader {
    blocks: Box<dyn PcapReaderIterator + Send>,
    /// Whether each interface of the section is an Ethernet; classic pcap has one.
    ethernet: Vec<bool>,
    buffer: usize,
}

impl PcapReader {
    /// Opens a file and reads its header.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |error| file_error("reading", path, &error);
        // Opening a named pipe would wait for its writer otherwise.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(Error::invalid(format!("{} is no file", path.display())));
        }
        let blocks = blocks(file).map_err(|error| {
            Error::invalid(format!("{}: {}; a file in pcap or pcapng form is needed", path.display(), reason(&error)))
        })?;
        let mut this = Self { blocks, ethernet: Vec::new(), buffer: BUFFER };
        this.read_header().map_err(|reason| Error::invalid(format!("{}: {reason}", path.display())))?;
        Ok(this)
    }

    /// Reads the header of a classic pcap file, which says for all frames of what network they are.
    fn read_header(&mut self) -> Result<(), String> {
        let (offset, block) = self.blocks.next().map_err(|error| reason(&error))?;
        if let PcapBlockOwned::LegacyHeader(header) = block {
            if header.network != Linktype::ETHERNET {
                return Err(format!("its frames are not Ethernet's, but of link type {}", header.network.0));
            }
            self.ethernet.push(true);
            self.blocks.consume(offset);
        }
        Ok(())
    }

    /// Puts the next frame into `frame`; of `max` bytes at most.
    ///
    /// # Errors
    /// Says what is wrong with the file; nothing more can be read from it.
    pub fn next(&mut self, frame: &mut Vec<u8>, max: usize) -> Result<Next, String> {
        loop {
            let (offset, data) = match self.blocks.next() {
                Ok((offset, block)) => {
                    (offset, frame_of(&block, &mut self.ethernet).map(|data| copy(data, frame, max)))
                }
                Err(PcapError::Eof) => return Ok(Next::End),
                Err(PcapError::Incomplete(_)) => {
                    self.read_more()?;
                    continue;
                }
                Err(PcapError::BufferTooSmall) => {
                    self.grow()?;
                    continue;
                }
                Err(error) => return Err(reason(&error)),
            };
            self.blocks.consume(offset);
            if let Some(next) = data {
                return Ok(next);
            }
        }
    }

    fn read_more(&mut self) -> Result<(), String> {
        let before = self.blocks.data().len();
        self.blocks.refill().map_err(|error| reason(&error))?;
        if self.blocks.data().len() == before && !self.blocks.reader_exhausted() {
            self.grow()?;
        }
        Ok(())
    }

    fn grow(&mut self) -> Result<(), String> {
        self.buffer *= 2;
        if self.buffer > MAX_BLOCK || !self.blocks.grow(self.buffer) {
            return Err(format!("a block is longer than {MAX_BLOCK} bytes"));
        }
        self.blocks.refill().map_err(|error| reason(&error))
    }
}

fn blocks(file: File) -> Result<Box<dyn PcapReaderIterator + Send>, PcapError<&'static [u8]>> {
    create_reader(BUFFER, file)
}

/// The bytes of a block's frame, if it has one: `Err` if they are not of an Ethernet.
fn frame_of<'a>(block: &'a PcapBlockOwned<'a>, ethernet: &mut Vec<bool>) -> Option<Result<&'a [u8], ()>> {
    let of = |interface: u32, data| match ethernet.get(interface as usize) {
        Some(true) => Some(Ok(data)),
        _ => Some(Err(())),
    };
    match block {
        PcapBlockOwned::Legacy(record) => of(0, record.data),
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => of(packet.if_id, packet.packet_data()),
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => of(0, packet.packet_data()),
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            ethernet.clear();
            None
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
            ethernet.push(interface.linktype == Linktype::ETHERNET);
            None
        }
        _ => None,
    }
}

fn copy(data: Result<&[u8], ()>, frame: &mut Vec<u8>, max: usize) -> Next {
    match data {
        Ok(data) if (MIN_FRAME..=max).contains(&data.len()) => {
            frame.clear();
            frame.extend_from_slice(data);
            Next::Frame
        }
        _ => Next::Skipped,
    }
}

fn reason<I>(error: &PcapError<I>) -> String {
    match error {
        PcapError::Eof => "it is empty".to_owned(),
        PcapError::Incomplete(_) | PcapError::UnexpectedEof => "it ends too early".to_owned(),
        PcapError::HeaderNotRecognized => "it does not begin as one".to_owned(),
        PcapError::ReadError => "it can't be read".to_owned(),
        PcapError::BufferTooSmall => format!("a block is longer than {MAX_BLOCK} bytes"),
        PcapError::NomError(..) | PcapError::OwnedNomError(..) => "it is damaged".to_owned(),
    }
}
