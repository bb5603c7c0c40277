//! What each request changes. A request that is refused changes nothing.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::action::Action;
use super::answer::{Asked, Turn};
use super::memory::MemoryTable;
use super::refusal::Refusal;
use super::ring::{Kick, MAX_RING_SIZE, Ring, RingBase};
use super::state::Session;
use crate::message::features::{
    BACKEND_REQ, CONFIG, CONFIGURE_MEM_SLOTS, INFLIGHT_SHMFD, LOG_ALL, LOG_SHMFD, MQ, MTU, RARP, RESET_DEVICE, STATUS,
};
use crate::message::{InflightRegion, LogRegion, Request, RingAddresses};

/// Smallest MTU of IPv4 (RFC 791), which virtio asks for too (1.2, 5.1.4.1).
const MIN_MTU: u16 = 68;

impl Session {
    /// Makes the change, and notes in the turn what the device has to do besides rings that start and stop.
    pub(super) fn apply(&mut self, request: Request, turn: &mut Turn) -> Result<(), Refusal> {
        let question = &mut turn.question;
        let actions = &mut turn.actions;
        match request {
            Request::GetFeatures => question.ask(Asked::Number(self.offer.all_features())),
            Request::SetFeatures(features) => actions.extend(self.set_features(features)?),
            Request::SetOwner => self.owned = true,
            // Some front ends send it at the end, some at the start. The specification asks to ignore it.
            Request::ResetOwner => {}
            Request::GetProtocolFeatures => {
                self.needs(u64::MAX)?;
                question.ask(Asked::Number(self.offer.protocol_features));
            }
            // Front ends may do this before `SET_FEATURES`.
            Request::SetProtocolFeatures(features) => self.set_protocol_features(features)?,
            Request::GetQueueNum => {
                self.needs(MQ)?;
                question.ask(Asked::Number(self.offer.queue_num.into()));
            }
            Request::SetMemTable(regions) => {
                self.memory = MemoryTable::of(regions)?;
                actions.push(Action::MemoryChanged);
            }
            Request::GetMaxMemSlots => {
                self.needs(CONFIGURE_MEM_SLOTS)?;
                question.ask(Asked::Number(self.offer.mem_slots.into()));
            }
            Request::AddMemReg(region) => {
                self.needs(CONFIGURE_MEM_SLOTS)?;
                self.memory.add(region, self.offer.mem_slots.into())?;
                actions.push(Action::MemoryChanged);
            }
            Request::RemMemReg(address) => {
                self.needs(CONFIGURE_MEM_SLOTS)?;
                self.memory.remove(&address)?;
                actions.push(Action::MemoryChanged);
            }
            Request::SetLogBase(log) => {
                self.log = Some(Arc::new(self.checked_log(log)?));
                actions.push(Action::LogChanged);
            }
            Request::SetLogFd(fd) => {
                self.log_event = Some(Arc::new(fd));
                actions.push(Action::LogChanged);
            }
            Request::SetVringNum { ring, num } => self.set_ring_size(ring, num)?,
            Request::SetVringAddr { ring, addresses } => actions.extend(self.set_addresses(ring, addresses)?),
            Request::SetVringBase { ring, base } => self.at_rest(ring)?.set_base(Some(RingBase(base))),
            Request::GetVringBase { ring } => {
                // Without a kick it stops.
                self.named(ring)?.kick = Kick::Unset;
                question.ask(Asked::Base(ring));
            }
            Request::SetVringKick { ring, fd } => {
                self.named(ring)?.kick = fd.map_or(Kick::Polled, |fd| Kick::Event(Arc::new(fd)));
                actions.extend(self.while_running(ring, Action::KickChanged));
            }
            Request::SetVringCall { ring, fd } => {
                self.named(ring)?.call = fd.map(Arc::new);
                actions.extend(self.while_running(ring, Action::CallChanged));
            }
            Request::SetVringErr { ring, fd } => {
                self.named(ring)?.err = fd.map(Arc::new);
                actions.extend(self.while_running(ring, Action::ErrChanged));
            }
            // QEMU sends it before `SET_FEATURES`, and waits for the acknowledgement.
            Request::SetVringEnable { ring, on } => self.named(ring)?.enable = Some(on),
            Request::SendRarp(mac) => {
                self.needs(RARP)?;
                actions.push(Action::SendRarp(mac));
            }
            Request::NetSetMtu(mtu) => actions.push(self.set_mtu(mtu)?),
            Request::SetBackendReqFd(fd) => actions.push(self.set_backend_channel(fd)?),
            Request::GetConfig { offset, size, flags } => {
                self.needs(CONFIG)?;
                question.ask(Asked::Config { offset, size, flags });
                actions.push(Action::ReadConfig { offset, size });
            }
            Request::SetConfig { offset, migration, data } => {
                self.needs(CONFIG)?;
                actions.push(Action::WriteConfig { offset, migration, data });
            }
            Request::GetInflightFd(layout) => {
                self.needs(INFLIGHT_SHMFD)?;
                if layout.rings == 0 || layout.rings > self.offer.rings || layout.ring_size == 0 {
                    return Err(Refusal::Area("record of requests in flight"));
                }
                actions.push(Action::MakeInflight { rings: layout.rings, ring_size: layout.ring_size });
            }
            Request::SetInflightFd(region) => actions.push(self.set_inflight(region)?),
            Request::ResetDevice => {
                self.needs(RESET_DEVICE)?;
                self.rings.iter_mut().for_each(Ring::forget);
                actions.push(self.reset());
            }
            Request::SetStatus(status) => {
                self.needs(STATUS)?;
                actions.push(self.set_status(status)?);
            }
            Request::GetStatus => {
                self.needs(STATUS)?;
                question.ask(Asked::Number(self.status.into()));
            }
        }
        Ok(())
    }

