//! The table of a classifier component against a naive oracle, and what is refused.

use proptest::prelude::*;

use super::*;
use crate::model::*;
use crate::{Error, ErrorKind};

fn mac(n: u8) -> MacAddr {
    // Every third one is a group address.
    MacAddr::new([if n.is_multiple_of(3) { 3 } else { 2 }, 0, 0, 0, 0, n])
}

/// The oracle: where a frame goes, by reading the entries one after another.
fn oracle(entries: &[TableEntry], vlan: Option<u16>, dst: MacAddr) -> Vec<usize> {
    let default = |vlan| entries.iter().find(|entry| entry.vlan == vlan && entry.mac.is_none()).map(|entry| entry.tx);
    let exact = entries.iter().find(|entry| entry.vlan == vlan && entry.mac == Some(dst));
    if let Some(entry) = exact {
        return vec![entry.tx];
    }
    if dst.is_group() {
        let mut ends: Vec<_> = entries.iter().filter(|entry| entry.vlan == vlan).map(|entry| entry.tx).collect();
        ends.extend(default(None));
        ends.sort_unstable();
        ends.dedup();
        return ends;
    }
    default(vlan).or(default(None)).into_iter().collect()
}

fn vlans() -> impl Strategy<Value = Option<u16>> {
    prop_oneof![Just(None), Just(Some(0)), Just(Some(4095)), (1..6u16).prop_map(Some)]
}

proptest! {
    #[test]
    fn a_frame_goes_where_a_plain_reading_of_the_entries_says(
        entries in prop::collection::btree_map((vlans(), prop::option::of(0..20u8)), 0..7usize, 0..60),
        asked in prop::collection::vec((vlans(), 0..24u8), 1..60),
    ) {
        let entries: Vec<_> = entries
            .into_iter()
            .map(|((vlan, n), tx)| TableEntry { vlan, mac: n.map(mac), tx })
            .collect();
        let table = Table::new(&entries);
        for (vlan, n) in asked {
            let mut found = match table.find(vlan, mac(n)) {
                Target::One(tx) => vec![usize::from(tx)],
                Target::All(ends) => ends.iter().map(|tx| usize::from(*tx)).collect(),
                Target::None => Vec::new(),
            };
            found.sort_unstable();
            prop_assert_eq!(found, oracle(&entries, vlan, mac(n)));
        }
    }
}

#[test]
fn a_table_has_no_limit_of_128() {
    let entry = |n: u64| TableEntry { vlan: Some(7), mac: Some(MacAddr::from_u64(2 << 40 | n)), tx: n as usize % 9 };
    let entries: Vec<_> = (0..10_000).map(entry).collect();
    let table = Table::new(&entries);
    for TableEntry { vlan, mac, tx } in entries {
        assert_eq!(table.find(vlan, mac.unwrap()), Target::One(tx as u16));
        assert_eq!(table.find(None, mac.unwrap()), Target::None);
    }
}

fn end(port: EndPort) -> End {
    End { port, vlan: VlanEdit::None }
}

fn port(name: &str, queue: Option<u32>) -> EndPort {
    EndPort::Port { name: name.to_owned(), queue }
}

fn component(name: &str, kind: ComponentKind, rx: &[EndPort], tx: &[EndPort]) -> ComponentSpec {
    let ends = |ports: &[EndPort]| ports.iter().cloned().map(end).collect();
    ComponentSpec { name: name.to_owned(), worker: 0, kind, rx: ends(rx), tx: ends(tx), table: Vec::new() }
}

/// Two workers, ports `p` and `q` of two queues, a bridged `b`, rings 0 to 3, outside end 5.
fn judge(components: &[ComponentSpec]) -> Result<(), Error> {
    let known = Known {
        workers: 2,
        port: &|name| match name {
            "p" | "q" => Some(KnownPort::Free { queues: 2 }),
            "b" => Some(KnownPort::Bridged(PortKind::Guest)),
            _ => None,
        },
        ring: &|no| no < 4,
        outside: &|no| no == 5,
    };
    check(components, &known)
}

#[test]
fn what_fits_is_taken() {
    use ComponentKind::*;
    use EndPort::*;
    let mut classifier = component("c", Classifier, &[Ring(0)], &[Ring(1), Ring(2), Outside(5)]);
    classifier.table.push(TableEntry { vlan: Some(4095), mac: None, tx: 2 });
    let set = [
        component("f", Forward, &[port("p", Some(0))], &[port("p", Some(0))]),
        component("g", Forward, &[port("p", Some(1))], &[port("p", Some(1))]),
        component("m", Merge, &[port("q", None), Ring(1), Null(0)], &[Ring(0)]),
        classifier,
        component("mirror", Mirror, &[Outside(5)], &[port("q", None), Null(1023)]),
        component("empty", Forward, &[], &[]),
    ];
    judge(&set).unwrap();
}

