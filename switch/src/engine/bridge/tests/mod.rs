//! The bridge against a small reference in random topologies, its rules one by one, the flow cache against decisions
//! without it, and traces against decisions.

mod decisions;
mod flow_cache;
mod lookup;
mod reference;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{BurstContext, Decision, DirectLookup, FloodVerdict, NoTrace, PortNames, Verdict, decide, flood_verdict};
use crate::engine::PortNo;
use crate::engine::fdb::Fdb;
use crate::engine::parse::{TPID_CTAG, TPID_STAG, VLAN_TAG};
use crate::engine::snapshot::{BridgePolicy, PortPolicy, Snapshot};
use crate::engine::tables::PortMeters;
use crate::engine::trace::{TraceInput, trace};
use crate::engine::vlan::apply;
use crate::engine::vlan::tests::any_mode;
use crate::model::{DropReason, MacAddr, TraceReport, Vid, VlanMode};

fn mac(n: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, n])
}

fn policy(vlan: VlanMode) -> PortPolicy {
    PortPolicy { mac: None, mac_check: false, isolated: false, vlan, mtu: 100, fdb_limit: 4096 }
}

fn access(vid: Vid) -> PortPolicy {
    policy(VlanMode::Access { vid })
}

fn frame(dst: MacAddr, src: MacAddr, tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [dst.octets(), src.octets()].concat();
    tags.iter().for_each(|(tpid, tci)| frame.extend([tpid.to_be_bytes(), tci.to_be_bytes()].concat()));
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A snapshot and an FDB, and what workers do with them.
struct Switch {
    snap: Snapshot,
    fdb: Fdb,
}

impl Switch {
    fn new(ports: Vec<PortPolicy>) -> Self {
        let ports = (0..).zip(ports).collect();
        Self { snap: Snapshot::build(1, &BridgePolicy::default(), ports), fdb: Fdb::new(1000, 300, 5) }
    }

    fn context(&self, now: u32, ingress: PortNo) -> BurstContext<'_> {
        BurstContext { snap: &self.snap, fdb: &self.fdb, now, ingress, worker: 0 }
    }

    fn decision(&self, now: u32, ingress: PortNo, frame: &[u8]) -> Decision<'_> {
        decide(&self.context(now, ingress), frame, frame.len(), &mut DirectLookup, &mut NoTrace)
    }

    fn decide(&self, ingress: PortNo, frame: &[u8]) -> Verdict {
        self.decision(0, ingress, frame).verdict
    }

    fn trace(&self, ingress: PortNo, frame: &[u8], names: PortNames<'_>) -> TraceReport {
        let Self { snap, fdb } = self;
        let meters = &PortMeters::default();
        let input = TraceInput { snapshot: snap, fdb, meters, now: 0, now_ns: 0, names, rule: None };
        trace(&input, ingress, frame)
    }

    /// The frames that come out of each port, or why none does.
    fn switch(&self, ingress: PortNo, frame: &[u8]) -> Result<BTreeMap<PortNo, Vec<u8>>, DropReason> {
        let edited = |edit| {
            let mut buf = [&[0; VLAN_TAG][..], frame].concat();
            let (start, len) = apply(edit, &mut buf, VLAN_TAG, frame.len());
            buf[start..start + len].to_vec()
        };
        match self.decide(ingress, frame) {
            Verdict::Drop(reason) => Err(reason),
            Verdict::Unicast { port, edit, .. } => Ok(BTreeMap::from([(port, edited(edit))])),
            Verdict::Flood { vid, tag } => {
                let (mut out, mut why) = (BTreeMap::new(), DropReason::NoDestination);
                for &port in self.snap.flood_ports(vid) {
                    match flood_verdict(&self.snap, ingress, port, vid, tag, frame.len()) {
                        FloodVerdict::Send { port, edit } => assert!(out.insert(port, edited(edit)).is_none(), "twice"),
                        FloodVerdict::Drop(reason) => why = reason,
                        FloodVerdict::Skip => {}
                    }
                }
                if out.is_empty() { Err(why) } else { Ok(out) }
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Sent {
    port: PortNo,
    dst: u8,
    src: u8,
    tags: Vec<(u16, u16)>,
    len: usize,
}

fn any_ports() -> impl Strategy<Value = Vec<PortPolicy>> {
    let one = (any_mode(), any::<bool>(), prop::bool::weighted(0.3), prop_oneof![Just(100_u32), 68_u32..120]);
    let ports = prop::collection::vec(one, 1..7);
    ports.prop_map(|ports| {
        let with = |(n, (vlan, isolated, mac_check, mtu))| PortPolicy {
            mac: Some(mac(n)),
            mac_check,
            isolated,
            mtu,
            ..policy(vlan)
        };
        (0..).zip(ports).map(with).collect()
    })
}

fn any_sent() -> impl Strategy<Value = Sent> {
    let tag =
        (prop_oneof![Just(TPID_CTAG), Just(TPID_STAG)], (0_u16..16, 0_u16..6).prop_map(|(bits, vid)| bits << 12 | vid));
    // Station 7 is the broadcast address, 8 a reserved one.
    (0_u16..8, 0_u8..9, 0_u8..7, prop::collection::vec(tag, 0..3), 60_usize..120)
        .prop_map(|(port, dst, src, tags, len)| Sent { port, dst, src, tags, len })
}

fn address(n: u8) -> MacAddr {
    match n {
        7 => MacAddr::BROADCAST,
        8 => MacAddr::new([1, 0x80, 0xc2, 0, 0, 0]),
        n => mac(n),
    }
}
