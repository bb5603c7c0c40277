//! Captured frames in pcapng format, with an interface per port, nanosecond timestamps and directions.
//!
//! `pcap-file` writes the blocks. This module assigns interface numbers and returns the bytes piece by piece, so that a
//! capture can be streamed.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use switch::model::{CapturedFrame, Direction};

/// `if_tsresol`: units of 10⁻⁹ s.
const NANOSECONDS: u8 = 9;
/// `epb_flags`, bits 0–1: inbound or outbound, as seen by the switch.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// Turns frames into one section of pcapng.
pub struct PcapngWriter {
    writer: PcapNgWriter<Vec<u8>>,
    ports: Vec<String>,
    snaplen: u32,
}

impl std::fmt::Debug for PcapngWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PcapngWriter")
            .field("ports", &self.ports)
            .field("snaplen", &self.snaplen)
            .finish_non_exhaustive()
    }
}

impl PcapngWriter {
    /// A writer, and the section's first bytes.
    ///
    /// # Errors
    /// None in practice, because it writes to memory.
    pub fn new(snaplen: u32) -> std::io::Result<(Self, Vec<u8>)> {
        let writer = PcapNgWriter::new(Vec::new()).map_err(std::io::Error::other)?;
        let mut this = Self { writer, ports: Vec::new(), snaplen };
        let head = this.take();
        Ok((this, head))
    }

    /// The bytes of a frame. The first frame of a port is preceded by the port's interface.
    ///
    /// # Errors
    /// As for [`PcapngWriter::new`].
    pub fn frame(&mut self, port: &str, frame: &CapturedFrame) -> std::io::Result<Vec<u8>> {
        let interface = match self.ports.iter().position(|name| name == port) {
            Some(at) => at,
            None => {
                self.ports.push(port.to_owned());
                let block = InterfaceDescriptionBlock {
                    linktype: DataLink::ETHERNET,
                    snaplen: self.snaplen,
                    options: vec![
                        InterfaceDescriptionOption::IfName(Cow::Borrowed(port)),
                        InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
                    ],
                };
                self.writer.write_pcapng_block(block).map_err(std::io::Error::other)?;
                self.ports.len() - 1
            }
        };
        let direction = match frame.direction {
            Direction::Rx => INBOUND,
            Direction::Tx => OUTBOUND,
        };
        let block = EnhancedPacketBlock {
            interface_id: u32::try_from(interface).unwrap_or(u32::MAX),
            timestamp: Duration::from_nanos(frame.timestamp_ns),
            original_len: frame.wire_len,
            data: Cow::Borrowed(&frame.data),
            options: vec![EnhancedPacketOption::Flags(direction)],
        };
        self.writer.write_pcapng_block(block).map_err(std::io::Error::other)?;
        Ok(self.take())
    }

    /// The section's last bytes, with the number of missed frames in the statistics of the first interface.
    ///
    /// # Errors
    /// As for [`PcapngWriter::new`].
    pub fn finish(&mut self, missed: u64) -> std::io::Result<Vec<u8>> {
        if self.ports.is_empty() {
            return Ok(Vec::new());
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // The format stores a timestamp as two 32-bit words, the high one first in either byte order. pcap-file 2.0
        // writes this one as a single number in native order. So the words are swapped on little-endian machines.
        let nanoseconds = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let timestamp = if cfg!(target_endian = "little") { nanoseconds.rotate_left(32) } else { nanoseconds };
        let block = InterfaceStatisticsBlock {
            interface_id: 0,
            timestamp,
            options: vec![InterfaceStatisticsOption::IsbIfDrop(missed)],
        };
        self.writer.write_pcapng_block(block).map_err(std::io::Error::other)?;
        Ok(self.take())
    }

    fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.get_mut())
    }
}

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;

    #[test]
    fn a_capture_reads_back_as_it_was() {
        let frame = |vport, direction, timestamp_ns| CapturedFrame {
            vport,
            queue: 0,
            direction,
            timestamp_ns,
            wire_len: 100,
            data: vec![vport as u8; 60],
        };
        let (mut writer, mut bytes) = PcapngWriter::new(60).unwrap();
        let sent = [
            ("vm1", frame(1, Direction::Rx, 1_700_000_000_123_456_789)),
            ("vm2", frame(2, Direction::Tx, 1_700_000_000_123_456_790)),
            ("vm1", frame(1, Direction::Tx, 1_700_000_001_000_000_000)),
        ];
        for (port, frame) in &sent {
            bytes.extend(writer.frame(port, frame).unwrap());
        }
        bytes.extend(writer.finish(7).unwrap());
        let mut reader = PcapNgReader::new(bytes.as_slice()).unwrap();
        let (mut names, mut seen, mut missed) = (Vec::new(), Vec::new(), None);
        while let Some(block) = reader.next_block() {
            match block.unwrap() {
                Block::InterfaceDescription(interface) => {
                    assert!(interface.options.contains(&InterfaceDescriptionOption::IfTsResol(9)));
                    let name = interface.options.iter().find_map(|option| match option {
                        InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                        _ => None,
                    });
                    names.extend(name);
                }
                Block::EnhancedPacket(packet) => seen.push((
                    names[packet.interface_id as usize].clone(),
                    packet.timestamp.as_nanos() as u64,
                    packet.original_len,
                    packet.data.to_vec(),
                    packet.options.clone().into_iter().find_map(|option| match option {
                        EnhancedPacketOption::Flags(flags) => Some(flags),
                        _ => None,
                    }),
                )),
                Block::InterfaceStatistics(statistics) => missed = Some(statistics.options.len()),
                _ => {}
            }
        }
        let expected: Vec<_> = sent
            .iter()
            .map(|(port, frame)| {
                let flags = if frame.direction == Direction::Rx { 1 } else { 2 };
                ((*port).to_owned(), frame.timestamp_ns, 100, frame.data.clone(), Some(flags))
            })
            .collect();
        assert_eq!((seen, missed), (expected, Some(1)));
    }
}
