//! A guest at a vhost-user port, and a veth. What the guest sends leaves by the veth's AF_XDP socket. A program at the
//! veth's other end sends it back, and it comes to the guest again. Beside it there is the bare AF_XDP forwarder, from
//! one veth to another.
//!
//! A packet of the forwarder is received and sent by AF_XDP once. So is a packet of the guest on its way there and
//! back, and its way through the guest's rings comes on top. So the rate of packets there and back, both counted, says
//! what these cost.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;
use tempfile::TempDir;
use tests::{Daemon, Frame, Mac, Options, wait};

use super::guest::{self, Counts, Guest};
use crate::contest::{self, Contender, Entry};
use crate::cpu::{self, Clock};
use crate::devices::forwarder::Forwarder;
use crate::devices::{Device, Running};
use crate::lab::{Ends, Lab};
use crate::load::{Load, Side};
use crate::measure::{self, Times};
use crate::names;
use crate::results::{Experiment, Sample};
use crate::run::Run;
use crate::stop;

/// Length on the wire, FCS included.
const FRAME: u32 = 64;
/// Number of the stream that the far end sends back, as in `bpf/bench/ends.bpf.c`.
const RETURNS: u32 = 2;
/// The guest, among the stations of the near side, of which the first is at `p0`.
const GUEST: Mac = Mac([0x02, 0x0a, 0, 0, 0, 7]);
/// The first station of the far side, which is at `p1`.
const FAR: Mac = Mac([0x02, 0x0b, 0, 0, 0, 1]);
/// Longest time until packets come back.
const PATIENCE: Duration = Duration::from_secs(10);

/// xswitch with the lab's ports, and one for a guest.
#[derive(Debug)]
struct WithGuest {
    dir: TempDir,
}

impl WithGuest {
    fn socket(&self) -> PathBuf {
        self.dir.path().join("guest")
    }
}

impl Device for WithGuest {
    fn name(&self) -> String {
        names::XSWITCH.to_owned()
    }

    fn kind(&self) -> &'static str {
        "xswitch"
    }

    fn start<'a>(&'a self, lab: &'a Lab, cpu: usize) -> anyhow::Result<Box<dyn Running + 'a>> {
        let config = format!("cpus = [{cpu}]\n[metrics]\nlisten = \"\"\n[spp]\nlisten = \"\"");
        let daemon = Daemon::within(Arc::clone(&lab.switch), &Options { workers: 1, frames: 65_536, config });
        let guest = json!({ "name": "guest", "kind": "vhost", "vhost": { "socket": self.socket() } });
        let nics = lab.port_names().into_iter().map(|name| json!({ "name": name, "kind": "phy", "ifname": name }));
        for port in nics.chain([guest]) {
            let (status, answer) = daemon.call("POST", "ports", &port);
            ensure!((200..300).contains(&status), "a port: {status} {answer}");
        }
        Ok(Box::new(Switching(daemon)))
    }
}

#[derive(Debug)]
struct Switching(Daemon);

impl Running for Switching {
    fn pids(&self) -> Vec<i32> {
        vec![self.0.pid()]
    }
}

/// A packet that the far end sends back.
fn packet(_flow: u32) -> Frame {
    Frame::ethernet(GUEST, FAR).stream(RETURNS, 0, 1514)
}

/// Lets the guest send while `work` runs.
fn sending<T>(guest: &mut Guest, counts: &Counts, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| guest::run(std::slice::from_mut(guest), counts, &over));
        let done = work();
        over.store(true, Ordering::Relaxed);
        ensure!(thread.join().is_ok(), "the switch breaks its rings");
        done
    })
}

/// Connects a guest, and waits until its packets come back.
fn connect(device: &WithGuest) -> anyhow::Result<Guest> {
    let mut guest = Guest::sending(false, packet)?;
    guest.connect(&device.socket())?;
    guest.set_frame(FRAME);
    let counts = Counts::default();
    sending(&mut guest, &counts, || {
        let came = || (counts.received.load(Ordering::Relaxed) > 1000).then_some(());
        wait::until(PATIENCE, came).context("nothing comes back")
    })?;
    Ok(guest)
}

/// Counts packets there and back while the guest sends.
fn there_and_back(guest: &mut Guest, ends: &Ends, times: Times) -> anyhow::Result<Sample> {
    let counts = Counts::default();
    sending(guest, &counts, || {
        stop::sleep(times.warm)?;
        let now = || {
            let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
            let cpus = [cpu::DEVICE, cpu::GENERATOR].map(Clock::read);
            (Instant::now(), [count(&counts.sent), count(&counts.received), ends.far.seen().packets], cpus)
        };
        let (start, before, cpus) = now();
        stop::sleep(times.measure)?;
        let (end, after, cpus_after) = now();
        let seconds = (end - start).as_secs_f64();
        let [sent, back, there] = [0, 1, 2].map(|at| (after[at] - before[at]) as f64 / seconds);
        ensure!(back > 0.0, "nothing comes back");
        let share = |at: usize| cpus_after[at].since(cpus[at], seconds);
        eprintln!("    there {:.3} Mpps, back {:.3} Mpps", there / 1e6, back / 1e6);
        // All that came there was to come back.
        let (offered, forwarded) = (sent + there, there + back);
        Ok(Sample { offered, forwarded, device_cpu: share(0), generator_cpu: share(1) })
    })
}

/// Measures both, and saves.
///
/// # Errors
/// As [`super::measure`].
pub(super) fn measure(run: &mut Run) -> anyhow::Result<()> {
    let with_guest = WithGuest { dir: tempfile::tempdir().context("a directory for sockets")? };
    let forwarder = Forwarder { sleep: false };
    let devices: [&dyn Device; 2] = [&with_guest, &forwarder];
    let wanted = devices.into_iter().filter(|device| run.plan.wants(device.kind()));
    let entries: Vec<_> = wanted.map(|device| Entry { name: device.name(), device, questions: vec![0] }).collect();
    let (rounds, times) = (run.plan.rounds, run.plan.times.of_a_turn());
    let prepare = |at: usize, _: &mut Contender<'_>| {
        let is_xswitch = entries[at].device.kind() == with_guest.kind();
        Ok(std::sync::Mutex::new(is_xswitch.then(|| connect(&with_guest)).transpose()?))
    };
    let ask = |at: usize, _: usize, contender: &mut Contender<'_>, guest: &std::sync::Mutex<Option<Guest>>| {
        let mut guest = guest.lock().expect("one thread asks");
        let sample = match guest.as_mut() {
            Some(guest) => there_and_back(guest, &contender.ends, times)?,
            None => {
                measure::stream(&mut contender.generator, &contender.ends, &Load::new(Side::Near).sized(FRAME), times)?
            }
        };
        eprintln!("  {}, there and back: {:.3} Mpps", entries[at].name, sample.forwarded / 1e6);
        run.point(Experiment::VhostVeth, &entries[at].name, FRAME, f64::from(FRAME)).samples.push(sample);
        Ok(())
    };
    let failed = contest::contest(&entries, rounds, prepare, ask);
    run.after("Vhost to a veth and back", failed)
}
