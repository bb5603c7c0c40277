//! Bonds by `EthMacBondSet`.

use ctl_grpc::proto::*;
use ctl_types::BondEntry;
use switch::model::{PortKind, PortSpec};

use crate::rig::*;

const EPERM: u32 = 1;
const ENOENT: u32 = 2;
const EACCES: u32 = 13;
const EBUSY: u32 = 16;
const EEXIST: u32 = 17;
const EINVAL: u32 = 22;
const ENOTEMPTY: u32 = 39;
const EOPNOTSUPP: u32 = 95;

const SET: &str = "EthMac/BondSet";

fn set(enable: bool, options: &[(&str, &str)]) -> EthMacBondSetRequest {
    let option = |(name, value): &(&str, &str)| BondOpts {
        opt_name: Some((*name).to_owned()),
        value: Some((*value).to_owned()),
    };
    EthMacBondSetRequest {
        enable: Some(enable),
        bond_opts: options.iter().map(option).collect(),
        ..EthMacBondSetRequest::default()
    }
}

fn named(name: &str, request: EthMacBondSetRequest) -> EthMacBondSetRequest {
    EthMacBondSetRequest { name: Some(name.to_owned()), ..request }
}

fn bond(rig: &Rig, name: &str) -> BondEntry {
    rig.service.bond(name).unwrap()
}

fn option(bond: &BondEntry, name: &str) -> String {
    bond.info.as_ref().unwrap().options[name].clone()
}

/// `bond0` of `eth1` and `eth2`, by LACP.
async fn lacp_bond() -> Rig {
    let rig = Rig::new();
    // In no order at all.
    let options = [("lacp_rate", "fast"), ("updelay", "250"), ("slaves", "+eth1"), ("mode", "4"), ("slaves", "+eth2")];
    rig.done(SET, &set(true, &options)).await;
    rig
}

#[tokio::test]
async fn a_bond_is_made_changed_and_deleted_by_options_of_the_driver() {
    let rig = lacp_bond().await;
    let made = bond(&rig, "bond0");
    assert_eq!(made.spec.members, ["eth1", "eth2"]);
    let shown = ["mode", "miimon", "updelay", "lacp_rate"].map(|name| option(&made, name));
    assert_eq!(shown, ["802.3ad 4", "100", "200", "fast 1"], "by word or number, rounded, with miimon's default");
    rig.done(SET, &set(true, &[("slaves", "-eth1"), ("xmit_hash_policy", "layer3+4"), ("slaves", "+eth3")])).await;
    let changed = bond(&rig, "bond0");
    assert_eq!(changed.spec.members, ["eth2", "eth3"]);
    assert_eq!(option(&changed, "xmit_hash_policy"), "layer3+4 1");
    rig.done(SET, &set(true, &[("slaves", "eth4, eth3")])).await;
    assert_eq!(bond(&rig, "bond0").spec.members, ["eth3", "eth4"]);
    let rig = rig.assert_kept();
    assert_eq!(bond(&rig, "bond0").spec.members, ["eth3", "eth4"]);
    rig.done(SET, &set(false, &[("mode", "802.3ad")])).await;
    assert_eq!(rig.service.bonds(), []);
    rig.refused(SET, &set(false, &[]), ENOENT, "name").await;
}

#[tokio::test]
async fn the_same_request_may_come_again() {
    let rig = lacp_bond().await;
    let before = rig.dump().await;
    let again =
        [("mode", "802.3ad"), ("miimon", "100"), ("updelay", "200"), ("lacp_rate", "1"), ("slaves", "eth2 eth1")];
    for options in [&again[..], &[("slaves", "+eth1")], &[]] {
        rig.done(SET, &set(true, options)).await;
        assert!(rig.dump().await == before, "{options:?}");
    }
}

#[tokio::test]
async fn there_may_be_several_by_name_and_number() {
    let rig = Rig::new();
    let request =
        named("up", set(true, &[("mode", "active-backup"), ("slaves", "eth1 eth2"), ("active_slave", "eth2")]));
    let answer: EthMacBondSetResponse = rig.ask(SET, &EthMacBondSetRequest { vport: Some(7), ..request.clone() }).await;
    assert_eq!(answer.vport, Some(7));
    assert_eq!(bond(&rig, "up").info.unwrap().active.as_deref(), Some("eth2"));
    rig.done(SET, &set(true, &[("slaves", "eth3")])).await;
    assert_eq!(option(&bond(&rig, "bond0"), "mode"), "balance-rr 0", "the driver's default");
    rig.done(SET, &named("up", set(true, &[("active_slave", "eth1")]))).await;
    assert_eq!(bond(&rig, "up").info.unwrap().active.as_deref(), Some("eth1"));
    rig.refused(SET, &EthMacBondSetRequest { vport: Some(8), ..request }, EINVAL, "vport").await;
    // A netdev is in one bond at most.
    let said = rig.say(SET, &set(true, &[("slaves", "+eth1")])).await;
    assert!([EEXIST, EBUSY].contains(&said.status) && said.error.contains("eth1"), "{said:?}");
    rig.done(SET, &named("up", set(false, &[]))).await;
    assert_eq!(rig.service.bonds().len(), 1);
    rig.refused(SET, &named("7", set(false, &[])), ENOENT, "name").await;
}

