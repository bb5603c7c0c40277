//! Flow rules against an oracle that compares rule by rule, field by field, on the bytes of frames.

use proptest::prelude::*;

use super::*;
use crate::ErrorKind;
use crate::model::{MAX_FLOW_PUSHES, MAX_FLOW_RULES, MacAddr};

const CHUNK: usize = 512;
const START: usize = 256;

fn rule(direction: FlowDirection, group: u32, priority: u32, edits: &[FlowEdit], target: FlowTarget) -> FlowRule {
    FlowRule { id: 0, direction, group, priority, key: FlowKey::default(), edits: edits.to_vec(), target }
}

fn ingress(edits: &[FlowEdit], target: FlowTarget) -> FlowRule {
    rule(FlowDirection::Ingress, 0, 0, edits, target)
}

/// The rules, numbered by their places.
fn numbered(mut rules: Vec<FlowRule>) -> Vec<FlowRule> {
    rules.iter_mut().zip(0..).for_each(|(rule, id)| rule.id = id);
    rules
}

#[derive(Default)]
struct Heard {
    grown: i32,
    /// Each rule that matched, with the length that the frame had then.
    met: Vec<(u32, usize)>,
}

impl Observer for Heard {
    fn matched(&mut self, rule: &CountedRule, len: usize) {
        self.met.push((rule.rule.id, len));
    }

    fn edited(&mut self, edit: TagEdit) {
        self.grown += edit.grows_by();
    }
}

fn table(rules: &[FlowRule], direction: FlowDirection) -> FlowTable {
    let counted = |rule: &FlowRule| CountedRule { rule: rule.clone(), matched: Arc::new(Shards::new(1)) };
    FlowTable::new(&rules.iter().map(counted).collect::<Vec<_>>(), direction)
}

/// The frame after the rules, its queue, and the rules that matched.
fn run_by(table: &FlowTable, cache: &mut FlowRuleCache, frame: &[u8]) -> (Vec<u8>, Option<u32>, Vec<(u32, usize)>) {
    let mut buf = vec![0xee; CHUNK];
    buf[START..START + frame.len()].copy_from_slice(frame);
    let mut heard = Heard::default();
    let outcome = table.run(cache, &mut buf, START, frame.len(), &mut heard);
    assert_eq!(outcome.len as i32, frame.len() as i32 + heard.grown);
    (buf[outcome.start..outcome.start + outcome.len].to_vec(), outcome.queue, heard.met)
}

fn run_whole(rules: &[FlowRule], direction: FlowDirection, frame: &[u8]) -> (Vec<u8>, Option<u32>, Vec<(u32, usize)>) {
    run_by(&table(rules, direction), &mut FlowRuleCache::default(), frame)
}

fn run(rules: &[FlowRule], direction: FlowDirection, frame: &[u8]) -> (Vec<u8>, Option<u32>) {
    let (frame, queue, _) = run_whole(rules, direction, frame);
    (frame, queue)
}

fn word(frame: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?)))
}

fn is_tagged(frame: &[u8]) -> bool {
    matches!(word(frame, 12), Some(0x8100 | 0x88a8))
}

fn matches(key: &FlowKey, frame: &[u8]) -> bool {
    let mac = |wanted: Option<MaskedMac>, at: usize| {
        wanted.is_none_or(|wanted| {
            let mask = wanted.mask.to_be_bytes();
            (0..6).all(|n| frame[at + n] & mask[2 + n] == wanted.value.octets()[n])
        })
    };
    let field = |wanted: Option<Masked<16>>, has: Option<u32>| {
        wanted.is_none_or(|wanted| has.is_some_and(|has| has & wanted.mask == wanted.value))
    };
    let of_tag = |at| word(frame, at).filter(|_| is_tagged(frame));
    mac(key.dmac, 0)
        && mac(key.smac, 6)
        && field(key.ethertype, word(frame, 12))
        && field(key.tci, of_tag(14))
        && field(key.inner_type, of_tag(16))
}

