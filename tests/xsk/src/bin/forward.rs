//! `xsk-forward A B CPU poll|sleep`: the lower bound of AF_XDP, a forwarder between two netdevs that looks at no
//! packet.
//!
//! It has one UMEM, a copy-mode socket on each port, and bursts of 64. Frames from a port go out of the other. A sent
//! frame goes back to the port that it came from. So no list of free frames is needed: each port has as many frames as
//! its rings hold, and no ring can overflow. The program runs on one CPU and ends by a signal.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::Pid;
use xsk::{Port, READY, RING};
use xsk_rs::config::BindFlags;
use xsk_rs::{FrameDesc, Umem};

const BURST: usize = 64;
/// Descriptors that one send call handles.
const TX_BUDGET: libc::c_int = 128;
/// `XDP_MAX_TX_SKB_BUDGET` of linux/if_xdp.h, since 6.17. A call handles 32 before that.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
/// Longest wait before a look at signals.
const WAIT: Duration = Duration::from_millis(100);

static STOPPED: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_: i32) {
    STOPPED.store(true, Ordering::Relaxed);
}

/// Makes a signal end the loop instead of the process, so that everything is closed in order.
fn listen() -> nix::Result<()> {
    let action = SigAction::new(SigHandler::Handler(stop), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only writes an atomic.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

fn pin(cpu: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

struct Side {
    port: Port,
    /// Frames that the kernel has to send and that have not come back.
    sending: usize,
}

impl Side {
    fn open(ifname: &str, umem: &Umem, frames: &[FrameDesc]) -> anyhow::Result<Self> {
        // SAFETY: each side has its own frames of this UMEM, and its own netdev.
        let port = unsafe { Port::open(ifname, umem, frames, BindFlags::XDP_COPY) }?;
        let budget = TX_BUDGET;
        // SAFETY: a plain system call with a live `c_int`. An older kernel refuses the option, which does no harm.
        unsafe {
            libc::setsockopt(
                port.tx.fd().as_raw_fd(),
                libc::SOL_XDP,
                XDP_MAX_TX_SKB_BUDGET,
                (&raw const budget).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            );
        }
        Ok(Self { port, sending: 0 })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the port is.
        unsafe { BorrowedFd::borrow_raw(self.port.rx.fd().as_raw_fd()) }
    }
}

/// Moves received frames from `from` to `to`. Returns whether there was something to do.
fn turn(from: &mut Side, to: &mut Side, burst: &mut [FrameDesc; BURST]) -> std::io::Result<bool> {
    // SAFETY: every frame is in one place. It is taken off one ring and put into the next, all of the same UMEM. No
    // ring can be full, because each port has as many frames as a ring has entries.
    unsafe {
        let came = from.port.rx.consume(burst);
        if came > 0 {
            to.port.tx.produce(&burst[..came]);
            to.sending += came;
        }
        if to.sending == 0 {
            return Ok(false);
        }
        to.port.tx.wakeup()?;
        let mut sent = to.port.completion.consume(burst);
        while sent > 0 {
            from.port.fill.produce(&burst[..sent]);
            to.sending -= sent;
            sent = if sent == BURST { to.port.completion.consume(burst) } else { 0 };
        }
    }
    Ok(true)
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [first, second, cpu, idle] = &args[..] else { bail!("usage: xsk-forward A B CPU poll|sleep") };
    let sleeps = match idle.as_str() {
        "poll" => false,
        "sleep" => true,
        _ => bail!("{idle}: poll or sleep"),
    };
    listen()?;
    pin(cpu.parse().context("a CPU's number")?)?;
    let (umem, frames) = xsk::umem(2 * RING)?;
    let (to_first, to_second) = frames.split_at(RING as usize);
    let (mut a, mut b) = (Side::open(first, &umem, to_first)?, Side::open(second, &umem, to_second)?);
    println!("{READY}");
    let mut burst = [FrameDesc::default(); BURST];
    while !STOPPED.load(Ordering::Relaxed) {
        // Both directions are served in every turn.
        let busy = turn(&mut a, &mut b, &mut burst)? | turn(&mut b, &mut a, &mut burst)?;
        if sleeps && !busy {
            let mut wait = [a.fd(), b.fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut wait, PollTimeout::try_from(WAIT)?) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(())
}
