//! Two guests at vhost-user ports that send to each other as fast as they can, on one thread.
//!
//! They use the same buffers again and again, and never look into them. So a packet costs them what the rings cost.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use tests::{Frame, Mac};
use vhost_user::driver::{Buffer, FrontEnd, Repeater, Turn};
use vhost_user::memory::GuestMemory;
use vhost_user::message::{Code, RegionAddress, features as bit};
use vhost_user::ring::{F_PACKED, Position, RingFeatures, RingSetup};

use crate::cpu;
use crate::load::FEW;

/// Entries of a ring: what QEMU gives a guest.
const RING: u32 = 256;
/// Bytes of a buffer.
const BUFFER: u32 = 2048;
/// Bytes of a guest's memory: two rings, and a buffer for each of their entries.
const MEMORY: u64 = 2 << 20;
/// Guest address of the first byte, and the same byte in the front end's process.
const GUEST: u64 = 0x10_0000;
const USER: u64 = 0x7f00_0000_0000;
/// Bytes of the header before each packet, with VERSION_1 (virtio 1.2, 5.1.6).
const HEADER: u32 = 12;
/// Check sequence at the end of a frame on a wire. Frames in memory have none.
const FCS: u32 = 4;
/// VERSION_1, protocol features, mergeable buffers.
const FEATURES: u64 = 1 << 32 | 1 << 30 | 1 << 15;
/// How long a back end may take to be there.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes in a buffer of a frame of that length on a wire.
pub fn buffer_len(frame: u32) -> u32 {
    HEADER + frame - FCS
}

fn event() -> EventFd {
    EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).expect("an event")
}

/// A guest.
#[derive(Debug)]
pub struct Guest {
    file: OwnedFd,
    region: RegionAddress,
    /// The ring that it receives by, and the one that it sends by.
    rings: [Repeater; 2],
    kicks: [EventFd; 2],
    calls: [EventFd; 2],
    front_end: Option<FrontEnd>,
    packed: bool,
}

impl Guest {
    /// Guest `number`, 0 or 1. It sends to the other one.
    ///
    /// # Errors
    /// The kernel has no memory for it.
    pub fn new(number: u32, packed: bool) -> anyhow::Result<Self> {
        Self::sending(packed, |flow| packet(number, flow))
    }

    /// A guest that sends a packet for each of some flows, of the longest length.
    ///
    /// # Errors
    /// As [`Guest::new`].
    pub fn sending(packed: bool, packet: impl Fn(u32) -> Frame) -> anyhow::Result<Self> {
        let file = memfd_create(c"guest", MFdFlags::MFD_CLOEXEC)?;
        nix::unistd::ftruncate(&file, MEMORY.cast_signed())?;
        let region = RegionAddress { guest_addr: GUEST, size: MEMORY, user_addr: USER, mmap_offset: 0 };
        let memory = Arc::new(GuestMemory::of_files([(file.as_fd(), region)])?);
        let features = RingFeatures { packed, ..RingFeatures::default() };
        let shape = RingSetup { size: RING, descriptors: 0, available: 0, used: 0, features, chain_limit: 1 };
        let first = GUEST + MEMORY - 2 * u64::from(RING) * u64::from(BUFFER);
        let buffers = |ring: u64, len, writable| -> Vec<Buffer> {
            let guest = |at: u32| first + (ring * u64::from(RING) + u64::from(at)) * u64::from(BUFFER);
            (0..RING).map(|at| Buffer { guest: guest(at), len, writable }).collect()
        };
        let receive = Repeater::new(&memory, GUEST, shape, &buffers(0, BUFFER, true));
        let out = buffers(1, buffer_len(64), false);
        for (at, buffer) in (0..).zip(&out) {
            let bytes = [vec![0; HEADER as usize], packet(at % FEW).0].concat();
            memory.write(buffer.guest, &bytes)?;
        }
        let send = Repeater::new(&memory, receive.end(), shape, &out);
        ensure!(send.end() <= first, "rings and buffers overlap");
        let events = || [event(), event()];
        let (rings, kicks, calls) = ([receive, send], events(), events());
        Ok(Self { file, region, rings, kicks, calls, front_end: None, packed })
    }