fn edit(edit: FlowEdit, frame: &mut Vec<u8>) {
    let tagged = is_tagged(frame);
    match edit {
        // A tag that is cut off is left as it is.
        _ if frame.len() < 14 + 4 * usize::from(tagged) => {}
        FlowEdit::Push(tpid) => {
            let tag = [(tpid >> 8) as u8, tpid as u8, 0, 0];
            frame.splice(12..12, tag);
        }
        _ if !tagged => {}
        FlowEdit::Pop => {
            frame.drain(12..16);
        }
        FlowEdit::Vid(vid) => {
            frame[14] = frame[14] & 0xf0 | (vid >> 8) as u8;
            frame[15] = vid as u8;
        }
        FlowEdit::Pcp(pcp) => frame[14] = frame[14] & 0x1f | pcp << 5,
    }
}

/// The oracle: what should become of a frame.
fn expected(rules: &[FlowRule], direction: FlowDirection, frame: &[u8]) -> (Vec<u8>, Option<u32>, Vec<(u32, usize)>) {
    let (mut frame, mut group, mut met) = (frame.to_vec(), 0, Vec::new());
    loop {
        if frame.len() < 14 + 4 * usize::from(is_tagged(&frame)) {
            return (frame, None, met);
        }
        let mine = rules.iter().filter(|rule| rule.direction == direction && rule.group == group);
        let found = mine.filter(|rule| matches(&rule.key, &frame)).min_by_key(|rule| rule.priority);
        let Some(rule) = found else { return (frame, None, met) };
        met.push((rule.id, frame.len()));
        rule.edits.iter().for_each(|what| edit(*what, &mut frame));
        match rule.target {
            FlowTarget::Normal => return (frame, None, met),
            FlowTarget::Queue(queue) => return (frame, Some(queue), met),
            FlowTarget::Group(next) => group = next,
        }
    }
}

/// Few values, so that frames often match rules.
fn masked(values: &'static [u32], masks: &'static [u32]) -> impl Strategy<Value = Option<Masked<16>>> {
    let one = (prop::sample::select(values), prop::sample::select(masks));
    prop::option::of(one.prop_map(|(value, mask)| Masked { value: value & mask, mask }))
}

fn masked_mac() -> impl Strategy<Value = Option<MaskedMac>> {
    let one = (0u64..4, prop::sample::select(&[0, 1, 3, MaskedMac::FULL][..]));
    let mac = |(low, mask)| MaskedMac { value: MacAddr::from_u64((0x0200_0000_0000 | low) & mask), mask };
    prop::option::of(one.prop_map(mac))
}

fn any_rule() -> impl Strategy<Value = FlowRule> {
    let types = &[0x8100, 0x88a8, 0x0800, 0x88b5][..];
    let key = (
        masked_mac(),
        masked_mac(),
        masked(types, &[0xffff, 0xff00, 0]),
        masked(&[0, 1, 2, 0x2001, 0xf002], &[0xffff, 0xfff, 0xe000, 0]),
        masked(types, &[0xffff, 0xff00, 0]),
    );
    let key =
        key.prop_map(|(dmac, smac, ethertype, tci, inner_type)| FlowKey { dmac, smac, ethertype, tci, inner_type });
    let edit = prop_oneof![
        Just(FlowEdit::Pop),
        prop::sample::select(&[0x8100, 0x88a8][..]).prop_map(FlowEdit::Push),
        (0u16..3).prop_map(FlowEdit::Vid),
        (0u8..8).prop_map(FlowEdit::Pcp),
    ];
    let target = prop_oneof![
        Just(FlowTarget::Normal),
        (0u32..4).prop_map(FlowTarget::Queue),
        (1u32..3).prop_map(FlowTarget::Group)
    ];
    let direction = prop::sample::select(&[FlowDirection::Ingress, FlowDirection::Egress][..]);
    (direction, 0u32..3, 0u32..3, key, prop::collection::vec(edit, 0..4), target).prop_map(
        |(direction, group, priority, key, edits, target)| {
            let target = match target {
                FlowTarget::Group(by) => FlowTarget::Group(group + by),
                FlowTarget::Queue(_) if direction == FlowDirection::Egress => FlowTarget::Normal,
                target => target,
            };
            FlowRule { id: 0, direction, group, priority, key, edits, target }
        },
    )
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let types = prop::sample::select(&[0x8100u16, 0x88a8, 0x0800, 0x88b5][..]);
    let tci = prop::sample::select(&[0u16, 1, 2, 0x2001, 0xf002][..]);
    let words = (types.clone(), tci.clone(), types.clone(), tci, types);
    (0u8..4, 0u8..4, words, 0usize..40).prop_map(|(dst, src, (one, a, two, b, three), cut)| {
        let mut frame = vec![2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, src];
        for word in [one, a, two, b, three] {
            frame.extend(word.to_be_bytes());
        }
        frame.resize(40, 0x5a);
        // Some frames are cut off anywhere.
        frame.truncate(if cut < 30 { 40 } else { cut - 20 });
        frame
    })
}

