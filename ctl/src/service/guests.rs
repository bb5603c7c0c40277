//! Guests' processes: sockets for them, and who has which.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use switch::model::*;
use switch::{ErrorKind, GuestSockets};

use super::{GuestHolder, PortEntry, Service, busy};
use crate::companion::leases::Leases;
use crate::companion::process::Process;
use crate::companion::protocol::Offer;
use crate::error::Error;
use crate::qemu::memlock;
use crate::state::Row;

/// How long the kernel may take to let go of a queue whose socket was closed.
const UNBIND: Duration = Duration::from_secs(3);

/// What the service knows of guests' processes.
#[derive(Debug, Default)]
pub(super) struct Guests {
    leases: OnceLock<Arc<Leases>>,
    /// One hand-over at a time.
    turn: Mutex<()>,
}

impl Service {
    /// Takes up what is written down in `dir` of guests' processes, and looks after them from now on. Before that nobody gets
    /// sockets.
    pub fn look_after_guests(&self, dir: &Path) -> Result<(), Error> {
        let leases = Leases::open(dir)
            .map_err(|error| Error::io(format!("keeping guests' processes in {}", dir.display()), error))?;
        self.dataplane.forget_stale_pins();
        let known = self.lock().ports.iter().map(|spec| spec.name.clone()).collect::<Vec<_>>();
        leases.holders().keys().filter(|port| !known.contains(port)).for_each(|port| leases.end(port));
        let _ = self.guests.leases.set(leases);
        Ok(())
    }

    pub(super) fn holder(&self, name: &str) -> Option<GuestHolder> {
        self.guests.leases.get()?.holder(name)
    }

    pub(super) fn holders(&self) -> BTreeMap<String, GuestHolder> {
        self.guests.leases.get().map(|leases| leases.holders()).unwrap_or_default()
    }

    /// Forgets who has the sockets of a port.
    pub(super) fn end_lease(&self, name: &str) {
        if let Some(leases) = self.guests.leases.get() {
            leases.end(name);
        }
    }

    /// Forgets that somebody has these sockets of a port, who has not got them after all.
    pub fn not_delivered(&self, name: &str, sockets: &[OwnedFd]) {
        if let Some(leases) = self.guests.leases.get() {
            leases.end_of(name, sockets);
        }
    }

    /// Says what a guest's process needs to know of its port, whose guest's end is opened for it.
    pub fn describe_guest(&self, key: &str) -> Result<Offer, Error> {
        let name = self.live(&self.lock(), key)?.name.clone();
        let end = self.open(&name)?;
        self.offer(&self.port(&name)?, end)
    }

    /// Opens the guest's end of a port, and keeps in mind that it is open.
    fn open(&self, name: &str) -> Result<GuestEndInfo, Error> {
        let mut inner = self.lock();
        let end = self.dataplane.open_guest_end(name)?;
        if let Some(spec) = inner.ports.iter_mut().find(|spec| spec.name == name && !spec.guest_sockets) {
            let opened = PortSpec { guest_sockets: true, ..spec.clone() };
            self.store.write(&[Row::port(&opened)])?;
            *spec = opened;
        }
        Ok(end)
    }

    fn offer(&self, port: &PortEntry, end: GuestEndInfo) -> Result<Offer, Error> {
        let (Some(vport), Some(ifname), Some(mac)) = (port.spec.vport, &port.spec.guest_ifname, port.spec.mac) else {
            return Err(busy(format!("port `{}` is not up", port.name)));
        };
        // Of whichever user: each process may be the one that starts last.
        let guests = self.lock();
        let queues = guests.ports.iter().filter(|spec| spec.kind == PortKind::Guest);
        let queues: u64 = queues.map(|spec| u64::from(spec.queues.unwrap_or(1))).sum();
        Ok(Offer {
            port: port.name.clone(),
            vport,
            ifname: ifname.clone(),
            netns: port.spec.netns.clone(),
            mac,
            mtu: port.spec.mtu.unwrap_or(DEFAULT_MTU),
            mode: end.mode,
            queues: end.queues.len() as u32,
            memlock: memlock(queues),
            map_path: end.map_path,
        })
    }

    /// Gives the sockets of a port to a process.
    ///
    /// # Errors
    /// `Busy` if another process has them, or has bound the queues in a way of its own.
    pub fn hand_over(&self, key: &str, process: Process) -> Result<(Offer, GuestSockets), Error> {
        let leases = self.guests.leases.get().ok_or_else(|| busy("the daemon is only starting".to_owned()))?;
        let _turn = self.guests.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let name = self.live(&self.lock(), key)?.name.clone();
        if let Some(holder) = leases.holder(&name) {
            let used = holder.bound_since.is_some() || holder.sockets.iter().any(|socket| socket.bound);
            if holder.pid != process.pid() || used {
                return Err(busy(format!(
                    "port `{name}` has a guest: process {} ({}) has its sockets; end that one first, or release them \
                     (`xswitch qemu release {name}`) if it does not use them any more",
                    holder.pid, holder.command
                )));
            }
            // It asks once more before it has used them: it has lost them, or will not use them.
            self.dataplane.withdraw_guest_sockets(&name)?;
            leases.end(&name);
        }
        let end = self.open(&name)?;
        let port = self.await_free_queues(&name)?;
        let offer = self.offer(&port, end)?;
        let given = self.dataplane.guest_sockets(&name)?;
        let kept = given.sockets.iter().map(OwnedFd::try_clone).collect::<std::io::Result<Vec<_>>>();
        kept.and_then(|kept| leases.give(&name, process, kept))
            .map_err(|error| Error::io(format!("keeping copies of the sockets of {name}"), error))?;
        tracing::info!(port = name, pid = self.holder(&name).map(|holder| holder.pid), "a process was given sockets");
        Ok((offer, given))
    }

    /// Waits until nobody has bound a queue of the guest's end: the kernel lets go of one a moment after its socket was closed.
    fn await_free_queues(&self, name: &str) -> Result<PortEntry, Error> {
        let deadline = Instant::now() + UNBIND;
        loop {
            let port = self.port(name)?;
            let Some(info) = port.info.as_ref().filter(|info| info.active_queues > 0) else { return Ok(port) };
            if Instant::now() >= deadline {
                return Err(busy(format!(
                    "{} of the queues of {} are bound by AF_XDP sockets that were not had from here: end the process that has \
                     them",
                    info.active_queues,
                    port.spec.guest_ifname.as_deref().unwrap_or_default()
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Takes note that the sockets of a port are not used any more, though the process may live that had them.
    ///
    /// # Errors
    /// `Busy` if that process still has them.
    pub fn release_guest(&self, key: &str) -> Result<Offer, Error> {
        let offer = self.describe_guest(key)?;
        let Some(leases) = self.guests.leases.get() else { return Ok(offer) };
        leases.release(&offer.port).map_err(|pid| {
            Error::Switch(switch::Error::new(
                ErrorKind::Busy,
                format!("process {pid} still has sockets of `{}`: detach them there, or end it", offer.port),
            ))
        })?;
        Ok(offer)
    }
}
