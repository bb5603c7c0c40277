//! The lab: a namespace for the device under test, guests behind veths, and the programs on the guests' ends.
//!
//! ```text
//!   near guest                switch namespace                far guest
//!   g0 ───────────────────── p0   device   p1 ───────────────────── g1    (and g2 …: ports without traffic)
//!   generator, clock                                  sink and reflector
//! ```
//!
//! Every device gets the same veths, made anew: one queue, MTU 1500, no addresses, IPv6 off.
#![allow(unsafe_code, reason = "structs that a BPF program shares, and signals")]

use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use aya::maps::{Array, PerCpuArray};
use aya::{Ebpf, Pod};
use tests::NetNs;

use crate::generator::Generator;
use crate::histogram;
use crate::load::{Load, Side};
use crate::object::{self, Object};
use crate::results::Percentiles;
use crate::stop;

/// Longest time until a device forwards.
const PATIENCE: Duration = Duration::from_secs(15);

/// Namespaces and veths.
#[derive(Debug)]
pub struct Lab {
    /// The namespace of the device and its ends `p0`, `p1`, …
    pub switch: Arc<NetNs>,
    /// The guest at `p0`. Its end is `g0`.
    pub near: NetNs,
    /// The guest at `p1`. Its end is `g1`. It has the ends of all further ports, too.
    pub far: NetNs,
    /// Number of ports.
    pub ports: usize,
}

impl Lab {
    /// Makes a lab with `ports` ports, at least 2.
    ///
    /// # Errors
    /// `ip` could not do it.
    pub fn new(ports: usize) -> anyhow::Result<Self> {
        ensure!(ports >= 2, "a lab has two ports at least");
        let lab = Self { switch: Arc::new(NetNs::new("lab")), near: NetNs::new("near"), far: NetNs::new("far"), ports };
        let mut pairs = String::new();
        for port in 0..ports {
            let guest = if port == 0 { &lab.near } else { &lab.far };
            let options = "mtu 1500 numrxqueues 1 numtxqueues 1";
            let peer = format!("peer name g{port} {options} netns {}", guest.name());
            pairs += &format!("link add p{port} {options} type veth {peer}\nlink set p{port} up\n");
        }
        batch(&lab.switch, &pairs)?;
        batch(&lab.near, "link set g0 up\n")?;
        batch(&lab.far, &(1..ports).map(|port| format!("link set g{port} up\n")).collect::<String>())?;
        Ok(lab)
    }

    /// Name of the device's end of a port.
    pub fn port(number: usize) -> String {
        format!("p{number}")
    }

    /// Names of all the device's ends.
    pub fn port_names(&self) -> Vec<String> {
        (0..self.ports).map(Self::port).collect()
    }

    /// The generator of one side.
    pub fn generator(&self, side: Side) -> Generator<'_> {
        match side {
            Side::Near => Generator::new(&self.near, "g0"),
            Side::Far => Generator::new(&self.far, "g1"),
        }
    }

    /// Attaches the programs to the two guests' ends.
    pub fn ends(&self) -> Ends {
        Ends { near: End::attach(&self.near, "g0", "near"), far: End::attach(&self.far, "g1", "far") }
    }

    /// Waits until the device forwards both ways. Makes it learn the first `macs` stations of the far side and the
    /// first of the near side.
    ///
    /// # Errors
    /// It does not within 15 s, or a signal came.
    pub fn prime(&self, ends: &Ends, macs: u32) -> anyhow::Result<()> {
        let (mut near, mut far) = (self.generator(Side::Near), self.generator(Side::Far));
        let paced = |side| Load::new(side).paced(50_000.0);
        let end = Instant::now() + PATIENCE;
        let mut both = 0;
        while both < 3 {
            let before = (ends.far.seen().packets, ends.near.seen().packets);
            far.send(&paced(Side::Far).from_macs(macs), u64::from(macs).max(8));
            near.send(&paced(Side::Near), 8);
            stop::sleep(Duration::from_millis(20))?;
            let came = (ends.far.seen().packets > before.0, ends.near.seen().packets > before.1);
            both = if came == (true, true) { both + 1 } else { 0 };
            if Instant::now() > end {
                bail!("it does not forward: to the far guest {}, to the near one {}", came.0, came.1);
            }
        }
        Ok(())
    }
}

/// Runs a batch of `ip` commands in a namespace.
fn batch(ns: &NetNs, lines: &str) -> anyhow::Result<()> {
    let mut child = ns.command("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().context("ip")?;
    child.stdin.take().context("ip's standard input")?.write_all(lines.as_bytes())?;
    ensure!(child.wait()?.success(), "ip -batch failed");
    Ok(())
}

/// The programs on both guests' ends.
#[derive(Debug)]
pub struct Ends {
    /// Counts and drops. Takes the time of returned packets.
    pub near: End,
    /// Counts. Drops or sends back, as the load says.
    pub far: End,
}

/// Counters of an end: `struct seen` of the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Seen {
    /// Packets of the generator.
    pub packets: u64,
    /// Their bytes, without FCS.
    pub bytes: u64,
    /// Other packets.
    pub others: u64,
}
// SAFETY: integers without padding.
unsafe impl Pod for Seen {}

/// A program on a guest's end. Dropping it detaches the program.
#[derive(Debug)]
pub struct End {
    object: Ebpf,
}

impl End {
    fn attach(ns: &NetNs, ifname: &str, program: &str) -> Self {
        let mut object = Object::Ends.load();
        object::attach(&mut object, program, ns, ifname);
        Self { object }
    }

    /// Its counters so far.
    pub fn seen(&self) -> Seen {
        let map: PerCpuArray<_, Seen> = self.object.map("SEEN").expect("the map").try_into().expect("an array");
        let rows = map.get(&0, 0).expect("the row");
        rows.iter().fold(Seen::default(), |sum, row| Seen {
            packets: sum.packets + row.packets,
            bytes: sum.bytes + row.bytes,
            others: sum.others + row.others,
        })
    }

    /// Counts of round trip times so far, by bucket.
    fn times(&self) -> Vec<u64> {
        let map: PerCpuArray<_, u64> = self.object.map("TIMES").expect("the map").try_into().expect("an array");
        (0..histogram::BUCKETS).map(|bucket| map.get(&bucket, 0).expect("a bucket").iter().sum()).collect()
    }

    /// Round-trip times of packets that come while `work` runs. The counts are read before and after, so that reading
    /// disturbs nothing that is counted.
    pub(crate) fn times_during<T>(&mut self, work: impl FnOnce() -> T) -> (T, Percentiles) {
        let before = self.times();
        self.take_times(true);
        let result = work();
        self.take_times(false);
        let counts: Vec<u64> = self.times().iter().zip(before).map(|(now, before)| now - before).collect();
        (result, histogram::percentiles(&counts))
    }

    fn take_times(&mut self, on: bool) {
        let map = self.object.map_mut("TIMING").expect("the map");
        let mut map: Array<_, u32> = map.try_into().expect("an array");
        map.set(0, u32::from(on), 0).expect("the map takes a word");
    }
}