proptest! {
    #[test]
    fn frames_meet_the_rules_that_a_naive_matcher_finds(
        rules in prop::collection::vec(any_rule(), 0..40), frames in prop::collection::vec(any_frame(), 1..40)
    ) {
        let rules = numbered(rules);
        prop_assert!(check(&rules, 4).is_ok());
        for frame in frames {
            for direction in [FlowDirection::Ingress, FlowDirection::Egress] {
                prop_assert_eq!(run_whole(&rules, direction, &frame), expected(&rules, direction, &frame));
            }
        }
    }

    /// One cache for all tables, as a worker has it. Each entry is of one version of one table's rules.
    #[test]
    fn what_a_worker_remembers_is_what_it_would_find(
        versions in prop::collection::vec(prop::collection::vec(any_rule(), 0..20), 1..4),
        frames in prop::collection::vec(any_frame(), 1..30),
    ) {
        let mut cache = FlowRuleCache::default();
        for rules in versions.into_iter().map(numbered) {
            for direction in [FlowDirection::Ingress, FlowDirection::Egress] {
                let table = table(&rules, direction);
                for frame in frames.iter().chain(&frames) {
                    prop_assert_eq!(run_by(&table, &mut cache, frame), expected(&rules, direction, frame));
                }
            }
        }
    }
}

/// More flows than the cache has entries push each other out, and do nothing else.
#[test]
fn flows_that_are_forgotten_are_found_again() {
    let mac = |n: usize| MacAddr::from_u64(0x0200_0000_0000 | n as u64);
    let to = |n: usize| {
        let dmac = Some(MaskedMac { value: mac(n), mask: MaskedMac::FULL });
        FlowRule { key: FlowKey { dmac, ..FlowKey::default() }, ..ingress(&[], FlowTarget::Queue(n as u32)) }
    };
    let flows = 3 * CACHE_ENTRIES;
    let table = table(&(0..flows).map(to).collect::<Vec<_>>(), FlowDirection::Ingress);
    let mut cache = FlowRuleCache::default();
    for n in (0..flows).chain(0..flows) {
        let frame = [&mac(n).octets()[..], &[2, 0, 0, 0, 0, 1, 0x88, 0xb5]].concat();
        assert_eq!(run_by(&table, &mut cache, &frame).1, Some(n as u32));
    }
}

#[test]
fn the_lowest_priority_and_then_the_first_rule_counts() {
    let to = |priority, queue| rule(FlowDirection::Ingress, 0, priority, &[], FlowTarget::Queue(queue));
    let rules = [to(2, 0), to(1, 1), to(1, 2), rule(FlowDirection::Egress, 0, 0, &[], FlowTarget::Normal)];
    assert_eq!(run(&rules, FlowDirection::Ingress, &[0; 60]).1, Some(1));
    assert_eq!(run(&rules[..1], FlowDirection::Ingress, &[0; 60]).1, Some(0));
    assert_eq!(run(&rules[..1], FlowDirection::Egress, &[0; 60]).1, None);
}

