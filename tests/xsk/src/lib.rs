//! AF_XDP sockets by xsk-rs, which the switch itself is not built on: each checks the other.
//!
//! The programs here run in a network namespace that whoever starts them has entered. Rings have 2,048 entries, frames
//! 4,096 bytes. Sockets are bound with need-wakeup.

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

/// What a program prints once its sockets are bound and packets reach them.
pub const READY: &str = "ready";

/// Makes packet memory of that many frames. The socket of the first netdev that it is bound to is opened here, so it
/// belongs to the namespace that the caller is in.
///
/// # Errors
/// The kernel refuses the memory.
pub fn umem(frames: u32) -> anyhow::Result<(Umem, Vec<FrameDesc>)> {
    let size = QueueSize::new(RING)?;
    let config = UmemConfig::builder().fill_queue_size(size).comp_queue_size(size).build()?;
    let frames = NonZeroU32::new(frames).context("a UMEM has frames")?;
    Umem::new(config, frames, false).map_err(|error| anyhow!("packet memory: {error}"))
}

/// A bound socket on queue 0 of a netdev. The program is taken off the netdev when this goes, before the socket does.
#[derive(Debug)]
pub struct Port {
    _program: Ebpf,
    /// Frames to be sent.
    pub tx: TxQueue,
    /// Frames that came.
    pub rx: RxQueue,
    /// Empty frames for the kernel.
    pub fill: FillQueue,
    /// Frames that were sent.
    pub completion: CompQueue,
}

impl Port {
    /// Binds a socket to the netdev, gives the kernel `frames` to receive into, and sends the queue's packets there.
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
        // SAFETY: the caller says that this is the one socket on this netdev and queue.
        let (tx, rx, rings) = unsafe { Socket::new(config, umem, &interface, 0) }?;
        let (mut fill, completion) = rings.context("rings of the first socket on a queue")?;
        // SAFETY: the caller says that these frames are of this UMEM and nowhere else.
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
