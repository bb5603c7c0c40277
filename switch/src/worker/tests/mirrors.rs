//! A rule's mirror: a port gets one copy of a frame, however many reasons it has to get it.

use super::*;

/// Marks of the frames that came out of a port.
fn marks(sent: &[Vec<u8>]) -> Vec<u8> {
    sent.iter().map(|frame| frame[frame.len() - 1]).collect()
}

/// Four ports of the untagged segment, and one of VLAN 5. Station `n` is behind port `n`.
struct Mirrors {
    bed: Bed,
    tables: Tables,
    mark: u8,
}

impl Mirrors {
    fn new(workers: usize) -> Self {
        let access = |vid| VlanMode::Access { vid };
        let bed = Bed::new(workers, &[access(0), access(0), access(0), access(0), access(5)]);
        let mut mirrors = Self { bed, tables: Tables::new(Capacity::default(), workers), mark: 0 };
        (0..5).for_each(|port| drop(mirrors.send(port, None)));
        mirrors
    }

    fn rule(&mut self, action: RuleAction) {
        let rule = RuleSpec { key_index: 1, key: RuleKey::default(), action };
        self.tables.change_rules(vec![RuleChange::Write(rule)], &|no| (no < 5).then_some(1)).unwrap();
        self.bed.install(&self.tables);
    }

    fn redirect(&mut self, src: PortNo, dest: PortNo) {
        self.tables.redirects.set(RedirectSpec { src, dest }, &|no| (no < 5).then_some(1)).unwrap();
        self.bed.install(&self.tables);
    }

    /// How many frames come out of each port for one from station 0 to that station, or to all.
    fn send(&mut self, from: u8, to: Option<u8>) -> Vec<usize> {
        self.mark += 1;
        assert!(self.bed.kernels[usize::from(from)].receive(&frame(from, to, self.mark, 80)));
        let sent = self.bed.settle();
        assert!(sent.iter().flat_map(|sent| marks(sent)).all(|mark| mark == self.mark), "all of the same frame");
        sent.iter().map(Vec::len).collect()
    }

    fn finish(mut self) {
        self.bed.assert_balanced();
    }
}

fn mirrored(target: RuleTarget, mirror: PortNo) -> RuleAction {
    RuleAction { mirror: Some(mirror), ..RuleAction::to(target) }
}

#[test]
fn a_mirror_that_gets_the_frame_anyway_gets_one_copy() {
    for workers in [1, 2] {
        let mut mirrors = Mirrors::new(workers);
        mirrors.rule(mirrored(RuleTarget::Normal, 2));
        // Often enough for the flow cache to have it.
        for _ in 0..8 {
            assert_eq!(mirrors.send(0, Some(2)), [0, 0, 1, 0, 0], "for its own station");
            assert_eq!(mirrors.send(0, Some(1)), [0, 1, 1, 0, 0], "for another one");
            assert_eq!(mirrors.send(0, None), [0, 1, 1, 1, 0], "flooded");
        }
        assert_eq!(mirrors.send(2, Some(1)), [0, 1, 0, 0, 0], "not back to where it came from");
        assert_eq!(mirrors.send(4, None), [0, 0, 1, 0, 0], "of another VLAN");
        mirrors.rule(mirrored(RuleTarget::Port(2), 2));
        assert_eq!(mirrors.send(0, Some(1)), [0, 0, 1, 0, 0], "the rule names the mirror's port");
        mirrors.rule(mirrored(RuleTarget::Drop, 2));
        assert_eq!(mirrors.send(0, Some(2)), [0, 0, 1, 0, 0], "of what is dropped there is the mirror's copy");
        mirrors.finish();
    }
}

#[test]
fn redirects_to_and_from_the_mirror_make_no_second_copy() {
    let mut mirrors = Mirrors::new(1);
    mirrors.rule(mirrored(RuleTarget::Normal, 2));
    mirrors.redirect(1, 2);
    assert_eq!(mirrors.send(0, Some(1)), [0, 0, 1, 0, 0], "the receiver is redirected to the mirror");
    assert_eq!(mirrors.send(0, None), [0, 0, 1, 1, 0]);
    mirrors.redirect(2, 3);
    assert_eq!(mirrors.send(0, Some(1)), [0, 0, 0, 1, 0], "both are redirected to a third port");
    assert_eq!(mirrors.send(0, Some(3)), [0, 0, 0, 1, 0], "the mirror is redirected to the receiver");
    assert_eq!(mirrors.send(0, None), [0, 0, 0, 1, 0]);
    mirrors.redirect(3, 4);
    assert_eq!(mirrors.send(0, None), [0, 0, 0, 0, 1], "a chain that leaves the VLAN");
    mirrors.finish();
}

#[test]
fn what_the_rules_meter_takes_from_the_receiver_reaches_it_as_the_mirror() {
    let mut mirrors = Mirrors::new(1);
    let meter = MeterSpec { kind: MeterType::Pps, burst: Some(1), ..MeterSpec::new(0, 1) };
    mirrors.tables.meters.add(meter, true, 0).unwrap();
    mirrors.rule(RuleAction { meter: Some(0), ..mirrored(RuleTarget::Normal, 2) });
    for _ in 0..4 {
        assert_eq!(mirrors.send(0, Some(2)), [0, 0, 1, 0, 0], "metered or not");
    }
    mirrors.finish();
}

#[test]
fn the_copy_has_the_tag_that_the_receiver_is_to_see() {
    let trunk = VlanMode::Trunk { native: None, tagged: VlanSet::all() };
    let mut bed = Bed::new(1, &[VlanMode::Access { vid: 5 }, trunk, VlanMode::Access { vid: 0 }]);
    let mut tables = Tables::new(Capacity::default(), 1);
    let mirror_to = |tables: &mut Tables, mirror| {
        let rule = RuleSpec { key_index: 1, key: RuleKey::default(), action: mirrored(RuleTarget::Normal, mirror) };
        tables.change_rules(vec![RuleChange::Write(rule)], &|no| (no < 3).then_some(1)).unwrap();
    };
    mirror_to(&mut tables, 1);
    bed.install(&tables);
    let data = frame(0, None, 1, 80);
    bed.kernels[0].receive(&data);
    let tagged = [&data[..12], &[0x81, 0, 0, 5], &data[12..]].concat();
    assert_eq!(bed.settle(), [vec![], vec![tagged.clone()], vec![]], "a receiver");
    mirror_to(&mut tables, 2);
    bed.install(&tables);
    bed.kernels[0].receive(&data);
    assert_eq!(bed.settle(), [vec![], vec![tagged], vec![data]], "the mirror alone: as it came in");
    bed.assert_balanced();
}

#[test]
fn a_frame_that_is_too_long_for_the_mirror_is_dropped_once() {
    let mut mirrors = Mirrors::new(1);
    mirrors.rule(mirrored(RuleTarget::Normal, 2));
    for to in [Some(2), None] {
        let dropped = |bed: &Bed| {
            let view = bed.shared.view.load();
            let mut stats = PortStats::default();
            view.ports[2].iter().flat_map(|port| port.shards.iter()).for_each(|shard| shard.add_to(&mut stats));
            stats.drops.values().map(|count| count.packets).sum::<u64>()
        };
        let before = dropped(&mirrors.bed);
        assert!(mirrors.bed.kernels[0].receive(&frame(0, to, 1, 1515)));
        mirrors.bed.settle();
        assert_eq!(dropped(&mirrors.bed) - before, 1, "{to:?}");
    }
    mirrors.finish();
}
