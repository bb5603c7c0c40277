//! Short real runs of the bench. They check what the generator sends, that each of our devices forwards it, and that
//! nothing is left behind. No test asserts speed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bench::contest::{Contender, Entry, contest};
use bench::devices::bridge::Bridge;
use bench::devices::devmap::Devmap;
use bench::devices::forwarder::Forwarder;
use bench::devices::xswitch::Xswitch;
use bench::devices::{Device, Running};
use bench::lab::{End, Lab, Seen};
use bench::load::{Load, Side};
use bench::measure::{self, Times};
use bench::rules::RuleSet;
use bench::run::with_bed;
use bench::storm::Storm;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::packet::checksum;
use tests::raw::RawSocket;
use tests::{Frame, wait};

const SOON: Duration = Duration::from_secs(10);
const TIMES: Times =
    Times { warm: Duration::from_millis(10), measure: Duration::from_millis(50), idle: Duration::from_millis(10) };
/// Slow enough for a ring of 2,048 whose reader is descheduled for a moment.
const SLOW: f64 = 50_000.0;

/// Namespaces that a process has left behind.
fn namespaces(pid: u32) -> Vec<String> {
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(&format!("xswt-{pid}-"))).collect()
}

/// Child processes of a process.
fn children(pid: u32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect::<Vec<i32>>())
        .collect()
}

/// Counters of an end when nothing has come for a while.
fn at_rest(end: &End) -> Seen {
    let mut last = end.seen();
    let rest = wait::until(SOON, || {
        std::thread::sleep(Duration::from_millis(200));
        let before = std::mem::replace(&mut last, end.seen());
        (before == last).then_some(before)
    });
    rest.expect("nothing is sent any more")
}

/// Streams and round trips through a device, both of its directions.
fn forwards(device: &dyn Device) {
    let name = device.name();
    let pids = with_bed(device, |bed| {
        let mut generator = bed.lab.generator(Side::Near);
        for frame in [64, 1500] {
            let load = Load::new(Side::Near).sized(frame).few_flows(1);
            let before = at_rest(&bed.ends.far);
            let sample = measure::stream(&mut generator, &bed.ends, &load, TIMES)?;
            assert!(sample.offered > 0.0 && sample.forwarded > 0.0, "{name}: {sample:?}");
            let after = at_rest(&bed.ends.far);
            let bytes = (after.packets - before.packets) * u64::from(frame - 4);
            assert_eq!(after.bytes - before.bytes, bytes, "{name}: frames are as long as they were");
        }
        let load = Load::new(Side::Near).paced(1000.0).returning();
        let times = measure::round_trip(&mut generator, &mut bed.ends, &load, TIMES)?;
        assert!(times.packets > 0 && times.p50 > 0.0, "{name}: {times:?}");
        assert!(times.p50 <= times.p99 && times.p99 <= times.p999, "{name}: {times:?}");
        Ok(bed.running.pids())
    });
    let pids = pids.unwrap_or_else(|error| panic!("{name}: {error:#}"));
    assert!(pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()), "{name} leaves {pids:?}");
}

#[test]
fn the_bare_forwarder_forwards_polling_and_sleeping() {
    [false, true].into_iter().for_each(|sleep| forwards(&Forwarder { sleep }));
}

#[test]
fn the_devmap_redirect_and_the_linux_bridge_forward() {
    forwards(&Devmap);
    [false, true].into_iter().for_each(|threaded| forwards(&Bridge { threaded, ports: 2 }));
}

#[test]
fn xswitch_forwards_with_everything_on_with_more_ports_and_two_workers() {
    let full = Xswitch { rules: Some(RuleSet { rules: 1000, masks: 8 }), meters: true, ..Xswitch::default() };
    forwards(&full);
    forwards(&Xswitch { ports: 8, workers: 2, ..Xswitch::default() });
    forwards(&Xswitch { busy: true, ..Xswitch::default() });
    forwards(&Xswitch { own_umems: true, ..Xswitch::default() });
}

