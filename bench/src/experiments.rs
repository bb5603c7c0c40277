//! The experiments: the devices that take part, and what is measured.

use std::sync::Arc;

use clap::ValueEnum;

use crate::devices::Device;
use crate::devices::bridge::Bridge;
use crate::devices::components::{Components, Kind};
use crate::devices::devmap::Devmap;
use crate::devices::forwarder::Forwarder;
use crate::devices::peer::{DpdkTestpmd, OpenVswitch};
use crate::devices::xswitch::Xswitch;
use crate::load::{Load, Side};
use crate::names;
use crate::peers::Peers;
use crate::results::Experiment;
use crate::rules::{MOST_MASKS, RuleSet};
use crate::run::{Case, Job, Run};
use crate::storm::FULL_SPEED;
use crate::{disk, vhost};

/// Lengths on the wire, FCS included.
const FRAMES: [u32; 3] = [64, 594, 1500];
/// Offered packets a second.
const RATES: [f64; 8] = [1e3, 1e4, 1e5, 2e5, 5e5, 1e6, 1.5e6, 2e6];
/// Rules of a device with everything on.
const RULES: RuleSet = RuleSet { rules: 10_000, masks: 1 };
/// The highest number of rules.
const ALL_RULES: u32 = 65_536;
const RULE_COUNTS: [u32; 6] = [1, 64, 1024, 4096, 16_384, ALL_RULES];
const MASK_COUNTS: [u32; 7] = [1, 2, 4, 8, 16, 32, MOST_MASKS];
/// Distinct masks in experiments with new flows.
const MASKS: u32 = 8;
const PORT_COUNTS: [usize; 5] = [2, 8, 32, 100, 200];
/// Ports where one guest broadcasts. The others are sent copies.
const STORM_PORTS: [usize; 2] = [64, 200];
/// Broadcasts a second.
const STORMS: [f64; 3] = [0.0, 2e4, FULL_SPEED];
/// Packets a second of the stream beside them.
const BESIDE_STORM: f64 = 1e4;
/// Numbers of flows, and of MAC addresses.
const SET_SIZES: [u32; 6] = [1, 10, 100, 1000, 10_000, 100_000];

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// As many packets as the generator can send, in three lengths
    Overload,
    /// Given offered rates
    Rate,
    /// Over the number of rules, 64 flows
    Rules,
    /// Over the number of rules under 8 masks, a new flow with every packet
    RulesNewFlows,
    /// Over the number of distinct masks, a new flow with every packet
    Masks,
    /// Over the number of ports
    Ports,
    /// Over the number of flows in turn, with rules
    Flows,
    /// Over the number of MAC addresses in turn
    Macs,
    /// A stream beside broadcasts of another guest
    Storm,
    /// Between two guests at vhost-user ports
    Vhost,
    /// Disks, beside QEMU's storage daemon
    Disk,
    /// Round trips at 1,000 packets a second and at half load
    Latency,
    /// Start-up, memory and idle CPU
    Footprint,
    /// The engine on rings without a kernel: packets a second, instructions, allocations
    Engine,
}

impl What {
    /// Measures it, with the peers if there are some.
    ///
    /// # Errors
    /// A signal came, or the results can't be written.
    pub fn measure(self, run: &mut Run, peers: Option<&Arc<Peers>>) -> anyhow::Result<()> {
        match self {
            Self::Overload => run.rates(Experiment::Overload, &overload(peers)),
            Self::Rate => run.rates(Experiment::Rate, &rate(peers)),
            Self::Rules => run.rates(Experiment::Rules, &rules(peers)),
            Self::RulesNewFlows => run.rates(Experiment::RulesNewFlows, &rules_new_flows(peers)),
            Self::Masks => run.rates(Experiment::Masks, &masks(peers)),
            Self::Ports => run.rates(Experiment::Ports, &ports()),
            Self::Flows => run.rates(Experiment::Flows, &flows(peers)),
            Self::Macs => run.rates(Experiment::Macs, &macs(peers)),
            Self::Storm => run.rates(Experiment::Storm, &storm()),
            Self::Vhost => vhost::measure(run, peers),
            Self::Disk => disk::measure(run),
            Self::Latency => run.round_trips(&latency(peers)),
            Self::Footprint => run.footprints(&footprint(peers)),
            Self::Engine => run.engine(),
        }
    }
}

/// Everything on.
fn full() -> Xswitch {
    Xswitch { rules: Some(RULES), meters: true, ..Xswitch::default() }
}

