//! Bonds that a file declares, edited, renamed and restarted.

use ctl_types::*;
use switch::model::*;

use crate::{Rig, told};

fn bond(members: &str, options: &str) -> String {
    format!(
        "[[port]]\nname = \"up\"\nkind = \"bond\"\n[port.bond]\nmembers = [{members}]\n[port.bond.options]\n{options}\n"
    )
}

const TWO: &str = "\"eth1\", \"eth2\"";
const LACP: &str = "mode = \"802.3ad\"\nmiimon = 100\nupdelay = 250\nlacp_rate = \"fast\"";

fn info(rig: &Rig) -> BondInfo {
    rig.service.bond("up").unwrap().info.unwrap()
}

fn members(rig: &Rig) -> Vec<String> {
    let mut members = rig.service.bond("up").unwrap().spec.members;
    members.sort();
    members
}

#[test]
fn a_declared_bond_is_changed_in_operation_where_the_driver_does_that() {
    let rig = Rig::start(&bond(TWO, LACP));
    let ways =
        |rig: &Rig| info(rig).members.iter().map(|member| (member.number, member.ifname.clone())).collect::<Vec<_>>();
    let before = ways(&rig);
    // The same in other words.
    let same = "mode = 4\nmiimon = \"100\"\nupdelay = 200\nlacp_rate = 1\nmin_links = 0";
    assert_eq!(rig.reload(&bond("\"eth2\", \"eth1\"", same)).unwrap().changes, []);
    let done =
        rig.reload(&bond("\"eth2\", \"eth1\", \"eth3\"", &format!("{LACP}\nxmit_hash_policy = \"layer3+4\""))).unwrap();
    assert_eq!(told(&done), ["~port up"]);
    assert_eq!(info(&rig).options["xmit_hash_policy"], "layer3+4 1");
    assert_eq!(ways(&rig)[..2], before, "the others have kept their places");
    assert_eq!(members(&rig), ["eth1", "eth2", "eth3"]);
    let done = rig.reload(&bond(TWO, LACP)).unwrap();
    assert_eq!((told(&done), ways(&rig)), (vec!["~port up".to_owned()], before));
    assert_eq!(info(&rig).options["xmit_hash_policy"], "layer2 0");
    let done = rig.reload(&bond(TWO, "mode = \"active-backup\"")).unwrap();
    assert_eq!((told(&done), info(&rig).mode.as_str()), (vec!["-/+port up".to_owned()], "active-backup"));
    assert_eq!(told(&rig.reload("").unwrap()), ["-port up"]);
    assert_eq!(rig.service.bonds(), []);
}

#[test]
fn options_set_at_run_time_are_as_declared_again_and_the_bond_outlives_restarts() {
    let rig = Rig::start(&bond(TWO, LACP));
    let options = [("min_links".to_owned(), "2".to_owned())].into();
    rig.service.update_bond("up", BondUpdate { options, ..BondUpdate::default() }).unwrap();
    let done = rig.reload(&bond(TWO, LACP)).unwrap();
    assert!(told(&done) == ["~port up"] && done.changes[0].run_time, "{done:?}");
    assert_eq!(info(&rig).options["min_links"], "0");
    let (before, options) = (rig.kept(), info(&rig).options);
    let rig = rig.restart(&bond(TWO, LACP));
    assert_eq!((rig.kept(), info(&rig).options), (before, options));
    // One edited while the daemon was away.
    let rig = rig.restart(&bond("\"eth1\"", "mode = 1\nprimary = \"eth1\""));
    assert_eq!((members(&rig), info(&rig).active.as_deref()), (vec!["eth1".to_owned()], Some("eth1")));
}

#[test]
fn a_member_that_was_renamed_is_followed_until_the_file_is_edited() {
    let rig = Rig::start(&bond(TWO, LACP));
    rig.host.rename("eth1", "lan1");
    kit::wait("the bond follows", || members(&rig) == ["eth2", "lan1"]);
    assert_eq!(rig.reload(&bond(TWO, LACP)).unwrap().changes, []);
    let rig = rig.restart(&bond(TWO, LACP));
    assert_eq!(members(&rig), ["eth2", "lan1"]);
    let done = rig.reload(&bond("\"lan1\", \"eth2\", \"eth3\"", LACP)).unwrap();
    assert_eq!(
        (told(&done), members(&rig)),
        (vec!["~port up".to_owned()], ["eth2", "eth3", "lan1"].map(str::to_owned).to_vec())
    );
}

#[test]
fn a_bond_comes_back_without_the_member_that_is_missing() {
    let rig = Rig::start(&bond(TWO, LACP));
    rig.host.set_missing("eth2", true);
    let rig = rig.restart(&bond(TWO, LACP));
    let entry = rig.service.bond("up").unwrap();
    assert_eq!(
        (entry.missing, entry.spec.members),
        (vec!["eth2".to_owned()], vec!["eth1".to_owned(), "eth2".to_owned()])
    );
    kit::wait("it is told", || rig.service.bond("up").unwrap().state == PortState::Degraded);
    rig.host.set_missing("eth2", false);
    kit::wait("it is taken up", || rig.service.bond("up").unwrap().missing.is_empty());
}

#[test]
fn a_mistake_in_a_bond_is_refused_with_its_port_and_option() {
    let rig = Rig::start(&bond(TWO, LACP));
    let before = rig.kept();
    for (members, options, word) in [
        (TWO, "mode = 9", "mode"),
        (TWO, "lacprate = 1", "lacprate"),
        (TWO, "lacp_rate = 1", "lacp_rate"),
        (TWO, "slaves = \"+eth3\"", "slaves"),
        ("\"eth1\", \"eth1\"", LACP, "eth1"),
    ] {
        let error = rig.reload(&bond(members, options)).unwrap_err().to_string();
        assert!(error.contains("`up`") && error.contains(word), "{error}");
        assert_eq!(rig.kept(), before);
    }
}