#[test]
fn what_does_not_fit_is_refused_with_a_reason() {
    use ComponentKind::*;
    use EndPort::*;
    let one = |change: fn(&mut ComponentSpec)| {
        let mut it = component("c", Classifier, &[Ring(0)], &[Ring(1)]);
        it.table.push(TableEntry { vlan: None, mac: None, tx: 0 });
        change(&mut it);
        vec![it]
    };
    let two = |a: ComponentSpec, b: ComponentSpec| vec![a, b];
    let cases: Vec<(Vec<ComponentSpec>, ErrorKind, &str)> = vec![
        (one(|c| c.worker = 2), ErrorKind::Invalid, "worker 2"),
        (one(|c| c.tx[0].vlan = VlanEdit::Add { vid: 4096, pcp: 0 }), ErrorKind::Invalid, "VLAN 4096"),
        (one(|c| c.rx[0].vlan = VlanEdit::Add { vid: 1, pcp: 8 }), ErrorKind::Invalid, "priority 8"),
        (one(|c| c.table[0].tx = 1), ErrorKind::Invalid, "sending end 1"),
        (one(|c| c.table[0].vlan = Some(4096)), ErrorKind::Invalid, "VLAN 4096"),
        (one(|c| c.table.push(c.table[0])), ErrorKind::Invalid, "twice"),
        (one(|c| c.kind = Mirror), ErrorKind::Invalid, "only a classifier"),
        (one(|c| c.rx.push(end(Ring(2)))), ErrorKind::Invalid, "1 at most"),
        (one(|c| c.tx[0] = end(Ring(4))), ErrorKind::NotFound, "ring 4"),
        (one(|c| c.tx[0] = end(Outside(4))), ErrorKind::NotFound, "outside end 4"),
        (one(|c| c.tx[0] = end(Null(1024))), ErrorKind::Invalid, "1024"),
        (one(|c| c.tx[0] = end(port("x", None))), ErrorKind::NotFound, "port `x`"),
        (one(|c| c.tx[0] = end(port("p", Some(2)))), ErrorKind::NotFound, "queue 2"),
        (one(|c| c.tx[0] = end(port("b", None))), ErrorKind::Busy, "--spp vhost:N"),
        (vec![component("m", Mirror, &[Ring(0)], &[Ring(1), Ring(2), Ring(3)])], ErrorKind::Invalid, "2 at most"),
        (two(component("c", Forward, &[], &[]), component("c", Merge, &[], &[])), ErrorKind::Invalid, "that name"),
        (
            two(component("a", Forward, &[Ring(0)], &[]), component("b", Forward, &[Ring(0)], &[])),
            ErrorKind::Busy,
            "`a` and `b`",
        ),
        (
            two(component("a", Forward, &[], &[port("p", None)]), component("b", Forward, &[], &[port("p", Some(1))])),
            ErrorKind::Busy,
            "`a` and `b`",
        ),
        (
            two(component("a", Forward, &[port("p", Some(1))], &[]), component("b", Forward, &[port("p", None)], &[])),
            ErrorKind::Busy,
            "`a` and `b`",
        ),
        (vec![component("m", Merge, &[Null(0), Null(0)], &[])], ErrorKind::Busy, "`m` and `m`"),
    ];
    for (set, kind, text) in cases {
        let error = judge(&set).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn a_component_is_ready_with_the_ends_of_its_kind() {
    use ComponentKind::*;
    let rings = |n: u32| (0..n).map(EndPort::Ring).collect::<Vec<_>>();
    for (kind, rx, tx, ready) in [
        (Forward, 1, 1, true),
        (Forward, 1, 0, false),
        (Forward, 0, 1, false),
        (Merge, 1, 1, true),
        (Merge, 3, 1, true),
        (Merge, 0, 1, false),
        (Merge, 2, 0, false),
        (Mirror, 1, 1, false),
        (Mirror, 1, 2, true),
        (Classifier, 1, 2, false),
    ] {
        assert_eq!(is_ready(&component("c", kind, &rings(rx), &rings(tx))), ready, "{kind:?} {rx} {tx}");
    }
    let mut classifier = component("c", Classifier, &rings(1), &rings(1));
    classifier.table.push(TableEntry { vlan: None, mac: None, tx: 0 });
    assert!(is_ready(&classifier));
}

#[test]
fn a_tag_is_added_set_or_taken_off() {
    let untagged = [[2; 12].as_slice(), &[8, 0]].concat();
    let tagged = [[2; 12].as_slice(), &[0x81, 0, 0x20, 5, 8, 0]].concat();
    let add = VlanEdit::Add { vid: 100, pcp: 5 };
    assert_eq!(tag_edit(add, &untagged), Ok(TagEdit::Push { tpid: 0x8100, tci: 5 << 13 | 100 }));
    assert_eq!(tag_edit(add, &tagged), Ok(TagEdit::SetTci(5 << 13 | 100)));
    assert_eq!(tag_edit(VlanEdit::Del, &untagged), Ok(TagEdit::None));
    assert_eq!(tag_edit(VlanEdit::Del, &tagged), Ok(TagEdit::Pop));
    assert_eq!(tag_edit(VlanEdit::Del, &tagged[..16]), Err(DropReason::VlanMalformed));
    assert_eq!(tag_edit(VlanEdit::None, &[]), Ok(TagEdit::None));
}
