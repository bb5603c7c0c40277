//! Fuzzes the engine: arbitrary bytes as a frame from a guest. The frame is parsed, hashed, decided, traced and edited
//! without a panic, and all of these agree.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use switch::engine::bridge::{BurstContext, DirectLookup, FloodVerdict, NoTrace, Verdict, decide, flood_verdict};
use switch::engine::fdb::Fdb;
use switch::engine::parse::{flow_hash, parse, parse_l2};
use switch::engine::snapshot::{BridgePolicy, PortPolicy, Snapshot};
use switch::engine::tables::PortMeters;
use switch::engine::trace::{TraceInput, trace};
use switch::engine::vlan::apply;
use switch::model::{MacAddr, VlanMode, VlanSet};

const HEADROOM: usize = 256;
const CHUNK: usize = 4096;

fn policy(no: u16, vlan: VlanMode) -> (u16, PortPolicy) {
    let mac = MacAddr::new([2, 0, 0, 0, 0, no as u8]);
    (no, PortPolicy { mac: Some(mac), mac_check: no == 3, isolated: no > 3, vlan, mtu: 1500, fdb_limit: 64 })
}

static SNAPSHOT: LazyLock<Snapshot> = LazyLock::new(|| {
    let all = VlanMode::Trunk { native: Some(0), tagged: VlanSet::all() };
    let some = VlanMode::Trunk { native: None, tagged: "1-100".parse().expect("a set") };
    let ports = vec![
        policy(0, all.clone()),
        policy(1, VlanMode::Access { vid: 0 }),
        policy(2, VlanMode::Access { vid: 10 }),
        policy(3, all),
        policy(4, some.clone()),
        policy(5, some),
    ];
    Snapshot::build(1, &BridgePolicy { forward_reserved: false }, ports)
});
static FDB: LazyLock<Fdb> = LazyLock::new(|| Fdb::new(256, 10, 7));

fuzz_target!(|data: &[u8]| {
    let Some((&first, frame)) = data.split_first() else { return };
    if frame.len() > CHUNK - HEADROOM {
        return;
    }
    let ingress = u16::from(first % 6);
    let _ = flow_hash(frame);
    assert_eq!(parse(frame).err(), parse_l2(frame).err(), "the whole parser takes what the short one takes");
    let (meters, names) = (PortMeters::default(), |no: u16| no.to_string());
    let input =
        TraceInput { snapshot: &SNAPSHOT, fdb: &FDB, meters: &meters, now: 1, now_ns: 0, names: &names, rule: None };
    let report = trace(&input, ingress, frame);
    let context = BurstContext { snap: &SNAPSHOT, fdb: &FDB, now: 1, ingress, worker: 0 };
    let decision = decide(&context, frame, frame.len(), &mut DirectLookup, &mut NoTrace);
    let edits = match decision.verdict {
        Verdict::Drop(reason) => {
            assert_eq!(report.drop_reason.as_deref(), Some(reason.label()));
            return;
        }
        Verdict::Unicast { edit, .. } => vec![edit],
        Verdict::Flood { vid, tag } => SNAPSHOT
            .flood_ports(vid)
            .iter()
            .filter_map(|&port| match flood_verdict(&SNAPSHOT, ingress, port, vid, tag, frame.len()) {
                FloodVerdict::Send { port, edit } => {
                    assert_ne!(port, ingress, "an echo");
                    Some(edit)
                }
                _ => None,
            })
            .collect(),
    };
    for edit in edits {
        let mut chunk = [0; CHUNK];
        chunk[HEADROOM..HEADROOM + frame.len()].copy_from_slice(frame);
        let (start, len) = apply(edit, &mut chunk, HEADROOM, frame.len());
        assert_eq!(len as i64 - frame.len() as i64, i64::from(edit.grows_by()));
        assert_eq!(chunk[start..start + 12], frame[..12], "addresses are kept");
    }
});
