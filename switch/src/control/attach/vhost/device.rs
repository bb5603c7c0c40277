//! A net device as its front end sees it: rings that start and stop, memory that comes and goes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::stat::fstat;
use vhost_user::event::Event;
use vhost_user::mapped::MappedMemory;
use vhost_user::message::RegionAddress;
use vhost_user::message::features as protocol;
use vhost_user::net::{HeaderFormat, OffloadRules};
use vhost_user::ring::{F_PACKED, Queue, Record, RingError, RingFeatures, RingIdentity, RingSetup};
use vhost_user::session::{Action, Kick, Offer, Outcome, RingBase, Session};

use super::positions::{Positions, Records};
use crate::io::vhost::{RunningRing, VhostPair, Way};
use crate::model::VhostInfo;
use crate::{Error, ErrorKind};

/// Most buffers of one packet. Linux uses 18 at most.
const CHAIN_LIMIT: u16 = 64;
/// Regions that can be added one by one, as many as QEMU has slots for.
const MEM_SLOTS: u16 = 509;

/// The device of one port.
#[derive(Debug)]
pub struct Device {
    pairs: Vec<Arc<VhostPair>>,
    /// Signalled when a worker has given up a ring.
    alarm: Arc<EventFd>,
    offer: Offer,
    memory: MappedMemory,
    /// The kick of each ring, as the worker waits for it.
    kicks: Vec<Option<Event>>,
    /// Where packed rings stand, for the next process. Without it none are offered.
    positions: Arc<Positions>,
}

