//! Processes of guests: handing out sockets, and their holders.
//!
//! A hand-over waits until the queues are free, opens the guest's end, creates the sockets, and records a lease. A
//! port's sockets have at most one holder. Hand-overs of a port are serialized by its turn, which is locked before the
//! service's mutex.
//!
//! The service keeps a copy of each socket while the receiving process lives (`leases`). It reads the kernel's
//! counters through the copy. A queue stays taken as long as any copy exists, so the service closes its own when the
//! process ends.

mod leases;
mod process;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ctl_guest::limits::memlock;
use ctl_guest::protocol::{MAX_SOCKETS, Offer};
use ctl_types::GuestHolder;
use switch::model::*;
use switch::{ErrorKind, GuestSockets};

use self::leases::Leases;
pub use self::process::Process;
use crate::error::Error;
use crate::ports::Ports;
use crate::state::Row;
use crate::upkeep::Upkeep;
use crate::{Service, busy};

/// Time for the kernel to free a queue after its socket was closed.
const UNBIND: Duration = Duration::from_secs(3);
/// Period of polling for that.
const UNBIND_POLL: Duration = Duration::from_millis(10);
/// Time to wait for it on kernels where it can't be observed.
const BLIND_UNBIND: Duration = Duration::from_millis(500);
/// Index of the loopback netdev, which every namespace has.
const LOOPBACK: u32 = 1;

/// The service's data about guest processes.
#[derive(Debug, Default)]
pub(super) struct Guests {
    leases: OnceLock<Arc<Leases>>,
    /// A lock per port, held during a hand-over. See [`Service::turn`].
    turns: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
}

impl Guests {
    /// Writes the leases again if their directory is not in its place any more.
    pub(super) fn look_after_records(&self, upkeep: &Upkeep) {
        if let Some(leases) = self.leases.get() {
            upkeep.note("guests_directory", leases.dir(), leases.restore_records());
        }
    }
}

impl Service {
    /// Resumes the leases recorded in `dir`, and supervises them from now on. Nobody gets sockets before this call.
    pub fn look_after_guests(self: &Arc<Self>, dir: &Path) -> Result<(), Error> {
        let service = Arc::downgrade(self);
        let unused = move |port: &str| {
            if let Some(service) = service.upgrade() {
                service.give_back(port);
            }
        };
        let leases = Leases::open(dir, unused)
            .map_err(|error| Error::io(format!("keeping guests' processes in {}", dir.display()), error))?;
        self.dataplane.forget_stale_pins();
        let known = self.lock().ports.iter().map(|spec| spec.name.clone()).collect::<Vec<_>>();
        leases.holders().keys().filter(|port| !known.contains(port)).for_each(|port| leases.end(port));
        let _ = self.guests.leases.set(leases);
        known.iter().for_each(|port| self.return_sockets(port));
        Ok(())
    }

    /// Gives the guest's end of a port back to the kernel's stack there. It was opened for a process that never bound
    /// the sockets. Another process may have them by now, or the port may be gone. Then it stays as it is.
    fn give_back(&self, name: &str) {
        if !self.port(name).is_ok_and(|port| port.spec.guest_sockets && port.guest.is_none()) {
            return;
        }
        let closed = PortUpdate { guest_sockets: Some(false), ..PortUpdate::default() };
        match self.update_port(name, closed) {
            Ok(_) => tracing::info!(
                port = name,
                "no process bound the sockets that it was given: the guest's end is the kernel stack's again"
            ),
            Err(error) => tracing::info!(port = name, %error, "a guest's end that was opened in vain stays open"),
        }
    }

    pub(super) fn holder(&self, name: &str) -> Option<GuestHolder> {
        self.guests.leases.get()?.holder(name)
    }

    pub(super) fn holders(&self) -> BTreeMap<String, GuestHolder> {
        self.guests.leases.get().map(|leases| leases.holders()).unwrap_or_default()
    }

    /// Ends the lease of a port, whoever holds it.
    pub(super) fn end_lease(&self, name: &str) {
        if let Some(leases) = self.guests.leases.get() {
            leases.end(name);
        }
    }