#[test]
fn a_storm_rages_beside_a_stream_until_it_is_dropped() {
    let done = with_bed(&Xswitch { ports: 4, ..Xswitch::default() }, |bed| {
        let (mut generator, before) = (bed.lab.generator(Side::Near), bed.ends.far.seen());
        let storm = Storm::start(bed.lab, 20_000.0)?;
        wait::expect("broadcasts arrive", SOON, || bed.ends.far.seen().others > before.others + 100);
        let sample = measure::stream(&mut generator, &bed.ends, &Load::new(Side::Near).paced(1000.0), TIMES)?;
        assert!(sample.offered > 0.0 && sample.forwarded > 0.0, "{sample:?}");
        drop(storm);
        at_rest(&bed.ends.far);
        Ok(())
    });
    done.unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn xswitch_comes_back_with_its_ports_and_takes_other_rules_meanwhile() {
    let done = with_bed(&Xswitch { ports: 4, ..Xswitch::default() }, |bed| {
        for rules in [10, 0] {
            bed.running.set_rules(&RuleSet { rules, masks: 1 })?;
            assert!(bed.running.restart()?.is_some());
            bed.lab.prime(&bed.ends, 1)?;
        }
        Ok(())
    });
    done.unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn the_bare_forwarder_loses_no_packet_and_no_frame_either_way() {
    let done = with_bed(&Forwarder { sleep: false }, |bed| {
        for side in [Side::Near, Side::Far] {
            let end = if side == Side::Near { &bed.ends.far } else { &bed.ends.near };
            let (mut generator, first) = (bed.lab.generator(side), end.seen().packets);
            // Several times its 4,096 frames.
            for turn in 1..=15 {
                generator.send(&Load::new(side).paced(SLOW), 1000);
                let all = || end.seen().packets - first == turn * 1000;
                wait::expect(&format!("turn {turn} from {side:?}"), SOON, all);
            }
        }
        Ok(())
    });
    done.unwrap_or_else(|error| panic!("{error:#}"));
}

/// The frames that come out of the near guest's port for a load.
fn sent(load: &Load, packets: usize) -> Vec<Frame> {
    let lab = Lab::new(2).expect("a lab");
    lab.switch.sh("ethtool -K p0 gro on");
    let socket = RawSocket::open(&lab.switch, "p0");
    lab.generator(Side::Near).send(&load.paced(SLOW), packets as u64);
    let frames: Vec<Frame> =
        std::iter::from_fn(|| socket.recv_if(SOON, |frame| frame.mark().is_some())).take(packets).collect();
    assert_eq!(frames.len(), packets);
    assert!(socket.recv_if(Duration::ZERO, |frame| frame.mark().is_some()).is_none(), "no more than asked for");
    for frame in &frames {
        assert_eq!(checksum(&[&frame.0[14..34]]), 0, "IPv4 header of {frame:?}");
    }
    frames
}

fn distinct<T: Ord>(frames: &[Frame], of: impl Fn(&Frame) -> T) -> usize {
    frames.iter().map(of).collect::<BTreeSet<T>>().len()
}

fn address(frame: &Frame) -> Ipv4Addr {
    let octets: [u8; 4] = frame.0[30..34].try_into().expect("four bytes");
    octets.into()
}

fn ports(frame: &Frame) -> [u8; 4] {
    frame.0[34..38].try_into().expect("four bytes")
}

#[test]
fn the_generator_sends_the_sets_that_a_load_names_and_numbers_its_packets() {
    let load = Load::new(Side::Near).sized(594);
    let frames = sent(&load.to_macs(100).from_macs(10), 200);
    assert_eq!((distinct(&frames, Frame::dst), distinct(&frames, Frame::src)), (100, 10));
    assert_eq!((distinct(&frames, address), distinct(&frames, ports)), (1, 1));
    let numbers: Vec<u64> = frames.iter().map(|frame| frame.mark().expect("a mark").1).collect();
    assert_eq!(numbers, (0..200).collect::<Vec<u64>>());
    assert!(frames.iter().all(|frame| frame.0.len() == 590));
    let frames = sent(&load.new_flows(1), 500);
    assert_eq!(distinct(&frames, ports), 500, "a new flow with every packet");
    let frames = sent(&load.few_flows(10_000), 200);
    assert_eq!(distinct(&frames, |frame| (address(frame), ports(frame))), 64);
}

#[test]
fn packets_of_a_load_hit_exactly_one_rule_each() {
    for masks in [1, 8, 64] {
        let keys: Vec<_> = RuleSet { rules: 100, masks }.keys().collect();
        let load = Load::new(Side::Near);
        for load in [load.few_flows(100), load.flows(1000, 100), load.new_flows(100)] {
            let frames = sent(&load, 200);
            for frame in &frames {
                let port = u16::from_be_bytes([frame.0[34], frame.0[35]]);
                let hits =
                    keys.iter().filter(|key| key.dst_ip == address(frame).to_bits() && port & key.src_port_mask == 0);
                assert_eq!(hits.count(), 1, "{frame:?}");
            }
            assert!(distinct(&frames, address) >= 64, "many rules are hit");
        }
    }
}

#[derive(Debug)]
struct Broken;

impl Device for Broken {
    fn name(&self) -> String {
        "broken".to_owned()
    }

    fn kind(&self) -> &'static str {
        "broken"
    }

    fn start<'a>(&'a self, _lab: &'a Lab, _cpu: usize) -> anyhow::Result<Box<dyn Running + 'a>> {
        anyhow::bail!("no such device")
    }
}

#[test]
fn a_device_that_does_not_start_is_an_error() {
    let error = with_bed(&Broken, |_| Ok(())).expect_err("it can't start");
    assert_eq!(error.to_string(), "no such device");
}

/// Whether a process is stopped by a signal, or has ended.
fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |text| text.rsplit_once(") ").expect("a name in brackets").1.starts_with('T'))
}

