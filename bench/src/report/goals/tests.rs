use super::*;
use crate::report::tests::made_up::{footprint, latency, point};

fn verdict(what: &str, results: &Results) -> Verdict {
    let goal = goal(what);
    Verdict::of(goal.want, goal.measured(results))
}

fn goal(what: &str) -> &'static Goal {
    let mut found = GOALS.iter().filter(|goal| goal.what == what);
    let goal = found.next().unwrap_or_else(|| panic!("{what} is a goal"));
    assert!(found.next().is_none(), "{what} is one goal");
    goal
}

#[test]
fn a_rate_is_met_from_its_limit_upwards() {
    let what = "everything on / bare AF_XDP forwarder, 64 B";
    let with = |mpps: f64| Results {
        points: vec![
            point(Experiment::Overload, XSWITCH_FULL, 64, 64.0, mpps),
            point(Experiment::Overload, FORWARDER, 64, 64.0, 2.0),
            point(Experiment::Overload, XSWITCH_FULL, 1500, 1500.0, 9.0),
        ],
        ..Results::default()
    };
    assert_eq!(verdict(what, &with(1.95)), Verdict::Met);
    assert_eq!(verdict(what, &with(1.93)), Verdict::Missed);
    let mut alone = with(1.95);
    alone.points.remove(1);
    assert_eq!(verdict(what, &alone), Verdict::NotMeasured, "nothing to compare with");
    assert_eq!(verdict("everything on / bare AF_XDP forwarder, 1,500 B", &with(1.95)), Verdict::NotMeasured);
}

#[test]
fn a_round_trip_is_met_from_its_limit_downwards() {
    let what = "round trip p99 at 1 kpps, may sleep / Open vSwitch afxdp (polls)";
    let with =
        |micros: f64| Results { latencies: vec![latency(XSWITCH, micros), latency(OVS, 10.0)], ..Results::default() };
    assert_eq!(verdict(what, &with(39.0)), Verdict::Met);
    assert_eq!(verdict(what, &with(41.0)), Verdict::Missed);
    let polling = "round trip p99 at 1 kpps, polling / Open vSwitch afxdp (polls)";
    assert_eq!(verdict(polling, &with(39.0)), Verdict::NotMeasured, "what sleeps is not what polls");
}

#[test]
fn a_curve_is_compared_with_its_own_first_point() {
    let what = "65,536 rules / 1 rule, 64 flows";
    let with = |last: f64, first: f64| Results {
        points: vec![
            point(Rules, XSWITCH, 64, 65_536.0, last),
            point(Rules, XSWITCH, 64, 1024.0, 1.0),
            point(Rules, XSWITCH, 64, first, 2.0),
            point(Rules, OVS, 64, 1.0, 4.0),
        ],
        ..Results::default()
    };
    assert_eq!(verdict(what, &with(1.92, 1.0)), Verdict::Met);
    assert_eq!(verdict(what, &with(1.88, 1.0)), Verdict::Missed);
    assert_eq!(verdict(what, &with(1.92, 100.0)), Verdict::NotMeasured, "100 rules are not one");
    assert_eq!(verdict("100,000 flows / 1 flow", &with(1.92, 1.0)), Verdict::NotMeasured);
}

#[test]
fn an_idle_switch_and_its_start_are_judged_by_the_worst() {
    let with = |devices: &[(&str, f64, f64)]| Results {
        footprints: devices.iter().map(|&(device, start, idle)| footprint(device, start, idle)).collect(),
        ..Results::default()
    };
    let (idle, start) = ("CPU of an idle switch with 200 ports", "start-up with 200 ports and 65,536 rules");
    let good = with(&[(XSWITCH, 2.9, 0.004), (XSWITCH_POLLING, 9.0, 1.0), (OVS, 9.0, 1.0)]);
    assert_eq!((verdict(idle, &good), verdict(start, &good)), (Verdict::Met, Verdict::Met));
    let bad = with(&[(XSWITCH, 2.9, 0.004), (XSWITCH_FULL, 3.0, 0.005)]);
    assert_eq!((verdict(idle, &bad), verdict(start, &bad)), (Verdict::Missed, Verdict::Missed));
    let mut few = good;
    few.footprints.iter_mut().for_each(|footprint| footprint.ports = 2);
    assert_eq!((verdict(idle, &few), verdict(start, &few)), (Verdict::NotMeasured, Verdict::NotMeasured));
}

#[test]
fn the_engine_is_judged_alone() {
    let with = |pps, instructions, allocations| Results {
        engine: Some(Engine { pps, instructions, allocations, tables: String::new() }),
        ..Results::default()
    };
    let three = |results: &Results| {
        [
            "engine alone, everything on, packets a second of a core",
            "instructions in user space per forwarded packet, everything on",
            "allocations per packet",
        ]
        .map(|what| verdict(what, results))
    };
    assert_eq!(three(&with(20e6, 299.0, 0.0)), [Verdict::Met; 3]);
    assert_eq!(three(&with(19.9e6, 300.0, 0.1)), [Verdict::Missed; 3]);
    assert_eq!(three(&Results::default()), [Verdict::NotMeasured; 3]);
}

#[test]
fn what_is_only_shown_is_never_judged() {
    let measured = Some((0.1, 0.1, 0.1));
    assert_eq!(Verdict::of(Shown, measured), Verdict::Shown);
    assert_eq!(Verdict::of(Shown, None), Verdict::NotMeasured);
    assert_eq!(Verdict::of(AtLeast(0.0), Some((f64::NAN, 0.0, 0.0))), Verdict::NotMeasured);
}

#[test]
fn the_section_says_limit_ratio_range_and_verdict() {
    let mut slower = point(Experiment::Overload, XSWITCH_FULL, 64, 64.0, 2.0);
    slower.samples[2].forwarded = 2.52e6;
    let points = vec![slower, point(Experiment::Overload, FORWARDER, 64, 64.0, 2.0)];
    let text = section(&Results { points, footprints: vec![footprint(XSWITCH, 4.0, 0.0)], ..Results::default() });
    for line in [
        "| everything on / bare AF_XDP forwarder, 64 B | ≥ 0.97 × | 1.00 (1.00–1.20) × | met |",
        "| start-up with 200 ports and 65,536 rules | < 3 s | 4.00 s | **missed** |",
        "| CPU of an idle switch with 200 ports | < 0.5 % | 0 % | met |",
        "| learning / XDP devmap redirect, 64 B | shown | – | not measured |",
        "| instructions in user space per forwarded packet, everything on | < 300 | – | not measured |",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
