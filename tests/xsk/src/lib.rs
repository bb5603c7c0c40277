//! AF_XDP sockets by xsk-rs. The switch does not use xsk-rs, so that each checks the other.
//!
//! The starter of these programs has entered their network namespace. Rings have 2,048 entries, frames 4,096 bytes.
//! Sockets are bound with need-wakeup.

use std::ffi::CString;
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;

use anyhow::{Context, anyhow};
use aya::maps::XskMap;
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, include_bytes_aligned};
use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

/// Entries of each ring.
pub const RING: u32 = 2048;

/// A program prints this once its sockets are bound and packets reach them.
pub const READY: &str = "ready";

/// Makes UMEM of that many frames. This call opens the socket of the first netdev, so the UMEM belongs to the caller's
/// namespace.
///
/// # Errors
/// The kernel refuses the memory.
pub fn umem(frames: u32) -> anyhow::Result<(Umem, Vec<FrameDesc>)> {
    let size = QueueSize::new(RING)?;
    let config = UmemConfig::builder().fill_queue_size(size).comp_queue_size(size).build()?;
    let frames = NonZeroU32::new(frames).context("a UMEM has frames")?;
    Umem::new(config, frames, false).map_err(|error| anyhow!("packet memory: {error}"))
}

/// A bound socket on queue 0 of a netdev. A drop detaches the program before it closes the socket.
#[derive(Debug)]
pub struct Port {
    _program: Ebpf,
    /// Frames to send.
    pub tx: TxQueue,
    /// Received frames.
    pub rx: RxQueue,
    /// Empty frames for the kernel.
    pub fill: FillQueue,
    /// Sent frames.
    pub completion: CompQueue,
}

impl Port {
    /// Binds a socket to the netdev, gives the kernel `frames` to receive into, and attaches the program that sends it
    /// the queue's packets.
    ///
    /// # Errors
    /// The socket can't be bound, or the program can't be attached in native mode.
    ///
    /// # Safety
    /// `frames` are of `umem` and nowhere else. There is no other socket on this netdev.
    pub unsafe fn open(ifname: &str, umem: &Umem, frames: &[FrameDesc], flags: BindFlags) -> anyhow::Result<Self> {
        let size = QueueSize::new(RING)?;
        let config = SocketConfig::builder()
            .rx_queue_size(size)
            .tx_queue_size(size)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(flags | BindFlags::XDP_USE_NEED_WAKEUP)
            .build();
        let interface = Interface::new(CString::new(ifname)?);
        // SAFETY: the caller vouches that this is the only socket on this netdev and queue.
        let (tx, rx, rings) = unsafe { Socket::new(config, umem, &interface, 0) }?;
        let (mut fill, completion) = rings.context("rings of the first socket on a queue")?;
        // SAFETY: the caller vouches that these frames are of this UMEM and nowhere else.
        unsafe { fill.produce(frames) };
        let mut program = Ebpf::load(include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xsk_guest.bpf.o")))?;
        let xdp: &mut Xdp = program.program_mut("to_socket").context("the program")?.try_into()?;
        xdp.load()?;
        xdp.attach(ifname, XdpMode::Driver).with_context(|| format!("attaching to {ifname}"))?;
        let mut map: XskMap<_> = program.map_mut("SOCKETS").context("the map")?.try_into()?;
        map.set(0, rx.fd().as_raw_fd(), 0)?;
        Ok(Self { _program: program, tx, rx, fill, completion })
    }
}
