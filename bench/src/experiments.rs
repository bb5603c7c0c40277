//! The experiments: which devices, and what each is asked for.

use crate::devices::bridge::Bridge;
use crate::devices::devmap::Devmap;
use crate::devices::forwarder::Forwarder;
use crate::devices::xswitch::Xswitch;
use crate::load::{Load, Side};
use crate::results::Experiment;
use crate::rules::RuleSet;
use crate::run::{Case, Job, Run};

/// Lengths on the wire, FCS included.
const FRAMES: [u32; 3] = [64, 594, 1500];
/// Rules of a device that has everything on.
const RULES: RuleSet = RuleSet { rules: 10_000, masks: 1 };

/// As much as the generator can send, in three lengths.
///
/// # Errors
/// As [`Run::rates`].
pub fn overload(run: &mut Run) -> anyhow::Result<()> {
    let cases = |rules: u32| -> Vec<Case> {
        let case = |frame| Case {
            x: f64::from(frame),
            load: Load { frame, ..Load::new(Side::Near) }.few_flows(rules),
            rules: None,
        };
        FRAMES.into_iter().map(case).collect()
    };
    let plain = Xswitch::default();
    let full = Xswitch { rules: Some(RULES), meters: true, ..plain };
    let jobs = [
        Job::new(Forwarder { sleep: false }, cases(1)),
        Job::new(plain, cases(1)),
        Job::new(full, cases(RULES.rules)),
        Job::new(Xswitch { ports: 32, ..plain }, cases(1)),
        Job::new(Xswitch { workers: 2, ..plain }, cases(1)),
        Job::new(Devmap, cases(1)),
        Job::new(Bridge { threaded: false, ports: 2 }, cases(1)),
        Job::new(Bridge { threaded: true, ports: 2 }, cases(1)),
    ];
    run.rates(Experiment::Overload, &jobs)
}
