//! The experiments: which devices, and what each is asked for.

use clap::ValueEnum;

use crate::devices::Device;
use crate::devices::bridge::Bridge;
use crate::devices::devmap::Devmap;
use crate::devices::forwarder::Forwarder;
use crate::devices::xswitch::Xswitch;
use crate::load::{Load, Side};
use crate::results::Experiment;
use crate::rules::{MOST_MASKS, RuleSet};
use crate::run::{Case, Job, Run};

/// Lengths on the wire, FCS included.
const FRAMES: [u32; 3] = [64, 594, 1500];
/// Packets a second that are offered.
const RATES: [f64; 8] = [1e3, 1e4, 1e5, 2e5, 5e5, 1e6, 1.5e6, 2e6];
/// Rules of a device that has everything on.
const RULES: RuleSet = RuleSet { rules: 10_000, masks: 1 };
/// As many as there can be.
const ALL_RULES: u32 = 65_536;
const RULE_COUNTS: [u32; 6] = [1, 64, 1024, 4096, 16_384, ALL_RULES];
const MASK_COUNTS: [u32; 7] = [1, 2, 4, 8, 16, 32, MOST_MASKS];
/// Distinct masks where flows are new.
const MASKS: u32 = 8;
const PORT_COUNTS: [usize; 5] = [2, 8, 32, 100, 200];
/// Flows, and MAC addresses.
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
    /// Round trips at 1,000 packets a second and at half load
    Latency,
    /// Start-up, memory and idle CPU
    Footprint,
}

impl What {
    /// Measures it.
    ///
    /// # Errors
    /// A signal came, or the results can't be written.
    pub fn measure(self, run: &mut Run) -> anyhow::Result<()> {
        match self {
            Self::Overload => run.rates(Experiment::Overload, &overload()),
            Self::Rate => run.rates(Experiment::Rate, &rate()),
            Self::Rules => run.rates(Experiment::Rules, &rules()),
            Self::RulesNewFlows => run.rates(Experiment::RulesNewFlows, &rules_new_flows()),
            Self::Masks => run.rates(Experiment::Masks, &masks()),
            Self::Ports => run.rates(Experiment::Ports, &ports()),
            Self::Flows => run.rates(Experiment::Flows, &flows()),
            Self::Macs => run.rates(Experiment::Macs, &macs()),
            Self::Latency => run.round_trips(&latency()),
            Self::Footprint => run.footprints(&footprint()),
        }
    }
}

/// Everything on.
fn full() -> Xswitch {
    Xswitch { rules: Some(RULES), meters: true, ..Xswitch::default() }
}

/// Room for a few more addresses than are used at most.
fn many_macs() -> Xswitch {
    Xswitch { macs: 131_072, ..Xswitch::default() }
}

fn bridge(threaded: bool) -> Bridge {
    Bridge { threaded, ports: 2 }
}

fn near() -> Load {
    Load::new(Side::Near)
}

fn overload() -> Vec<Job> {
    // 64 flows for all; those with rules get them for as many rules.
    let cases = |rules: u32| -> Vec<Case> {
        let case = |frame| Case::new(f64::from(frame), near().sized(frame).few_flows(rules));
        FRAMES.into_iter().map(case).collect()
    };
    let plain = Xswitch::default();
    vec![
        Job::new(Forwarder { sleep: false }, cases(1)),
        Job::new(plain, cases(1)),
        Job::new(full(), cases(RULES.rules)),
        Job::new(Xswitch { ports: 32, ..plain }, cases(1)),
        Job::new(Xswitch { workers: 2, ..plain }, cases(1)),
        Job::new(Devmap, cases(1)),
        Job::new(bridge(false), cases(1)),
        Job::new(bridge(true), cases(1)),
    ]
}

fn rate() -> Vec<Job> {
    let case = |pps| Case::new(pps, near().paced(pps).few_flows(1));
    let cases = || -> Vec<Case> { RATES.into_iter().map(case).collect() };
    vec![
        Job::new(Forwarder { sleep: false }, cases()),
        Job::new(Forwarder { sleep: true }, cases()),
        Job::new(Xswitch::default(), cases()),
        Job::new(Xswitch { busy: true, ..Xswitch::default() }, cases()),
        Job::new(Devmap, cases()),
        Job::new(bridge(false), cases()),
        Job::new(bridge(true), cases()),
    ]
}

fn rules() -> Vec<Job> {
    let case = |rules| Case {
        rules: Some(RuleSet { rules, masks: 1 }),
        ..Case::new(f64::from(rules), near().few_flows(rules))
    };
    vec![Job::new(Xswitch::default(), RULE_COUNTS.into_iter().map(case).collect())]
}

fn rules_new_flows() -> Vec<Job> {
    let case = |rules| Case {
        rules: Some(RuleSet { rules, masks: MASKS }),
        ..Case::new(f64::from(rules), near().new_flows(rules))
    };
    vec![Job::new(Xswitch::default(), RULE_COUNTS.into_iter().map(case).collect())]
}

fn masks() -> Vec<Job> {
    let case = |masks| Case {
        rules: Some(RuleSet { rules: ALL_RULES, masks }),
        ..Case::new(f64::from(masks), near().new_flows(ALL_RULES))
    };
    vec![Job::new(Xswitch::default(), MASK_COUNTS.into_iter().map(case).collect())]
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

fn flows() -> Vec<Job> {
    let case = |flows| Case::new(f64::from(flows), near().flows(flows, flows.min(RULES.rules)));
    let device = Xswitch { rules: Some(RULES), ..Xswitch::default() };
    vec![Job::new(device, SET_SIZES.into_iter().map(case).collect())]
}

fn macs() -> Vec<Job> {
    let case = |macs| Case { macs, ..Case::new(f64::from(macs), near().to_macs(macs)) };
    let job = Job::new(many_macs(), SET_SIZES.into_iter().map(case).collect());
    vec![job]
}

fn latency() -> Vec<Box<dyn Device>> {
    vec![
        Box::new(Forwarder { sleep: false }),
        Box::new(Forwarder { sleep: true }),
        Box::new(Xswitch { busy: true, ..Xswitch::default() }),
        Box::new(Xswitch::default()),
        Box::new(Devmap),
        Box::new(bridge(false)),
        Box::new(bridge(true)),
    ]
}

fn footprint() -> Vec<(Box<dyn Device>, u32)> {
    let xswitch = |ports| -> Box<dyn Device> { Box::new(Xswitch { ports, ..Xswitch::default() }) };
    vec![
        (Box::new(Forwarder { sleep: true }), 0),
        (xswitch(2), 0),
        (xswitch(200), 0),
        (xswitch(2), ALL_RULES),
        (xswitch(200), ALL_RULES),
    ]
}
