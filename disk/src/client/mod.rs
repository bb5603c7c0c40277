//! A guest with a disk, on the host: a front end of vhost-user with a driver of block devices.
//!
//! It is for tests, fuzzing and the bench, and panics where they should fail. It knows nothing of this crate's device,
//! so it serves to try other back ends as well. A [`Guest`] is the memory with the rings in it. It outlives
//! connections, as a real guest does.
#![allow(clippy::cast_possible_truncation, reason = "small numbers of tests")]
#![allow(clippy::unwrap_used, reason = "tests fail by a panic")]

mod queue;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vhost_user::driver::{FrontEnd, Record};
use vhost_user::memory::GuestMemory;
use vhost_user::message::{Code, RegionAddress, features as bit};
use vhost_user::ring::{F_EVENT_IDX, F_INDIRECT, F_PACKED, Position, RingFeatures, RingSetup};

pub use self::queue::{Data, Layout, Queue, Task, kind};
use crate::config::VERSION_1;

/// Guest address of the first byte, and the same byte in the front end's process.
const GUEST: u64 = 0x10_0000;
const USER: u64 = 0x7f00_0000_0000;

/// Protocol features that are used if they are offered.
const PROTOCOL: u64 = bit::MQ
    | bit::REPLY_ACK
    | bit::BACKEND_REQ
    | bit::CONFIG
    | bit::INFLIGHT_SHMFD
    | bit::RESET_DEVICE
    | bit::CONFIGURE_MEM_SLOTS;

/// Features of the device that a driver needs for what this one does.
pub const FEATURES: u64 = VERSION_1 | F_INDIRECT | F_EVENT_IDX | 0x7e64;

/// What a guest is to have.
#[derive(Clone, Copy, Debug)]
pub struct GuestSpec {
    /// Queues.
    pub queues: u16,
    /// Entries of each ring.
    pub size: u16,
    /// Requests that each queue has at once. Each needs three entries, or one with indirect descriptors.
    pub depth: u16,
    /// Bytes of data of a request, at most.
    pub bytes: u32,
    /// Rings are packed.
    pub packed: bool,
    /// Features that are asked for, of those that there are.
    pub features: u64,
}

impl Default for GuestSpec {
    fn default() -> Self {
        Self { queues: 1, size: 128, depth: 32, bytes: 64 << 10, packed: false, features: FEATURES }
    }
}

/// A guest.
#[derive(Debug)]
pub struct Guest {
    spec: GuestSpec,
    file: Arc<OwnedFd>,
    region: RegionAddress,
    /// The rings.
    pub queues: Vec<Queue>,
    front_end: Option<FrontEnd>,
    /// The record of requests in flight, once a back end has made one.
    record: Option<Record>,
    /// Requests of the back end.
    backend: Option<UnixStream>,
    features: u64,
}

impl Guest {
    /// A guest that has not seen its disk yet.
    ///
    /// # Panics
    /// If the kernel has no memory for it.
    pub fn new(spec: GuestSpec) -> Self {
        let file = memfd_create(c"guest", MFdFlags::MFD_CLOEXEC).unwrap();
        let each = Queue::bytes(&spec);
        let size = (each * u64::from(spec.queues)).next_multiple_of(1 << 20);
        nix::unistd::ftruncate(&file, size.cast_signed()).unwrap();
        let region = RegionAddress { guest_addr: GUEST, size, user_addr: USER, mmap_offset: 0 };
        let memory = Arc::new(GuestMemory::of_files([(file.as_fd(), region)]).unwrap());
        let all = VERSION_1 | F_INDIRECT | F_EVENT_IDX;
        let features = spec.features & all | if spec.packed { F_PACKED } else { 0 };
        let shape = RingSetup {
            size: spec.size.into(),
            descriptors: 0,
            available: 0,
            used: 0,
            features: RingFeatures::of_bits(features),
            chain_limit: 64,
        };
        let queue = |number: u16| Queue::new(&memory, GUEST + each * u64::from(number), shape, &spec);
        let queues = (0..spec.queues).map(queue).collect();
        Self { spec, file: Arc::new(file), region, queues, front_end: None, record: None, backend: None, features: 0 }
    }

