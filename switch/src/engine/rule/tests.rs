//! The classifier against a linear scan of the rules as users wrote them. The exact-match cache against no cache.

use std::collections::BTreeMap;
use std::mem::offset_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::engine::parse::{Headers, parse};
use crate::model::{IpType, MacAddr, Masked, MaskedIp, MaskedMac, RuleAction, RuleKey, RuleTarget};

fn rule(index: u32, key: RuleKey) -> RuleSpec {
    RuleSpec { key_index: index, key, action: RuleAction::to(RuleTarget::Drop) }
}

fn install(table: &mut RuleTable, spec: &RuleSpec) {
    table.insert(Arc::new(Rule::new(spec.clone(), None, 1).unwrap()));
}

/// Few values, so that packets often match rules.
fn small() -> impl Strategy<Value = u32> + Clone {
    prop_oneof![0_u32..4, Just(0xf0), Just(0xff)]
}

fn masked<const BITS: u32>() -> impl Strategy<Value = Option<Masked<BITS>>> {
    let full = Masked::<BITS>::FULL;
    let mask = prop_oneof![Just(full), Just(u32::MAX), Just(0), Just(1), Just(0xfe), any::<u32>()];
    prop::option::weighted(
        0.3,
        (small(), mask).prop_map(move |(value, mask)| Masked { value: value & mask & full, mask }),
    )
}

fn masked_mac() -> impl Strategy<Value = Option<MaskedMac>> {
    let mask = prop_oneof![Just(MaskedMac::FULL), Just(u64::MAX), Just(0), Just(1), Just(0xff_ffff_0000), any::<u64>()];
    prop::option::weighted(
        0.2,
        (small(), mask).prop_map(|(value, mask)| MaskedMac {
            value: MacAddr::from_u64((0x0200_0000_0000 | u64::from(value)) & mask),
            mask,
        }),
    )
}

fn v4(value: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 | value)
}

fn v6(value: u32) -> Ipv6Addr {
    Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(value) << 64 | u128::from(value))
}

fn masked_ip(six: bool) -> impl Strategy<Value = Option<MaskedIp>> {
    let mask = prop_oneof![Just(u128::MAX), Just(0), Just(u128::MAX << 8), Just(u128::MAX << 97), any::<u128>()];
    prop::option::weighted(
        0.3,
        (small(), mask).prop_map(move |(value, mask)| {
            if six {
                MaskedIp { addr: IpAddr::V6((u128::from(v6(value)) & mask).into()), mask: IpAddr::V6(mask.into()) }
            } else {
                let mask = mask as u32;
                MaskedIp { addr: IpAddr::V4((u32::from(v4(value)) & mask).into()), mask: IpAddr::V4(mask.into()) }
            }
        }),
    )
}

fn any_key() -> impl Strategy<Value = RuleKey> {
    let l2 = (masked::<16>(), masked_mac(), masked_mac(), masked::<12>());
    let l4 = (masked::<8>(), masked::<16>(), masked::<16>());
    (l2, l4, any::<bool>(), 0_u8..3).prop_flat_map(|(l2, l4, six, version)| {
        (masked_ip(six), masked_ip(six)).prop_map(move |(dip, sip)| RuleKey {
            ingress_port: l2.0,
            dmac: l2.1,
            smac: l2.2,
            vlan: l2.3,
            ip_type: (version == 0).then_some(if six { IpType::Ipv6 } else { IpType::Ipv4 }),
            ipprotocol: l4.0,
            dip,
            sip,
            dl4port: l4.1,
            sl4port: l4.2,
        })
    })
}

/// A packet by its fields.
#[derive(Clone, Debug)]
struct Packet {
    port: u16,
    macs: [u32; 2],
    vlan: Option<u16>,
    /// Protocol, whether IPv6, addresses.
    ip: Option<(u8, bool, [u32; 2])>,
    ports: [u32; 2],
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let protocol = prop_oneof![Just(6), Just(17), Just(1), 0_u8..4];
    (
        0_u16..4,
        [small(), small()],
        prop::option::of(0_u16..4),
        prop::option::weighted(0.8, (protocol, any::<bool>(), [small(), small()])),
        [small(), small()],
    )
        .prop_map(|(port, macs, vlan, ip, ports)| Packet { port, macs, vlan, ip, ports })
}

