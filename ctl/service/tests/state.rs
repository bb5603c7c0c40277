//! The state file: written rows can be read again, and an unreadable file is left alone.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ctl_service::state::{Row, Store, Table};
use ctl_service::*;
use ctl_spp::flow::{NumberedRule, PortRules, Rule, parse};
use ctl_spp::{Instance, Proc, rows};
use ctl_types::DiskSpec;
use kit::{FakeStorage, Kept, tables};
use serde_json::json;
use switch::model::*;

fn rule(key_index: u32) -> RuleSpec {
    RuleSpec { key_index, key: RuleKey::default(), action: RuleAction::to(RuleTarget::Drop) }
}

fn flow_rules() -> PortRules {
    let item = parse::pattern(&["eth dst is 02:00:00:00:00:01".into(), "vlan vid is 7".into()]);
    let rule = Rule {
        direction: FlowDirection::Ingress,
        group: 1,
        priority: 2,
        transfer: true,
        pattern: item.unwrap(),
        actions: parse::actions(&["queue index 1".into(), "of_pop_vlan".into()]).unwrap(),
    };
    PortRules { port: 3, rules: vec![NumberedRule { rule_id: 9, rule }] }
}

fn declared() -> DeclaredRow {
    DeclaredRow { name: "port/vm1".into(), file: Some("/etc/x.toml".into()), row: json!({ "name": "vm1" }) }
}

fn bond() -> PortSpec {
    let options = [("mode", "802.3ad"), ("xmit_hash_policy", "layer3+4"), ("updelay", "200")];
    let options = options.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let members = vec!["eth1".into(), "eth2".into()];
    PortSpec { bond: Some(BondSpec { members, options }), ..PortSpec::new("bond0", PortKind::Bond) }
}

fn whole() -> Kept {
    let meter = MeterSpec::new(4_000_000_000, 64);
    Kept {
        bridge: Some(BridgeSettings::default()),
        bridge_configured: Some(BridgeSettings { fdb_limit: 99, ..BridgeSettings::default() }),
        ports: vec![bond(), PortSpec::new("vm1", PortKind::Guest)],
        fdb: vec![FdbSpec { mac: MacAddr::new([2, 0, 0, 0, 0, 1]), vlan: 7, port: "vm1".into() }],
        meters: vec![MeterRecord { spec: meter, implicit: true }],
        bindings: vec![MeterBinding { vport: 3, direction: MeterDirection::To, meter: 4_000_000_000 }],
        rules: vec![rule(9), rule(10), rule(65_535)],
        redirects: vec![RedirectSpec { src: 1, dest: 2 }],
        disks: vec![DiskSpec { size: Some(1 << 40), paused: Some(true), ..DiskSpec::new("云盘 1") }],
        instances: vec![Instance::new(Proc::PRIMARY, vec![0, 1], None)],
        flow_rules: vec![flow_rules()],
        declared: vec![declared()],
    }
}

/// [`whole`] with these rules before its own.
fn with_rules(numbers: std::ops::Range<u32>) -> Kept {
    Kept { rules: numbers.map(rule).chain(whole().rules).collect(), ..whole() }
}

/// A store on a copy of a file that is open.
fn copy(file: &Path) -> Store {
    let dir = tempfile::tempdir().unwrap().keep();
    std::fs::copy(file, dir.join("state.redb")).unwrap();
    let store = Store::open(&dir, tables()).unwrap();
    std::fs::remove_dir_all(dir).unwrap();
    store
}

/// A kind of rows that is unknown, or has another form.
struct Odd<const NAME: usize>;

const NAMES: [&str; 3] = ["version", "tunnel", "rule"];

impl<const NAME: usize> Table for Odd<NAME> {
    const NAME: &'static str = NAMES[NAME];
    type Row = serde_json::Value;

    fn key(row: &serde_json::Value) -> String {
        if row.is_object() { "1".to_owned() } else { String::new() }
    }
}