impl Device {
    /// A device with so many queue pairs, which offers these features. Packed rings are offered if positions are kept.
    pub fn new(pairs: usize, max_mtu: u32, features: u64, positions: Arc<Positions>) -> Result<Self, Error> {
        let failed = |errno| Error::new(ErrorKind::System, format!("vhost: making an event: {errno}"));
        let alarm = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).map_err(failed)?;
        let alarm = Arc::new(alarm);
        let made: Result<Vec<_>, _> = (0..pairs).map(|_| VhostPair::new(Arc::clone(&alarm))).collect();
        Ok(Self {
            pairs: made.map_err(failed)?,
            alarm,
            offer: offer(
                u16::try_from(pairs).unwrap_or(u16::MAX),
                max_mtu,
                features & if positions.are_kept() { u64::MAX } else { !F_PACKED },
            ),
            memory: MappedMemory::default(),
            kicks: vec![None; 2 * pairs],
            positions,
        })
    }

    /// Its queue pairs.
    pub fn pairs(&self) -> &[Arc<VhostPair>] {
        &self.pairs
    }

    /// Readable when a worker has given up a ring.
    pub fn alarm(&self) -> &EventFd {
        &self.alarm
    }

    /// What it offers.
    pub fn offer(&self) -> Offer {
        self.offer
    }

    /// Which ring a worker has given up and why, if one has. The front end's error event of the ring is signalled.
    pub fn take_failure(&self, session: &Session) -> Option<(u8, RingError)> {
        let _ = self.alarm.read();
        let failed = |(pair, shared): (u8, &Arc<VhostPair>)| {
            let (way, error) = shared.take_failure()?;
            Some((2 * pair + u8::from(way == Way::FromGuest), error))
        };
        let (ring, error) = (0..).zip(&self.pairs).find_map(failed)?;
        // Nobody has to listen there, and the session ends.
        let err = session.ring(ring).and_then(|ring| ring.err.clone());
        if let Some(err) = err.and_then(|err| Event::try_from(err).ok()) {
            let _ = err.signal_rarely();
        }
        Some((ring, error))
    }

    /// Carries out what a request asks for. `stopped` is told where rings were.
    pub fn carry_out(
        &mut self,
        actions: &[Action],
        session: &Session,
        stopped: &mut dyn FnMut(u8, RingBase),
    ) -> Outcome {
        for action in actions {
            // There is no configuration space, and no record of requests in flight.
            if matches!(action, Action::ReadConfig { .. } | Action::WriteConfig { .. } | Action::MakeInflight { .. }) {
                return Outcome::Refused;
            }
            if let Err(why) = self.carry_out_one(action, session, stopped) {
                return Outcome::Failed(why);
            }
        }
        Outcome::Done
    }

    fn carry_out_one(
        &mut self,
        action: &Action,
        session: &Session,
        stopped: &mut dyn FnMut(u8, RingBase),
    ) -> Result<(), String> {
        match *action {
            Action::StopRing(ring) => stopped(ring, self.stop(ring)),
            Action::StartRing(ring) => self.start(ring, session)?,
            Action::MemoryChanged => self.change_memory(session)?,
            Action::LogChanged | Action::FeaturesChanged => self.change_log(session)?,
            Action::RingLogChanged(ring) => self.log_ring(ring, session),
            Action::CallChanged(ring) => {
                let call = call_of(ring, session)?;
                self.with(ring, |running| running.call = call);
            }
            Action::KickChanged(ring) => self.change_kick(ring, session)?,
            Action::RingEnabled { ring, on } => self.with(ring, |running| running.enabled = on),
            Action::SendRarp(mac) => {
                if let Some(pair) = self.pairs.first() {
                    pair.announce(mac);
                }
            }
            // All rings are stopped by now. The rest is in the session, or a net device has no such thing.
            Action::Reset
            | Action::InflightChanged
            | Action::BackendChannelChanged
            | Action::MtuChanged(_)
            | Action::StatusChanged(_)
            | Action::ErrChanged(_)
            | Action::ReadConfig { .. }
            | Action::WriteConfig { .. }
            | Action::MakeInflight { .. } => {}
        }
        Ok(())
    }

    /// Forgets the guest, whose rings are stopped.
    pub fn forget(&mut self) {
        self.memory = MappedMemory::default();
    }

    fn place(&self, ring: u8) -> Option<(&Arc<VhostPair>, Way)> {
        let way = if ring.is_multiple_of(2) { Way::ToGuest } else { Way::FromGuest };
        Some((self.pairs.get(usize::from(ring / 2))?, way))
    }

    /// Changes a ring that runs, if it does.
    fn with(&self, ring: u8, change: impl FnOnce(&mut RunningRing)) {
        let Some((pair, way)) = self.place(ring) else { return };
        if let Some(running) = pair.lock(way).as_mut() {
            change(running);
        }
        pair.nudge();
    }

    fn stop(&mut self, ring: u8) -> RingBase {
        let Some((pair, way)) = self.place(ring) else { return RingBase::default() };
        let stopped = pair.lock(way).take();
        if let Some(kick) = self.kicks.get(usize::from(ring)).and_then(Option::as_ref) {
            // The same pair: the kick was put there.
            let _ = pair.set_kick(Some(kick), None);
        }
        if let Some(kick) = self.kicks.get_mut(usize::from(ring)) {
            *kick = None;
        }
        let queue = stopped.map(|running| running.queue);
        queue.map_or(RingBase::default(), |queue| RingBase(queue.position().base(queue.features())))
    }

    fn start(&mut self, ring: u8, session: &Session) -> Result<(), String> {
        let failed = |error: RingError| format!("ring {ring} can't start: {error}");
        let features = session.features().unwrap_or_default();
        let state = session.ring(ring).ok_or_else(|| format!("there is no ring {ring}"))?;
        let (Some(num), Some(at)) = (state.num, state.addresses) else { return Ok(()) };
        let setup = RingSetup {
            size: num.into(),
            descriptors: at.descriptors,
            available: at.available,
            used: at.used,
            features: RingFeatures::of_bits(features),
            chain_limit: CHAIN_LIMIT,
        };
        let base = state.start_base(session.is_packed());
        // The ring and its record belong together until the worker has the ring.
        let positions = Arc::clone(&self.positions);
        let records = positions.records();
        let record = self.record(&records, ring, &setup);
        let resumed = match &record {
            Some((record, identity)) => {
                record.resume(self.memory.guest(), &setup, *identity, base.0).map_err(failed)?
            }
            None => None,
        };
        let mut position =
            resumed.map_or_else(|| setup.position_of_base(self.memory.guest(), base.0), Ok).map_err(failed)?;
        // DPDK's virtio-user says 0 to a back end that comes back. The used ring tells where the last one was.
        if !session.is_packed() && position.available.wrapping_sub(position.used) > num {
            position = setup.position_of_used_ring(self.memory.guest()).map_err(failed)?;
        }
        let mut queue = Queue::new(self.memory.guest(), &setup, position).map_err(failed)?;
        queue.set_log(self.memory.ring_log(ring, session));
        queue.set_record(record.map(|(record, identity)| {
            if resumed.is_none() {
                record.begin(identity, num, position);
            }
            record
        }));
        // The worker asks for kicks before it sleeps.
        queue.disable_kicks();
        let mut running = RunningRing {
            queue,
            call: call_of(ring, session)?,
            enabled: state.is_enabled(),
            header: HeaderFormat::of_bits(features),
            offloads: OffloadRules::of_bits(features),
        };
        // The device before may have been killed when it had used buffers, and not called yet.
        let call = running.call.as_ref().filter(|_| running.queue.needs_call());
        call.map_or(Ok(()), Event::signal_rarely).map_err(|error| failed(error.into()))?;
        self.change_kick(ring, session)?;
        if let Some((pair, way)) = self.place(ring) {
            *pair.lock(way) = Some(running);
            pair.nudge();
        }
        Ok(())
    }

    /// The record of a packed ring, and which ring that is. None if the position can't outlive this process.
    fn record(&self, records: &Records<'_>, ring: u8, setup: &RingSetup) -> Option<(Record, RingIdentity)> {
        let record = records.of(ring).filter(|_| setup.features.packed)?;
        let region = self.memory.region_at(setup.descriptors)?;
        let RegionAddress { user_addr, mmap_offset, .. } = region.address;
        let file = fstat(&region.fd).ok()?;
        let offset = (setup.descriptors - user_addr).checked_add(mmap_offset)?;
        Some((record, RingIdentity { device: file.st_dev, inode: file.st_ino, offset }))
    }

    /// The front end knows where that ring stopped, so nobody has to remember it.
    pub fn position_is_known(&self, ring: u8) {
        if let Some(record) = self.positions.records().of(ring) {
            record.end();
        }
    }

    /// Whether the position of some ring is needed when its front end is back.
    pub fn has_positions(&self) -> bool {
        self.positions.hold()
    }

    /// Only what the guest sends is waited for.
    fn change_kick(&mut self, ring: u8, session: &Session) -> Result<(), String> {
        let Some((pair, Way::FromGuest)) = self.place(ring) else { return Ok(()) };
        let new = match session.ring(ring).map(|ring| &ring.kick) {
            Some(Kick::Event(event)) => {
                let event = Event::try_from(Arc::clone(event));
                Some(event.map_err(|error| format!("the kick of ring {ring}: {error}"))?)
            }
            _ => None,
        };
        let at = usize::from(ring);
        let before = self.kicks.get(at).and_then(Option::as_ref);
        let set = pair.set_kick(before, new.as_ref());
        pair.nudge();
        if let Some(kick) = self.kicks.get_mut(at) {
            *kick = new.filter(|_| set.is_ok());
        }
        set.map_err(|errno| format!("the kick of ring {ring} can't be waited for: {errno}"))
    }

    /// Maps what is new, lets go of what is gone, and has rings that run go on in it.
    fn change_memory(&mut self, session: &Session) -> Result<(), String> {
        self.memory.follow_table(session).map_err(|error| format!("the guest's memory can't be mapped: {error}"))?;
        for pair in &self.pairs {
            for way in [Way::ToGuest, Way::FromGuest] {
                let mut ring = pair.lock(way);
                let Some(running) = ring.as_mut() else { continue };
                let (setup, position) = (*running.queue.setup(), running.queue.position());
                let record = running.queue.take_record();
                let moved = Queue::new(self.memory.guest(), &setup, position);
                running.queue = moved.map_err(|error| format!("a ring can't go on in other memory: {error}"))?;
                running.queue.set_record(record);
            }
            pair.nudge();
        }
        (0..).zip(&self.kicks).for_each(|(ring, _)| self.log_ring(ring, session));
        Ok(())
    }

    fn change_log(&mut self, session: &Session) -> Result<(), String> {
        let failed = |error| format!("the log of written pages can't be mapped: {error}");
        self.memory.follow_log(session).map_err(failed)?;
        (0..).zip(&self.kicks).for_each(|(ring, _)| self.log_ring(ring, session));
        Ok(())
    }

    fn log_ring(&self, ring: u8, session: &Session) {
        let log = self.memory.ring_log(ring, session);
        self.with(ring, |running| running.queue.set_log(log));
    }

    /// Whether packets can go both ways by some pair.
    pub fn active_pairs(&self) -> u32 {
        let runs = |pair: &VhostPair, way| pair.lock(way).as_ref().is_some_and(|ring| ring.enabled);
        let active = self.pairs.iter().filter(|pair| runs(pair, Way::ToGuest) && runs(pair, Way::FromGuest));
        u32::try_from(active.count()).unwrap_or(u32::MAX)
    }

    /// What users see of a session.
    pub fn describe(&self, session: &Session, info: &mut VhostInfo) {
        info.offered = self.offer.features;
        info.features = session.features();
        info.protocol_features = session.protocol_features();
        info.memory_regions = self.memory.regions().len();
        info.active_pairs = self.active_pairs();
    }
}