    /// Connects to a back end and starts the rings, or has them go on. Tries for some seconds.
    ///
    /// # Panics
    /// If there is no back end, or it does not do what it has to.
    pub fn connect(&mut self, path: &Path) {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match self.try_connect(path) {
                Ok(()) => return,
                Err(error) if Instant::now() > until => panic!("no back end at {}: {error}", path.display()),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// The same once.
    ///
    /// # Errors
    /// Nobody is there, or the connection ends.
    pub fn try_connect(&mut self, path: &Path) -> std::io::Result<()> {
        self.front_end = None;
        self.begin(FrontEnd::connect(path)?)
    }

    /// Waits for a back end to connect, and starts the rings, or has them go on.
    ///
    /// # Panics
    /// If it does not do what it has to.
    pub fn accept(&mut self, listener: &UnixListener) {
        self.front_end = None;
        let (socket, _) = listener.accept().unwrap();
        self.begin(FrontEnd::over(socket).unwrap()).unwrap();
    }

    fn begin(&mut self, mut front_end: FrontEnd) -> std::io::Result<()> {
        let offered = front_end.ask(Code::GetFeatures, &[])?;
        let wanted = self.spec.features | if self.spec.packed { F_PACKED } else { 0 };
        self.features = offered & wanted;
        assert!(!self.spec.packed || offered & F_PACKED != 0, "the back end has no packed rings");
        self.backend = front_end.begin(PROTOCOL)?;
        front_end.tell(Code::SetFeatures, &(self.features | 1 << 30).to_ne_bytes(), &[])?;
        self.record = front_end.record(self.record.take(), self.spec.queues, self.spec.size)?;
        front_end.memory(&self.region, &self.file)?;
        for (number, queue) in (0..).zip(&mut self.queues) {
            queue.attach(&mut front_end, number)?;
        }
        self.front_end = Some(front_end);
        // Calls may have been lost with the last back end, and kicks.
        self.queues.iter().for_each(Queue::kick);
        Ok(())
    }

    /// Features that are in use.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The connection ends, as when the front end dies.
    pub fn hang_up(&mut self) {
        (self.front_end, self.backend) = (None, None);
    }

    fn front_end(&mut self) -> &mut FrontEnd {
        self.front_end.as_mut().expect("a connection")
    }

    /// Stops the rings as for a migration, and gives their positions.
    ///
    /// # Panics
    /// If the back end does not answer.
    pub fn stop(&mut self) -> Vec<u32> {
        (0..self.spec.queues).map(|number| self.front_end().stop_ring(number.into()).unwrap()).collect()
    }

    /// The configuration space.
    ///
    /// # Panics
    /// If the back end does not answer.
    pub fn config(&mut self) -> Vec<u8> {
        self.front_end().config().unwrap()
    }

    /// Sectors of the disk.
    ///
    /// # Panics
    /// If the back end does not answer.
    pub fn sectors(&mut self) -> u64 {
        u64::from_le_bytes(self.config()[..8].try_into().unwrap())
    }

    /// Switches the cache.
    ///
    /// # Panics
    /// If the back end refuses.
    pub fn set_cache(&mut self, on: bool) {
        self.front_end().set_config(32, &[u8::from(on)]).unwrap();
    }

    /// Whether the back end tells of a change of the configuration space within that time.
    ///
    /// # Panics
    /// If there is no channel for it.
    pub fn config_changes(&mut self, within: Duration) -> bool {
        use std::io::Read;
        let backend = self.backend.as_mut().expect("a channel");
        backend.set_read_timeout(Some(within)).unwrap();
        let mut header = [0; 12];
        backend.read_exact(&mut header).is_ok() && header[..4] == 2_u32.to_ne_bytes()
    }

    /// Takes away the guest's memory behind that many bytes.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn shrink_memory(&self, bytes: u64) {
        nix::unistd::ftruncate(&*self.file, bytes.cast_signed()).unwrap();
    }

    /// Adds a region of memory behind the guest's own. The rings go on meanwhile.
    ///
    /// # Panics
    /// If the back end refuses.
    pub fn plug_memory(&mut self, bytes: u64) {
        let file = memfd_create(c"plugged", MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&file, bytes.cast_signed()).unwrap();
        let (guest, user) = (self.region.guest_addr + (1 << 40), self.region.user_addr + (1 << 40));
        let region = RegionAddress { guest_addr: guest, size: bytes, user_addr: user, mmap_offset: 0 };
        self.front_end().add_memory(&region, &file).unwrap();
    }
}

/// An event as drivers have it.
fn event() -> EventFd {
    EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).unwrap()
}

/// Where a new ring stands.
fn start(features: RingFeatures) -> Position {
    Position::start(features)
}
