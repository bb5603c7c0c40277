//! A guest in this process, with a driver's side of one queue pair, for tests of queues and of workers. And packets as
//! guests leave them to be finished, with checks of what is on a wire.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vhost_user::driver::{Buffer, Driver, GUEST, USER, memory};
use vhost_user::memory::GuestMemory;
use vhost_user::message::RegionAddress;
use vhost_user::net::net_header::{GSO_NONE, GSO_TCPV4, GSO_TCPV6, HEADER, NEEDS_CSUM};
use vhost_user::net::{HeaderFormat, NetHeader, OffloadRules};
use vhost_user::ring::{Position, Queue, RingFeatures, RingSetup};

use super::{RunningRing, VhostPair, VhostQueue, Way};
use crate::io::umem::Umem;

const SIZE: u32 = 256;
/// Packets that it can have sent, and bytes of each.
const TX: u64 = 16;
const TX_BYTES: u64 = 0x1_1000;
/// Longest chain for a packet that it receives. There is one for each entry of the ring.
pub const RX_BYTES: u64 = 4096;
/// Rings are before them.
pub const RINGS_BYTES: u64 = 0x1_0000;
const BUFFERS: u64 = GUEST + RINGS_BYTES;
/// Bytes of its memory.
const BYTES: u64 = RINGS_BYTES + TX * TX_BYTES + SIZE as u64 * RX_BYTES;

/// A guest.
pub struct Guest {
    pub pair: Arc<VhostPair>,
    memory: Arc<GuestMemory>,
    tx: Driver,
    rx: Driver,
    sent: u64,
    given: u64,
}

impl Guest {
    /// A guest that has negotiated `features`, of a device with 12 bytes of header.
    pub fn new(features: u64) -> Self {
        Self::within(memory(BYTES).unwrap(), features)
    }

