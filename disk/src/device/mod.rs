//! A disk as its front end sees it: rings that start and stop, memory that comes and goes, the configuration space.
//!
//! The thread of the socket ([`endpoint`]) carries out here what the session asks for. Rings go to the threads that
//! serve queues, and come back from them.

pub mod endpoint;
mod inflight;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use vhost_user::connection::BackendChannel;
use vhost_user::event::{Event, EventError};
use vhost_user::mapped::MappedMemory;
use vhost_user::ring::inflight::{InflightRegion, TrackedQueue};
use vhost_user::ring::{RingError, RingFeatures, RingSetup};
use vhost_user::session::{self, Action, Outcome, RingBase, Session};

use self::inflight::Record;
use crate::config::{CONFIG_LEN, CONFIG_WCE, FLUSH, WCE_AT};
use crate::thread::{Active, Command, Kick, Shared, Thread};

/// Most pieces of memory of a request. Linux uses 128 or 256.
const CHAIN_LIMIT: u16 = 2048;
/// How long a disk on shared storage waits for the other machine to let go of it.
const HAND_OVER: Duration = Duration::from_secs(10);

/// A ring that a thread has.
#[derive(Debug)]
struct Running {
    /// The record of its requests, if the front end keeps none.
    own_record: Option<Arc<InflightRegion>>,
}

/// The device of one disk.
#[derive(Debug)]
pub struct Device {
    shared: Arc<Shared>,
    threads: Vec<Thread>,
    memory: MappedMemory,
    record: Option<Record>,
    /// By number.
    running: Vec<Option<Running>>,
    /// The front end listens there.
    backend_channel: Option<BackendChannel>,
    /// The driver wants the cache to be used, if it may say so.
    write_back: bool,
    /// The store is owned only while rings run, so that another machine can have it.
    hands_over: bool,
    owns: bool,
}

impl Device {
    /// The device of a disk whose queues are served by these threads. With `hands_over` it does not own the store yet.
    pub fn new(shared: Arc<Shared>, threads: Vec<Thread>, hands_over: bool) -> Self {
        let queues = usize::from(shared.shape.queues);
        Self {
            shared,
            threads,
            memory: MappedMemory::default(),
            record: None,
            running: (0..queues).map(|_| None).collect(),
            backend_channel: None,
            write_back: true,
            hands_over,
            owns: !hands_over,
        }
    }

    /// What all threads share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The threads.
    pub fn threads(&self) -> &[Thread] {
        &self.threads
    }

    fn thread(&self, ring: u8) -> Option<&Thread> {
        self.threads.get(usize::from(ring) % self.threads.len().max(1))
    }

    fn tell(&self, ring: u8, command: Command) {
        if let Some(thread) = self.thread(ring)
            && self.runs(ring)
        {
            thread.tell(command);
        }
    }

    fn runs(&self, ring: u8) -> bool {
        self.running.get(usize::from(ring)).is_some_and(Option::is_some)
    }

    fn running_rings(&self) -> Vec<u8> {
        (0..=u8::MAX).filter(|ring| self.runs(*ring)).collect()
    }

    /// Number of rings that run.
    pub fn active(&self) -> usize {
        self.running.iter().flatten().count()
    }

    /// Carries out what a request asks for. `stopped` is told where rings were.
    pub fn carry_out(
        &mut self,
        actions: &[Action],
        session: &Session,
        stopped: &mut dyn FnMut(u8, RingBase),
    ) -> Outcome {
        let mut outcome = Outcome::Done;
        // Rings stop side by side: each may have requests in work.
        let stops =
            actions.iter().filter_map(|action| if let Action::StopRing(ring) = action { Some(*ring) } else { None });
        let rings: Vec<_> = stops.collect();
        if let Err(why) = self.stop(&rings, stopped) {
            return Outcome::Failed(why);
        }
        for action in actions {
            match self.carry_out_one(action, session) {
                Ok(None) => {}
                Ok(Some(answer)) => outcome = answer,
                Err(why) => return Outcome::Failed(why),
            }
        }
        outcome
    }

