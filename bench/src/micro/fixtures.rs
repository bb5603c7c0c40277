//! Frames, rules and tables that the measurements share.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use switch::engine::fdb::Fdb;
use switch::engine::parse::{TPID_CTAG, TPID_STAG, parse};
use switch::engine::rule::{Key, Rule, RuleTable};
use switch::model::{MacAddr, Masked, MaskedIp, RuleAction, RuleKey, RuleSpec, RuleTarget};

/// Frames of a burst.
pub const BURST: usize = switch::worker::BURST;
/// Destination of rule 0. The next address is that of rule 1, and so on.
const FIRST_ADDRESS: u32 = 0x0a00_0000;
/// Bytes of an untagged frame before its EtherType.
const ADDRESSES: usize = 12;
/// The shortest frame without FCS, in bytes: 64 with it.
const MIN_FRAME: usize = 60;

/// The address of station `n`.
pub fn station(n: u32) -> MacAddr {
    let n = n.to_be_bytes();
    MacAddr::new([2, 0, n[0], n[1], n[2], n[3]])
}

/// A UDP packet in IPv4 from station 0 to station `to`, with the destination address of rule number `flow`, as short as
/// Ethernet allows.
pub fn udp4(to: u32, flow: u32) -> Vec<u8> {
    let mut frame = [&station(to).octets()[..], &station(0).octets(), &[0x08, 0x00]].concat();
    frame.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 1, 0, 1]);
    frame.extend((FIRST_ADDRESS + flow).to_be_bytes());
    // Source port 7: no rule's mask of the source port has one of its bits.
    frame.extend([0, 7, 0, 9, 0, 26, 0, 0]);
    frame.resize(MIN_FRAME, 0);
    frame
}

/// The same in IPv6.
pub fn udp6(to: u32, flow: u32) -> Vec<u8> {
    let mut frame = [&station(to).octets()[..], &station(0).octets(), &[0x86, 0xdd]].concat();
    frame.extend([0x60, 0, 0, 0, 0, 8, 17, 64]);
    for last in [1, flow] {
        frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        frame.extend(last.to_be_bytes());
    }
    frame.extend([0, 7, 0, 9, 0, 8, 0, 0]);
    frame
}

/// A frame with an S-tag and a C-tag in front of its EtherType.
pub fn stacked(frame: &[u8]) -> Vec<u8> {
    let tags = [TPID_STAG, 10, TPID_CTAG, 20].map(u16::to_be_bytes).concat();
    [&frame[..ADDRESSES], &tags, &frame[ADDRESSES..]].concat()
}

/// A frame with a C-tag of that VLAN in front of its EtherType.
pub fn tagged(frame: &[u8], vid: u16) -> Vec<u8> {
    [&frame[..ADDRESSES], &TPID_CTAG.to_be_bytes(), &vid.to_be_bytes(), &frame[ADDRESSES..]].concat()
}

/// Rule number `n` of a table with `masks` distinct masks (a power of two, at most 64), with that target. It matches a
/// destination address of its own. Masks differ in bits of the source port.
pub fn rule_spec(n: u32, masks: u32, target: RuleTarget) -> RuleSpec {
    let full = IpAddr::V4(Ipv4Addr::BROADCAST);
    let key = RuleKey {
        dip: Some(MaskedIp { addr: IpAddr::V4((FIRST_ADDRESS + n).into()), mask: full }),
        sl4port: Some(Masked { value: 0, mask: (n % masks) << 4 }),
        ..RuleKey::default()
    };
    RuleSpec { key_index: n, key, action: RuleAction::to(target) }
}

/// That rule, for one worker.
fn rule_to(n: u32, masks: u32, target: RuleTarget) -> Arc<Rule> {
    Arc::new(Rule::new(rule_spec(n, masks, target), None, 1).expect("a rule"))
}

/// The same, with target drop.
pub fn rule(n: u32, masks: u32) -> Arc<Rule> {
    rule_to(n, masks, RuleTarget::Drop)
}

/// A table of that many rules with that target.
pub fn rule_table_to(rules: u32, masks: u32, target: RuleTarget) -> RuleTable {
    let mut table = RuleTable::default();
    (0..rules).for_each(|n| drop(table.insert(rule_to(n, masks, target))));
    table
}

/// The same, with target drop.
pub fn rule_table(rules: u32, masks: u32) -> RuleTable {
    rule_table_to(rules, masks, RuleTarget::Drop)
}

/// Keys of `count` flows, half of them to destinations of the rules, in an order without locality.
pub fn keys(count: u32, rules: u32) -> Vec<Key> {
    let key = |n: u32| {
        let mut frame = udp4(1, n.wrapping_mul(7919) % (2 * rules));
        // The source address tells flows to the same destination apart.
        frame[26..30].copy_from_slice(&n.wrapping_mul(2_654_435_761).to_be_bytes());
        Key::of(0, &parse(&frame).expect("a packet"))
    };
    (0..count).map(key).collect()
}

/// A MAC table with stations 1 to `stations` in VLAN 10 behind port 1, seen in second 0.
pub fn mac_table(stations: u32) -> Fdb {
    let fdb = Fdb::new(131_072, 300, 7);
    for n in 1..=stations {
        fdb.learn(station(n), 10, 1, u32::MAX, 0);
    }
    fdb
}