    /// The same in a file, which may shrink.
    pub fn in_file(features: u64) -> (Self, File) {
        let file = File::from(memfd_create(c"guest", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(BYTES).unwrap();
        let region = RegionAddress { guest_addr: GUEST, size: BYTES, user_addr: USER, mmap_offset: 0 };
        let memory = GuestMemory::of_files([(file.as_fd(), region)]).unwrap();
        (Self::within(Arc::new(memory), features), file)
    }

    fn within(memory: Arc<GuestMemory>, features: u64) -> Self {
        let ring = RingFeatures::of_bits(features);
        let shape = RingSetup { size: SIZE, descriptors: 0, available: 0, used: 0, features: ring, chain_limit: 64 };
        let start = Position::start(ring);
        let tx = Driver::new(&memory, GUEST, shape, start);
        let rx = Driver::new(&memory, tx.end().next_multiple_of(64), shape, start);
        let alarm = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).unwrap();
        let pair = VhostPair::new(Arc::new(alarm)).unwrap();
        for (way, driver) in [(Way::FromGuest, &tx), (Way::ToGuest, &rx)] {
            let queue = Queue::new(&memory, driver.setup(), start).unwrap();
            let (header, offloads) = (HeaderFormat::of_bits(features), OffloadRules::of_bits(features));
            *pair.lock(way) = Some(RunningRing { queue, call: None, enabled: true, header, offloads });
        }
        Self { pair, memory, tx, rx, sent: 0, given: 0 }
    }

    /// The switch's end.
    pub fn queue(&self, umem: &Arc<Umem>, fill: u32) -> VhostQueue {
        VhostQueue::new(&[Arc::clone(&self.pair)], 0, umem, fill)
    }

    /// Sends a packet in two buffers, of which the first has so many bytes.
    pub fn send_in_two(&mut self, header: NetHeader, packet: &[u8], first: u32) {
        let at = BUFFERS + self.sent % TX * TX_BYTES;
        let bytes = [&header.to_bytes()[..], packet].concat();
        self.memory.write(at, &bytes).unwrap();
        let buffer = |start: u32, end: u32| Buffer { guest: at + u64::from(start), len: end - start, writable: false };
        assert!(self.tx.add(&[buffer(0, first), buffer(first, bytes.len() as u32)], self.sent, false));
        self.tx.publish();
        self.sent += 1;
    }

    /// Overwrites what it has sent last, from its header on, and the descriptors of its ring.
    pub fn spoil_sent(&mut self) {
        self.memory.write(BUFFERS + (self.sent - 1) % TX * TX_BYTES, &[0xee; 4096]).unwrap();
        self.memory.write(GUEST, &[0xee; 16 * SIZE as usize]).unwrap();
    }

    /// Sends a packet, in buffers of 4 KiB.
    pub fn send(&mut self, header: NetHeader, packet: &[u8]) {
        let at = BUFFERS + self.sent % TX * TX_BYTES;
        let bytes = [&header.to_bytes()[..], packet].concat();
        self.memory.write(at, &bytes).unwrap();
        let part =
            |(index, part): (u64, &[u8])| Buffer { guest: at + index * 4096, len: part.len() as u32, writable: false };
        let buffers: Vec<_> = (0..).zip(bytes.chunks(4096)).map(part).collect();
        assert!(self.tx.add(&buffers, self.sent, false));
        self.tx.publish();
        self.sent += 1;
    }

    /// Packets that it has got back since the last call.
    pub fn gets_back(&mut self) -> usize {
        std::iter::from_fn(|| self.tx.collect()).count()
    }

    /// Gives so many chains of that length for packets.
    pub fn give_room(&mut self, chains: u64, len: u32) {
        for _ in 0..chains {
            let slot = self.given % u64::from(SIZE);
            let guest = BUFFERS + TX * TX_BYTES + slot * RX_BYTES;
            assert!(self.rx.add(&[Buffer { guest, len, writable: true }], slot, false));
            self.given += 1;
        }
        self.rx.publish();
    }

    /// Gives one chain that takes a packet of any length.
    pub fn give_long_room(&mut self) {
        let guest = BUFFERS + TX * TX_BYTES;
        assert!(self.rx.add(&[Buffer { guest, len: 70_000, writable: true }], 0, false));
        self.rx.publish();
    }

    /// Packets that have come, with their headers.
    pub fn receive(&mut self) -> Vec<(NetHeader, Vec<u8>)> {
        let (mut found, mut left) = (Vec::<(NetHeader, Vec<u8>)>::new(), 0);
        while let Some(used) = self.rx.collect() {
            let mut bytes = vec![0; used.len.unwrap_or_default() as usize];
            self.memory.read(BUFFERS + TX * TX_BYTES + used.token * RX_BYTES, &mut bytes).unwrap();
            if left > 0 {
                found.last_mut().unwrap().1.extend(bytes);
                left -= 1;
            } else {
                let header = NetHeader::of_bytes(*bytes.first_chunk::<HEADER>().unwrap());
                left = header.num_buffers - 1;
                found.push((header, bytes[HEADER..].to_vec()));
            }
        }
        assert_eq!(left, 0, "all chains of a packet come at once");
        found
    }
}

/// TCP that is to be cut, from station `from` to station `to`.
#[derive(Clone, Copy, Debug)]
pub struct Tcp {
    pub from: u8,
    pub to: Option<u8>,
    pub is_v6: bool,
    pub tag: Option<u16>,
    /// Bytes of payload, and of a segment's part of it. 0: not to be cut.
    pub payload: usize,
    pub size: u16,
    pub mark: u8,
}

impl Default for Tcp {
    fn default() -> Self {
        Self { from: 0, to: Some(1), is_v6: false, tag: None, payload: 0, size: 0, mark: 0 }
    }
}

/// The Internet checksum of what these parts are together.
fn checksum(parts: &[&[u8]]) -> u16 {
    let sum = parts.concat().chunks(2).fold(0_u32, |sum, word| {
        let sum = sum + (u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
        (sum & 0xffff) + (sum >> 16)
    });
    !(sum as u16)
}

impl Tcp {
    /// Bytes of its headers.
    pub fn headers(&self) -> usize {
        14 + if self.tag.is_some() { 4 } else { 0 } + if self.is_v6 { 40 } else { 20 } + 32
    }

    /// Its payload.
    pub fn bytes(&self) -> Vec<u8> {
        (0..self.payload).map(|at| (at * 7 + at / 251) as u8 ^ self.mark).collect()
    }

    /// The packet, as a guest sends it: with a partial checksum.
    pub fn packet(&self) -> (NetHeader, Vec<u8>) {
        let station = |n| [2, 0, 0, 0, 0, n];
        let mut packet = [self.to.map_or([0xff; 6], station), station(self.from)].concat();
        if let Some(tci) = self.tag {
            packet.extend([0x81, 0]);
            packet.extend(tci.to_be_bytes());
        }
        let tcp = (32 + self.payload) as u16;
        let addresses =
            if self.is_v6 { [[0xfd; 16], [self.from; 16]].concat() } else { vec![10, 0, 0, self.from, 10, 0, 0, 9] };
        let pseudo = !checksum(&[&addresses, &[0, 6], &tcp.to_be_bytes()]);
        if self.is_v6 {
            packet.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            packet.extend(tcp.to_be_bytes());
            packet.extend([6, 64]);
        } else {
            let mut ip = vec![0x45, 0];
            ip.extend((20 + tcp).to_be_bytes());
            ip.extend([0x12, 0x34, 0x40, 0, 64, 6, 0, 0]);
            let sum = checksum(&[&ip, &addresses]);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            packet.extend([8, 0]);
            packet.extend(ip);
        }
        packet.extend(addresses);
        let start = packet.len() as u16;
        packet.extend([0x30, 0x39, 0x14, 0x51, 1, 2, 3, 4, 0, 0, 0, 1, 0x80, 0x18, 1, 0]);
        packet.extend(pseudo.to_be_bytes());
        packet.extend([0, 0, 1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
        packet.extend(self.bytes());
        let kind = if self.is_v6 { GSO_TCPV6 } else { GSO_TCPV4 };
        let gso_type = if self.size > 0 { kind } else { GSO_NONE };
        let hdr_len = if self.size > 0 { self.headers() as u16 } else { 0 };
        let (flags, gso_size) = (NEEDS_CSUM, self.size);
        let header =
            NetHeader { flags, gso_type, hdr_len, gso_size, csum_start: start, csum_offset: 16, num_buffers: 1 };
        (header, packet)
    }

    /// Checks that `frames` are this packet on a wire: the payload in order, with every checksum right.
    ///
    /// # Panics
    /// If they are not.
    pub fn assert_on_wire(&self, frames: &[Vec<u8>]) {
        let (headers, size) = (self.headers(), if self.size > 0 { self.size.into() } else { self.payload.max(1) });
        assert_eq!(frames.len(), self.payload.div_ceil(size).max(1));
        let mut all = Vec::new();
        for (index, frame) in frames.iter().enumerate() {
            let network = headers - 32 - if self.is_v6 { 40 } else { 20 };
            let (ip, tcp) = (&frame[network..headers - 32], &frame[headers - 32..]);
            let number = |at: usize| usize::from(u16::from_be_bytes([ip[at], ip[at + 1]]));
            let addresses = if self.is_v6 { &ip[8..] } else { &ip[12..] };
            if self.is_v6 {
                assert_eq!(number(4), tcp.len());
            } else {
                assert_eq!((number(2), number(4)), (20 + tcp.len(), 0x1234 + index));
                assert_eq!(checksum(&[ip]), 0, "checksum of IPv4");
            }
            assert_eq!(checksum(&[addresses, &[0, 6], &(tcp.len() as u16).to_be_bytes(), tcp]), 0, "of TCP");
            let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
            assert_eq!(sequence, 0x0102_0304 + (index * size) as u32);
            assert_eq!(tcp[13], if index + 1 == frames.len() { 0x18 } else { 0x10 });
            all.extend_from_slice(&tcp[32..]);
        }
        assert_eq!(all, self.bytes());
    }

    /// Packets and bytes on a wire.
    pub fn on_wire(&self) -> (u64, u64) {
        let packets = if self.size > 0 { self.payload.div_ceil(self.size.into()) } else { 1 };
        (packets as u64, (packets * self.headers() + self.payload) as u64)
    }
}
