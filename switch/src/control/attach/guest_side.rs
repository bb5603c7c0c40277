//! The guest's side of a port: its netdev, and what is on it for a guest that opens AF_XDP sockets itself.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::guest_end::GuestEnd;
use super::mtu::{MtuFacts, mtu_limit, one_chunk};
use crate::control::core::Core;
use crate::control::fields::check_mtu;
use crate::counters::as_count;
use crate::host::{GuestEndPlace, GuestSockets, Netdev};
use crate::model::*;
use crate::worker::view::PortShared;
use crate::{Error, ErrorKind};

/// The guest's side of a port. A port of a kind without guests has one with nothing in it.
#[derive(Debug)]
pub(in crate::control) struct GuestSide {
    core: Arc<Core>,
    shared: Arc<PortShared>,
    kind: PortKind,
    /// The guest's netdev.
    netdev: Option<Netdev>,
    /// The program there, once a guest asked for sockets.
    end: Option<GuestEnd>,
}

impl GuestSide {
    /// That of a port that is brought up, with `netdev` at its other end. It is opened, if it is to be open.
    pub fn bring_up(
        core: &Arc<Core>,
        netdev: Option<&Netdev>,
        spec: &PortSpec,
        shared: &Arc<PortShared>,
    ) -> Result<Self, Error> {
        let netdev = netdev.filter(|_| spec.kind.has_guest_end()).cloned();
        let mut side = Self { core: Arc::clone(core), shared: Arc::clone(shared), kind: spec.kind, netdev, end: None };
        if spec.guest_sockets {
            side.end = Some(GuestEnd::bring_up(&*core.host, &side.place()?, spec)?);
        }
        Ok(side)
    }

    /// The guest's netdev.
    pub fn netdev(&self) -> Option<&Netdev> {
        self.netdev.as_ref()
    }

    /// Goes by another name or place of the guest's netdev.
    pub fn set_netdev(&mut self, netdev: Option<&Netdev>) {
        self.netdev = netdev.filter(|_| self.kind.has_guest_end()).cloned();
    }

    /// Whether a guest can ask for sockets.
    pub fn is_open(&self) -> bool {
        self.end.is_some()
    }

    /// What users see of it, if it is open.
    pub fn info(&self) -> Option<GuestEndInfo> {
        self.end.as_ref().map(GuestEnd::info)
    }

    /// Mode in force of the program there.
    pub fn mode(&self) -> Option<Mode> {
        self.end.as_ref().map(GuestEnd::mode)
    }

    /// Opens it, if it is not open yet.
    pub fn open(&mut self, spec: &PortSpec) -> Result<GuestEndInfo, Error> {
        if self.end.is_none() {
            let one_chunk = one_chunk(&*self.core.host, true);
            let (mode, frame_size) = (spec.mode, self.core.settings.frame_size);
            let (max, why) = mtu_limit(MtuFacts { mode, is_veth: true, has_tap: false, frame_size, one_chunk });
            spec.mtu.map_or(Ok(()), |mtu| check_mtu(mtu, max, why))?;
            self.end = Some(GuestEnd::attach(&*self.core.host, &self.place()?, spec)?);
        }
        self.info().ok_or_else(|| self.closed())
    }

    /// Closes it: a kernel stack there gets its packets again.
    pub fn close(&mut self) {
        if let Some(end) = self.end.take() {
            end.remove(&*self.core.host, &self.shared.name, self.netdev.as_ref());
        }
    }

    /// Takes off what was not there before the port that can't be brought up.
    pub fn give_up(mut self) {
        if let Some(end) = self.end.take() {
            end.give_up(&*self.core.host, &self.shared.name, self.netdev.as_ref());
        }
    }

    /// Takes it down. Does the netdev stay, a kernel stack may speak there again.
    pub fn remove(self, netdev_stays: bool) {
        if let Some(end) = self.end {
            end.remove(&*self.core.host, &self.shared.name, self.netdev.as_ref().filter(|_| netdev_stays));
        }
    }

    /// Opens sockets for a guest, which are in their slots.
    pub fn open_sockets(&self) -> Result<GuestSockets, Error> {
        let (Some(end), Some(netdev)) = (&self.end, &self.netdev) else { return Err(self.closed()) };
        end.open_sockets(&*self.core.host, netdev, self.queues())
    }

    /// Empties the slots.
    pub fn withdraw(&self) -> Result<(), Error> {
        self.end.as_ref().map_or(Ok(()), |end| end.withdraw(self.queues()))
    }

    /// Puts a guest's sockets into their slots; says whether all are in.
    pub fn take_back(&self, sockets: &[OwnedFd]) -> Result<bool, Error> {
        self.end.as_ref().map_or(Ok(false), |end| end.take_back(sockets))
    }

    fn queues(&self) -> u32 {
        as_count(self.shared.queues.len())
    }

    fn closed(&self) -> Error {
        Error::new(ErrorKind::Busy, format!("the guest's end of port `{}` is not open", self.shared.name))
    }

    fn place(&self) -> Result<GuestEndPlace<'_>, Error> {
        let netdev = self.netdev.as_ref().ok_or_else(|| no_guest_end(&self.shared.name, self.kind))?;
        Ok(GuestEndPlace { port: self.shared.no, netdev, queues: self.queues() })
    }
}

/// The error for a port whose kind has no guest's end.
pub(in crate::control) fn no_guest_end(port: &str, kind: PortKind) -> Error {
    let kind = kind.name();
    Error::new(
        ErrorKind::Unsupported,
        format!("port `{port}` is a {kind}: only guest ports have an end for a guest's sockets"),
    )
}
