//! The tests' own generator and sink: BPF programs for numbered streams at speed, loaded by aya.
//!
//! The generator runs a program over live frames (`BPF_PROG_RUN`). The program stamps a sequence number into each frame
//! and redirects it into a netdev. The other end of that veth must have a native XDP program, as a port of the switch
//! has.
//!
//! The sink is an XDP program on a guest's netdev. It judges each stream's order and drops the stream. See
//! `bpf/tests/`.

use std::time::{Duration, Instant};

use aya::maps::Array;
use aya::programs::{TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, Pod, TestRun};

use crate::netns::NetNs;
use crate::number::narrow;
use crate::packet::Frame;
use crate::wait;

/// Frames that the kernel runs at once. It is the fastest of 32 to 256 here.
const BATCH: u32 = 128;
/// Time between two bursts of a paced stream.
const TICK: Duration = Duration::from_millis(2);

#[derive(Clone, Copy)]
#[repr(C)]
struct GeneratorRow {
    next: u64,
    ifindex: u32,
    seq_at: u32,
}
// SAFETY: integers without padding.
unsafe impl Pod for GeneratorRow {}

/// A sink's report on a stream: `struct stream` in `bpf/tests/sink.bpf.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct StreamReport {
    /// Packets.
    pub received: u64,
    /// Bytes.
    pub bytes: u64,
    /// Highest sequence number plus one.
    pub next: u64,
    /// Skipped numbers.
    pub gaps: u64,
    /// Packets that came after a higher number.
    pub reordered: u64,
    /// Packets that came again.
    pub duplicated: u64,
    window: u64,
    /// Packets with a VLAN tag.
    pub tagged: u64,
}
// SAFETY: integers without padding.
unsafe impl Pod for StreamReport {}

impl StreamReport {
    /// Panics unless exactly `sent` packets came, each once and in order.
    pub fn assert_perfect(&self, sent: u64) {
        let seen = (self.received, self.next, self.gaps, self.reordered, self.duplicated);
        assert_eq!(seen, (sent, sent, 0, 0, 0), "received, next, gaps, reordered, duplicated of {sent} sent");
    }
}

fn object(name: &str) -> Ebpf {
    let bytes: &[u8] = match name {
        "generator" => aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/generator.bpf.o")),
        "sink" => aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sink.bpf.o")),
        _ => aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xsk_guest.bpf.o")),
    };
    Ebpf::load(bytes).unwrap_or_else(|error| panic!("loading {name}: {error}"))
}

/// Loads one of the tests' programs and attaches it in native mode.
pub(crate) fn attach(ns: &NetNs, ifname: &str, name: &str, program: &str) -> Ebpf {
    let mut object = object(name);
    let xdp: &mut Xdp = object.program_mut(program).expect("the program").try_into().expect("an XDP program");
    xdp.load().expect("the kernel takes it");
    let attached = ns.run(|| xdp.attach(ifname, XdpMode::Driver).map(drop));
    attached.unwrap_or_else(|error| panic!("{program} on {ifname}: {error}"));
    object
}

/// A source of one numbered stream.
#[derive(Debug)]
pub struct Generator<'a> {
    object: Ebpf,
    ns: &'a NetNs,
    template: Frame,
    sent: u64,
}

impl<'a> Generator<'a> {
    /// Prepares to send `template`, a stream packet, out of `ifname` in `ns`. Numbers start at 0.
    pub fn new(ns: &'a NetNs, ifname: &str, template: Frame) -> Self {
        let mut object = object("generator");
        let seq_at = template.mark_at().expect("the template is a stream packet");
        let seq_at = narrow::<u32>(seq_at) + 8;
        let row = GeneratorRow { next: 0, ifindex: ns.ifindex(ifname), seq_at };
        let mut map: Array<_, GeneratorRow> =
            object.map_mut("GENERATOR").expect("the map").try_into().expect("an array");
        map.set(0, row, 0).expect("the map takes a row");
        let program: &mut Xdp =
            object.program_mut("generate").expect("the program").try_into().expect("an XDP program");
        program.load().expect("the kernel takes it");
        Self { object, ns, template, sent: 0 }
    }

    /// Sends `frames` frames as fast as possible.
    pub fn send(&mut self, frames: u32) {
        let program: &Xdp = self.object.program("generate").expect("the program").try_into().expect("an XDP program");
        let data = &self.template.0;
        self.ns.run(|| {
            let attrs = TestRunAttrs::new().xdp_live_frames(BATCH.min(frames));
            let options = TestRunOptions { data_in: Some(data), repeat: frames, attrs, ..Default::default() };
            program.test_run(options).expect("live frames run");
        });
        self.sent += u64::from(frames);
    }

    /// Sends about `pps` frames a second in small bursts, until `until` is true, but for a minute at most.
    pub fn send_paced(&mut self, pps: u32, mut until: impl FnMut() -> bool) {
        let start = Instant::now();
        let first = self.sent;
        while !until() && start.elapsed() < Duration::from_secs(60) {
            let due = first + narrow::<u64>(start.elapsed().as_nanos() * u128::from(pps) / 1_000_000_000);
            let late = u32::try_from(due.saturating_sub(self.sent)).unwrap_or(u32::MAX);
            // After a scheduler's pause it catches up slowly, because one burst would fill a ring.
            if late > 0 {
                self.send(late.min(256));
            }
            std::thread::sleep(TICK);
        }
    }

    /// Frames sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }
}

/// The sink on a netdev.
#[derive(Debug)]
pub struct Sink {
    object: Ebpf,
}

impl Sink {
    /// Attaches the program to `ifname` in `ns`.
    pub fn attach(ns: &NetNs, ifname: &str) -> Self {
        Self { object: attach(ns, ifname, "sink", "sink") }
    }

    /// Its report on a stream.
    pub fn report(&self, stream: u32) -> StreamReport {
        let map: Array<_, StreamReport> = self.object.map("STREAMS").expect("the map").try_into().expect("an array");
        map.get(&stream, 0).expect("a row a stream")
    }

    /// Waits until `sent` packets of a stream have come, or a time limit. Returns the report.
    pub fn settle(&self, stream: u32, sent: u64) -> StreamReport {
        let _ = wait::until(Duration::from_secs(5), || (self.report(stream).received >= sent).then_some(()));
        self.report(stream)
    }
}