    /// Ends the lease of these sockets, which were not delivered.
    pub fn not_delivered(&self, name: &str, sockets: &[OwnedFd]) {
        if let Some(leases) = self.guests.leases.get() {
            leases.end_of(name, sockets);
        }
    }

    /// Describes a port to a guest process. `open` opens the guest's end first.
    pub fn describe_guest(&self, key: &str, open: bool) -> Result<Offer, Error> {
        let name = self.live(&self.lock(), key)?.name.clone();
        if open {
            // Errors that are certain come before anything is opened.
            self.offer(&self.dataplane.port(&name)?)?;
            self.open(&name)?;
        }
        self.offer(&self.dataplane.port(&name)?)
    }

    /// The lock that serializes hand-over, release, and closing of a port's guest end. Take it before the service's
    /// mutex.
    pub(super) fn turn(&self, name: &str) -> Arc<Mutex<()>> {
        let mut turns = self.guests.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(name.to_owned()).or_default())
    }

    /// Puts the sockets of a port's guest back into the slots of the XSKMAP. They are missing only if somebody removed
    /// the pinned map.
    pub(super) fn return_sockets(&self, name: &str) {
        let Some(leases) = self.guests.leases.get() else { return };
        match leases.with_sockets(name, |sockets| self.dataplane.return_guest_sockets(name, sockets)) {
            None | Some(Ok(true)) => {}
            Some(Ok(false)) => tracing::warn!(
                port = name,
                "a guest's sockets are not in their slots: it gets no packets until it starts anew"
            ),
            Some(Err(error)) => tracing::warn!(port = name, %error, "a guest's sockets can't be looked after"),
        }
    }

    /// Opens the guest's end of a port, and records that in the state file.
    fn open(&self, name: &str) -> Result<GuestEndInfo, Error> {
        let mut inner = self.lock();
        let end = self.dataplane.open_guest_end(name)?;
        if let Some(spec) = inner.ports.iter_mut().find(|spec| spec.name == name && !spec.guest_sockets) {
            let opened = PortSpec { guest_sockets: true, ..spec.clone() };
            self.store.write(&[Row::put::<Ports>(&opened)])?;
            *spec = opened;
        }
        Ok(end)
    }

    fn offer(&self, port: &PortInfo) -> Result<Offer, Error> {
        let spec = &port.spec;
        let end = port.guest_end.as_ref();
        let mode = end.map(|end| end.mode).or(port.mode);
        let (Some(ifname), Some(mac), Some(mode)) = (&spec.guest_ifname, spec.mac, mode) else {
            let (name, kind) = (&spec.name, spec.kind.name());
            let why = format!("port `{name}` is a {kind}: only guest ports have an end for a guest's sockets");
            return Err(Error::Switch(switch::Error::new(ErrorKind::Unsupported, why)));
        };
        let queues = u32::try_from(port.queues.len()).unwrap_or(u32::MAX);
        if queues > MAX_SOCKETS {
            return Err(Error::Switch(switch::Error::new(
                ErrorKind::Unsupported,
                format!(
                    "port `{}` has {queues} queues, and a process can be handed the sockets of {MAX_SOCKETS}: a message carries \
                     no more descriptors; add the port with fewer queues",
                    spec.name
                ),
            )));
        }
        // Sums the queues of all guest ports, whatever user runs them. Any process may be the last one to start.
        let inner = self.lock();
        let guests = inner.ports.iter().filter(|spec| spec.kind == PortKind::Guest);
        let guests_queues = guests.map(|spec| u64::from(spec.queues.unwrap_or(1))).sum();
        Ok(Offer {
            port: spec.name.clone(),
            vport: port.vport,
            ifname: ifname.clone(),
            netns: spec.netns.clone(),
            mac,
            mtu: spec.mtu.unwrap_or(DEFAULT_MTU),
            mode,
            queues,
            memlock: memlock(guests_queues),
            map_path: end.map(|end| end.map_path.clone()),
        })
    }

    /// Hands the sockets of a port to a process.
    ///
    /// # Errors
    /// `Busy` if another process has them, or has bound the queues with sockets of its own.
    pub fn hand_over(&self, key: &str, process: Process) -> Result<(Offer, GuestSockets), Error> {
        let leases = self.guests.leases.get().ok_or_else(|| busy("the daemon is only starting".to_owned()))?;
        let name = self.live(&self.lock(), key)?.name.clone();
        let turn = self.turn(&name);
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        // Errors that are certain come before any waiting.
        self.offer(&self.dataplane.port(&name)?)?;
        let pid = process.pid();
        let mut opened = !self.live(&self.lock(), &name)?.guest_sockets;
        if let Some(holder) = leases.holder(&name) {
            let used = holder.bound_since.is_some() || holder.sockets.iter().any(|socket| socket.bound);
            if holder.pid != pid || used {
                return Err(busy(format!(
                    "port `{name}` has a guest: process {} ({}) has its sockets; end that one first, or release them \
                     (`xswitch qemu release {name}`) if it does not use them any more",
                    holder.pid, holder.command
                )));
            }
            // The same process asks again before it has bound them, so it has lost the first ones.
            self.dataplane.withdraw_guest_sockets(&name)?;
            opened |= leases.is_opened_for(&name);
            leases.end(&name);
        }
        self.await_free_queues(leases, &name)?;
        self.open(&name)?;
        let offer = self.offer(&self.dataplane.port(&name)?)?;
        let given = self.dataplane.guest_sockets(&name)?;
        let kept = given.sockets.iter().map(OwnedFd::try_clone).collect::<std::io::Result<Vec<_>>>();
        kept.and_then(|kept| leases.give(&name, process, kept, opened))
            .map_err(|error| Error::io(format!("keeping copies of the sockets of {name}"), error))?;
        if self.name_of(&name).is_err() {
            // The port was deleted meanwhile. That did not end this lease, which came later.
            leases.end_of(&name, &given.sockets);
        }
        tracing::info!(port = name, pid, "a process was given sockets");
        Ok((offer, given))
    }

    /// Waits until no queue of the guest's end is bound. The kernel frees a queue some time after its socket was
    /// closed.
    fn await_free_queues(&self, leases: &Leases, name: &str) -> Result<(), Error> {
        // Kernels before 6.15 don't tell which queues are bound. There the longest time ever seen has to pass.
        if switch::host::kernel::xsk_queues::bound(LOOPBACK).is_err() {
            let ended = leases.ended(name).map_or(BLIND_UNBIND, |ended| ended.elapsed());
            std::thread::sleep(BLIND_UNBIND.saturating_sub(ended));
            return Ok(());
        }
        let deadline = Instant::now() + UNBIND;
        loop {
            let port = self.dataplane.port(name)?;
            if port.active_queues == 0 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(busy(format!(
                    "{} of the queues of {} are bound by AF_XDP sockets of a process that is not known here: end it",
                    port.active_queues,
                    port.spec.guest_ifname.as_deref().unwrap_or_default()
                )));
            }
            std::thread::sleep(UNBIND_POLL);
        }
    }

    /// Declares the sockets of a port unused, although the process that had them may live. `force` does so even if the
    /// process still has them. They get no packets from then on.
    ///
    /// # Errors
    /// `Busy` if the process still has them. With `force`, if it still has them bound.
    pub fn release_guest(&self, key: &str, force: bool) -> Result<Offer, Error> {
        let offer = self.describe_guest(key, false)?;
        let Some(leases) = self.guests.leases.get() else { return Ok(offer) };
        let turn = self.turn(&offer.port);
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if force {
            self.dataplane.withdraw_guest_sockets(&offer.port)?;
            if let Some(holder) = leases.holder(&offer.port).filter(|holder| holder.sockets.iter().any(|it| it.bound)) {
                return Err(busy(format!(
                    "process {} ({}) gets no packets of `{}` any more; its queues are free when it ends, and until then it can send",
                    holder.pid, holder.command, offer.port
                )));
            }
            leases.end(&offer.port);
            return Ok(offer);
        }
        leases.release(&offer.port).map_err(|pid| {
            busy(format!(
                "process {pid} still has sockets of `{}`: detach them there, end it, or use force",
                offer.port
            ))
        })?;
        self.await_free_queues(leases, &offer.port)?;
        Ok(offer)
    }
}
