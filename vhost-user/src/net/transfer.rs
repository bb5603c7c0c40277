//! Packets in and out of chains.

use super::net_header::{HEADER, HeaderFormat, LEGACY_HEADER, NetHeader};
use crate::memory::GuestSlice;
use crate::ring::{Burst, Reader, Writer};

/// Why a packet was not written. The guest's chains are as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// The burst has too few chains. The next one may have more.
    #[error("the guest has too few buffers")]
    NoBuffers,
    /// The packet does not fit into the guest's next chain, and may not take several.
    #[error("the guest's buffer is too short for the packet")]
    TooLong,
}

/// Reads the header of a packet that the guest sends. The frame follows in the reader. None if the chain is shorter.
#[inline(always)]
pub fn read_header(reader: &mut Reader<'_>, format: HeaderFormat) -> Option<NetHeader> {
    match format.len {
        HEADER => reader.read_array().map(NetHeader::of_bytes),
        _ => reader.read_array().map(NetHeader::of_legacy_bytes),
    }
}

/// Writes a packet into the next chains of a burst. Its bytes are `parts`, and then `rest`, which is still in the
/// memory of the guest that sends it. The receiver sees it when the burst is finished.
///
/// # Errors
/// There is no room. No chain is used.
#[inline(always)]
pub fn deliver(
    burst: &mut Burst<'_>,
    format: HeaderFormat,
    header: NetHeader,
    parts: &[&[u8]],
    rest: GuestSlice<'_>,
) -> Result<(), Undelivered> {
    let chain = burst.chain(0).ok_or(Undelivered::NoBuffers)?;
    if let ([packet], [room]) = (parts, chain.writable())
        && room.len() - format.len.min(room.len()) >= packet.len() + rest.len()
    {
        let header = NetHeader { num_buffers: 1, ..header }.to_bytes();
        let fits = match (format.len, header.first_chunk::<LEGACY_HEADER>()) {
            (LEGACY_HEADER, Some(legacy)) => room.write_array(*legacy),
            _ => room.write_array(header),
        };
        if fits {
            let behind = room.after(format.len);
            behind.write(packet);
            if !rest.is_empty() {
                behind.after(packet.len()).write_slice(rest);
            }
            #[expect(clippy::cast_possible_truncation, reason = "at most the bytes of a slice, a `u32`")]
            let written = (format.len + packet.len() + rest.len()) as u32;
            burst.advance(written);
            return Ok(());
        }
    }
    deliver_in_pieces(burst, format, header, parts, rest)
}

/// Bytes of a packet that are still to be written.
#[derive(Clone, Copy)]
enum Part<'a> {
    Own(&'a [u8]),
    Guest(GuestSlice<'a>),
}

impl Part<'_> {
    fn is_empty(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_empty(),
            Self::Guest(slice) => slice.is_empty(),
        }
    }

    /// Writes as much as there is room for. Returns what is left.
    fn write(self, writer: &mut Writer<'_>) -> Self {
        match self {
            Self::Own(bytes) => Self::Own(&bytes[writer.write(bytes)..]),
            Self::Guest(slice) => Self::Guest(slice.after(writer.write_slice(slice))),
        }
    }
}

