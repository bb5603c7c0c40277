//! What a decision asks its lookup, and that a tracer has no say in it.

use super::*;
use crate::engine::bridge::{DryRunLookup, Lookup, StepTracer};
use crate::engine::rule::{Key, Rule, Rules};
use crate::engine::tables::Tables;
use crate::model::{Capacity, MaskedMac, RuleAction, RuleChange, RuleKey, RuleSpec, RuleTarget};

/// A question that a decision asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Learn(MacAddr, Vid),
    Classify,
    FindStation(MacAddr, Vid),
}

/// Answers as [`DirectLookup`], and notes the questions.
#[derive(Default)]
struct NotingLookup(Vec<Asked>);

impl Lookup for NotingLookup {
    fn classify<'a>(&mut self, rules: &'a Rules, key: impl FnOnce() -> Key) -> Option<&'a Rule> {
        self.0.push(Asked::Classify);
        DirectLookup.classify(rules, key)
    }

    fn learn(&mut self, context: &BurstContext<'_>, mac: MacAddr, vid: Vid, port_limit: u32) -> bool {
        self.0.push(Asked::Learn(mac, vid));
        DirectLookup.learn(context, mac, vid, port_limit)
    }

    fn find_station(&mut self, fdb: &Fdb, mac: MacAddr, vid: Vid) -> Option<PortNo> {
        self.0.push(Asked::FindStation(mac, vid));
        DirectLookup.find_station(fdb, mac, vid)
    }
}

/// Formats each step, and notes what the classifier found.
#[derive(Default)]
struct NotingTracer {
    steps: Vec<String>,
    classified: Vec<Option<u32>>,
}

impl StepTracer for NotingTracer {
    fn step(&mut self, stage: &'static str, detail: impl FnOnce(PortNames<'_>) -> String) {
        self.steps.push(format!("{stage}: {}", detail(&|port| format!("p{port}"))));
    }

    fn classified(&mut self, _rules: &Rules, _key: impl FnOnce() -> Key, found: Option<&Rule>) {
        self.classified.push(found.map(|rule| rule.index));
    }
}

type Said = (Verdict, PortNo, Option<u32>);

fn said(decision: Decision<'_>) -> Said {
    (decision.verdict, decision.drop_port, decision.rule.map(|rule| rule.index))
}

proptest! {
    /// A dry run says what is decided then, and leaves the FDB as it is. A decision asks only what it needs: a refused
    /// sender is not learned, and the FDB is asked only if no rule names the port.
    #[test]
    fn a_dry_run_and_a_tracer_change_no_decision(
        ports in any_ports(),
        rules in prop::collection::vec((0_u32..4, 0_u8..7, 0_u16..10), 0..4),
        static_row in (0_u8..7, 0_u16..6, 0_u16..7),
        traffic in prop::collection::vec(any_sent(), 1..40),
    ) {
        let mut tables = Tables::new(Capacity::default(), 1);
        for (key_index, station, target) in rules {
            let dmac = Some(MaskedMac { value: mac(station), mask: MaskedMac::FULL });
            let target = match target {
                8 => RuleTarget::Drop,
                9 => RuleTarget::Normal,
                port => RuleTarget::Port(port),
            };
            let key = RuleKey { dmac, ..RuleKey::default() };
            let rule = RuleSpec { key_index, key, action: RuleAction::to(target) };
            tables.change_rules(vec![RuleChange::Write(rule)], &|_: PortNo| Some(1)).unwrap();
        }
        let mut switch = Switch::new(ports);
        switch.snap = switch.snap.with_rules(2, tables.rules.current().clone());
        let (station, vid, port) = static_row;
        switch.fdb.add_static(mac(station), vid, port).unwrap();
        for (now, sent) in (0..).zip(traffic) {
            let bytes = frame(address(sent.dst), address(sent.src), &sent.tags, 0x1234, &vec![0; sent.len]);
            let context = switch.context(now, sent.port);
            let before = switch.fdb.entries(now);
            let mut tracer = NotingTracer::default();
            let dry = said(decide(&context, &bytes, bytes.len(), &mut DryRunLookup::default(), &mut tracer));
            prop_assert_eq!(before, switch.fdb.entries(now), "a dry run changes nothing");
            let mut lookup = NotingLookup::default();
            let real = said(decide(&context, &bytes, bytes.len(), &mut lookup, &mut NoTrace));
            prop_assert_eq!(dry, real);
            let asked = lookup.0;
            let Some((first, later)) = asked.split_first() else {
                prop_assert!(matches!(real.0, Verdict::Drop(_)), "only refused frames ask nothing: {:?}", real);
                prop_assert!(tracer.classified.is_empty());
                continue;
            };
            prop_assert!(matches!(first, Asked::Learn(src, _) if *src == address(sent.src)));
            prop_assert_eq!(later.first() == Some(&Asked::Classify), !switch.snap.rules.is_empty());
            let found = (!switch.snap.rules.is_empty()).then_some(real.2);
            prop_assert_eq!(tracer.classified, Vec::from_iter(found));
            let target = real.2.and_then(|index| switch.snap.rules.get(index)).map(|rule| rule.action.target);
            let is_normal = matches!(target, None | Some(RuleTarget::Normal));
            let finds = later.iter().filter(|asked| matches!(asked, Asked::FindStation(..))).count();
            prop_assert_eq!(finds, usize::from(is_normal && !address(sent.dst).is_group()));
        }
    }
}