/// Adds what was counted at the rings.
pub fn count_losses(pairs: &[Arc<VhostPair>], info: &mut VhostInfo) {
    for pair in pairs {
        info.long_received += pair.counters.long_received.load(Ordering::Relaxed);
        info.long_sent += pair.counters.long_sent.load(Ordering::Relaxed);
        info.segmented += pair.counters.segmented.load(Ordering::Relaxed);
        info.checksums_filled += pair.counters.checksums_filled.load(Ordering::Relaxed);
        info.malformed += pair.counters.malformed.load(Ordering::Relaxed);
        info.no_room += pair.counters.no_room.load(Ordering::Relaxed);
        info.disabled += pair.counters.disabled.load(Ordering::Relaxed);
    }
}

fn offer(pairs: u16, max_mtu: u32, features: u64) -> Offer {
    Offer {
        features,
        protocol_features: protocol::MQ
            | protocol::LOG_SHMFD
            | protocol::RARP
            | protocol::REPLY_ACK
            | protocol::MTU
            | protocol::BACKEND_REQ
            | protocol::RESET_DEVICE
            | protocol::CONFIGURE_MEM_SLOTS
            | protocol::STATUS,
        rings: 2 * pairs,
        queue_num: pairs,
        enabled_at_first: 2,
        mem_slots: MEM_SLOTS,
        max_mtu: u16::try_from(max_mtu).unwrap_or(u16::MAX),
    }
}

fn call_of(ring: u8, session: &Session) -> Result<Option<Event>, String> {
    let call = session.ring(ring).and_then(|ring| ring.call.clone());
    call.map(Event::try_from).transpose().map_err(|error| format!("the call of ring {ring}: {error}"))
}