    /// One of these protocol features is offered. Some requests may come before features are negotiated.
    fn needs(&self, features: u64) -> Result<(), Refusal> {
        if self.offer.protocol_features & features == 0 { Err(Refusal::NotOffered) } else { Ok(()) }
    }

    fn named(&mut self, ring: u8) -> Result<&mut Ring, Refusal> {
        let rings = self.offer.rings;
        self.rings.get_mut(usize::from(ring)).ok_or(Refusal::NoRing { ring, rings })
    }

    /// A ring that is set up anew. If it ran without effects, it waits for its next kick.
    ///
    /// Cloud-hypervisor only disabled rings before it set them up anew, until 2022.
    fn at_rest(&mut self, ring: u8) -> Result<&mut Ring, Refusal> {
        let named = self.named(ring)?;
        if named.is_in_use() {
            return Err(Refusal::RingRuns(ring));
        }
        if named.started {
            named.kick = Kick::Unset;
        }
        Ok(named)
    }

    /// The same of all rings.
    fn all_at_rest(&mut self) -> Result<(), Refusal> {
        if let Some(ring) = (0..=u8::MAX).find(|ring| self.ring(*ring).is_some_and(Ring::is_in_use)) {
            return Err(Refusal::RingRuns(ring));
        }
        self.rings.iter_mut().filter(|ring| ring.started).for_each(|ring| ring.kick = Kick::Unset);
        Ok(())
    }

    fn while_running(&self, ring: u8, change: fn(u8) -> Action) -> Option<Action> {
        self.runs(ring).then(|| change(ring))
    }

