//! What control and a worker share of a queue pair.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::{ArcMutexGuard, Mutex, MutexGuard, RawMutex};
use vhost_user::event::Event;
use vhost_user::net::{HeaderFormat, OffloadRules};
use vhost_user::ring::{Queue, RingError};

/// A ring that runs.
#[derive(Debug)]
pub struct RunningRing {
    /// Its position and memory.
    pub queue: Queue,
    /// Tells the guest of used buffers.
    pub call: Option<Event>,
    /// Whether packets go by it. What the guest sends is thrown away otherwise.
    pub enabled: bool,
    /// What is in front of each packet.
    pub header: HeaderFormat,
    /// What may be left to be done with a packet.
    pub offloads: OffloadRules,
}

impl RunningRing {
    /// Tells the guest that buffers were used, if it wants to be told.
    ///
    /// # Errors
    /// [`RingError::Call`]: it can't be told.
    #[inline]
    pub fn call_if_wanted(&mut self) -> Result<(), RingError> {
        if self.queue.needs_call()
            && let Some(call) = &self.call
        {
            call.signal()?;
        }
        Ok(())
    }
}

/// A pair's ring, while a thread has it. The worker keeps that of a guest that sends through a burst.
pub(super) type RingGuard = ArcMutexGuard<RawMutex, Option<RunningRing>>;

/// The way a ring goes, by the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Packets for the guest (`receiveq`).
    ToGuest,
    /// Packets of the guest (`transmitq`).
    FromGuest,
}

/// Packets that were long, or were lost at the rings, since the pair was made.
#[derive(Debug, Default)]
pub struct PairCounters {
    /// Packets of the guest that are to be cut into segments.
    pub long_received: AtomicU64,
    /// Such packets that the guest was sent as they are.
    pub long_sent: AtomicU64,
    /// Such packets that the guest was sent in segments.
    pub segmented: AtomicU64,
    /// Packets for the guest whose checksum was filled.
    pub checksums_filled: AtomicU64,
    /// Chains of the guest that are no packet: without room for a header, longer than a frame, or with a header that
    /// is not true of them.
    pub malformed: AtomicU64,
    /// Packets for which the guest had no room.
    pub no_room: AtomicU64,
    /// Packets that the guest sent by a ring that is not enabled.
    pub disabled: AtomicU64,
}

impl PairCounters {
    /// Adds to a counter that one worker writes.
    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }
}

/// A queue pair's rings, as far as they run.
pub struct VhostPair {
    to_guest: Arc<Mutex<Option<RunningRing>>>,
    from_guest: Arc<Mutex<Option<RunningRing>>>,
    /// Which ring was given up by the worker, and why.
    failure: Mutex<Option<(Way, RingError)>>,
    /// Signalled with each failure. Control has the other end.
    alarm: Arc<EventFd>,
    /// What wakes the worker: the kick of the ring that runs, and `nudge`. Readable like any descriptor.
    wakeup: Epoll,
    wakeup_fd: Arc<OwnedFd>,
    nudge: EventFd,
    /// Address of a guest that is to be announced, 0 if none is.
    announced: AtomicU64,
    /// What was lost.
    pub counters: PairCounters,
}

impl fmt::Debug for VhostPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VhostPair").finish_non_exhaustive()
    }
}

/// Number of the guest's kick, and of the nudge, in `wakeup`.
const KICK: u64 = 0;
const NUDGE: u64 = 1;

impl VhostPair {
    /// A pair without rings. `alarm` is signalled when a ring had to be given up.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(alarm: Arc<EventFd>) -> Result<Arc<Self>, Errno> {
        let wakeup = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let nudge = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        // Edges, so that nothing has to be read: the guest's descriptor could block whoever reads it.
        wakeup.add(&nudge, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, NUDGE))?;
        let wakeup_fd = Arc::new(wakeup.0.try_clone().map_err(|error| errno_of(&error))?);
        Ok(Arc::new(Self {
            to_guest: Arc::default(),
            from_guest: Arc::default(),
            failure: Mutex::default(),
            alarm,
            wakeup,
            wakeup_fd,
            nudge,
            announced: AtomicU64::new(0),
            counters: PairCounters::default(),
        }))
    }

    fn ring(&self, way: Way) -> &Arc<Mutex<Option<RunningRing>>> {
        match way {
            Way::ToGuest => &self.to_guest,
            Way::FromGuest => &self.from_guest,
        }
    }

    /// The ring, for control. The worker does without it meanwhile. Call [`VhostPair::nudge`] after a change.
    pub fn lock(&self, way: Way) -> MutexGuard<'_, Option<RunningRing>> {
        self.ring(way).lock()
    }

    /// The ring, for the worker. `None` while control has it.
    #[inline]
    pub(super) fn try_lock(&self, way: Way) -> Option<MutexGuard<'_, Option<RunningRing>>> {
        self.ring(way).try_lock()
    }

    /// The same, for longer than the pair is borrowed.
    #[inline]
    pub(super) fn try_take(&self, way: Way) -> Option<RingGuard> {
        self.ring(way).try_lock_arc()
    }

    /// Has the worker look at the pair, if it sleeps.
    pub fn nudge(&self) {
        // A full counter is the only failure, and it was an edge before.
        let _ = self.nudge.write(1);
    }

    /// Goes by that event of the guest instead of the one before.
    ///
    /// # Errors
    /// The kernel has no room for what waits. Then there is none.
    pub fn set_kick(&self, before: Option<&Event>, kick: Option<&Event>) -> Result<(), Errno> {
        if let Some(before) = before {
            let _ = self.wakeup.delete(before);
        }
        let Some(kick) = kick else { return Ok(()) };
        self.wakeup.add(kick, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, KICK))
    }

    /// The descriptor that is readable when the guest has kicked.
    pub(super) fn wakeup(&self) -> &Arc<OwnedFd> {
        &self.wakeup_fd
    }

    /// Takes back earlier wake-ups.
    pub(super) fn clear_wakeups(&self) {
        let _ = self.wakeup.wait(&mut [EpollEvent::empty(); 2], EpollTimeout::ZERO);
    }

    /// Has the worker send a RARP for that address, as if it came from the guest (`VHOST_USER_SEND_RARP`).
    pub fn announce(&self, mac: [u8; 6]) {
        let [a, b, c, d, e, f] = mac;
        self.announced.store(u64::from_be_bytes([0, 0, a, b, c, d, e, f]), Ordering::Relaxed);
        self.nudge();
    }

    /// The address that is to be announced, once.
    #[inline]
    pub(super) fn take_announced(&self) -> Option<[u8; 6]> {
        if self.announced.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let [_, _, mac @ ..] = self.announced.swap(0, Ordering::Relaxed).to_be_bytes();
        Some(mac)
    }

    /// Gives a ring up, because the guest has done something wrong.
    #[cold]
    pub(super) fn fail(&self, ring: &mut Option<RunningRing>, way: Way, error: RingError) {
        *ring = None;
        self.failure.lock().get_or_insert((way, error));
        let _ = self.alarm.write(1);
    }

    /// Which ring was given up and why, if one was since the last call.
    pub fn take_failure(&self) -> Option<(Way, RingError)> {
        self.failure.lock().take()
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EMFILE))
}
