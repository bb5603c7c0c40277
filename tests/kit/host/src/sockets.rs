//! Made-up sockets: queues in memory, and datagram sockets in the place of packet sockets.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use switch::host::{
    FrameSocket, GroupFrames, GuestSockets, Netdev, PacketSocket, PortSocket, QueueOptions, SocketCounters, Sockets,
};
use switch::io::backend::Backend;
use switch::io::memory;
use switch::io::umem::FrameCache;
use switch::{Error, ErrorKind};

use crate::FakeHost;
use crate::fate::Call;
use crate::netdevs::{gone, namespace_file, system};

/// Keeps a netdev promiscuous.
#[derive(Debug)]
struct Promiscuous {
    _device: Arc<()>,
}

impl PacketSocket for Promiscuous {}

/// The switch's end of the copies of group-addressed frames.
#[derive(Debug)]
struct Copies(UnixDatagram);

impl GroupFrames for Copies {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<&'a [u8], Errno> {
        let failed = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or_default());
        let len = self.0.recv(buffer).map_err(failed)?;
        Ok(&buffer[..len])
    }
}

/// Frames that were sent by a netdev beside its queues.
#[derive(Debug)]
struct Beside(Arc<Mutex<Vec<Vec<u8>>>>);

impl FrameSocket for Beside {
    fn send(&self, frame: &[u8]) -> Result<(), Errno> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(frame.to_vec());
        Ok(())
    }
}

impl Sockets for FakeHost {
    fn open_queue(&self, options: &QueueOptions<'_>, cache: &mut FrameCache) -> Result<Backend, Error> {
        let mut state = self.lock();
        state.call(Call::OpenQueue, &options.netdev.name)?;
        let index = state.device(options.netdev).ok_or_else(|| gone(options.netdev))?.link.index;
        let queues = &mut state.queues;
        if queues.get(&(index, options.queue)).is_some_and(|kernel| kernel.is_open()) {
            let text = format!("queue {} of {}: another socket is bound to it", options.queue, options.netdev.name);
            return Err(Error::new(ErrorKind::Busy, text));
        }
        let opened = memory::queue(cache.umem(), options.depth, options.memory);
        let (queue, kernel) = opened.map_err(|errno| system(&errno.into()))?;
        queues.insert((index, options.queue), kernel);
        let mut backend = Backend::Memory(queue);
        backend.refill(cache);
        Ok(backend)
    }

    fn counters(&self, _: &PortSocket) -> SocketCounters {
        SocketCounters([
            ("rx_dropped", 0),
            ("rx_invalid_descs", 0),
            ("tx_invalid_descs", 0),
            ("rx_ring_full", 0),
            ("rx_fill_ring_empty_descs", 0),
            ("tx_ring_empty_descs", 0),
        ])
    }

    fn make_promiscuous(&self, netdev: &Netdev) -> Result<Box<dyn PacketSocket>, Error> {
        let mut state = self.lock();
        state.call(Call::MakePromiscuous, &netdev.name)?;
        let device = state.device(netdev).ok_or_else(|| gone(netdev))?;
        Ok(Box::new(Promiscuous { _device: Arc::clone(&device.promiscuous) }))
    }

    fn copy_group_frames(&self, netdev: &Netdev) -> Result<Box<dyn GroupFrames>, Error> {
        let mut state = self.lock();
        state.call(Call::CopyGroupFrames, &netdev.name)?;
        let device = state.device(netdev).ok_or_else(|| gone(netdev))?;
        let (ours, hosts) = UnixDatagram::pair().map_err(|error| system(&error))?;
        ours.set_nonblocking(true).map_err(|error| system(&error))?;
        device.group_frames = Some(hosts);
        Ok(Box::new(Copies(ours)))
    }

    fn open_frame_socket(&self, netdev: &Netdev) -> Result<Box<dyn FrameSocket>, Error> {
        let mut state = self.lock();
        state.call(Call::OpenFrameSocket, &netdev.name)?;
        let device = state.device(netdev).ok_or_else(|| gone(netdev))?;
        Ok(Box::new(Beside(Arc::clone(&device.sent_beside))))
    }

    /// Sockets that can't be bound to a netdev. Nobody can tell them from a guest's before these are bound.
    fn open_guest_sockets(&self, netdev: &Netdev, queues: u32) -> Result<GuestSockets, Error> {
        self.lock().call(Call::OpenGuestSockets, &netdev.name)?;
        let sockets = (0..queues).map(|_| UnixDatagram::unbound().map(Into::into)).collect::<std::io::Result<_>>();
        Ok(GuestSockets { sockets: sockets.map_err(|error| system(&error))?, netns: namespace_file()? })
    }

    fn tells_bound_queues(&self) -> bool {
        true
    }

    fn bound_queues(&self, netdev: &Netdev) -> Option<u32> {
        let mut state = self.lock();
        let guests = state.device(netdev).filter(|device| device.link.up)?.bound_queues?;
        let own = state.queues.range((netdev.index, 0)..=(netdev.index, u32::MAX)).count();
        Some(guests + u32::try_from(own).unwrap_or(u32::MAX))
    }
}
