//! The thread that hears what happens to netdevs, and has the ports follow.
//!
//! Notifications say where to look, and the kernel is asked what is so. Nobody tells of an XDP program that is taken
//! off, and not all drivers tell of channels. These are looked at once a period.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::change;
use super::core::Core;
use super::state::{Control, lock};
use crate::host::{HostChange, HostWatch};
use crate::{Error, ErrorKind};

/// How often it is looked for what nobody tells.
const PERIOD: Duration = Duration::from_millis(400);
/// Notifications come in groups: how long is waited for the rest of one.
const GROUP: Duration = Duration::from_millis(10);

/// The running thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    stop: Arc<(EventFd, AtomicBool)>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts it. It ends with the control that it is for.
    pub fn start(core: &Core, control: &Arc<Mutex<Control>>) -> Result<Self, Error> {
        let failed = |why: String| Error::new(ErrorKind::System, format!("starting to watch netdevs: {why}"));
        let watch = core.host.watch()?;
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC);
        let stop = Arc::new((event.map_err(|errno| failed(errno.to_string()))?, AtomicBool::new(false)));
        let run = {
            let (stop, control) = (Arc::clone(&stop), Arc::downgrade(control));
            move || run(watch, &stop, &control)
        };
        let thread = std::thread::Builder::new().name("xs-watch".to_owned()).spawn(run);
        Ok(Self { stop, thread: Some(thread.map_err(|error| failed(error.to_string()))?) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.1.store(true, Ordering::Release);
        let _ = self.stop.0.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(mut watch: Box<dyn HostWatch>, stop: &(EventFd, AtomicBool), control: &Weak<Mutex<Control>>) {
    let wait = |watch: &dyn HostWatch, only_stop: bool, timeout: Duration| {
        let mut fds = [PollFd::new(stop.0.as_fd(), PollFlags::POLLIN), PollFd::new(watch.fd(), PollFlags::POLLIN)];
        let fds = if only_stop { &mut fds[..1] } else { &mut fds[..] };
        let _ = poll(fds, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX));
        stop.1.load(Ordering::Acquire)
    };
    loop {
        if wait(&*watch, false, PERIOD) {
            return;
        }
        let mut said = watch.take();
        if !said.is_empty() {
            if wait(&*watch, true, GROUP) {
                return;
            }
            let HostChange { netdevs, anything } = watch.take();
            said.netdevs.extend(netdevs);
            said.anything |= anything;
        }
        let Some(control) = control.upgrade() else { return };
        change::follow(&mut lock(&control), &said);
    }
}