    fn carry_out_one(&mut self, action: &Action, session: &Session) -> Result<Option<Outcome>, String> {
        match action {
            // They were stopped together.
            Action::StopRing(_) => {}
            Action::Reset => self.write_back = true,
            Action::FeaturesChanged => {
                self.set_cache(session);
                self.change_log(session)?;
            }
            Action::LogChanged => self.change_log(session)?,
            Action::MemoryChanged => self.change_memory(session)?,
            Action::InflightChanged => self.change_record(session)?,
            Action::BackendChannelChanged => {
                self.backend_channel = session.backend_channel().map(|fd| BackendChannel::from(Arc::clone(fd)));
            }
            Action::KickChanged(ring) => self.tell(*ring, Command::SetKick(u16::from(*ring), kick_of(*ring, session)?)),
            Action::CallChanged(ring) => self.tell(*ring, Command::SetCall(u16::from(*ring), call_of(*ring, session)?)),
            Action::RingLogChanged(ring) => self.log_ring(*ring, session),
            Action::RingEnabled { ring, on } => self.tell(*ring, Command::SetEnabled(u16::from(*ring), *on)),
            Action::StartRing(ring) => self.start(*ring, session)?,
            Action::ReadConfig { offset, size } => return Ok(Some(self.read_config(*offset, *size))),
            Action::WriteConfig { offset, migration, data } => {
                return Ok(Some(self.write_config(*offset, *migration, data, session)));
            }
            Action::MakeInflight { rings, ring_size } => {
                return Ok(Some(self.make_record(*rings, *ring_size, session)));
            }
            Action::MtuChanged(_) | Action::StatusChanged(_) | Action::ErrChanged(_) | Action::SendRarp(_) => {}
        }
        Ok(None)
    }

    /// Forgets the guest, whose rings are stopped.
    pub fn forget(&mut self) {
        (self.memory, self.record, self.backend_channel) = Default::default();
        self.write_back = true;
        self.shared.write_through.store(false, Ordering::Relaxed);
    }