impl Packet {
    fn mac(&self, which: usize) -> MacAddr {
        MacAddr::from_u64(0x0200_0000_0000 | u64::from(self.macs[which]))
    }

    fn headers(&self) -> Headers {
        let mut frame = [self.mac(0).octets(), self.mac(1).octets()].concat();
        if let Some(vlan) = self.vlan {
            frame.extend([0x81, 0x00, 0x40, vlan as u8]);
        }
        let mut l4 = [self.ports[1] as u16, self.ports[0] as u16].map(u16::to_be_bytes).concat();
        l4.resize(20, 0);
        l4[12] = 0x50;
        l4[4..6].copy_from_slice(&20_u16.to_be_bytes());
        match self.ip {
            None => frame.extend([0x12, 0x34]),
            Some((protocol, false, [dst, src])) => {
                frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0]);
                frame.extend([v4(src).octets(), v4(dst).octets()].concat());
            }
            Some((protocol, true, [dst, src])) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, protocol, 64]);
                frame.extend([v6(src).octets(), v6(dst).octets()].concat());
            }
        }
        frame.extend(l4);
        parse(&frame).unwrap()
    }

    /// Whether a rule as its user wrote it matches, field by field, from the packet's own fields.
    fn matches(&self, key: &RuleKey) -> bool {
        fn number<const BITS: u32>(field: Option<Masked<BITS>>, has: Option<u32>) -> bool {
            field.is_none_or(|field| field.mask == 0 || has.is_some_and(|has| has & field.mask == field.value))
        }
        fn mac(field: Option<MaskedMac>, has: MacAddr) -> bool {
            field.is_none_or(|field| has.to_u64() & field.mask == field.value.to_u64())
        }
        fn ip(field: Option<MaskedIp>, has: Option<IpAddr>) -> bool {
            field.is_none_or(|field| match (field.mask, field.addr, has) {
                (mask, _, _) if mask.is_unspecified() => true,
                (IpAddr::V4(mask), IpAddr::V4(addr), Some(IpAddr::V4(has))) => has & mask == addr,
                (IpAddr::V6(mask), IpAddr::V6(addr), Some(IpAddr::V6(has))) => has & mask == addr,
                _ => false,
            })
        }
        let has_ports = matches!(self.ip, Some((6 | 17, ..)));
        let addr = |which: usize| {
            self.ip.map(|(_, six, addrs)| if six { IpAddr::V6(v6(addrs[which])) } else { IpAddr::V4(v4(addrs[which])) })
        };
        let version = self.ip.map(|(_, six, _)| if six { IpType::Ipv6 } else { IpType::Ipv4 });
        // A mask without any of the field's 8 bits still asks for IP if it has other bits: its user asked for
        // something.
        number(key.ingress_port, Some(u32::from(self.port)))
            && mac(key.dmac, self.mac(0))
            && mac(key.smac, self.mac(1))
            && number(key.vlan, Some(u32::from(self.vlan.unwrap_or(0))))
            && key.ip_type.is_none_or(|wanted| version == Some(wanted))
            && number(key.ipprotocol, self.ip.map(|(protocol, ..)| u32::from(protocol)))
            && ip(key.dip, addr(0))
            && ip(key.sip, addr(1))
            && number(key.dl4port, has_ports.then_some(self.ports[0]))
            && number(key.sl4port, has_ports.then_some(self.ports[1]))
    }
}

