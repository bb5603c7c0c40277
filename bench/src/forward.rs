//! The floor of AF_XDP: a two-port forwarder that looks at nothing.
//!
//! One UMEM, a socket on each port in copy mode with need-wakeup, bursts of 64, rings of 2,048. What comes in on a port
//! goes out of the other; when it has been sent its frame goes back to the port that it came from, so frames need no list:
//! each port has as many as its rings hold, and no ring can overflow.

use std::ffi::CString;
use std::io::Write;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use anyhow::{Context, anyhow};
use aya::Ebpf;
use aya::maps::XskMap;
use aya::programs::XdpMode;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

use crate::object::{self, Object};
use crate::{cpu, stop};

/// What it prints when it forwards.
pub const READY: &str = "ready";

const RING: u32 = 2048;
const BURST: usize = 64;
/// Descriptors that one send call is asked to handle.
const TX_BUDGET: libc::c_int = 128;
/// `XDP_MAX_TX_SKB_BUDGET` of linux/if_xdp.h, since 6.17; before, a call handles 32.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

struct Port {
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    /// Frames given to the kernel to send that have not come back.
    sending: usize,
    _program: Ebpf,
}

impl Port {
    fn open(ifname: &str, umem: &Umem, frames: &[FrameDesc]) -> anyhow::Result<Self> {
        let size = QueueSize::new(RING)?;
        let config = SocketConfig::builder()
            .rx_queue_size(size)
            .tx_queue_size(size)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(BindFlags::XDP_USE_NEED_WAKEUP | BindFlags::XDP_COPY)
            .build();
        let interface = Interface::new(CString::new(ifname)?);
        // SAFETY: this is the one socket on this netdev and queue.
        let (tx, rx, rings) = unsafe { Socket::new(config, umem, &interface, 0) }?;
        let (mut fill, completion) = rings.context("rings of the first socket on a queue")?;
        let budget = TX_BUDGET;
        // SAFETY: a plain system call with a live `c_int`; an older kernel refuses the option, which is fine.
        unsafe {
            libc::setsockopt(
                tx.fd().as_raw_fd(),
                libc::SOL_XDP,
                XDP_MAX_TX_SKB_BUDGET,
                (&raw const budget).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            );
        }
        // SAFETY: these frames are of this UMEM and nowhere else.
        unsafe { fill.produce(frames) };
        let mut program = Object::ToSocket.load();
        object::program(&mut program, "to_socket").attach(ifname, XdpMode::Driver)?;
        let mut map: XskMap<_> = program.map_mut("SOCKETS").context("the map")?.try_into()?;
        map.set(0, rx.fd().as_raw_fd(), 0)?;
        Ok(Self { rx, tx, fill, completion, sending: 0, _program: program })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the port is.
        unsafe { BorrowedFd::borrow_raw(self.rx.fd().as_raw_fd()) }
    }
}

/// Moves what came in on `from` to `to`; whether there was something to do.
fn turn(from: &mut Port, to: &mut Port, burst: &mut [FrameDesc; BURST]) -> std::io::Result<bool> {
    // SAFETY: every frame is in one place: it is taken off one ring and put into the next, all of the same UMEM, and no
    // ring can be full, for each port's frames are as many as a ring has entries.
    unsafe {
        let came = from.rx.consume(burst);
        if came > 0 {
            to.tx.produce(&burst[..came]);
            to.sending += came;
        }
        if to.sending == 0 {
            return Ok(false);
        }
        to.tx.wakeup()?;
        let mut sent = to.completion.consume(burst);
        while sent > 0 {
            from.fill.produce(&burst[..sent]);
            to.sending -= sent;
            sent = if sent == BURST { to.completion.consume(burst) } else { 0 };
        }
    }
    Ok(true)
}

/// Forwards between two netdevs of this namespace until a signal comes.
///
/// # Errors
/// The sockets can't be opened.
pub fn run(ports: [&str; 2], cpu: usize, sleep: bool) -> anyhow::Result<()> {
    stop::listen();
    cpu::pin(0, cpu);
    let size = QueueSize::new(RING)?;
    let config = UmemConfig::builder().fill_queue_size(size).comp_queue_size(size).build()?;
    let count = NonZeroU32::new(2 * RING).context("some frames")?;
    let (umem, frames) = Umem::new(config, count, false).map_err(|error| anyhow!("packet memory: {error}"))?;
    let (first, second) = frames.split_at(RING as usize);
    let (mut a, mut b) = (Port::open(ports[0], &umem, first)?, Port::open(ports[1], &umem, second)?);
    println!("{READY}");
    std::io::stdout().flush()?;
    let mut burst = [FrameDesc::default(); BURST];
    while !stop::wanted() {
        // Looked at one after the other, both every time.
        let busy = turn(&mut a, &mut b, &mut burst)? | turn(&mut b, &mut a, &mut burst)?;
        if sleep && !busy {
            let mut wait = [a.fd(), b.fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            let limit = PollTimeout::try_from(Duration::from_millis(100))?;
            match poll(&mut wait, limit) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(())
}