    fn set_features(&mut self, features: u64) -> Result<Option<Action>, Refusal> {
        let foreign = features & !self.offer.all_features();
        if foreign != 0 {
            return Err(Refusal::Features(foreign));
        }
        // QEMU sends them once a queue pair, while the first pair runs. Only migration changes something then.
        let changed = self.features.map_or(0, |old| old ^ features) & !LOG_ALL;
        if changed != 0 {
            self.all_at_rest().map_err(|_| Refusal::FeaturesInUse(changed))?;
        }
        let is_new = self.features != Some(features);
        self.features = Some(features);
        Ok(is_new.then_some(Action::FeaturesChanged))
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<(), Refusal> {
        self.needs(u64::MAX)?;
        let foreign = features & !self.offer.protocol_features;
        if foreign != 0 {
            return Err(Refusal::Features(foreign));
        }
        self.protocol_features = features;
        Ok(())
    }

    fn checked_log(&self, log: Option<LogRegion>) -> Result<LogRegion, Refusal> {
        self.needs(LOG_SHMFD)?;
        let log = log.filter(|log| log.size > 0 && log.offset.checked_add(log.size).is_some());
        log.ok_or(Refusal::Area("log of written pages"))
    }

    fn set_ring_size(&mut self, ring: u8, num: u32) -> Result<(), Refusal> {
        let old = self.named(ring)?.num;
        let num =
            u16::try_from(num).ok().filter(|num| (1..=MAX_RING_SIZE).contains(num)).ok_or(Refusal::RingSize(num))?;
        if old != Some(num) {
            self.at_rest(ring)?.num = Some(num);
        }
        Ok(())
    }

    /// While a ring is in use, only its log can change, as it does when a migration begins.
    fn set_addresses(&mut self, ring: u8, addresses: RingAddresses) -> Result<Option<Action>, Refusal> {
        let parts = |of: RingAddresses| (of.descriptors, of.available, of.used);
        let old = self.named(ring)?.addresses;
        let moves = old.map(parts) != Some(parts(addresses));
        let named = if moves { self.at_rest(ring)? } else { self.named(ring)? };
        named.addresses = Some(addresses);
        Ok((old != Some(addresses)).then_some(Action::RingLogChanged(ring)))
    }

    fn set_mtu(&mut self, mtu: u64) -> Result<Action, Refusal> {
        self.needs(MTU)?;
        let max = self.offer.max_mtu;
        let possible = u16::try_from(mtu).ok().filter(|mtu| (MIN_MTU..=max).contains(mtu));
        let mtu = possible.ok_or(Refusal::Mtu { mtu, max })?;
        self.mtu = Some(mtu);
        Ok(Action::MtuChanged(mtu))
    }

    fn set_backend_channel(&mut self, fd: OwnedFd) -> Result<Action, Refusal> {
        self.needs(BACKEND_REQ)?;
        self.backend_channel = Some(Arc::new(fd));
        Ok(Action::BackendChannelChanged)
    }

    fn set_inflight(&mut self, region: InflightRegion) -> Result<Action, Refusal> {
        self.needs(INFLIGHT_SHMFD)?;
        let layout = region.layout;
        let fits = layout.size > 0 && layout.offset.checked_add(layout.size).is_some();
        if !fits || layout.rings == 0 || layout.rings > self.offer.rings || layout.ring_size == 0 {
            return Err(Refusal::Area("record of requests in flight"));
        }
        self.all_at_rest()?;
        self.inflight = Some(Arc::new(region));
        Ok(Action::InflightChanged)
    }

    fn set_status(&mut self, status: u64) -> Result<Action, Refusal> {
        match u8::try_from(status) {
            // QEMU 7.2 asks for the positions of the rings after that, so they are kept.
            Ok(0) => Ok(self.reset()),
            Ok(status) => {
                self.status = status;
                Ok(Action::StatusChanged(status))
            }
            Err(_) => Err(Refusal::Status(status)),
        }
    }

    /// The device starts anew. Owner, protocol features, memory, log, sockets and call events stay, because front ends
    /// do not send them again.
    fn reset(&mut self) -> Action {
        self.rings.iter_mut().for_each(Ring::reset);
        (self.features, self.inflight, self.status) = (None, None, 0);
        Action::Reset
    }
}