/// The same over several slices or chains.
#[cold]
fn deliver_in_pieces(
    burst: &mut Burst<'_>,
    format: HeaderFormat,
    header: NetHeader,
    parts: &[&[u8]],
    rest: GuestSlice<'_>,
) -> Result<(), Undelivered> {
    let total = format.len + parts.iter().map(|part| part.len()).sum::<usize>() + rest.len();
    let (mut room, mut chains) = (0, 0_u16);
    while room < total {
        if chains > 0 && !format.mergeable {
            return Err(Undelivered::TooLong);
        }
        let chain = burst.chain(chains.into()).filter(|_| chains < u16::MAX).ok_or(Undelivered::NoBuffers)?;
        room += chain.writable_len();
        chains += 1;
    }
    let header = NetHeader { num_buffers: chains, ..header }.to_bytes();
    let own = [&header[..format.len]].into_iter().chain(parts.iter().copied());
    let mut left = own.map(Part::Own).chain([Part::Guest(rest)]);
    let mut part = Part::Own(&[]);
    for _ in 0..chains {
        let Some(chain) = burst.chain(0) else { break };
        let (mut writer, room) = (chain.writer(), chain.writable_len());
        while writer.left() > 0 {
            part = part.write(&mut writer);
            if part.is_empty() {
                match left.next() {
                    Some(next) => part = next,
                    None => break,
                }
            }
        }
        let written = room - writer.left();
        burst.advance(u32::try_from(written).unwrap_or(u32::MAX));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::driver::{Buffer, Driver, GUEST, memory};
    use crate::memory::GuestMemory;
    use crate::ring::{Position, Queue, RingFeatures, RingSetup, Scratch};

    const SHORT: HeaderFormat = HeaderFormat { len: 10, mergeable: false };
    const LONG: HeaderFormat = HeaderFormat { len: 12, mergeable: false };
    const MERGEABLE: HeaderFormat = HeaderFormat { len: 12, mergeable: true };

    struct Guest {
        memory: Arc<GuestMemory>,
        driver: Driver,
        queue: Queue,
        scratch: Scratch,
    }

    /// A guest with chains of these lengths to receive into, each in buffers of at most `piece` bytes.
    fn guest(chains: &[u32], piece: u32) -> Guest {
        let memory = memory(1 << 18).unwrap();
        let features = RingFeatures::default();
        let shape = RingSetup { size: 64, descriptors: 0, available: 0, used: 0, features, chain_limit: 64 };
        let start = Position::start(features);
        let mut driver = Driver::new(&memory, GUEST, shape, start);
        let mut at = driver.end();
        for (token, len) in (0..).zip(chains) {
            let mut buffers = Vec::new();
            let mut left = *len;
            while left > 0 {
                let len = left.min(piece);
                buffers.push(Buffer { guest: at, len, writable: true });
                (at, left) = (at + u64::from(len), left - len);
            }
            assert!(driver.add(&buffers, token, false));
        }
        driver.publish();
        let queue = Queue::new(&memory, driver.setup(), start).unwrap();
        Guest { memory, driver, queue, scratch: Scratch::default() }
    }

    impl Guest {
        fn deliver(&mut self, format: HeaderFormat, parts: &[&[u8]]) -> Result<(), Undelivered> {
            let mut burst = self.queue.burst(&mut self.scratch, 64).unwrap();
            let header = NetHeader { flags: 2, num_buffers: 77, ..NetHeader::PLAIN };
            let done = deliver(&mut burst, format, header, parts, GuestSlice::default());
            burst.finish().unwrap();
            done
        }

        /// Bytes of each chain that the device has used. Chains lie one behind the other.
        fn received(&mut self, chains: &[u32]) -> Vec<Vec<u8>> {
            let mut at = self.driver.end();
            let mut next = chains.iter();
            let used = std::iter::from_fn(|| self.driver.collect());
            let bytes = used.map(|used| {
                let mut bytes = vec![0; used.len.unwrap() as usize];
                self.memory.read(at, &mut bytes).unwrap();
                at += u64::from(*next.next().unwrap());
                bytes
            });
            bytes.collect()
        }
    }

    #[test]
    fn a_packet_that_fits_goes_into_one_chain_behind_its_header() {
        for (format, piece) in [(SHORT, 2048), (LONG, 2048), (MERGEABLE, 2048), (SHORT, 7), (MERGEABLE, 11)] {
            let mut guest = guest(&[200, 200], piece);
            guest.deliver(format, &[b"a packet"]).unwrap();
            guest.deliver(format, &[b"in ", b"", b"parts"]).unwrap();
            let header = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
            let expected = [b"a packet", b"in parts"].map(|packet| [&header[..format.len], packet].concat());
            assert_eq!(guest.received(&[200, 200]), expected, "{format:?} in {piece}");
        }
    }

    #[test]
    fn a_packet_that_does_not_fit_leaves_the_chains_alone() {
        let packet = [7; 189];
        assert_eq!(guest(&[], 9).deliver(MERGEABLE, &[&packet]), Err(Undelivered::NoBuffers));
        for format in [LONG, MERGEABLE] {
            let mut guest = guest(&[200], 200);
            let error = if format.mergeable { Undelivered::NoBuffers } else { Undelivered::TooLong };
            assert_eq!(guest.deliver(format, &[&packet]), Err(error));
            assert_eq!(guest.received(&[200]).len(), 0);
            guest.deliver(format, &[&packet[1..]]).unwrap();
            assert_eq!(guest.received(&[200]).len(), 1);
        }
        let mut guest = guest(&[5], 200);
        assert_eq!(guest.deliver(SHORT, &[b""]), Err(Undelivered::TooLong), "not even the header fits");
    }

    proptest! {
        /// What the guest receives is the header and the packet. All chains but the last are full.
        #[test]
        fn a_long_packet_takes_as_many_chains_as_it_needs(
            chains in prop::collection::vec(1_u32..300, 1..20),
            piece in 5_u32..400,
            packet in prop::collection::vec(any::<u8>(), 0..3000),
            cut in 0_usize..3000,
        ) {
            let room: u32 = chains.iter().sum();
            let mut guest = guest(&chains, piece.max(chains.iter().max().unwrap() / 3 + 1));
            let (one, two) = packet.split_at(cut.min(packet.len()));
            let done = guest.deliver(MERGEABLE, &[one, two]);
            if packet.len() + 12 > room as usize {
                prop_assert_eq!(done, Err(Undelivered::NoBuffers));
                return Ok(());
            }
            prop_assert_eq!(done, Ok(()));
            let received = guest.received(&chains);
            let full = received.iter().zip(&chains).rev().skip(1).all(|(bytes, len)| bytes.len() == *len as usize);
            prop_assert!(full && received.last().is_some_and(|last| !last.is_empty()));
            let all = received.concat();
            let mut header = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            header[10] = received.len() as u8;
            prop_assert_eq!(&all[..12], &header);
            prop_assert_eq!(&all[12..], packet);
        }
    }

    #[test]
    fn headers_of_sent_packets_are_read_wherever_they_are_cut() {
        for (format, piece) in [(SHORT, 64), (LONG, 64), (MERGEABLE, 5), (SHORT, 3)] {
            let mut guest = guest(&[], 1);
            let at = guest.driver.end();
            guest.memory.write(at, &[1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 9, 9, b'x', b'y']).unwrap();
            let buffers: Vec<_> = (0..14_u64)
                .step_by(piece)
                .map(|start| Buffer { guest: at + start, len: (14 - start as u32).min(piece as u32), writable: false })
                .collect();
            assert!(guest.driver.add(&buffers, 0, false) && guest.driver.add(&buffers[..1], 1, false));
            guest.driver.publish();
            let mut burst = guest.queue.burst(&mut guest.scratch, 2).unwrap();
            let mut reader = burst.chain(0).unwrap().reader();
            let header = read_header(&mut reader, format).unwrap();
            assert_eq!((header.flags, header.csum_start, header.csum_offset), (1, 34, 16));
            assert_eq!(reader.left(), 14 - format.len);
            assert!(piece > 12 || read_header(&mut burst.chain(1).unwrap().reader(), format).is_none());
            burst.advance(0);
        }
    }
}