    /// Makes the store greater. Only its owner may: another machine's disk may be making it greater still.
    pub fn grow_store(&self, bytes: u64) -> std::io::Result<()> {
        let store = &self.shared.store;
        if self.owns {
            return store.grow(bytes);
        }
        store.own(Duration::ZERO).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => std::io::Error::other(
                "a guest uses the image at another disk, perhaps on another machine: grow that first",
            ),
            _ => error,
        })?;
        let grown = store.grow(bytes);
        store.disown();
        grown
    }

    /// Tells the front end that the configuration space has changed. Says whether there is one to tell.
    pub fn config_changed(&self) -> bool {
        self.backend_channel.as_ref().is_some_and(|channel| channel.config_changed().is_ok())
    }

    // The configuration space.

    fn config(&self) -> [u8; CONFIG_LEN] {
        self.shared.shape.config(self.shared.capacity.load(Ordering::Relaxed), self.write_back)
    }

    fn read_config(&self, offset: u32, size: u32) -> Outcome {
        let piece = || {
            let (offset, size) = (usize::try_from(offset).ok()?, usize::try_from(size).ok()?);
            // Fields that later versions have put behind are zero.
            let mut config = self.config().to_vec();
            config.resize(offset.checked_add(size)?.max(CONFIG_LEN), 0);
            Some(Outcome::Config(config.get(offset..)?.get(..size)?.to_vec()))
        };
        piece().unwrap_or(Outcome::Refused)
    }

    /// The driver may switch the cache, and nothing else.
    fn write_config(&mut self, offset: u32, migration: bool, data: &[u8], session: &Session) -> Outcome {
        let switch = match data {
            [wce] if offset == WCE_AT => Some(*wce),
            // QEMU writes the whole space to a device that it sets up for a migrated guest.
            data if migration => data.get(WCE_AT.saturating_sub(offset) as usize).filter(|_| offset <= WCE_AT).copied(),
            _ => None,
        };
        let Some(wce) = switch else { return Outcome::Refused };
        self.write_back = wce != 0;
        if let Some(record) = &self.record {
            record.note_cache(self.write_back);
        }
        self.set_cache(session);
        Outcome::Done
    }

    /// Goes by what the driver knows of the cache. Without FLUSH it believes that there is none.
    fn set_cache(&self, session: &Session) {
        let cached = session.has(FLUSH) && (self.write_back || !session.has(CONFIG_WCE));
        let through = session.features().is_some() && !cached;
        let before = self.shared.write_through.swap(through, Ordering::Relaxed);
        if through && !before {
            // What was written until now has to be durable too. A guest that is not told can't help it.
            if let Err(error) = self.shared.store.sync() {
                tracing::error!(disk = self.shared.name, %error, "what the guest has written may not be durable");
            }
        }
    }

    // The record of requests in work.

    fn make_record(&mut self, rings: u16, ring_size: u16, session: &Session) -> Outcome {
        if rings > self.shared.shape.queues || ring_size > self.shared.shape.queue_depth {
            return Outcome::Refused;
        }
        match Record::create(rings, ring_size, session.is_packed(), self.write_back) {
            Ok(region) => Outcome::Inflight(region),
            Err(why) => {
                tracing::warn!(disk = self.shared.name, why, "no record of requests in flight");
                Outcome::Refused
            }
        }
    }

    fn change_record(&mut self, session: &Session) -> Result<(), String> {
        let packed = session.is_packed();
        self.record = session.inflight().map(|message| Record::open(message, packed)).transpose()?;
        if let Some(write_back) = self.record.as_ref().and_then(Record::cache) {
            // An earlier daemon knew it from this guest.
            self.write_back = write_back;
            self.set_cache(session);
        }
        Ok(())
    }

    // Rings.

    fn start(&mut self, ring: u8, session: &Session) -> Result<(), String> {
        let failed = |error: RingError| format!("ring {ring} can't start: {error}");
        let features = session.features().unwrap_or_default();
        let state = session.ring(ring).ok_or_else(|| format!("there is no ring {ring}"))?;
        let (Some(num), Some(at)) = (state.num, state.addresses) else { return Ok(()) };
        if num > self.shared.shape.queue_depth {
            let depth = self.shared.shape.queue_depth;
            return Err(format!("ring {ring} has {num} entries, and the disk's queue_depth is {depth}"));
        }
        if !self.owns {
            let waited = self.shared.store.own(HAND_OVER);
            waited.map_err(|error| format!("another disk has the image, perhaps on another machine: {error}"))?;
            self.owns = true;
        }
        let setup = RingSetup {
            size: num.into(),
            descriptors: at.descriptors,
            available: at.available,
            used: at.used,
            features: RingFeatures::of_bits(features),
            chain_limit: CHAIN_LIMIT,
        };
        let base = state.start_base(session.is_packed()).0;
        let (own_record, index) = match &self.record {
            Some(_) => (None, u16::from(ring)),
            None => {
                let made = InflightRegion::create(1, num, setup.features.packed);
                (Some(Arc::new(made.map_err(|error| format!("ring {ring}: {error}"))?.0)), 0)
            }
        };
        let region = own_record.as_deref().or(self.record.as_ref().map(Record::region));
        let region = region.ok_or_else(|| format!("ring {ring} has no record"))?;
        let mut queue = TrackedQueue::new(self.memory.guest(), &setup, region, index, base).map_err(failed)?;
        queue.set_log(self.memory.ring_log(ring, session));
        let active = Active {
            number: ring.into(),
            queue,
            kick: kick_of(ring, session)?,
            call: call_of(ring, session)?,
            enabled: state.is_enabled(),
            features,
        };
        if let Some(place) = self.running.get_mut(usize::from(ring)) {
            *place = Some(Running { own_record });
        }
        self.tell(ring, Command::Start(Box::new(active)));
        Ok(())
    }

    /// Gets rings back from their threads. Waits for requests that are in work.
    fn take(&self, rings: &[u8]) -> Result<Vec<(u8, Box<Active>)>, String> {
        let ask = |ring: &u8| {
            let (taker, taken): (_, Receiver<Box<Active>>) = channel();
            self.tell(*ring, Command::Take(u16::from(*ring), taker));
            (*ring, taken)
        };
        let asked: Vec<_> = rings.iter().filter(|ring| self.runs(**ring)).map(ask).collect();
        let get = |(ring, taken): (u8, Receiver<Box<Active>>)| {
            let active = taken.recv().map_err(|_| format!("the thread of ring {ring} has ended"))?;
            Ok((ring, active))
        };
        asked.into_iter().map(get).collect()
    }

    fn stop(&mut self, rings: &[u8], stopped: &mut dyn FnMut(u8, RingBase)) -> Result<(), String> {
        for (ring, active) in self.take(rings)? {
            let queue = active.queue.queue();
            stopped(ring, RingBase(queue.position().base(queue.features())));
            if let Some(place) = self.running.get_mut(usize::from(ring)) {
                *place = None;
            }
        }
        if !rings.is_empty() && self.active() == 0 && self.hands_over && self.owns {
            // The next owner, perhaps on another machine, reads what was written here.
            self.shared.store.sync().map_err(|error| format!("what was written may not be durable: {error}"))?;
            self.shared.store.disown();
            self.owns = false;
        }
        Ok(())
    }

    // Memory.

    /// Maps what is new, lets go of what is gone, and has rings that run go on in it.
    fn change_memory(&mut self, session: &Session) -> Result<(), String> {
        self.memory.follow_table(session).map_err(|error| format!("the guest's memory can't be mapped: {error}"))?;
        // Requests in work end in the memory that they are in.
        for (ring, mut active) in self.take(&self.running_rings())? {
            let (setup, position) = (*active.queue.queue().setup(), active.queue.queue().position());
            let own = self.running.get(usize::from(ring)).and_then(Option::as_ref);
            let own = own.and_then(|running| running.own_record.as_deref());
            let (record, index) = match (own, &self.record) {
                (Some(own), _) => (own, 0),
                (None, Some(record)) => (record.region(), u16::from(ring)),
                (None, None) => return Err(format!("ring {ring} has no record")),
            };
            let moved = TrackedQueue::new(self.memory.guest(), &setup, record, index, position.base(setup.features));
            active.queue = moved.map_err(|error| format!("ring {ring} can't go on in other memory: {error}"))?;
            active.queue.set_log(self.memory.ring_log(ring, session));
            self.tell(ring, Command::Start(active));
        }
        Ok(())
    }

    fn change_log(&mut self, session: &Session) -> Result<(), String> {
        let failed = |error| format!("the log of written pages can't be mapped: {error}");
        self.memory.follow_log(session).map_err(failed)?;
        self.running_rings().into_iter().for_each(|ring| self.log_ring(ring, session));
        Ok(())
    }

    fn log_ring(&self, ring: u8, session: &Session) {
        self.tell(ring, Command::SetLog(u16::from(ring), self.memory.ring_log(ring, session)));
    }
}

fn kick_of(ring: u8, session: &Session) -> Result<Kick, String> {
    let failed = |error: EventError| format!("the kick of ring {ring}: {error}");
    match session.ring(ring).map(|ring| &ring.kick) {
        Some(session::Kick::Event(event)) => Event::try_from(Arc::clone(event)).map(Kick::Event).map_err(failed),
        _ => Ok(Kick::Polled),
    }
}

fn call_of(ring: u8, session: &Session) -> Result<Option<Event>, String> {
    let call = session.ring(ring).and_then(|ring| ring.call.clone());
    call.map(Event::try_from).transpose().map_err(|error| format!("the call of ring {ring}: {error}"))
}
