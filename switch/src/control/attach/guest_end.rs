//! The guest's end of a port for a guest that opens AF_XDP sockets itself, QEMU most of all.
//!
//! The guest's process may be an ordinary user's. It is given sockets that are neither bound nor have memory. It
//! registers its own memory, and binds them. For each queue the port's pinned XSKMAP has a slot, which the kernel
//! empties when the last copy of its socket is closed. Nothing of this is undone when the daemon ends: the next one
//! takes it up.

use std::os::fd::{AsFd, OwnedFd};

use crate::host::{Attached, GuestEndPlace, GuestProgram, GuestSockets, Host, Netdev, QueueCounters};
use crate::model::*;
use crate::{Error, ErrorKind};

/// The program on a guest's end.
#[derive(Debug)]
pub struct GuestEnd {
    program: Box<dyn GuestProgram>,
    mode_reason: Option<String>,
    /// Whether it was attached now, and not found as an earlier daemon had left it.
    fresh: bool,
}

impl GuestEnd {
    /// Opens the guest's end of a port that is brought up. What an earlier daemon has left there goes on.
    pub fn bring_up(host: &dyn Host, place: &GuestEndPlace<'_>, spec: &PortSpec) -> Result<Self, Error> {
        match host.resume_guest_end(place)? {
            Some(program) => Ok(Self { program, mode_reason: None, fresh: false }),
            None => Self::attach(host, place, spec),
        }
    }

    /// Opens the guest's end of a live port.
    pub fn attach(host: &dyn Host, place: &GuestEndPlace<'_>, spec: &PortSpec) -> Result<Self, Error> {
        let (program, Attached { fallback_reason, .. }) = host.attach_guest_end(place, spec.mode)?;
        if let Some(reason) = &fallback_reason {
            tracing::warn!(port = spec.name, reason, "its guest's end is in generic mode");
        }
        Ok(Self { program, mode_reason: fallback_reason, fresh: true })
    }

    /// What its users see.
    pub fn info(&self) -> GuestEndInfo {
        let counters = self.program.counters().unwrap_or_default();
        let queue = |(queue, counters): (u32, &QueueCounters)| GuestQueue {
            queue,
            redirect: counters.redirect,
            drop_no_socket: counters.drop_no_socket,
            drop_unbound: counters.drop_unbound,
        };
        GuestEndInfo {
            mode: self.program.mode(),
            mode_reason: self.mode_reason.clone(),
            map_path: self.program.map_path().display().to_string(),
            queues: (0..).zip(&counters).map(queue).collect(),
        }
    }

    /// Mode in force.
    pub fn mode(&self) -> Mode {
        self.program.mode()
    }

    /// Opens sockets for a guest, and puts them into their slots.
    pub fn open_sockets(&self, host: &dyn Host, netdev: &Netdev, queues: u32) -> Result<GuestSockets, Error> {
        let opened = host.open_guest_sockets(netdev, queues)?;
        for (queue, socket) in (0_u32..).zip(&opened.sockets) {
            if !self.program.offer(queue, socket.as_fd())? {
                return Err(Error::new(
                    ErrorKind::Busy,
                    format!("queue {queue} of {} has a guest's socket: end the process that has it", netdev.name),
                ));
            }
        }
        Ok(opened)
    }

    /// Puts sockets that a guest has, in queue order, into their slots; says whether all are in.
    pub fn take_back(&self, sockets: &[OwnedFd]) -> Result<bool, Error> {
        let mut all = true;
        for (queue, socket) in (0..).zip(sockets) {
            all &= self.program.offer(queue, socket.as_fd())?;
        }
        Ok(all)
    }

    /// Empties the slots.
    pub fn withdraw(&self, queues: u32) -> Result<(), Error> {
        (0..queues).try_for_each(|queue| self.program.withdraw(queue))
    }

    /// Takes the program off and removes what is pinned. Then a kernel stack may speak there again, if there is a
    /// netdev.
    pub fn remove(self, host: &dyn Host, port: &str, netdev: Option<&Netdev>) {
        if let Err(error) = self.program.remove() {
            tracing::warn!(port, %error, "the program of its guest's end stays");
        }
        if let Some(netdev) = netdev
            && let Err(error) = host.let_ipv6_speak(netdev)
        {
            tracing::warn!(peer = netdev.name, %error, "IPv6 stays off on a guest's end");
        }
    }

    /// Takes it off again, if it was not there before the port that can't be brought up.
    pub fn give_up(self, host: &dyn Host, port: &str, netdev: Option<&Netdev>) {
        if self.fresh {
            self.remove(host, port, netdev);
        }
    }
}
