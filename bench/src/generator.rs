//! The generator: `bpf/bench/generator.bpf.c`, run over live frames (`BPF_PROG_RUN`) by a thread pinned to its CPU.
//!
//! Frames are redirected into a guest's end. The other end of that veth must have NAPI on, by an XDP program or GRO.
//! The kernel drops what the device's port can't take at once. Such frames count as offered.
//!
//! One call sends a whole load, and a signal to the thread ends it. A call waits for an RCU grace period and patches
//! kernel text on its way in and out. That takes milliseconds and interrupts the other CPUs.
//!
//! Such a call spins between the packets of a paced load. On some hosts two CPUs that spin are stopped for milliseconds
//! several times a second, while one is not, and a device may need the other. So packets of a low rate whose round
//! trips are timed go out by a packet socket, from a thread that sleeps in between.
#![allow(unsafe_code, reason = "structs that a BPF program shares, and signals")]

use std::fmt;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use aya::maps::{Array, MapData};
use aya::programs::{TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, Pod, TestRun};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use tests::raw::RawSocket;
use tests::{Frame, Mac, NetNs};

use crate::cpu;
use crate::load::{Load, Walk};
use crate::number::whole;
use crate::object::{self, Object};

/// Frames of one batch in the kernel.
const BATCH: u32 = 128;
/// Above this rate a paced load goes out in batches of a few frames, because single frames are too slow.
const SINGLE: f64 = 1e6;
/// Up to this rate a sleeping thread sends the packets whose round trips are timed.
const LOW: f64 = 1e4;
/// Number of the stream that the far end sends back, as in `bpf/bench/ends.bpf.c`.
const RETURNS: u32 = 2;
/// Signal that ends a call. Its handler does nothing.
const END: Signal = Signal::SIGUSR1;

/// `struct load` of the program.
#[derive(Clone, Copy)]
#[repr(C)]
struct Row {
    sent: u64,
    limit: u64,
    due: u64,
    interval: u64,
    ifindex: u32,
    stamp: u32,
    ip_sum: u32,
    high: [[u8; 2]; 2],
    walks: [Walk; 5],
}
// SAFETY: integers without padding.
unsafe impl Pod for Row {}

/// The program's one row, shared with a running generator.
struct Rows(Array<MapData, Row>);

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rows")
    }
}

/// A generator at a netdev.
#[derive(Debug)]
pub struct Generator<'a> {
    object: Ebpf,
    rows: Rows,
    ns: &'a NetNs,
    ifindex: u32,
}

/// A load that is being sent.
#[derive(Debug)]
pub struct Sending<'a>(&'a Rows);

impl Sending<'_> {
    /// Packets so far.
    pub fn sent(&self) -> u64 {
        self.0.0.get(&0, 0).expect("the row").sent
    }
}

impl<'a> Generator<'a> {
    /// A generator out of `ifname` in `ns`.
    pub fn new(ns: &'a NetNs, ifname: &str) -> Self {
        static INSTALL: Once = Once::new();
        INSTALL.call_once(install_end);
        let mut object = Object::Generator.load();
        object::program(&mut object, "generate");
        let rows = Rows(object.take_map("LOAD").expect("the map").try_into().expect("an array"));
        Self { object, rows, ns, ifindex: ns.ifindex(ifname) }
    }

