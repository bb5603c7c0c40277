//! A tap device of the host, with a thread for each direction.
//!
//! The reading thread sleeps in `poll` until the host sends something. The writing thread sleeps until components do. A
//! frame that finds no room is dropped, as a network card does.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::state::{State, Way};
use super::{Sink, ToSwitch};
use crate::host::Netdevs;
use crate::model::CapturedFrame;
use crate::{Error, ErrorKind};

/// Bytes of the longest frame on a tap.
const BUFFER: usize = 65_536 + 18;

/// A tap device that is up.
#[derive(Debug)]
pub struct TapDevice {
    ifname: String,
    file: File,
    stop: EventFd,
}

impl TapDevice {
    /// Makes the device and sets it up.
    pub fn create(host: &dyn Netdevs, ifname: &str) -> Result<Self, Error> {
        let stop = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
            .map_err(|errno| Error::new(ErrorKind::System, format!("making an eventfd: {errno}")))?;
        let file = host.make_tap(ifname)?;
        Ok(Self { ifname: ifname.to_owned(), file, stop })
    }

    /// Makes [`TapDevice::read`] return. The stop flag of its state must be set.
    pub fn wake(&self) {
        let _ = self.stop.write(1);
    }

    /// Offers frames from the host, until the end is stopped or the tap is gone.
    pub fn read(&self, mut to: Box<dyn ToSwitch>, state: &State) {
        let mut buffer = vec![0; BUFFER];
        let max = to.max_frame();
        while !state.stopping() {
            match (&self.file).read(&mut buffer) {
                Ok(len) if len <= max && to.offer(&buffer[..len]) => {}
                Ok(_) => {
                    state.rx_dropped.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    state.set_error(Way::In, Some(self.explain(&error)));
                    return;
                }
            }
        }
    }

    /// Waits until there is something to read, or the end is stopped.
    fn wait(&self) {
        let mut fds =
            [PollFd::new(self.file.as_fd(), PollFlags::POLLIN), PollFd::new(self.stop.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::NONE);
    }

    fn explain(&self, error: &io::Error) -> String {
        let ifname = &self.ifname;
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EBADFD) => {
                format!("tap {ifname} is gone, somebody deleted it: remove the end and add it again")
            }
            Some(Errno::EIO) => format!("tap {ifname} is down: `ip link set {ifname} up`"),
            _ => format!("tap {ifname}: {error}"),
        }
    }
}

/// Writes what components send to a tap.
pub struct TapSink {
    tap: Arc<TapDevice>,
    state: Arc<State>,
    failing: bool,
}

impl TapSink {
    /// Writes to `tap`, and reports to `state`.
    pub fn new(tap: Arc<TapDevice>, state: Arc<State>) -> Self {
        Self { tap, state, failing: false }
    }
}

impl Sink for TapSink {
    fn write(&mut self, frames: &[CapturedFrame]) {
        for frame in frames {
            match (&self.tap.file).write(&frame.data) {
                Ok(_) if self.failing => {
                    self.failing = false;
                    self.state.set_error(Way::Out, None);
                }
                Ok(_) => {}
                Err(error) => {
                    self.state.tx_dropped.fetch_add(1, Ordering::Relaxed);
                    // Only these errors are about the tap. Others are about the frame, or a moment without memory.
                    if let Some(libc::EBADFD | libc::EIO) = error.raw_os_error() {
                        self.failing = true;
                        self.state.set_error(Way::Out, Some(self.tap.explain(&error)));
                    }
                }
            }
        }
    }

    fn finish(&mut self) {}
}