    /// Connects to a back end, and starts the rings.
    ///
    /// # Errors
    /// There is none within some seconds, or it lacks a feature.
    pub fn connect(&mut self, path: &Path) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        let mut front_end = loop {
            match FrontEnd::connect(path) {
                Ok(front_end) => break front_end,
                Err(error) if Instant::now() > end => return Err(error).context("no back end"),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let wanted = FEATURES | if self.packed { F_PACKED } else { 0 };
        let offered = front_end.ask(Code::GetFeatures, &[])?;
        ensure!(offered & wanted == wanted, "the back end lacks features {:#x}", wanted & !offered);
        front_end.begin(bit::MQ | bit::REPLY_ACK)?;
        front_end.tell(Code::SetFeatures, &wanted.to_ne_bytes(), &[])?;
        front_end.memory(&self.region, &self.file)?;
        for (number, ring) in (0..).zip(&self.rings) {
            let (at, features) = (number as usize, ring.setup().features);
            let base = Position::start(features).base(features);
            front_end.start_ring(number, ring.setup(), base, self.kicks[at].as_fd(), self.calls[at].as_fd())?;
        }
        self.kicks.iter().try_for_each(|kick| kick.write(1).map(drop))?;
        self.front_end = Some(front_end);
        Ok(())
    }

    /// From now on it sends frames of that length on a wire.
    pub fn set_frame(&mut self, frame: u32) {
        self.rings[1].set_len(buffer_len(frame));
    }

    /// Gives back what it has received and sends again. Returns what the device has used of both rings.
    fn turn(&mut self) -> [Turn; 2] {
        let turns = [self.rings[0].turn(), self.rings[1].turn()];
        for (turn, kick) in turns.iter().zip(&self.kicks) {
            if turn.kick {
                // It is full only if the device does not look.
                let _ = kick.write(1);
            }
        }
        turns
    }
}

/// A UDP packet of a flow from guest `number` to the other one, with the longest payload.
fn packet(number: u32, flow: u32) -> Frame {
    let address = |number: u32| std::net::Ipv4Addr::from_bits(0x0a01_0201 + number);
    let other = 1 - number;
    let data = vec![0; 1500 - 28];
    let source = 500 + u16::try_from(flow).expect("few flows");
    Frame::ethernet(Mac::stranger(number), Mac::stranger(other)).udp4(
        (address(number), source),
        (address(other), 5000),
        &data,
    )
}

/// Packets of a pair of guests.
#[derive(Debug, Default)]
pub struct Counts {
    /// Sent by both.
    pub sent: AtomicU64,
    /// Received by both.
    pub received: AtomicU64,
    /// Bytes received by both, with headers.
    pub bytes: AtomicU64,
    /// Looks at the rings, and those that found nothing to do: the device is slower than the guests.
    pub looks: AtomicU64,
    /// See `looks`.
    pub idle: AtomicU64,
}

/// Lets both send until `stop`, on the generator's CPU.
pub fn run(guests: &mut [Guest], counts: &Counts, stop: &AtomicBool) {
    cpu::pin(0, cpu::GENERATOR);
    let add = |counter: &AtomicU64, count: u64| {
        counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    };
    while !stop.load(Ordering::Relaxed) {
        let mut all = 0;
        for guest in guests.iter_mut() {
            let [received, sent] = guest.turn();
            add(&counts.received, received.buffers);
            add(&counts.bytes, received.bytes);
            add(&counts.sent, sent.buffers);
            all += received.buffers + sent.buffers;
        }
        add(&counts.looks, 1);
        add(&counts.idle, u64::from(all == 0));
    }
}
