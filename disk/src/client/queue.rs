//! A queue of a guest's disk, the driver's side.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use vhost_user::driver::{Buffer, Driver, FrontEnd};
use vhost_user::memory::GuestMemory;
use vhost_user::ring::RingSetup;

use super::{GuestSpec, event, start};

/// Types of requests (virtio 1.2, 5.2.6).
pub mod kind {
    /// READ.
    pub const READ: u32 = 0;
    /// WRITE.
    pub const WRITE: u32 = 1;
    /// FLUSH.
    pub const FLUSH: u32 = 4;
    /// GET_ID.
    pub const GET_ID: u32 = 8;
    /// DISCARD.
    pub const DISCARD: u32 = 11;
    /// WRITE_ZEROES.
    pub const WRITE_ZEROES: u32 = 13;
}

/// How a request lies in memory.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Bytes between the place of the data and a multiple of 4,096.
    pub shift: u32,
    /// Lengths of the buffers, header and status included, as far as they go. The last one of each direction has the
    /// rest. Header, data and status are buffers of their own if there are none.
    pub cuts: Option<Vec<u32>>,
    /// Descriptors lie in a table.
    pub indirect: bool,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Task {
    /// Type.
    pub kind: u32,
    /// First sector.
    pub sector: u64,
    /// Bytes that the device reads, or room for what it writes.
    pub data: Data,
    /// Where they lie.
    pub layout: Layout,
}

/// The data of a request.
#[derive(Clone, Debug)]
pub enum Data {
    /// These bytes go to the device.
    Out(Vec<u8>),
    /// So many bytes of what is in memory already go to the device.
    OutLen(u32),
    /// So many come from the device.
    In(u32),
}

impl Task {
    /// Reads.
    pub fn read(sector: u64, bytes: u32) -> Self {
        Self { kind: kind::READ, sector, data: Data::In(bytes), layout: Layout::default() }
    }

    /// Writes.
    pub fn write(sector: u64, bytes: Vec<u8>) -> Self {
        Self { kind: kind::WRITE, sector, data: Data::Out(bytes), layout: Layout::default() }
    }

    /// Writes what is in the place already.
    pub fn write_again(sector: u64, bytes: u32) -> Self {
        Self { kind: kind::WRITE, sector, data: Data::OutLen(bytes), layout: Layout::default() }
    }

    /// Flushes.
    pub fn flush() -> Self {
        Self { kind: kind::FLUSH, sector: 0, data: Data::In(0), layout: Layout::default() }
    }

    /// Discards, or writes zeroes: segments of sector, number of sectors, flags.
    pub fn segments(kind: u32, segments: &[(u64, u32, u32)]) -> Self {
        let bytes = |(sector, count, flags): &(u64, u32, u32)| {
            [sector.to_le_bytes().to_vec(), count.to_le_bytes().to_vec(), flags.to_le_bytes().to_vec()].concat()
        };
        let data = Data::Out(segments.iter().flat_map(bytes).collect());
        Self { kind, sector: 0, data, layout: Layout::default() }
    }

    /// The same with another layout.
    #[must_use]
    pub fn laid_out(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }
}

/// A place for a request in the guest's memory.
#[derive(Clone, Copy, Debug)]
struct Place {
    header: u64,
    status: u64,
    data: u64,
}

/// A queue.
#[derive(Debug)]
pub struct Queue {
    memory: Arc<GuestMemory>,
    driver: Driver,
    kick: EventFd,
    call: EventFd,
    places: Vec<Place>,
    free: Vec<u16>,
    bytes: u32,
}

impl Queue {
    /// Bytes that a queue needs.
    pub(super) fn bytes(spec: &GuestSpec) -> u64 {
        let ring = u64::from(spec.size) * (16 + 16 + 16 * 16) + 8192;
        let each = 4096 + u64::from(spec.bytes).next_multiple_of(4096) + 8192;
        (ring + u64::from(spec.depth) * each).next_multiple_of(4096)
    }

    pub(super) fn new(memory: &Arc<GuestMemory>, at: u64, shape: RingSetup, spec: &GuestSpec) -> Self {
        let driver = Driver::new(memory, at, shape, start(shape.features));
        let first = driver.end().next_multiple_of(4096);
        let each = 4096 + u64::from(spec.bytes).next_multiple_of(4096) + 4096;
        let place = |number: u16| {
            let header = first + each * u64::from(number);
            Place { header, status: header + 2048, data: header + 4096 }
        };
        Self {
            memory: Arc::clone(memory),
            driver,
            kick: event(),
            call: event(),
            places: (0..spec.depth).map(place).collect(),
            free: (0..spec.depth).rev().collect(),
            bytes: spec.bytes,
        }
    }

    /// Tells a back end of the ring.
    pub(super) fn attach(&mut self, front_end: &mut FrontEnd, number: u32) -> io::Result<()> {
        let setup = *self.driver.setup();
        // As QEMU does after a back end was killed: it goes on where the used ring ends.
        let base = match setup.features.packed {
            true => start(setup.features).base(setup.features),
            false => setup.position_of_used_ring(&self.memory).expect("a ring").base(setup.features),
        };
        front_end.start_ring(number, &setup, base, self.kick.as_fd(), self.call.as_fd())
    }

    /// Wakes the device, wanted or not.
    pub fn kick(&self) {
        self.kick.write(1).unwrap();
    }