#[test]
fn rules_that_no_frame_comes_to_make_no_table() {
    let far = rule(FlowDirection::Ingress, 1, 0, &[FlowEdit::Pop], FlowTarget::Queue(1));
    assert!(table(&[], FlowDirection::Ingress).is_empty());
    assert!(table(std::slice::from_ref(&far), FlowDirection::Ingress).is_empty());
    assert!(table(&[ingress(&[], FlowTarget::Group(1)), far], FlowDirection::Egress).is_empty());
}

#[test]
fn what_can_not_be_done_is_refused() {
    let mac = MaskedMac { value: MacAddr::new([2, 0, 0, 0, 0, 1]), mask: 0 };
    let with_key = |key| FlowRule { key, ..ingress(&[], FlowTarget::Normal) };
    let word = Some(Masked { value: 0x1_0000, mask: u32::MAX });
    let egress = rule(FlowDirection::Egress, 0, 0, &[], FlowTarget::Queue(0));
    for (rule, says) in [
        (ingress(&[], FlowTarget::Queue(2)), "no queue 2"),
        (egress, "goes out"),
        (ingress(&[], FlowTarget::Group(0)), "jump to group 0"),
        (ingress(&[FlowEdit::Push(0x0800)], FlowTarget::Normal), "0x0800"),
        (ingress(&[FlowEdit::Vid(4095)], FlowTarget::Normal), "VLAN 4095"),
        (ingress(&[FlowEdit::Pcp(8)], FlowTarget::Normal), "priority 8"),
        (with_key(FlowKey { dmac: Some(mac), ..FlowKey::default() }), "dmac"),
        (with_key(FlowKey { smac: Some(mac), ..FlowKey::default() }), "smac"),
        (with_key(FlowKey { tci: word, ..FlowKey::default() }), "tci"),
        (with_key(FlowKey { ethertype: word, ..FlowKey::default() }), "ethertype"),
        (with_key(FlowKey { inner_type: word, ..FlowKey::default() }), "inner_type"),
    ] {
        let error = check(&numbered(vec![ingress(&[], FlowTarget::Queue(1)), rule]), 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("flow rule 1: ") && error.to_string().contains(says), "{error}");
    }
    let twice = [ingress(&[], FlowTarget::Normal), ingress(&[], FlowTarget::Queue(0))];
    assert!(check(&twice, 1).unwrap_err().to_string().contains("flow rule 0: there are two"));
    let many = numbered(vec![ingress(&[], FlowTarget::Normal); MAX_FLOW_RULES + 1]);
    assert!(check(&many[1..], 1).is_ok());
    assert!(check(&many, 1).is_err());
}

#[test]
fn tags_that_there_is_no_room_for_are_refused_over_all_jumps() {
    let pushes = |count| vec![FlowEdit::Push(0x8100); count];
    let to = |group, count, target| rule(FlowDirection::Egress, group, 0, &pushes(count), target);
    let rules = |first| {
        numbered(vec![
            to(0, first, FlowTarget::Group(4)),
            to(4, 5, FlowTarget::Group(7)),
            to(7, 5, FlowTarget::Normal),
            to(7, 1, FlowTarget::Group(9)),
            ingress(&pushes(6), FlowTarget::Normal),
        ])
    };
    let most = MAX_FLOW_PUSHES - 10;
    assert!(check(&rules(most + 1), 1).is_err());
    let rules = rules(most);
    assert!(check(&rules, 1).is_ok());
    let (frame, _) = run(&rules, FlowDirection::Egress, &[0; 60]);
    assert_eq!(frame.len(), 60 + 4 * MAX_FLOW_PUSHES);
}
