//! The thread that brings group-addressed frames of a shared NIC to its port (`io/packet.rs` tells why).

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::io::packet::GroupSocket;
use crate::io::umem::FrameCache;
use crate::worker::shared::{Injected, Shared};
use crate::worker::view::PortShared;

/// Longest frame that is taken: an untagged or tagged frame of the largest MTU, with room to see that one is longer.
const BUFFER: usize = 4096;

/// Held while a frame is taken from the pool and put before a worker; an audit closes it while it counts.
///
/// It also holds the frame cache of all taps, so that an audit sees the frames in it.
#[derive(Debug)]
pub struct TapGate(Mutex<FrameCache>);

impl TapGate {
    /// An open gate.
    pub fn new(cache: FrameCache) -> Self {
        Self(Mutex::new(cache))
    }

    /// Waits for the gate and keeps it while the guard lives.
    pub fn pass(&self) -> MutexGuard<'_, FrameCache> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running thread; it ends when this is dropped.
#[derive(Debug)]
pub struct GroupTap {
    stop: Arc<(EventFd, AtomicBool)>,
    thread: Option<JoinHandle<()>>,
}

impl GroupTap {
    /// Starts to bring the group-addressed frames of `socket` to queue 0 of `port`.
    pub fn start(
        socket: GroupSocket,
        port: Arc<PortShared>,
        shared: Arc<Shared>,
        gate: Arc<TapGate>,
    ) -> Result<Self, Errno> {
        let stop =
            Arc::new((EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?, AtomicBool::new(false)));
        let seen_stop = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name(format!("xs-group-{}", port.no))
            .spawn(move || serve(&socket, &port, &shared, &gate, &seen_stop))
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN)))?;
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

fn serve(socket: &GroupSocket, port: &Arc<PortShared>, shared: &Shared, gate: &TapGate, stop: &(EventFd, AtomicBool)) {
    let mut buffer = vec![0; BUFFER];
    let worker = &shared.workers[port.queues[0].worker()];
    loop {
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(stop.0.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::NONE);
        if stop.1.load(Ordering::Acquire) {
            return;
        }
        loop {
            let data = match socket.receive(&mut buffer) {
                Ok(data) => data,
                Err(Errno::EINTR) => continue,
                Err(_) => break,
            };
            let mut cache = gate.pass();
            let Some(mut frame) = cache.take() else { continue };
            let start = frame.start();
            let chunk = shared.umem.chunk_mut(&mut frame);
            let fits = start + data.len() <= chunk.len();
            if fits {
                chunk[start..start + data.len()].copy_from_slice(data);
                frame.set(start, data.len());
            }
            let injected = Injected { frame, port: Arc::clone(port) };
            match if fits { worker.injected.push(injected) } else { Err(injected) } {
                Ok(()) => worker.wake(),
                // The worker is behind: as on a full ring, the frame is lost, and the host's stack has its own.
                Err(Injected { frame, .. }) => cache.put(frame),
            }
        }
    }
}