#[test]
fn in_a_contest_devices_take_turns_while_the_others_are_stopped() {
    let devices: [&dyn Device; 3] = [&Forwarder { sleep: false }, &Broken, &Forwarder { sleep: true }];
    let questions = [vec![0, 1], vec![0], vec![0]];
    let entry = |(device, questions): (&&'static dyn Device, &Vec<usize>)| Entry {
        name: device.name(),
        device: *device,
        questions: questions.clone(),
    };
    let entries: Vec<Entry<'_>> = devices.iter().zip(&questions).map(entry).collect();
    let pids = RefCell::new(BTreeMap::new());
    let mut turns = Vec::new();
    let prepare = |at: usize, contender: &mut Contender<'_>| {
        let [pid] = contender.running.pids()[..] else { panic!("a process") };
        pids.borrow_mut().insert(at, pid);
        Ok(pid)
    };
    let ask = |at: usize, question: usize, contender: &mut Contender<'_>, pid: &i32| {
        turns.push((at, question));
        for (of, pid) in pids.borrow().iter() {
            assert!(
                wait::until(SOON, || (is_stopped(*pid) == (*of != at)).then_some(())).is_some(),
                "{of} in {at}'s turn"
            );
        }
        assert_eq!(pids.borrow()[&at], *pid);
        let load = Load::new(Side::Near).paced(SLOW);
        let sample = measure::stream(&mut contender.generator, &contender.ends, &load, TIMES.of_a_turn())?;
        anyhow::ensure!(sample.forwarded > 0.0);
        anyhow::ensure!(turns.len() != 5, "the fifth turn fails");
        Ok(())
    };
    let failed = contest(&entries, 3, prepare, ask).expect("no signal came");
    let failed: Vec<String> = failed.into_iter().map(|(name, error)| format!("{name}: {error}")).collect();
    assert_eq!(failed[0], "broken: no such device");
    assert_eq!((failed.len(), failed[1].ends_with("polling: the fifth turn fails")), (2, true), "{failed:?}");
    assert_eq!(turns, [(0, 0), (2, 0), (0, 1), (2, 0), (0, 0), (2, 0)], "each second round goes backwards");
    assert!(pids.borrow().values().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()));
}

#[test]
fn a_run_that_is_stopped_writes_what_it_has_and_leaves_nothing_behind() {
    let out = tempfile::tempdir().expect("a directory");
    let mut run = Command::new(env!("CARGO_BIN_EXE_xswitch-bench"));
    run.args(["--quick", "--rounds", "100", "--only", "overload", "--devices", "floor", "--out"]).arg(out.path());
    let mut run = run.stderr(Stdio::piped()).spawn().expect("it starts");
    let pid = run.id();
    let mut lines = BufReader::new(run.stderr.take().expect("a pipe")).lines().map(|line| line.expect("text"));
    assert!(lines.any(|line| line.contains("Mpps")), "it measures");
    assert!(!namespaces(pid).is_empty(), "it has a lab while it measures");
    let began = children(pid);
    assert!(!began.is_empty(), "and a device");
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM).expect("it can be signalled");
    lines.for_each(drop);
    let status = run.wait().expect("it can be waited for");
    assert!(!status.success());
    assert_eq!(namespaces(pid), Vec::<String>::new());
    assert!(began.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()), "{began:?}");
    let text = std::fs::read_to_string(out.path().join("results.json")).expect("results");
    let results: bench::results::Results = serde_json::from_str(&text).expect("results");
    assert!(!results.points.is_empty() && !results.setting.kernel.is_empty());
}
