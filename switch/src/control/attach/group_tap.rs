//! The thread that brings group-addressed frames of a shared NIC to its port (`host/kernel/packet.rs` tells why).

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::control::core::Core;
use crate::control::gate::FrameGate;
use crate::host::GroupFrames;
use crate::worker::bond::{Gate, MemberShared};
use crate::worker::shared::Shared;
use crate::worker::view::PortShared;
use crate::{Error, ErrorKind};

/// Bytes of the longest frame that is taken: a packet of the largest MTU behind an Ethernet header and two tags.
const BUFFER: usize = 65_535 + 22;

/// A running thread; it ends when this is dropped.
#[derive(Debug)]
pub struct GroupTap {
    stop: Arc<(EventFd, AtomicBool)>,
    thread: Option<JoinHandle<()>>,
}

impl GroupTap {
    /// Starts to bring `frames` to queue 0 of `port`. `member`: the member of a bond that they come in by.
    pub fn start(
        core: &Core,
        frames: Box<dyn GroupFrames>,
        port: &Arc<PortShared>,
        member: Option<Arc<MemberShared>>,
    ) -> Result<Self, Error> {
        let system =
            |why: String| Error::new(ErrorKind::System, format!("copying group frames of {}: {why}", port.name));
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC);
        let event = event.map_err(|errno| system(errno.to_string()))?;
        let stop = Arc::new((event, AtomicBool::new(false)));
        let serve = {
            let (port, shared, gate, stop) =
                (Arc::clone(port), Arc::clone(&core.shared), Arc::clone(&core.gate), Arc::clone(&stop));
            move || serve(&*frames, &port, member.as_deref(), &shared, &gate, &stop)
        };
        let thread = std::thread::Builder::new().name(format!("xs-group-{}", port.no)).spawn(serve);
        let thread = thread.map_err(|error| system(error.to_string()))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for GroupTap {
    fn drop(&mut self) {
        self.stop.1.store(true, Ordering::Release);
        let _ = self.stop.0.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    frames: &dyn GroupFrames,
    port: &Arc<PortShared>,
    member: Option<&MemberShared>,
    shared: &Shared,
    gate: &FrameGate,
    stop: &(EventFd, AtomicBool),
) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let mut fds = [PollFd::new(frames.fd(), PollFlags::POLLIN), PollFd::new(stop.0.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::NONE);
        if stop.1.load(Ordering::Acquire) {
            return;
        }
        loop {
            let data = match frames.receive(&mut buffer) {
                Ok(data) => data,
                Err(Errno::EINTR) => continue,
                Err(_) => break,
            };
            if member.is_some_and(|member| member.gate(data) != Gate::Open) {
                continue;
            }
            // If it is lost, the host's stack still has its own.
            gate.inject(shared, port, data);
        }
    }
}