#[tokio::test]
async fn refusals_are_those_of_the_driver_and_name_the_option() {
    let rig = Rig::new();
    for (options, status, word) in [
        (&[("lacprate", "fast")][..], EINVAL, "`lacprate`"),
        (&[("mode", "7")], EINVAL, "mode"),
        (&[("miimon", "-1")], EINVAL, "miimon"),
        (&[("lacp_rate", "fast")], EACCES, "lacp_rate"),
        (&[("mode", "802.3ad"), ("primary", "eth1")], EACCES, "primary"),
        (&[("updelay", "100")], EPERM, "updelay"),
        (&[("mode", "balance-tlb")], EOPNOTSUPP, "mode"),
        (&[("mode", "6")], EOPNOTSUPP, "mode"),
        (&[("arp_interval", "100")], EOPNOTSUPP, "arp_interval"),
        (&[("slaves", "eth1 +eth2")], EINVAL, "slaves"),
        (&[("slaves", "+a/b")], EINVAL, "a/b"),
        (&[("slaves", "-eth1")], ENOENT, "eth1"),
        (&[("slaves", "eth1"), ("active_slave", "eth1")], EACCES, "active_slave"),
        (&[("mode", "1"), ("slaves", "eth1"), ("active_slave", "eth2")], EINVAL, "active_slave"),
    ] {
        let said = rig.refused(SET, &set(true, options), status, "bond_opts").await;
        assert!(said.error.contains(word), "{}", said.error);
    }
    let rig = lacp_bond().await;
    for (option, value, status) in [
        ("mode", "active-backup", ENOTEMPTY),
        ("fail_over_mac", "active", ENOTEMPTY),
        ("lacp_rate", "slow", EBUSY),
        ("ad_select", "count", EBUSY),
        ("num_grat_arp", "256", EINVAL),
        ("slaves", "-eth9", ENOENT),
    ] {
        let both = [("min_links", "1"), (option, value)];
        let said = rig.refused(SET, &set(true, &both), status, "bond_opts").await;
        assert!(said.error.contains(option), "{}", said.error);
    }
}

#[tokio::test]
async fn a_bond_may_have_no_member_yet() {
    let rig = Rig::new();
    rig.done(SET, &set(true, &[("mode", "balance-xor")])).await;
    assert_eq!(bond(&rig, "bond0").spec.members, [""; 0]);
    // Rules name queues that members have or will have.
    let action = RuleAction { qid: Some(63), ..to(0) };
    rig.done("TrafficControl/ClassfierWrite", &rule(1, any(1), action)).await;
    let action = RuleAction { qid: Some(64), ..to(0) };
    rig.refused("TrafficControl/ClassfierWrite", &rule(1, any(1), action), EINVAL, "qid").await;
    rig.done(
        "ElasticNic/SetPortCfg",
        &SetPortCfgRequest { vport: Some(0), queue_depth: Some(512), ..Default::default() },
    )
    .await;
    rig.done(SET, &set(true, &[("slaves", "+eth1")])).await;
    assert!(bond(&rig, "bond0").info.unwrap().carrier);
    rig.assert_kept();
}

#[tokio::test]
async fn what_is_no_bond_is_left_alone() {
    let rig = Rig::new();
    let phy = PortSpec { ifname: Some("eth1".into()), ..PortSpec::new("bond0", PortKind::Phy) };
    rig.service.add_port(phy).unwrap();
    rig.refused(SET, &set(true, &[("slaves", "eth2")]), EEXIST, "name").await;
    rig.refused(SET, &set(false, &[]), ENOENT, "name").await;
    rig.refused(SET, &named("a b", set(true, &[])), EINVAL, "name").await;
    let missing = EthMacBondSetRequest { enable: None, ..set(true, &[]) };
    rig.refused(SET, &missing, EINVAL, "enable").await;
    let nameless = EthMacBondSetRequest {
        bond_opts: vec![BondOpts { opt_name: None, value: Some("1".into()) }],
        ..set(true, &[])
    };
    rig.refused(SET, &named("up", nameless), EINVAL, "bond_opts.opt_name").await;
    let nic = NewPortRequest { kind: Some("bond".into()), ..nic("nic-a") };
    rig.refused("ElasticNic/NewPort", &nic, EINVAL, "kind").await;
}

#[tokio::test]
async fn a_change_of_a_bond_that_cannot_be_kept_is_undone() {
    let rig = lacp_bond().await;
    let before = bond(&rig, "bond0").spec;
    let policy = option(&bond(&rig, "bond0"), "xmit_hash_policy");
    rig.storage.set_full(true);
    let said = rig.say(SET, &set(true, &[("xmit_hash_policy", "1"), ("slaves", "+eth3"), ("slaves", "-eth1")])).await;
    assert_ne!(said.status, 0);
    let after = bond(&rig, "bond0");
    let mut members = after.spec.members.clone();
    members.sort();
    assert_eq!((members, option(&after, "xmit_hash_policy")), (before.members, policy));
}

#[tokio::test]
async fn a_bond_whose_members_are_all_gone_is_changed_all_the_same() {
    let rig = lacp_bond().await;
    for name in ["eth1", "eth2"] {
        rig.host.set_missing(name, true);
    }
    kit::wait("the loss is noticed", || bond(&rig, "bond0").missing.len() == 2);
    rig.done(SET, &set(true, &[("slaves", "+eth3"), ("slaves", "-eth1")])).await;
    let now = bond(&rig, "bond0");
    assert_eq!((now.spec.members, now.missing), (vec!["eth2".to_owned(), "eth3".to_owned()], vec!["eth2".to_owned()]));
    rig.host.set_missing("eth2", false);
    kit::wait("it is taken up", || bond(&rig, "bond0").missing.is_empty());
}