    /// Requests that the device has.
    pub fn in_flight(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Adds a request, if there is room. It has a number, at most the depth. The device sees it after
    /// [`Queue::publish`].
    ///
    /// # Panics
    /// If the data has no room.
    pub fn add(&mut self, task: &Task) -> Option<u16> {
        let number = self.free.pop()?;
        let place = self.places[usize::from(number)];
        let (len, is_out) = match &task.data {
            Data::Out(bytes) => (bytes.len() as u32, true),
            Data::OutLen(len) => (*len, true),
            Data::In(len) => (*len, false),
        };
        assert!(len + task.layout.shift <= self.bytes + 4096, "{len} bytes of data");
        let mut header = [0; 16];
        header[..4].copy_from_slice(&task.kind.to_le_bytes());
        header[8..].copy_from_slice(&task.sector.to_le_bytes());
        self.memory.write(place.status, &[0xff]).unwrap();
        let data = place.data + u64::from(task.layout.shift);
        if let Data::Out(bytes) = &task.data {
            self.memory.write(data, bytes).unwrap();
        }
        let mut buffers = Vec::new();
        match &task.layout.cuts {
            None => {
                self.memory.write(place.header, &header).unwrap();
                buffers.push(Buffer { guest: place.header, len: 16, writable: false });
                if len > 0 {
                    buffers.push(Buffer { guest: data, len, writable: !is_out });
                }
                buffers.push(Buffer { guest: place.status, len: 1, writable: true });
            }
            Some(cuts) => {
                // One run of bytes each way: the header before the data, and the data before the status.
                let (readable, writable) = if is_out { (16 + len, 1) } else { (16, len + 1) };
                let (from, to) = if is_out { (data - 16, place.status) } else { (place.header, data) };
                self.memory.write(from, &header).unwrap();
                self.memory.write(to + u64::from(writable) - 1, &[0xff]).unwrap();
                let mut cuts = cuts.iter().copied();
                cut(&mut buffers, from, readable, false, &mut cuts);
                cut(&mut buffers, to, writable, true, &mut cuts);
            }
        }
        if !self.driver.add(&buffers, u64::from(number), task.layout.indirect) {
            self.free.push(number);
            return None;
        }
        Some(number)
    }

    /// Shows the device what was added, and wakes it if it wants that.
    pub fn publish(&mut self) {
        if self.driver.publish() {
            self.kick();
        }
    }

    /// The next request that has ended, with its status.
    ///
    /// # Panics
    /// If the device has used something else than it has.
    pub fn collect(&mut self, task: impl FnOnce(u16) -> Option<Task>) -> Option<(u16, u8)> {
        let used = self.driver.collect()?;
        let number = used.token as u16;
        let place = self.places[usize::from(number)];
        let at = match task(number) {
            Some(Task { layout: Layout { cuts: Some(_), shift, .. }, data: Data::In(len), .. }) => {
                place.data + u64::from(shift) + u64::from(len)
            }
            _ => place.status,
        };
        let mut status = [0];
        self.memory.read(at, &mut status).unwrap();
        self.free.push(number);
        Some((number, status[0]))
    }

    /// The next request that has ended. Waits at most so long. All requests have the plain layout.
    pub fn wait(&mut self, most: Duration) -> Option<(u16, u8)> {
        self.wait_with(most, |_| None)
    }

    /// The same for requests of other layouts.
    pub fn wait_with(&mut self, most: Duration, task: impl Fn(u16) -> Option<Task>) -> Option<(u16, u8)> {
        let until = Instant::now() + most;
        loop {
            if let Some(done) = self.collect(&task) {
                return Some(done);
            }
            if self.driver.enable_calls() {
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let left = PollTimeout::try_from(left.min(Duration::from_secs(60))).unwrap();
            let mut fds = [PollFd::new(self.call.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, left).unwrap();
            let _ = self.call.read();
            self.driver.disable_calls();
        }
    }

    /// Asks for a call when the next request ends. Says whether one has ended already.
    pub fn enable_calls(&mut self) -> bool {
        self.driver.enable_calls()
    }

    /// The event that is readable when a call is there. Reading it is [`Queue::take_call`].
    pub fn call(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }

    /// Takes a call, and asks for no more.
    pub fn take_call(&mut self) {
        let _ = self.call.read();
        self.driver.disable_calls();
    }

    /// Does one request alone: its status, and what came.
    ///
    /// # Panics
    /// If it does not end within a minute, or others are in work.
    pub fn run(&mut self, task: &Task) -> (u8, Vec<u8>) {
        assert_eq!(self.in_flight(), 0, "others are in work");
        let number = self.add(task).expect("room");
        self.publish();
        let ended = self.wait_with(Duration::from_secs(60), |_| Some(task.clone()));
        let (ended, status) = ended.unwrap_or_else(|| panic!("{task:?} does not end"));
        assert_eq!(ended, number);
        (status, self.data(number, task))
    }

    /// What is in the place of a request that has ended.
    ///
    /// # Panics
    /// If there is no such place.
    pub fn data(&self, number: u16, task: &Task) -> Vec<u8> {
        let Data::In(len) = task.data else { return Vec::new() };
        let mut bytes = vec![0; len as usize];
        let at = self.places[usize::from(number)].data + u64::from(task.layout.shift);
        self.memory.read(at, &mut bytes).unwrap();
        bytes
    }
}

/// Cuts a run of bytes into buffers.
fn cut(buffers: &mut Vec<Buffer>, from: u64, len: u32, writable: bool, cuts: &mut impl Iterator<Item = u32>) {
    let mut at = 0;
    while at < len {
        let part = cuts.next().map_or(len - at, |cut| cut.clamp(1, len - at));
        buffers.push(Buffer { guest: from + u64::from(at), len: part, writable });
        at += part;
    }
}