#[test]
fn what_was_written_is_loaded_and_what_was_removed_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), tables()).unwrap();
    assert_eq!(Kept::load(&store).unwrap(), Kept::default());
    store.write(&whole().rows()).unwrap();
    drop(store);
    let store = Store::open(dir.path(), tables()).unwrap();
    assert_eq!(Kept::load(&store).unwrap(), whole());
    Store::check(dir.path(), &tables()).unwrap();
    let gone = [
        Row::remove::<RunTime>(""),
        Row::remove::<Configured>(""),
        Row::remove::<Ports>("bond0"),
        Row::remove::<Ports>("vm1"),
        Row::remove::<StaticEntries>("7/02:00:00:00:00:01"),
        Row::remove::<Meters>("4000000000"),
        Row::remove::<MeterBindings>("00003/To"),
        Row::remove::<Rules>("0000000009"),
        Row::remove::<Redirects>("00001"),
        Row::remove::<DiskRows>("云盘 1"),
        rows::no_instance(Proc::PRIMARY),
        rows::flow_rules(&PortRules { rules: Vec::new(), ..flow_rules() }),
        Row::remove::<DeclaredRows>("port/vm1"),
    ];
    store.write(&gone).unwrap();
    assert_eq!(Kept::load(&store).unwrap(), Kept { rules: vec![rule(10), rule(65_535)], ..Kept::default() });
    store.write(&[Row::clear::<Rules>(), Row::put::<Rules>(&rule(1))]).unwrap();
    assert_eq!(Kept::load(&store).unwrap().rules, [rule(1)]);
}

#[test]
fn a_damaged_or_foreign_file_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path(), tables()).unwrap());
    let path = dir.path().join("state.redb");
    let good = std::fs::read(&path).unwrap();
    let zeros = vec![0; good.len()];
    for bytes in [&b"{\"version\": 1}"[..], &[7; 9000], &good[..good.len() / 2], &zeros] {
        std::fs::write(&path, bytes).unwrap();
        let error = Store::open(dir.path(), tables()).and_then(|store| store.load()).unwrap_err();
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        assert!(Store::check(dir.path(), &tables()).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "it is left as it was");
    }
}

#[test]
fn not_a_byte_of_a_refused_file_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), tables()).unwrap();
    store.write(&(0..40).map(|n| Row::put::<Rules>(&rule(n))).collect::<Vec<_>>()).unwrap();
    let killed = std::fs::read(store.path()).unwrap();
    let path = store.path().to_owned();
    drop(store);
    let mut refused = 0;
    for (file, is_killed) in [(std::fs::read(&path).unwrap(), false), (killed, true)] {
        for at in (64..file.len() - 4).step_by(1009) {
            let mut damaged = file.clone();
            damaged[at..at + 4].iter_mut().for_each(|byte| *byte = !*byte);
            std::fs::write(&path, &damaged).unwrap();
            let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_836_800);
            File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
            let checked = Store::check(dir.path(), &tables());
            match Store::open(dir.path(), tables()) {
                Ok(store) => {
                    // The damage was in pages that are not in use. Or the last change of a killed daemon is taken for
                    // one that was not finished.
                    let rules = Kept::load(&store).unwrap().rules.len();
                    assert!(rules == 40 || (is_killed && rules == 0), "{at}: {rules} rules");
                    assert!(checked.is_ok(), "{at}");
                }
                Err(error) => {
                    assert!(matches!(error, Error::State { .. }) && checked.is_err(), "{at}: {error}");
                    assert!(std::fs::read(&path).unwrap() == damaged, "{at}: it was written to");
                    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), old, "{at}");
                    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "{at}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 3, "{refused}");
}

#[test]
fn the_file_is_for_the_daemons_user_even_if_somebody_has_it_locked() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), tables()).unwrap();
    let mode = || std::fs::metadata(dir.path().join("state.redb")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    store.write(&[Row::put::<Rules>(&rule(1))]).unwrap();
    drop(store);
    let path = dir.path().join("state.redb");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let stranger = File::open(&path).unwrap();
    stranger.lock_shared().unwrap();
    let store = Store::open(dir.path(), tables()).unwrap();
    assert_eq!((mode(), Kept::load(&store).unwrap().rules), (0o600, vec![rule(1)]));
}

