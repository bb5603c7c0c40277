//! Forwarded packets a second between two veth ports: xswitch, and a Linux bridge on the same kind of veths, taken in turn.
//!
//! The same generator (BPF live frames, on one CPU) and the same sink (an XDP program that counts and drops) for both. A
//! bridge works in the context of whoever sends, so on the generator's core; xswitch works on a core of its own, but what its
//! sending costs the receiving end (veth's NAPI) is also paid there. The rate offered is what the generator reaches into that
//! device; what comes out is what the sink counts. Machines differ and drift: only the ratios of one run mean something.
//!
//! `veth-bench [ROUNDS]`; the binaries of the same profile are used. Needs root.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::json;
use tests::gensink::{Generator, Sink};
use tests::{Daemon, Frame, Mac, NetNs, Options};

/// Frames that one measurement offers.
const FRAMES: u32 = 4_000_000;
/// Length of a frame on the wire without FCS: 64 bytes with it.
const LEN: usize = 60;
const GENERATOR_CPU: usize = 0;
const SWITCH_CPU: usize = 1;

/// One measurement: millions of packets a second, offered and forwarded.
#[derive(Clone, Copy, Debug)]
struct Rate {
    offered: f64,
    forwarded: f64,
}

/// Sends through a device under test between two guests, and counts what arrives.
fn measure(from: (&NetNs, &str, Mac), to: (&NetNs, &str, Mac)) -> Rate {
    let sink = Sink::attach(to.0, to.1);
    let mut generator = Generator::new(from.0, from.1, Frame::ethernet(from.2, to.2).stream(1, 0, LEN));
    generator.send(100_000);
    std::thread::sleep(Duration::from_millis(200));
    let before = sink.report(1).received;
    let everywhere = pin(Some(GENERATOR_CPU), None);
    let start = Instant::now();
    // The thread that sends is a child of this one and stays on its CPU.
    generator.send(FRAMES);
    let seconds = start.elapsed().as_secs_f64();
    pin(None, Some(&everywhere));
    let received = sink.report(1).received - before;
    Rate { offered: f64::from(FRAMES) / seconds / 1e6, forwarded: received as f64 / seconds / 1e6 }
}

/// Puts this thread on one CPU, or on a set of them; returns where it was allowed before.
fn pin(cpu: Option<usize>, set: Option<&CpuSet>) -> CpuSet {
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this).expect("a thread knows its CPUs");
    let mut wanted = CpuSet::new();
    if let Some(cpu) = cpu {
        wanted.set(cpu).expect("the CPU is there");
    }
    sched_setaffinity(this, set.unwrap_or(&wanted)).expect("a thread may choose among its CPUs");
    before
}

fn xswitch() -> Rate {
    let config = format!("cpus = [{SWITCH_CPU}]\n");
    let daemon = Daemon::with("bench", &Options { workers: 1, frames: 65_536, config });
    let (a, b) = (daemon.guest("a", json!({})), daemon.guest("b", json!({})));
    b.raw().send(&Frame::ethernet(b.mac, Mac::BROADCAST).payload(0x88b5, &[0; 46]));
    std::thread::sleep(Duration::from_millis(200));
    let rate = measure((&a.ns, &a.ifname, a.mac), (&b.ns, &b.ifname, b.mac));
    daemon.assert_balanced();
    rate
}

fn linux_bridge() -> Rate {
    let (middle, a, b) = (NetNs::new("bridge"), NetNs::new("a"), NetNs::new("b"));
    middle.sh("ip link add br0 type bridge");
    middle.sh("ip link set br0 up");
    for (port, ns) in [("p0", &a), ("p1", &b)] {
        middle.sh(&format!("ip link add {port} type veth peer name eth0 netns {}", ns.name()));
        // Live frames reach a veth only while its NAPI is on, for which GRO is enough.
        middle.sh(&format!("ethtool -K {port} gro on"));
        middle.sh(&format!("ip link set {port} master br0 up"));
        ns.sh("ip link set eth0 up");
    }
    let mac = |ns: &NetNs| tests::veth::mac(tests::veth::End { ns, ifname: "eth0" });
    let (mac_a, mac_b) = (mac(&a), mac(&b));
    tests::raw::RawSocket::open(&b, "eth0").send(&Frame::ethernet(mac_b, Mac::BROADCAST).payload(0x88b5, &[0; 46]));
    std::thread::sleep(Duration::from_millis(200));
    measure((&a, "eth0", mac_a), (&b, "eth0", mac_b))
}

fn median(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

fn main() -> anyhow::Result<()> {
    let rounds =
        std::env::args().nth(1).map_or(Ok(5), |rounds| rounds.parse::<usize>()).context("ROUNDS is a number")?;
    ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root");
    let cpus = std::thread::available_parallelism()?.get();
    ensure!(cpus > SWITCH_CPU, "two CPUs are needed, one for the generator and one for the switch");
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for (rates, device) in rates.iter_mut().zip([xswitch as fn() -> Rate, linux_bridge]) {
            rates.push(device());
        }
        eprintln!("round {} of {rounds}: {:?}", round + 1, rates.each_ref().map(|rates| rates.last().copied()));
    }
    let column = |rates: &[Rate], of: fn(&Rate) -> f64| median(rates.iter().map(of).collect());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("64-byte frames, two veth ports, one direction, {rounds} rounds in turn, kernel {}", kernel.trim());
    println!("| device | forwarded Mpps: median (min-max) | offered Mpps |\n| --- | --- | --- |");
    for (name, rates) in ["xswitch, 1 worker", "Linux bridge"].iter().zip(&rates) {
        let (forwarded, low, high) = column(rates, |rate| rate.forwarded);
        println!("| {name} | {forwarded:.2} ({low:.2}-{high:.2}) | {:.2} |", column(rates, |rate| rate.offered).0);
    }
    let forwarded = |at: usize| column(&rates[at], |rate| rate.forwarded).0;
    println!("\nxswitch / Linux bridge: {:.2}", forwarded(0) / forwarded(1));
    Ok(())
}
