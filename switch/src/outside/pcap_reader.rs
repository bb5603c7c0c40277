//! Reads the frames of a pcap or pcapng file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use pcap_file::pcap::PcapReader as Classic;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError};

use super::file_error;
use crate::Error;

/// First word of a pcapng file. It is the same in both byte orders.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// Bytes of an Ethernet header. A frame can't be shorter.
const MIN_FRAME: usize = 14;

/// Kinds of what comes next in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A frame.
    Frame,
    /// A frame that is too long, too short, or of another kind of network.
    Skipped,
    /// Nothing more.
    End,
}

/// An interface of a pcapng section.
#[derive(Clone, Copy)]
pub struct Interface {
    is_ethernet: bool,
    snaplen: usize,
}

/// An open file, by its form.
pub enum PcapReader {
    /// Classic pcap.
    Classic(Classic<File>),
    /// pcapng, with the interfaces of the current section so far.
    Blocks(PcapNgReader<File>, Vec<Interface>),
}

impl PcapReader {
    /// Opens a file and reads its header.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |error| file_error("reading", path, &error);
        // Opening a named pipe would otherwise wait for its writer. Links are not followed, because their maker may not
        // be allowed to read what they point to.
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW);
        let mut file = options.open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(Error::invalid(format!("{} is no file", path.display())));
        }
        let mut magic = [0; 4];
        let is_blocks = file.read_exact(&mut magic).is_ok() && magic == PCAPNG;
        file.rewind().map_err(failed)?;
        let reader = match is_blocks {
            true => PcapNgReader::new(file).map(|reader| PcapReader::Blocks(reader, Vec::new())),
            false => Classic::new(file).map(PcapReader::Classic),
        };
        let reader = reader.map_err(|error| {
            let reason = reason(error);
            Error::invalid(format!("{}: {reason}; a file in pcap or pcapng form is needed", path.display()))
        })?;
        match &reader {
            PcapReader::Classic(classic) if classic.header().datalink != DataLink::ETHERNET => {
                let datalink = classic.header().datalink;
                Err(Error::invalid(format!("{}: its frames are not Ethernet's, but {datalink:?}", path.display())))
            }
            _ => Ok(reader),
        }
    }

    /// Puts the next frame into `frame`. Frames longer than `max` bytes are skipped.
    ///
    /// # Errors
    /// Says what is wrong with the file. Nothing more can be read from it.
    pub fn next(&mut self, frame: &mut Vec<u8>, max: usize) -> Result<Next, String> {
        let mut copy = |data: &[u8]| {
            if !(MIN_FRAME..=max).contains(&data.len()) {
                return Next::Skipped;
            }
            frame.clear();
            frame.extend_from_slice(data);
            Next::Frame
        };
        match self {
            // The raw form, because the other one fails on a frame that was cut at the snapshot length.
            PcapReader::Classic(classic) => match classic.next_raw_packet() {
                Some(packet) => Ok(copy(&packet.map_err(reason)?.data)),
                None => Ok(Next::End),
            },
            PcapReader::Blocks(blocks, interfaces) => loop {
                let Some(block) = blocks.next_block() else { return Ok(Next::End) };
                let (interface, len, data) = match block.map_err(reason)? {
                    Block::SectionHeader(_) => {
                        interfaces.clear();
                        continue;
                    }
                    Block::InterfaceDescription(found) => {
                        let snaplen = if found.snaplen == 0 { usize::MAX } else { found.snaplen as usize };
                        interfaces.push(Interface { is_ethernet: found.linktype == DataLink::ETHERNET, snaplen });
                        continue;
                    }
                    Block::EnhancedPacket(packet) => (packet.interface_id as usize, None, packet.data),
                    // Its data includes the padding (pcap-file 2.0).
                    Block::SimplePacket(packet) => (0, Some(packet.original_len as usize), packet.data),
                    _ => continue,
                };
                return Ok(match interfaces.get(interface) {
                    Some(Interface { is_ethernet: true, snaplen }) => {
                        let kept = len.map_or(data.len(), |len| data.len().min(len).min(*snaplen));
                        copy(&data[..kept])
                    }
                    _ => Next::Skipped,
                });
            },
        }
    }
}

fn reason(error: PcapError) -> String {
    match error {
        PcapError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => "it ends too early".to_owned(),
        PcapError::IoError(error) => error.to_string(),
        error => format!("it is damaged, or something else ({error})"),
    }
}