#[test]
fn a_file_that_is_gone_or_replaced_is_written_anew_in_full() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("state");
    let store = Store::open(&dir, tables()).unwrap();
    store.write(&whole().rows()).unwrap();
    let file = dir.join("state.redb");
    let foreign = || {
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, "foreign").unwrap();
    };
    let cut = || File::options().write(true).open(&file).unwrap().set_len(0).unwrap();
    let overwritten = || std::fs::write(&file, [0x5a; 40_000]).unwrap();
    let steps: [&dyn Fn(); 6] = [
        &|| std::fs::remove_dir_all(&dir).unwrap(),
        &|| std::fs::remove_file(&file).unwrap(),
        &|| {
            let _ = std::fs::remove_dir_all(outer.path().join("moved"));
            std::fs::rename(&dir, outer.path().join("moved")).unwrap();
        },
        &foreign,
        &cut,
        &overwritten,
    ];
    for (no, remove) in (0..).zip(steps) {
        assert!(!store.look_after().unwrap());
        remove();
        assert!(store.look_after().unwrap());
        assert_eq!(Kept::load(&copy(&file)).unwrap(), with_rules(0..no));
        remove();
        store.write(&[Row::put::<Rules>(&rule(no))]).unwrap();
        assert_eq!(Kept::load(&copy(&file)).unwrap(), with_rules(0..no + 1));
        let _ = std::fs::remove_dir_all(outer.path().join("moved"));
    }
    let found = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap());
    let found: Vec<_> = found.filter(|entry| entry.file_name().to_string_lossy().contains(".found-")).collect();
    assert!(!found.is_empty(), "what somebody put there is kept");
}

#[test]
fn nothing_is_acknowledged_while_the_file_can_not_be_written_anew() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("state");
    let store = Store::open(&dir, tables()).unwrap();
    store.write(&whole().rows()).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::write(&dir, "in the way").unwrap();
    for _ in 0..2 {
        assert!(matches!(store.look_after(), Err(Error::NotKept { .. })));
        assert!(matches!(store.write(&[Row::clear::<Rules>()]), Err(Error::NotKept { .. })));
    }
    std::fs::remove_file(&dir).unwrap();
    assert!(store.look_after().unwrap());
    assert_eq!(Kept::load(&copy(store.path())).unwrap(), whole());
}

#[test]
fn a_store_that_could_not_write_looks_whether_it_can_again() {
    let storage = FakeStorage::default();
    let store = storage.store();
    storage.set_full(true);
    assert!(store.write(&[Row::put::<Rules>(&rule(1))]).is_err());
    assert!(matches!(store.look_after(), Err(Error::NotKept { .. })));
    storage.set_full(false);
    assert!(!store.look_after().unwrap());
    assert_eq!(Kept::load(&store).unwrap(), Kept::default());
}

#[test]
fn clearing_many_rules_takes_little_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), tables()).unwrap();
    store.write(&(0..20_000).map(|n| Row::put::<Rules>(&rule(n))).collect::<Vec<_>>()).unwrap();
    let size = || std::fs::metadata(store.path()).unwrap().len();
    let before = size();
    store.write(&[Row::clear::<Rules>()]).unwrap();
    assert!(size() <= 2 * before, "{} bytes after {before}", size());
    assert_eq!(Kept::load(&store).unwrap(), Kept::default());
}

#[test]
fn a_newer_format_and_an_unknown_row_are_refused() {
    for row in
        [Row::put::<Odd<0>>(&json!(2)), Row::put::<Odd<1>>(&json!({})), Row::put::<Odd<2>>(&json!({ "key_index": 1 }))]
    {
        let store = Store::in_memory(tables());
        store.write(&[row]).unwrap();
        assert!(matches!(store.load(), Err(Error::State { .. })));
    }
}

#[test]
fn a_write_that_fails_changes_nothing_and_later_ones_work() {
    let storage = FakeStorage::default();
    let store = storage.store();
    store.write(&whole().rows()).unwrap();
    storage.set_full(true);
    for _ in 0..2 {
        assert!(matches!(store.write(&[Row::clear::<Rules>()]), Err(Error::NotKept { .. })));
    }
    storage.set_full(false);
    assert_eq!(Kept::load(&store).unwrap(), whole());
    store.write(&[Row::clear::<Rules>()]).unwrap();
    drop(store);
    assert_eq!(Kept::load(&storage.store()).unwrap(), Kept { rules: Vec::new(), ..whole() });
}

#[test]
fn a_file_that_was_being_made_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("state.redb.new"), [0; 4096]).unwrap();
    assert_eq!(Kept::load(&Store::open(dir.path(), tables()).unwrap()).unwrap(), Kept::default());
}

#[test]
fn a_check_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    Store::check(&state, &tables()).unwrap();
    assert!(!state.exists());
}