    /// Sends while `work` runs, and stops when it returns.
    pub fn during<T>(&mut self, load: &Load, work: impl FnOnce(&Sending<'_>) -> T) -> T {
        self.drive(load, u64::MAX, work)
    }

    /// Packets of the last load.
    pub fn sent(&self) -> u64 {
        Sending(&self.rows).sent()
    }

    /// Sends `packets` packets.
    pub fn send(&mut self, load: &Load, packets: u64) {
        self.drive(load, packets, |sending| {
            while sending.sent() < packets && !crate::stop::wanted() {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }

    fn drive<T>(&mut self, load: &Load, limit: u64, work: impl FnOnce(&Sending<'_>) -> T) -> T {
        let template = template(load);
        let slow = load.pps.filter(|pps| load.returns && *pps <= LOW);
        let mut row = self.row(load, limit, &template);
        if slow.is_some() {
            // A sleeping thread paces itself.
            row.interval = 0;
        }
        self.rows.0.set(0, row, 0).expect("the map takes a row");
        let program: &Xdp = self.object.program("generate").expect("the program").try_into().expect("an XDP program");
        let batch = match load.pps {
            None => BATCH,
            Some(pps) if pps > SINGLE => 8,
            Some(_) => 1,
        };
        let (stop, id) = (AtomicBool::new(false), AtomicI32::new(0));
        let send = || {
            id.store(nix::unistd::gettid().as_raw(), Ordering::Relaxed);
            let mut others = SigSet::all();
            others.remove(END);
            others.thread_set_mask().expect("a thread may block signals");
            cpu::pin(0, cpu::GENERATOR);
            self.ns.enter();
            if let Some(pps) = slow {
                return send_slowly(program, self.ifindex, &template, limit, pps, &stop);
            }
            while !stop.load(Ordering::Relaxed) {
                let attrs = TestRunAttrs::new().xdp_live_frames(batch);
                let options =
                    TestRunOptions { data_in: Some(&template.0), repeat: u32::MAX, attrs, ..Default::default() };
                // All is sent, or the signal came. The counter of sent packets tells whether it runs at all.
                let _ = program.test_run(options);
            }
        };
        std::thread::scope(|scope| {
            let _stop = Stop { wanted: &stop, id: &id, thread: scope.spawn(send) };
            work(&Sending(&self.rows))
        })
    }

    fn row(&self, load: &Load, limit: u64, template: &Frame) -> Row {
        let (src, dst) = load.prefixes();
        let words = |range: std::ops::Range<usize>| {
            let pairs = template.0[range].chunks_exact(2);
            pairs.map(|pair| u32::from(u16::from_ne_bytes([pair[0], pair[1]]))).sum::<u32>()
        };
        let interval = load.pps.map_or(0, |pps| whole(256e9 / pps));
        let walks = [load.dst_mac, load.src_mac, load.src_ip, load.dst_ip, load.ports];
        Row {
            sent: 0,
            limit,
            due: 0,
            interval,
            ifindex: self.ifindex,
            stamp: u32::from(load.returns),
            ip_sum: words(14..24),
            high: [dst, src],
            walks,
        }
    }
}

/// Sends single packets, `pps` a second, until `limit` or `stop`. The program stamps each with the time of its sending.
fn send_slowly(program: &Xdp, ifindex: u32, template: &Frame, limit: u64, pps: f64, stop: &AtomicBool) {
    let socket = RawSocket::open_here(ifindex).expect("a packet socket");
    let mut frame = Frame(vec![0; template.0.len()]);
    let (start, interval) = (Instant::now(), Duration::from_secs_f64(1.0 / pps));
    for n in 0..u32::try_from(limit).unwrap_or(u32::MAX) {
        std::thread::sleep((start + interval * n).saturating_duration_since(Instant::now()));
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let options = TestRunOptions { data_in: Some(&template.0), data_out: Some(&mut frame.0), ..Default::default() };
        program.test_run(options).expect("the program makes a packet");
        socket.send(&frame);
    }
}

/// Ends the sending thread when it is dropped, even if the work beside it panics.
struct Stop<'scope, 'stop> {
    wanted: &'stop AtomicBool,
    /// Its thread id, 0 until it runs.
    id: &'stop AtomicI32,
    thread: ScopedJoinHandle<'scope, ()>,
}

impl Drop for Stop<'_, '_> {
    fn drop(&mut self) {
        self.wanted.store(true, Ordering::Relaxed);
        // Repeated, because the thread may not be in the call yet.
        while !self.thread.is_finished() {
            let (process, thread) = (std::process::id(), self.id.load(Ordering::Relaxed));
            // SAFETY: a plain system call without pointers. The handler does nothing, whichever thread gets the signal.
            unsafe { libc::syscall(libc::SYS_tgkill, process, thread, END as libc::c_int) };
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Lets the signal end a call instead of the process.
fn install_end() {
    extern "C" fn nothing(_: i32) {}
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(END, &action) }.expect("a signal can be handled");
}

/// A packet of the load. The program writes what varies.
fn template(load: &Load) -> Frame {
    let len = load.frame as usize - 4;
    // With addresses of zero the checksum is that of the other words.
    let zero = Mac([0; 6]);
    let mut frame = Frame::ethernet(zero, zero).stream(if load.returns { RETURNS } else { 1 }, 0, len);
    frame.0[24..34].fill(0);
    frame
}