/// Writes and deletes, in batches.
fn any_changes() -> impl Strategy<Value = Vec<Vec<(u32, Option<RuleKey>)>>> {
    let change = (prop_oneof![0_u32..40, 250_u32..260, Just(65_535)], prop::option::weighted(0.75, any_key()));
    prop::collection::vec(prop::collection::vec(change, 1..30), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn the_classifier_finds_what_a_linear_scan_finds(
        batches in any_changes(), packets in prop::collection::vec(any_packet(), 1..40)
    ) {
        let (mut table, mut model) = (RuleTable::default(), BTreeMap::new());
        let mut cache = ExactMatchCache::default();
        let mut old: Vec<(Rules, BTreeMap<u32, RuleKey>)> = Vec::new();
        for batch in batches {
            for (index, key) in batch {
                match key {
                    Some(key) => {
                        let replaced = table.insert(Arc::new(Rule::new(rule(index, key.clone()), None, 1).unwrap()));
                        prop_assert_eq!(replaced.map(|rule| rule.key.clone()), model.insert(index, key));
                    }
                    None => prop_assert_eq!(table.remove(index).is_some(), model.remove(&index).is_some()),
                }
            }
            old.push((table.commit(), model.clone()));
            // The new version, and every older one that is still held.
            for (rules, model) in &old {
                prop_assert_eq!(rules.len() as usize, model.len());
                prop_assert!(rules.iter_from(0).map(|rule| rule.index).eq(model.keys().copied()));
                let keys: Vec<_> = packets.iter().map(|packet| Key::of(packet.port, &packet.headers())).collect();
                let index = |rule: Option<&Arc<Rule>>| rule.map(|rule| rule.index);
                let together = [rules.find_all(&keys), cache.find_all(rules, &keys), cache.find_all(rules, &keys)];
                let together: Vec<_> = (0..keys.len()).map(|at| together.map(|found| index(found[at]))).collect();
                for ((packet, key), together) in packets.iter().zip(keys).zip(together) {
                    let expected = model.iter().find(|(_, rule)| packet.matches(rule)).map(|(index, _)| *index);
                    let found = rules.find(&key).map(|rule| rule.index);
                    prop_assert_eq!(found, expected, "{:?}", packet);
                    for _ in 0..3 {
                        let cached = cache.find(rules, &key).map(|rule| rule.index);
                        prop_assert_eq!(cached, expected, "by the cache");
                    }
                    prop_assert_eq!(together, [expected; 3], "together");
                    prop_assert_eq!(rules.search(&key).map(|rule| rule.index), expected, "key by key");
                    for rule in rules.iter_from(0) {
                        let differs = first_difference(&rule.compiled(), &key);
                        prop_assert_eq!(differs.is_none(), packet.matches(&rule.key), "{:?} {:?}", rule.key, differs);
                    }
                }
            }
        }
        let taken: Vec<_> = model.keys().copied().collect();
        prop_assert_eq!(table.first_free(), (0..).find(|index| !taken.contains(index)).unwrap());
    }
}

fn exact(n: u32) -> RuleKey {
    RuleKey {
        dip: Some(MaskedIp { addr: IpAddr::V4(n.into()), mask: IpAddr::V4(u32::MAX.into()) }),
        ..RuleKey::default()
    }
}

fn key_to(n: u32) -> Key {
    let packet = Packet { port: 0, macs: [1, 2], vlan: None, ip: Some((17, false, [0, 1])), ports: [1, 2] };
    let mut headers = packet.headers();
    if let crate::engine::parse::L3::V4(ip) = &mut headers.l3 {
        ip.dst = n.into();
    }
    Key::of(0, &headers)
}

#[test]
fn a_full_table_finds_each_of_its_rules_and_empties_again() {
    const RULES: u32 = 65_536;
    let mut table = RuleTable::default();
    (0..RULES).for_each(|n| install(&mut table, &rule(n, exact(n.wrapping_mul(2_654_435_761)))));
    let full = table.commit();
    assert_eq!((full.len(), full.masks(), table.first_free()), (RULES, 1, RULES));
    for n in 0..RULES {
        let found = full.find(&key_to(n.wrapping_mul(2_654_435_761))).unwrap();
        assert_eq!(found.index, n);
    }
    assert!(full.find(&key_to(1)).is_none());
    (0..RULES).step_by(2).for_each(|n| drop(table.remove(n)));
    assert_eq!(table.first_free(), 0);
    (0..RULES).for_each(|n| drop(table.remove(n)));
    let empty = table.commit();
    assert_eq!((empty.len(), empty.masks(), empty.find(&key_to(0)).is_none()), (0, 0, true));
    assert_eq!(full.find(&key_to(0)).unwrap().index, 0, "who holds the full one keeps it");
}

/// Two keys under one mask whose hashes have the same tag, and the same bucket in a table of a few rules.
fn alike() -> (u32, u32) {
    let mask = Match::compile(&exact(0)).unwrap().mask;
    let piece = |n: u32| {
        let hash = key_to(n).hash(&mask);
        (hash >> 52, hash % 16)
    };
    let mut seen = std::collections::HashMap::new();
    (0..).find_map(|n| seen.insert(piece(n), n).map(|other| (other, n))).unwrap()
}

#[test]
fn a_key_that_only_looks_like_a_rules_key_does_not_match() {
    let (one, two) = alike();
    let mut table = RuleTable::default();
    install(&mut table, &rule(3, exact(one)));
    let rules = table.commit();
    assert_eq!([one, two].map(|n| rules.candidate(&key_to(n)).index), [3, 3]);
    assert!(rules.find(&key_to(one)).is_some() && rules.find(&key_to(two)).is_none());
    // Without it, a rule of higher index is found, whether it has the same key or another.
    install(&mut table, &rule(9, RuleKey::default()));
    assert_eq!(table.rules().find(&key_to(two)).unwrap().index, 9);
    install(&mut table, &rule(7, exact(two)));
    assert_eq!(table.rules().candidate(&key_to(two)).index, 3);
    assert_eq!(table.rules().find(&key_to(two)).unwrap().index, 7);
    assert_eq!(table.rules().find(&key_to(one)).unwrap().index, 3);
    table.remove(3);
    assert_eq!(table.rules().find(&key_to(one)).unwrap().index, 9);
}

#[test]
fn rules_of_the_same_key_stand_behind_each_other() {
    let mut table = RuleTable::default();
    [7, 3, 9, 5].into_iter().for_each(|n| install(&mut table, &rule(n, exact(1))));
    for expected in [3, 5, 7, 9] {
        assert_eq!(table.rules().find(&key_to(1)).unwrap().index, expected);
        assert_eq!(table.rules().masks(), 1);
        table.remove(expected);
    }
    assert!(table.rules().find(&key_to(1)).is_none());
}

#[test]
fn a_change_in_a_full_table_shares_all_but_a_page_with_the_version_before() {
    let mut table = RuleTable::default();
    (0..65_536).for_each(|n| install(&mut table, &rule(n, exact(n))));
    let before = table.commit();
    install(&mut table, &rule(1000, exact(70_000)));
    let after = table.commit();
    assert_eq!(before.shared_leaves(&after), (2047, 1));
    assert_ne!(before.version(), after.version());
}

#[test]
fn a_sender_of_ever_new_flows_takes_only_probation_places_of_the_cache() {
    let mut table = RuleTable::default();
    install(&mut table, &rule(5, exact(1)));
    let rules = table.commit();
    let mut cache = ExactMatchCache::default();
    let used: Vec<_> = (0..200).map(|n| key_to(0xc000_0000 + n)).collect();
    for _ in 0..3 {
        used.iter().for_each(|key| _ = cache.find(&rules, key));
    }
    (0..200_000).for_each(|n| _ = cache.find(&rules, &key_to(n)));
    let (hits, _) = cache.counts();
    used.iter().for_each(|key| _ = cache.find(&rules, key));
    let kept = cache.counts().0 - hits;
    assert!(kept >= 180, "{kept} of 200 flows in use are still there");
}

#[test]
fn flows_that_differ_in_nothing_that_a_rule_looks_at_are_one_to_the_cache() {
    let mut table = RuleTable::default();
    install(&mut table, &rule(5, RuleKey { dl4port: Some(Masked::exactly(2)), ..RuleKey::default() }));
    let mut cache = ExactMatchCache::default();
    let look_up = |cache: &mut ExactMatchCache, rules: &Rules, expected: fn(u32) -> Option<u32>| {
        for n in 0..100 {
            assert_eq!(cache.find(rules, &key_to(n)).map(|rule| rule.index), expected(n));
        }
    };
    look_up(&mut cache, &table.commit(), |_| None);
    assert_eq!(cache.counts(), (99, 1));
    // With a rule that looks at the field they are two. Without it they are one again.
    install(&mut table, &rule(3, exact(7)));
    look_up(&mut cache, &table.commit(), |n| (n == 7).then_some(3));
    assert_eq!(cache.counts(), (99, 101));
    table.remove(3);
    look_up(&mut cache, &table.commit(), |_| None);
    assert_eq!(cache.counts(), (198, 102));
}

#[test]
fn of_many_keys_the_cache_is_asked_if_rules_have_more_than_a_few_masks() {
    let mut table = RuleTable::default();
    install(&mut table, &rule(5, exact(1)));
    let mut cache = ExactMatchCache::default();
    let mut look_up = |rules: &Rules| {
        let found = cache.find_all(rules, &[key_to(1), key_to(2), key_to(1)]);
        assert_eq!(
            found[..4].iter().map(|rule| rule.map(|rule| rule.index)).collect::<Vec<_>>(),
            [Some(5), None, Some(5), None]
        );
        cache.counts()
    };
    let rules = table.commit();
    assert_eq!([look_up(&rules), look_up(&rules)], [(0, 3), (0, 6)]);
    for n in 0..2 {
        let vlan = Some(Masked { value: 1 << n, mask: 1 << n });
        install(&mut table, &rule(100 + n, RuleKey { vlan, ..RuleKey::default() }));
    }
    let rules = table.commit();
    assert_eq!([look_up(&rules), look_up(&rules)], [(0, 9), (3, 9)]);
}

#[test]
fn what_a_worker_needs_of_a_rule_beside_its_counters_is_in_two_lines() {
    assert!(offset_of!(Rule, action) + size_of::<RuleAction>() <= 128);
    assert!(offset_of!(Rule, near).is_multiple_of(64) && size_of::<Shard>() == 64, "counters share no line");
}

#[test]
fn a_rule_that_asks_for_ports_by_bits_that_they_do_not_have_says_so() {
    let dl4port = Some(Masked { value: 0, mask: 0x1_0000 });
    let rule = Match::compile(&RuleKey { dl4port, ..RuleKey::default() }).unwrap();
    let packet = |ip| Packet { port: 0, macs: [1, 2], vlan: None, ip, ports: [1, 2] };
    let difference = |ip| first_difference(&rule, &Key::of(0, &packet(ip).headers()));
    assert_eq!(difference(Some((17, false, [0, 1]))), None);
    for without in [None, Some((1, false, [0, 1]))] {
        assert_eq!(difference(without), Some(("dl4port", "none".to_owned(), "any".to_owned())));
    }
}

#[test]
fn impossible_keys_are_refused_and_the_field_is_named() {
    let of = |text: &str| serde_json::from_str::<RuleKey>(text).unwrap();
    for (field, text) in [
        ("vid", r#"{"vid": 1024}"#),
        ("vid", r#"{"vid": "3/0x1"}"#),
        ("dmac", r#"{"dmac": "02:00:00:00:00:01/ff:ff:ff:00:00:00"}"#),
        ("smac", r#"{"smac": "02:00:00:00:00:01/0x0"}"#),
        ("vlan", r#"{"vlan": 4096}"#),
        ("vlan", r#"{"vlan": "7/0x6"}"#),
        ("ipprotocol", r#"{"ipprotocol": 256}"#),
        ("dl4port", r#"{"dl4port": 65536}"#),
        ("sl4port", r#"{"sl4port": "81/0xf0"}"#),
        ("dip", r#"{"dip": "10.0.0.1/8"}"#),
        ("sip", r#"{"sip": "2001:db8::1/32"}"#),
        ("dip", r#"{"ip_type": "ipv6", "dip": "10.0.0.0/8"}"#),
        ("sip", r#"{"dip": "10.0.0.0/8", "sip": "::1"}"#),
        ("sip", r#"{"ip_type": "ipv4", "sip": "::/1"}"#),
    ] {
        let error = Match::compile(&of(text)).unwrap_err();
        assert!(error.starts_with(&format!("{field}: ")), "{text}: {error}");
    }
    // An address with an empty mask may be of either version.
    assert!(Match::compile(&of(r#"{"ip_type": "ipv6", "dip": "0.0.0.0/0", "sip": "2001:db8::/32"}"#)).is_ok());
    assert!(Match::compile(&of(r#"{"vlan": "5/0xffffffff", "dmac": "02:00:00:00:00:01/0xffffffffffffffff"}"#)).is_ok());
}