/// xswitch with room for a few more addresses than the largest experiment uses.
fn many_macs() -> Xswitch {
    Xswitch { macs: 131_072, ..Xswitch::default() }
}

fn bridge(threaded: bool) -> Bridge {
    Bridge { threaded, ports: 2 }
}

/// Open vSwitch, if it is there.
fn ovs(peers: Option<&Arc<Peers>>, rules: Option<RuleSet>) -> Option<OpenVswitch> {
    peers.map(|peers| OpenVswitch { peers: Arc::clone(peers), rules })
}

fn testpmd(peers: Option<&Arc<Peers>>) -> Option<DpdkTestpmd> {
    peers.map(|peers| DpdkTestpmd { peers: Arc::clone(peers) })
}

/// The same for xswitch and Open vSwitch.
fn both(peers: Option<&Arc<Peers>>, cases: Vec<Case>) -> Vec<Job> {
    let own = Job::new(Xswitch::default(), cases.clone());
    [own].into_iter().chain(ovs(peers, None).map(|ovs| Job::new(ovs, cases))).collect()
}

fn near() -> Load {
    Load::new(Side::Near)
}

fn overload(peers: Option<&Arc<Peers>>) -> Vec<Job> {
    // All get 64 flows. Devices with rules get them spread over that many rules.
    let cases = |rules: u32| -> Vec<Case> {
        let case = |frame| Case::new(f64::from(frame), near().sized(frame).few_flows(rules));
        FRAMES.into_iter().map(case).collect()
    };
    let plain = Xswitch::default();
    // Compared devices are neighbours in a round.
    let mut jobs: Vec<Job> = testpmd(peers).map(|testpmd| Job::new(testpmd, cases(1))).into_iter().collect();
    jobs.push(Job::new(plain, cases(1)));
    jobs.extend(ovs(peers, None).map(|ovs| Job::new(ovs, cases(1))));
    jobs.extend(ovs(peers, Some(RULES)).map(|ovs| Job::new(ovs, cases(RULES.rules))));
    jobs.extend([
        Job::new(full(), cases(RULES.rules)),
        Job::new(Forwarder { sleep: false }, cases(1)),
        Job::new(Xswitch { own_umems: true, ..plain }, cases(1)),
        Job::new(Xswitch { ports: 32, ..plain }, cases(1)),
        Job::new(Xswitch { workers: 2, ..plain }, cases(1)),
        Job::new(Xswitch { flow_table: true, ..plain }, cases(1)),
        Job::new(Xswitch { flow_table: true, rules: Some(RULES), ..plain }, cases(RULES.rules)),
        Job::new(Devmap, cases(1)),
        Job::new(bridge(false), cases(1)),
        Job::new(bridge(true), cases(1)),
    ]);
    let kinds = [Kind::Forward, Kind::Classifier, Kind::Merge, Kind::Chain];
    jobs.extend(kinds.map(|kind| Job::new(Components { kind }, cases(1))));
    jobs
}

fn rate(peers: Option<&Arc<Peers>>) -> Vec<Job> {
    let case = |pps| Case::new(pps, near().paced(pps).few_flows(1));
    let cases = || -> Vec<Case> { RATES.into_iter().map(case).collect() };
    let mut jobs = vec![
        Job::new(Forwarder { sleep: false }, cases()),
        Job::new(Forwarder { sleep: true }, cases()),
        Job::new(Xswitch::default(), cases()),
        Job::new(Xswitch { busy: true, ..Xswitch::default() }, cases()),
        Job::new(Devmap, cases()),
        Job::new(bridge(false), cases()),
        Job::new(bridge(true), cases()),
    ];
    jobs.extend(ovs(peers, None).map(|ovs| Job::new(ovs, cases())));
    jobs.extend(testpmd(peers).map(|testpmd| Job::new(testpmd, cases())));
    jobs
}

fn rules(peers: Option<&Arc<Peers>>) -> Vec<Job> {
    let case = |rules| Case {
        rules: Some(RuleSet { rules, masks: 1 }),
        ..Case::new(f64::from(rules), near().few_flows(rules))
    };
    both(peers, RULE_COUNTS.into_iter().map(case).collect())
}

fn rules_new_flows(peers: Option<&Arc<Peers>>) -> Vec<Job> {
    let case = |rules| Case {
        rules: Some(RuleSet { rules, masks: MASKS }),
        ..Case::new(f64::from(rules), near().new_flows(rules))
    };
    both(peers, RULE_COUNTS.into_iter().map(case).collect())
}

