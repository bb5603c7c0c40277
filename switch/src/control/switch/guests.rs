//! Guests that open AF_XDP sockets of their own.

use std::os::fd::OwnedFd;

use super::Switch;
use crate::Error;
use crate::control::ports::LivePort;
use crate::host::GuestSockets;
use crate::model::GuestEndInfo;

impl Switch {
    /// Opens the guest's end of a port for a guest's own AF_XDP sockets, if it is not open yet. A program is
    /// attached there, and pinned with its XSKMAP. It stays open until the port is deleted.
    ///
    /// # Errors
    /// - `Unsupported`: the port has no guest's end.
    /// - `Busy`: somebody else's XDP program is there.
    pub fn open_guest_end(&self, name: &str) -> Result<GuestEndInfo, Error> {
        let mut control = self.lock();
        let port = control.ports.find_mut(name)?;
        let info = port.open_guest_end()?;
        port.spec.guest_sockets = true;
        Ok(info)
    }

    /// Opens sockets for a guest, which are in their slots already.
    ///
    /// # Errors
    /// `Busy` if the guest's end is not open, or has a guest's sockets.
    pub fn guest_sockets(&self, name: &str) -> Result<GuestSockets, Error> {
        self.lock().ports.find(name)?.guest_side()?.open_sockets()
    }

    /// Puts a guest's sockets, in queue order, back into slots that have lost them. Says whether all are in.
    pub fn return_guest_sockets(&self, name: &str, sockets: &[OwnedFd]) -> Result<bool, Error> {
        self.lock().ports.find(name)?.guest_side()?.take_back(sockets)
    }

    /// Takes sockets for a guest that were never bound out of their slots, though somebody may still have them.
    ///
    /// # Errors
    /// The system's.
    pub fn withdraw_guest_sockets(&self, name: &str) -> Result<(), Error> {
        self.lock().ports.find(name)?.guest_side()?.withdraw()
    }

    /// Whether [`PortInfo::active_queues`](crate::model::PortInfo::active_queues) of guests can be told (kernel
    /// 6.15 and later).
    pub fn tells_bound_queues(&self) -> bool {
        self.core.host.tells_bound_queues()
    }

    /// Removes what is pinned for numbers of ports whose guest's end is not open, and that none is kept for.
    pub fn forget_stale_pins(&self) {
        let control = self.lock();
        for no in self.core.host.kept_guest_ends() {
            let is_open = control.ports.get(no).is_some_and(LivePort::is_open_to_guests);
            if is_open || control.ports.is_reserved(no) {
                continue;
            }
            tracing::info!(vport = no, "what was pinned for a port that is gone is removed");
            if let Err(error) = self.core.host.forget_guest_end(no) {
                tracing::warn!(vport = no, %error, "what was pinned for a port that is gone stays");
            }
        }
    }
}
