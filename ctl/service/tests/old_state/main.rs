//! State files written by an xswitchd with redb 3. One daemon ended regularly (`redb3.zst`), the other was killed. Both
//! files have rows of every kind.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::PathBuf;

use ctl_service::Rules;
use ctl_service::state::{Row, Store};
use kit::{Kept, tables};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

const ENDED: &[u8] = include_bytes!("redb3.zst");
const KILLED: &[u8] = include_bytes!("redb3-killed.zst");
/// Offsets of redb's format number in the two commit slots of the header.
const FORMAT: [usize; 2] = [64, 192];

fn unpacked(file: &[u8]) -> Vec<u8> {
    zstd::decode_all(file).unwrap()
}

/// A state directory with that file.
fn directory(file: &[u8]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    std::fs::write(&path, file).unwrap();
    (dir, path)
}

fn of<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// The state that these daemons had.
fn expected() -> Kept {
    let pattern = json!([
        { "kind": "eth", "spec": { "dst": { "value": 0x1022_3344_5566_u64, "given": 0xffff_ffff_ffff_u64 } }, "last": {},
          "mask": { "dst": { "value": 0xffff_ffff_ffff_u64, "given": 0xffff_ffff_ffff_u64 } } },
        { "kind": "vlan", "spec": { "tci": { "value": 100, "given": 0xfff } }, "last": {},
          "mask": { "tci": { "value": 0xfff, "given": 0xfff } } },
    ]);
    let flow_rule = json!({
        "direction": "ingress", "group": 1, "priority": 0, "transfer": false, "pattern": pattern,
        "actions": [{ "queue": { "index": 0 } }, "of_pop_vlan"],
    });
    let forwarder = json!({
        "name": "fwd1", "core": 1, "kind": "forward",
        "rx": [{ "port": "phy:0", "vlan": "none" }], "tx": [{ "port": "vhost:0", "vlan": "none" }],
    });
    let running = json!({
        "components": [forwarder], "table": [], "ports": [], "patches": [], "pipes": [], "running": true,
    });
    let port = |own: Value| {
        let mut port = json!({
            "mtu": 1500, "queues": 1, "queue_depth": 2048, "mode": "auto", "steering": "all", "zero_copy": "auto",
            "isolated": false, "fdb_limit": 4096,
        });
        port.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        of(port)
    };
    Kept {
        bridge: Some(of(json!({ "fdb_limit": 5000, "fdb_ageing_seconds": 42, "forward_reserved": false }))),
        bridge_configured: of(json!({ "fdb_limit": 131_072, "fdb_ageing_seconds": 42, "forward_reserved": false })),
        ports: vec![
            port(json!({ "name": "uplink", "kind": "phy", "vport": 2, "ifname": "up0", "mac_check": false,
                "vlan": { "mode": "trunk", "native": 0, "tagged": "all" }, "spp": "phy:0" })),
            port(json!({ "name": "vm1", "kind": "guest", "vport": 0, "ifname": "xs0", "guest_ifname": "xg0",
                "mac": "5e:19:4e:c5:f0:71", "mac_check": true,
                "vlan": { "mode": "trunk", "native": 10, "tagged": "10,20-29" } })),
            port(json!({ "name": "vm2", "kind": "guest", "vport": 1, "ifname": "xs1", "guest_ifname": "xg1",
                "mac": "62:19:4e:c5:f2:cc", "mac_check": true,
                "vlan": { "mode": "access", "vid": 0 }, "spp": "vhost:0" })),
        ],
        fdb: of(json!([{ "mac": "02:00:00:00:00:01", "vlan": 10, "port": "vm1" }])),
        meters: of(json!([
            { "spec": { "id": 0, "rate": 50_000, "type": "kbps", "burst": 20_000 }, "implicit": true },
            { "spec": { "id": 4_000_000_000_u32, "rate": 64_000, "type": "pps", "burst": 20 }, "implicit": false },
        ])),
        bindings: of(json!([{ "vport": 1, "direction": "to", "meter": 4_000_000_000_u32 }])),
        rules: of(json!([
            { "key_index": 10, "key": { "vid": 0, "dl4port": 25 }, "action": { "vid": "drop" } },
            { "key_index": 65_535, "key": { "ip_type": "ipv4", "dip": "10.9.8.0/24" },
              "action": { "vid": 1, "meter": 4_000_000_000_u32, "mirror": 0 } },
        ])),
        redirects: of(json!([{ "src": 0, "dest": 1 }])),
        disks: Vec::new(),
        instances: of(json!([
            { "proc": { "kind": "vf", "id": 1 }, "cores": [0, 1], "flush_mode": false, "running": running },
        ])),
        flow_rules: of(json!([{ "port": 0, "rules": [{ "rule_id": 0, "rule": flow_rule }] }])),
        declared: Vec::new(),
    }
}

#[test]
fn a_file_of_redb_3_is_read_whole_and_written_to() {
    for file in [ENDED, KILLED] {
        let (dir, _) = directory(&unpacked(file));
        let store = Store::open(dir.path(), tables()).unwrap();
        assert_eq!(Kept::load(&store).unwrap(), expected());
        store.write(&[Row::clear::<Rules>()]).unwrap();
        drop(store);
        Store::check(dir.path(), &tables()).unwrap();
        let without_rules = Kept { rules: Vec::new(), ..expected() };
        assert_eq!(Kept::load(&Store::open(dir.path(), tables()).unwrap()).unwrap(), without_rules);
    }
}

#[test]
fn the_check_takes_a_file_of_redb_3_and_leaves_it_as_it_is() {
    for file in [ENDED, KILLED] {
        let (dir, path) = directory(&unpacked(file));
        Store::check(dir.path(), &tables()).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), unpacked(file));
    }
}

#[test]
fn a_file_format_that_redb_does_not_read_is_refused_and_kept() {
    // Formats 1 and 2 are those of redb 1 and 2, and 4 does not exist yet. xswitchd has only ever written 3.
    for (format, why) in [(1, "redb's file format 1"), (2, "redb's file format 2"), (4, "damaged")] {
        let mut file = unpacked(ENDED);
        for place in FORMAT {
            assert_eq!(std::mem::replace(&mut file[place], format), 3);
        }
        let (dir, path) = directory(&file);
        let error = Store::open(dir.path(), tables()).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(&path.display().to_string()), "{error}");
        assert!(Store::check(dir.path(), &tables()).is_err());
        assert_eq!(std::fs::read(path).unwrap(), file);
    }
}

#[test]
fn a_damaged_file_of_redb_3_is_refused_and_kept() {
    let good = unpacked(ENDED);
    let half = good[..good.len() / 2].to_vec();
    // Only the header is intact.
    let overwritten = [&good[..8192], &vec![0x5a; good.len() - 8192]].concat();
    for file in [half, overwritten] {
        let (dir, path) = directory(&file);
        let error = Store::open(dir.path(), tables()).and_then(|store| store.load()).unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
        assert_eq!(std::fs::read(path).unwrap(), file);
    }
}