fn masks(peers: Option<&Arc<Peers>>) -> Vec<Job> {
    let case = |masks| Case {
        rules: Some(RuleSet { rules: ALL_RULES, masks }),
        ..Case::new(f64::from(masks), near().new_flows(ALL_RULES))
    };
    both(peers, MASK_COUNTS.into_iter().map(case).collect())
}

fn ports() -> Vec<Job> {
    let job = |ports: usize| {
        let device = Xswitch { ports, ..Xswitch::default() };
        Job {
            series: Xswitch::default().name(),
            ..Job::new(device, vec![Case::new(ports as f64, near().few_flows(1))])
        }
    };
    PORT_COUNTS.into_iter().map(job).collect()
}

fn storm() -> Vec<Job> {
    let case = |storm| Case { storm, ..Case::new(storm, near().paced(BESIDE_STORM)) };
    let cases = || STORMS.into_iter().map(case).collect();
    let own = |ports| Job::new(Xswitch { ports, ..Xswitch::default() }, cases());
    let bridge = |ports| Job::new(Bridge { threaded: false, ports }, cases());
    STORM_PORTS.into_iter().flat_map(|ports| [own(ports), bridge(ports)]).collect()
}

fn flows(peers: Option<&Arc<Peers>>) -> Vec<Job> {
    let case = |flows| Case::new(f64::from(flows), near().flows(flows, flows.min(RULES.rules)));
    let cases: Vec<Case> = SET_SIZES.into_iter().map(case).collect();
    let device = Xswitch { rules: Some(RULES), ..Xswitch::default() };
    let own = Job { series: Xswitch::default().name(), ..Job::new(device, cases.clone()) };
    let table = Xswitch { flow_table: true, ..device };
    let table = Job { series: Xswitch { rules: None, ..table }.name(), ..Job::new(table, cases.clone()) };
    let floor = Job::new(Devmap, cases.clone());
    let peer = ovs(peers, Some(RULES)).map(|ovs| Job { series: names::OVS.to_owned(), ..Job::new(ovs, cases) });
    [own, table, floor].into_iter().chain(peer).collect()
}

fn macs(peers: Option<&Arc<Peers>>) -> Vec<Job> {
    let case = |macs| Case { macs, ..Case::new(f64::from(macs), near().to_macs(macs)) };
    let cases: Vec<Case> = SET_SIZES.into_iter().map(case).collect();
    let own = Job::new(many_macs(), cases.clone());
    [own].into_iter().chain(ovs(peers, None).map(|ovs| Job::new(ovs, cases))).collect()
}

fn latency(peers: Option<&Arc<Peers>>) -> Vec<Box<dyn Device>> {
    // The same order as under overload.
    let mut devices: Vec<Box<dyn Device>> = vec![
        Box::new(Forwarder { sleep: false }),
        Box::new(Xswitch { spin_us: Some(2000), ..Xswitch::default() }),
        Box::new(Xswitch { busy: true, ..Xswitch::default() }),
    ];
    devices.extend(ovs(peers, None).map(|ovs| -> Box<dyn Device> { Box::new(ovs) }));
    devices.push(Box::new(Xswitch::default()));
    devices.extend(testpmd(peers).map(|testpmd| -> Box<dyn Device> { Box::new(testpmd) }));
    devices.push(Box::new(Xswitch { spin_us: Some(50), ..Xswitch::default() }));
    devices.push(Box::new(Forwarder { sleep: true }));
    devices.push(Box::new(Xswitch { flow_table: true, ..Xswitch::default() }));
    devices.push(Box::new(Devmap));
    devices.push(Box::new(bridge(false)));
    devices.push(Box::new(bridge(true)));
    devices
}

fn footprint(peers: Option<&Arc<Peers>>) -> Vec<(Box<dyn Device>, u32)> {
    let xswitch = |ports| -> Box<dyn Device> { Box::new(Xswitch { ports, ..Xswitch::default() }) };
    let mut devices: Vec<(Box<dyn Device>, u32)> = vec![
        (Box::new(Forwarder { sleep: true }), 0),
        (xswitch(2), 0),
        (xswitch(200), 0),
        (xswitch(2), ALL_RULES),
        (xswitch(200), ALL_RULES),
    ];
    for rules in [0, ALL_RULES] {
        devices.extend(ovs(peers, None).map(|ovs| -> (Box<dyn Device>, u32) { (Box::new(ovs), rules) }));
    }
    devices
}
