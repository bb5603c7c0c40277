//! The goals of xswitch: what is measured, over what, and how much of it is enough.

use Experiment::{Flows, Macs, Rules, RulesNewFlows, VhostPacked, VhostSplit, VhostVeth};
use Figure::{At, AtFirst, Overload, RoundTrip, Vhost};
use Want::{AtLeast, AtMost, Below, Shown};

use super::select;
use super::text::{number, or_dash, range, table};
use crate::names::{
    BRIDGE_THREADED, CHAIN, CLASSIFIER, DEVMAP, FORWARD, FORWARDER, LOAD_LOW, MERGE, OVS, OVS_DPDK, OVS_RULES, TESTPMD,
    TESTPMD_VHOST, XSWITCH, XSWITCH_AWAKE, XSWITCH_FULL, XSWITCH_POLLING,
};
use crate::results::{Engine, Experiment, Footprint, Results, Spread, spread};

/// A curve begins at its least `x`. That is at most this: one of each, or one under each of 8 masks.
const FIRST: f64 = 8.0;

/// A figure of a run.
#[derive(Clone, Copy, Debug)]
enum Figure {
    /// Forwarded packets a second under overload.
    Overload(&'static str, u32),
    /// Forwarded packets a second at a point of a curve, 64-byte frames.
    At(Experiment, &'static str, f64),
    /// Packets a second between two guests, by frame length.
    Vhost(Experiment, &'static str, u32),
    /// The same at the first point of that curve.
    AtFirst(Experiment, &'static str),
    /// p99 of the round trip at 1,000 packets a second.
    RoundTrip(&'static str),
    /// A figure of an xswitch that may sleep, with at least that many ports and rules. The worst of all such counts.
    Footprint(u32, u32, fn(&Footprint) -> f64),
    /// A figure of the engine alone.
    Engine(fn(&Engine) -> f64),
}

impl Figure {
    /// A value for each round, or one if there are no rounds. Empty if it was not measured.
    fn rounds(self, results: &Results) -> Vec<f64> {
        let curve = |experiment, device| {
            let mut points = select::points(results, experiment);
            points.retain(|point| point.device == device && point.frame == 64);
            points
        };
        let of_length = |experiment, device, frame| {
            select::points(results, experiment)
                .into_iter()
                .find(|point| point.device == device && point.frame == frame)
                .map(select::forwarded)
                .unwrap_or_default()
        };
        match self {
            Self::Overload(device, frame) => of_length(Experiment::Overload, device, frame),
            Self::At(experiment, device, x) => curve(experiment, device)
                .into_iter()
                .find(|point| point.x == x)
                .map(select::forwarded)
                .unwrap_or_default(),
            Self::Vhost(experiment, device, frame) => of_length(experiment, device, frame),
            Self::AtFirst(experiment, device) => curve(experiment, device)
                .first()
                .filter(|point| point.x <= FIRST)
                .map(|point| select::forwarded(point))
                .unwrap_or_default(),
            Self::RoundTrip(device) => results
                .latencies
                .iter()
                .find(|latency| latency.device == device && latency.load == LOAD_LOW)
                .map(|latency| latency.rounds.iter().map(|round| round.p99).collect())
                .unwrap_or_default(),
            Self::Footprint(ports, rules, of) => {
                let meant = |footprint: &&Footprint| {
                    let device = footprint.device.as_str();
                    let xswitch = device == XSWITCH || device.starts_with("xswitch,");
                    xswitch && device != XSWITCH_POLLING && footprint.ports >= ports && footprint.rules >= rules
                };
                let all = spread(results.footprints.iter().filter(meant).map(of));
                all.map(|(_, _, worst)| worst).into_iter().collect()
            }
            Self::Engine(of) => results.engine.iter().map(of).collect(),
        }
    }
}

/// How much is enough.
#[derive(Clone, Copy, Debug)]
enum Want {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
    /// No goal. It is shown for comparison.
    Shown,
}

/// A figure, or the ratio of two, and how much is enough. Figures of rounds are in packets a second or nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Goal {
    what: &'static str,
    figure: Figure,
    over: Option<Figure>,
    want: Want,
    unit: &'static str,
    /// Factor that turns the figure into what is shown and compared.
    scale: f64,
}

impl Goal {
    const fn ratio(what: &'static str, figure: Figure, over: Figure, want: Want) -> Self {
        Self { what, figure, over: Some(over), want, unit: "×", scale: 1.0 }
    }

    const fn alone(what: &'static str, figure: Figure, want: Want, unit: &'static str, scale: f64) -> Self {
        Self { what, figure, over: None, want, unit, scale }
    }

    fn measured(&self, results: &Results) -> Option<Spread> {
        let rounds = self.figure.rounds(results);
        let (median, least, greatest) = match self.over {
            Some(over) => select::ratio(&rounds, &over.rounds(results))?,
            None => spread(rounds)?,
        };
        Some((median * self.scale, least * self.scale, greatest * self.scale))
    }

    fn enough(&self) -> String {
        let (sign, limit) = match self.want {
            Want::AtLeast(limit) => ("≥", limit),
            Want::AtMost(limit) => ("≤", limit),
            Want::Below(limit) => ("<", limit),
            Want::Shown => return "shown".to_owned(),
        };
        format!("{sign} {} {}", plain(limit), self.unit).trim_end().to_owned()
    }
}

/// A limit as it was set, without meaningless digits.
fn plain(limit: f64) -> String {
    format!("{limit}")
}

/// Whether the median reaches a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Met,
    Missed,
    NotMeasured,
    Shown,
}

impl Verdict {
    fn of(want: Want, measured: Option<Spread>) -> Self {
        let Some((median, ..)) = measured.filter(|(median, ..)| median.is_finite()) else {
            return Self::NotMeasured;
        };
        let met = match want {
            Want::AtLeast(limit) => median >= limit,
            Want::AtMost(limit) => median <= limit,
            Want::Below(limit) => median < limit,
            Want::Shown => return Self::Shown,
        };
        if met { Self::Met } else { Self::Missed }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "**missed**",
            Self::NotMeasured => "not measured",
            Self::Shown => "–",
        }
    }
}

/// All goals, in the order of the report.
const GOALS: &[Goal] = &[
    Goal::ratio(
        "everything on / bare AF_XDP forwarder, 64 B",
        Overload(XSWITCH_FULL, 64),
        Overload(FORWARDER, 64),
        AtLeast(0.97),
    ),
    Goal::ratio(
        "everything on / bare AF_XDP forwarder, 594 B",
        Overload(XSWITCH_FULL, 594),
        Overload(FORWARDER, 594),
        AtLeast(0.97),
    ),
    Goal::ratio(
        "everything on / bare AF_XDP forwarder, 1,500 B",
        Overload(XSWITCH_FULL, 1500),
        Overload(FORWARDER, 1500),
        AtLeast(0.97),
    ),
    Goal::ratio("learning / Open vSwitch afxdp, 64 B", Overload(XSWITCH, 64), Overload(OVS, 64), AtLeast(1.05)),
    Goal::ratio("learning / Open vSwitch afxdp, 1,500 B", Overload(XSWITCH, 1500), Overload(OVS, 1500), AtLeast(1.2)),
    Goal::ratio(
        "10,000 rules (and meters) / Open vSwitch afxdp, 10,000 rules, 64 B",
        Overload(XSWITCH_FULL, 64),
        Overload(OVS_RULES, 64),
        AtLeast(1.05),
    ),
    Goal::ratio(
        "10,000 rules (and meters) / Open vSwitch afxdp, 10,000 rules, 1,500 B",
        Overload(XSWITCH_FULL, 1500),
        Overload(OVS_RULES, 1500),
        AtLeast(1.2),
    ),
    Goal::ratio("learning / testpmd net_af_xdp, 64 B", Overload(XSWITCH, 64), Overload(TESTPMD, 64), AtLeast(1.1)),
    Goal::ratio(
        "learning / testpmd net_af_xdp, 1,500 B",
        Overload(XSWITCH, 1500),
        Overload(TESTPMD, 1500),
        AtLeast(1.25),
    ),
    // It forwards without a look at the packet. No other device that sends by the same calls can do better.
    Goal::ratio("bare AF_XDP forwarder / Open vSwitch afxdp, 64 B", Overload(FORWARDER, 64), Overload(OVS, 64), Shown),
    Goal::ratio(
        "bare AF_XDP forwarder / Open vSwitch afxdp, 1,500 B",
        Overload(FORWARDER, 1500),
        Overload(OVS, 1500),
        Shown,
    ),
    Goal::ratio(
        "bare AF_XDP forwarder / testpmd net_af_xdp, 64 B",
        Overload(FORWARDER, 64),
        Overload(TESTPMD, 64),
        Shown,
    ),
    Goal::ratio(
        "bare AF_XDP forwarder / testpmd net_af_xdp, 1,500 B",
        Overload(FORWARDER, 1500),
        Overload(TESTPMD, 1500),
        Shown,
    ),
    Goal::ratio(
        "learning / Linux bridge on a core of its own, 64 B",
        Overload(XSWITCH, 64),
        Overload(BRIDGE_THREADED, 64),
        Shown,
    ),
    Goal::ratio("forward component / the bridge, 64 B", Overload(FORWARD, 64), Overload(XSWITCH, 64), Shown),
    Goal::ratio("classifier component / the bridge, 64 B", Overload(CLASSIFIER, 64), Overload(XSWITCH, 64), Shown),
    Goal::ratio("merge component / the bridge, 64 B", Overload(MERGE, 64), Overload(XSWITCH, 64), Shown),
    Goal::ratio("classifier to ring to merge / the bridge, 64 B", Overload(CHAIN, 64), Overload(XSWITCH, 64), Shown),
    Goal::ratio("learning / XDP devmap redirect, 64 B", Overload(XSWITCH, 64), Overload(DEVMAP, 64), Shown),
    Goal::ratio(
        "65,536 rules / 1 rule, 64 flows",
        At(Rules, XSWITCH, 65_536.0),
        AtFirst(Rules, XSWITCH),
        AtLeast(0.95),
    ),
    Goal::ratio("the same for Open vSwitch afxdp", At(Rules, OVS, 65_536.0), AtFirst(Rules, OVS), Shown),
    Goal::ratio(
        "65,536 rules under 8 masks / first point, a new flow every packet",
        At(RulesNewFlows, XSWITCH, 65_536.0),
        AtFirst(RulesNewFlows, XSWITCH),
        AtLeast(0.5),
    ),
    Goal::ratio(
        "the same for Open vSwitch afxdp",
        At(RulesNewFlows, OVS, 65_536.0),
        AtFirst(RulesNewFlows, OVS),
        Shown,
    ),
    Goal::ratio("100,000 flows / 1 flow", At(Flows, XSWITCH, 1e5), AtFirst(Flows, XSWITCH), AtLeast(0.8)),
    Goal::ratio("the same for Open vSwitch afxdp", At(Flows, OVS, 1e5), AtFirst(Flows, OVS), Shown),
    Goal::ratio("100,000 MACs / 1 MAC", At(Macs, XSWITCH, 1e5), AtFirst(Macs, XSWITCH), AtLeast(0.8)),
    Goal::ratio("the same for Open vSwitch afxdp", At(Macs, OVS, 1e5), AtFirst(Macs, OVS), Shown),
    Goal::ratio(
        "round trip p99 at 1 kpps, polling / Open vSwitch afxdp (polls)",
        RoundTrip(XSWITCH_POLLING),
        RoundTrip(OVS),
        AtMost(1.0),
    ),
    Goal::ratio(
        "round trip p99 at 1 kpps, may sleep / Open vSwitch afxdp (polls)",
        RoundTrip(XSWITCH),
        RoundTrip(OVS),
        AtMost(4.0),
    ),
    Goal::ratio(
        "round trip p99 at 1 kpps, may sleep after 2 ms / Open vSwitch afxdp (polls)",
        RoundTrip(XSWITCH_AWAKE),
        RoundTrip(OVS),
        AtMost(4.0),
    ),
    Goal::ratio(
        "vhost to vhost, split rings / Open vSwitch DPDK, 64 B",
        Vhost(VhostSplit, XSWITCH, 64),
        Vhost(VhostSplit, OVS_DPDK, 64),
        AtLeast(1.1),
    ),
    Goal::ratio(
        "vhost to vhost, split rings / testpmd net_vhost, 64 B",
        Vhost(VhostSplit, XSWITCH, 64),
        Vhost(VhostSplit, TESTPMD_VHOST, 64),
        AtLeast(1.0),
    ),
    Goal::ratio(
        "vhost to vhost, split rings / Open vSwitch DPDK, 1,500 B",
        Vhost(VhostSplit, XSWITCH, 1500),
        Vhost(VhostSplit, OVS_DPDK, 1500),
        AtLeast(1.5),
    ),
    Goal::ratio(
        "vhost to vhost, split rings / testpmd net_vhost, 1,500 B",
        Vhost(VhostSplit, XSWITCH, 1500),
        Vhost(VhostSplit, TESTPMD_VHOST, 1500),
        AtLeast(1.5),
    ),
    Goal::ratio(
        "vhost to vhost, packed rings / testpmd net_vhost, 64 B",
        Vhost(VhostPacked, XSWITCH, 64),
        Vhost(VhostPacked, TESTPMD_VHOST, 64),
        AtLeast(0.95),
    ),
    Goal::ratio(
        "vhost to an AF_XDP veth and back / bare AF_XDP forwarder, 64 B",
        Vhost(VhostVeth, XSWITCH, 64),
        Vhost(VhostVeth, FORWARDER, 64),
        AtLeast(0.97),
    ),
    Goal::alone(
        "CPU of an idle switch with 200 ports",
        Figure::Footprint(200, 0, |it| it.idle_cpu),
        Below(0.5),
        "%",
        1e2,
    ),
    Goal::alone(
        "start-up with 200 ports and 65,536 rules",
        Figure::Footprint(200, 65_536, |it| it.start_seconds),
        Below(3.0),
        "s",
        1.0,
    ),
    Goal::alone(
        "engine alone, everything on, packets a second of a core",
        Figure::Engine(|it| it.pps),
        AtLeast(20.0),
        "Mpps",
        1e-6,
    ),
    Goal::alone(
        "instructions in user space per forwarded packet, everything on",
        Figure::Engine(|it| it.instructions),
        Below(300.0),
        "",
        1.0,
    ),
    Goal::alone("allocations per packet", Figure::Engine(|it| it.allocations), AtMost(0.0), "", 1.0),
];

/// The section "Where it stands".
pub fn section(results: &Results) -> String {
    let rows: Vec<Vec<String>> = GOALS
        .iter()
        .map(|goal| {
            let measured = goal.measured(results);
            let value = or_dash(measured, |spread| {
                let (median, least, greatest) = spread;
                // A single value has no range.
                let text = if number(least) == number(greatest) { number(median) } else { range(spread, 1.0) };
                format!("{text} {}", goal.unit).trim_end().to_owned()
            });
            vec![goal.what.to_owned(), goal.enough(), value, Verdict::of(goal.want, measured).text().to_owned()]
        })
        .collect();
    format!(
        "## Where it stands\n\nForwarded packets a second under overload, as a ratio, unless said otherwise. \"Everything on\" is \
         MAC learning, 10,000 rules, a meter on each port, and counters. The median decides.\n\n{}",
        table(&["what", "goal", "measured", "verdict"], &rows)
    )
}

#[cfg(test)]
mod tests;
