//! The checks of `xswitch doctor` for instances and their surroundings.

use ctl_service::state::Store;
use ctl_spp::doctor::checks;
use ctl_spp::{Proc, Spp};
use ctl_types::{Check, Status};
use kit::{VF_AND_NFV as TWO, spp_of, tables};

fn bad(spp: &Spp) -> Vec<String> {
    let bad = checks(spp).into_iter().filter(|check| check.status != Status::Ok);
    bad.map(|check| format!("{}: {}", check.name, check.text)).collect()
}

#[test]
fn what_is_as_it_should_be_is_told_in_a_line() {
    let spp = spp_of(TWO, Store::in_memory(tables()));
    assert_eq!(bad(&spp), [""; 0]);
    assert_eq!(checks(&spp)[0], Check::ok("SPP REST API", "on 127.0.0.1:7777"));
}

#[test]
fn an_open_address_and_an_absent_controller_are_told() {
    let config = format!("[spp]\nlisten = \"0.0.0.0:7777\"\ndirectory = \"/nonexistent\"\n[spp.controller]\n{TWO}");
    let spp = spp_of(&config, Store::in_memory(tables()));
    spp.set_link(Proc::PRIMARY, None);
    spp.set_link(spp.processes()[1], Some("Connection refused".to_owned()));
    let bad = bad(&spp);
    for (told, why) in bad.iter().zip([
        "SPP REST API: on 0.0.0.0:7777: whoever",
        "spp-ctl for vf 1: not connected to 127.0.0.1: Connection refused",
        "SPP directory: /nonexistent is not there",
    ]) {
        assert!(told.starts_with(why), "{bad:?}");
    }
    assert_eq!(bad.len(), 3);
}
