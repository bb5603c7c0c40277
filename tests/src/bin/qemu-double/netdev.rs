//! The af-xdp backend of QEMU 10.2, queue by queue. It makes the same calls in the same order. It has a LIFO pool of
//! frames, receives in bursts of 64, and sends one frame at a time. Only the main loop's `poll` makes the kernel send.

use ::tests::narrow;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use super::options::{AfXdp, Sockets};
use super::xsk::{FRAME, FRAMES, MapSlot, RING, Rings, Umem, text};

const BATCH: u32 = 64;

/// Result of sending a guest's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The frame is in the ring, or it was too long and is lost.
    Done,
    /// There is no room. Try again when the socket is writable.
    Full,
}

/// One queue.
#[derive(Debug)]
pub struct Queue {
    // Drop order: receive and transmit ring, fill and completion ring, socket, memory, map.
    rings: Rings,
    umem: Umem,
    _slot: Option<MapSlot>,
    pool: Vec<u64>,
    outstanding: u32,
    /// Whether the main loop waits for received frames.
    pub read_poll: bool,
    /// Whether the main loop waits for room to send.
    pub write_poll: bool,
    /// Frames received.
    pub received: u64,
    /// Frames put into the transmit ring.
    pub sent: u64,
    /// Frames above 4096 bytes. They are reported as sent, but lost.
    pub swallowed: u64,
    /// A frame that the guest could not take, as QEMU's net queue keeps it.
    kept: VecDeque<Vec<u8>>,
}

impl Queue {
    fn open(options: &AfXdp, index: u32, fd: Option<OwnedFd>) -> Result<Self, String> {
        let ifname = &options.ifname;
        let umem = Umem::new(fd)
            .map_err(|error| format!("failed to create umem for {ifname} queue_index: {index}: {}", text(&error)))?;
        let mut pool: Vec<u64> = (0..FRAMES).map(|frame| frame * FRAME as u64).collect();
        refill(&umem, &mut pool, RING);
        let queue_id = index + options.start_queue;
        let flags = libc::XDP_USE_NEED_WAKEUP | if options.force_copy { libc::XDP_COPY } else { 0 };
        let mut rings = Rings::bind(&umem, ifname, queue_id, flags, 0);
        if rings.is_err() && !options.mode_given {
            rings = Rings::bind(&umem, ifname, queue_id, flags, 1);
        }
        let rings = rings.map_err(|error| {
            format!("failed to create AF_XDP socket for {ifname} queue_id: {queue_id}: {}", text(&error))
        })?;
        let slot = match &options.sockets {
            Sockets::Given(_) => None,
            Sockets::Map(path, start) => {
                let slot = MapSlot::fill(path, start + index, umem.fd());
                Some(slot.map_err(|error| format!("failed to insert AF_XDP socket into map {path}: {}", text(&error)))?)
            }
        };
        Ok(Self {
            rings,
            umem,
            _slot: slot,
            pool,
            outstanding: 0,
            read_poll: false,
            write_poll: false,
            received: 0,
            sent: 0,
            swallowed: 0,
            kept: VecDeque::new(),
        })
    }

    /// The socket's descriptor, for the main loop.
    pub fn fd(&self) -> i32 {
        self.umem.fd()
    }

    /// Takes a burst of received frames. `deliver` returns a frame that the guest's queue can't take. The queue then
    /// gets no more frames until it can.
    pub fn readable(&mut self, mut deliver: impl FnMut(Vec<u8>) -> Result<(), Vec<u8>>) {
        let ready = self.rings.rx.ready().min(BATCH);
        let mut taken = 0;
        while taken < ready {
            let desc = self.rings.rx.peek(taken);
            taken += 1;
            self.received += 1;
            let frame = self.umem.read(desc.addr, desc.len);
            self.pool.push(desc.addr);
            if let Err(frame) = deliver(frame) {
                self.kept.push_back(frame);
                self.read_poll = false;
                break;
            }
        }
        if taken > 0 {
            self.rings.rx.release(taken);
            if refill(&self.umem, &mut self.pool, BATCH) {
                self.read_poll = true;
            }
        }
    }

    fn reap(&mut self) {
        let done = self.umem.completion.ready();
        self.pool.extend((0..done).map(|at| self.umem.completion.peek(at)));
        self.outstanding -= done;
        if done > 0 {
            self.umem.completion.release(done);
        }
    }

    /// Notes that the main loop found room to send. The guest's waiting frames are tried next.
    pub fn writable(&mut self) {
        self.reap();
        if self.outstanding == 0 || !self.rings.tx.needs_wakeup() {
            self.write_poll = false;
        }
    }

    /// Sends one frame of the guest.
    pub fn send(&mut self, frame: &[u8]) -> Sent {
        self.reap();
        if frame.len() > FRAME {
            self.swallowed += 1;
            return Sent::Done;
        }
        if self.pool.is_empty() || self.rings.tx.free() == 0 {
            self.write_poll = true;
            return Sent::Full;
        }
        let addr = self.pool.pop().expect("it is not empty");
        self.umem.write(addr, frame);
        self.rings.tx.produce(&[libc::xdp_desc { addr, len: narrow(frame.len()), options: 0 }]);
        self.outstanding += 1;
        self.sent += 1;
        if self.rings.tx.needs_wakeup() {
            self.write_poll = true;
        }
        Sent::Done
    }
}

/// Gives the kernel `count` empty frames, or fewer if the pool has fewer. Gives none if the ring has no room for all.
/// Returns whether the kernel wants a call.
fn refill(umem: &Umem, pool: &mut Vec<u64>, count: u32) -> bool {
    let count = (count as usize).min(pool.len());
    let keep = pool.len() - count;
    let frames: Vec<u64> = pool[keep..].iter().rev().copied().collect();
    if frames.is_empty() || !umem.fill.produce(&frames) {
        return false;
    }
    pool.truncate(keep);
    umem.fill.needs_wakeup()
}

/// A netdev.
#[derive(Debug)]
pub struct Netdev {
    /// Its id. Another netdev may have it once this one is deleted.
    pub id: String,
    /// Whether it is deleted while a device still has it. Its sockets stay open until that device goes, and no frame
    /// passes.
    pub deleted: bool,
    /// Its queues. A backend that the double only pretends to have has none.
    pub queues: Vec<Queue>,
}

impl Netdev {
    /// A backend that loses all frames.
    pub fn idle(id: &str) -> Self {
        Self { id: id.to_owned(), deleted: false, queues: Vec::new() }
    }

    /// Opens all queues, or none. `fds` holds a socket for each, or `None` where the double must open it.
    pub fn open(id: &str, options: &AfXdp, fds: Vec<Option<OwnedFd>>) -> Result<Self, String> {
        let mut queues = Vec::new();
        for (index, fd) in (0..options.queues).zip(fds) {
            queues.push(Queue::open(options, index, fd)?);
        }
        // With inhibit=on QEMU goes on with the state of the queue that it opened last. It starts to read from that
        // queue only.
        if let Some(last) = queues.last_mut() {
            last.read_poll = true;
        }
        Ok(Self { id: id.to_owned(), deleted: false, queues })
    }
}
