//! What SPP's users see: names of queues, a primary that starts again, types of ports that are not there.

use ctl_service::state::Store;
use ctl_spp::Proc;
use ctl_spp::shell::execute;
use kit::{VF_AND_NFV as TWO, spp_of, tables};

use super::shell::{FLOW, assert_saved, say, say_all, spp};

#[test]
fn queues_are_shown_as_spp_prints_them() {
    let spp = spp();
    say_all(
        &spp,
        &[
            "vf 1; component start cls 1 classifier",
            "vf 1; port add phy:0 nq 0 rx cls",
            "vf 1; port add phy:0 nq 1 tx cls",
            "vf 1; classifier_table add mac 52:54:00:01:00:01 phy:0 nq 1",
            "nfv 2; add ring:0",
            "nfv 2; patch phy:0 nq 1 ring:0",
        ],
    );
    let shown = say(&spp, "vf 1; status");
    for part in [
        "  - ports: [phy:0 nq 0, phy:0 nq 1]\n",
        "  - 52:54:00:01:00:01, phy:0 nq 1\n",
        "    - rx: phy:0 nq 0\n    - tx: phy:0 nq 1\n",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let shown = say(&spp, "nfv 2; status");
    assert!(shown.ends_with("- ports:\n  - phy:0 nq 0\n  - phy:0 nq 1 -> ring:0\n  - ring:0\n"), "{shown}");
    assert_saved(&spp).unwrap();
}

#[test]
fn the_primary_can_be_started_again_after_bye() {
    let cores = "[[spp.process]]\ntype = \"primary\"\ncores = [0, 7]\n";
    let spp = spp_of(&format!("{cores}{TWO}"), Store::in_memory(tables()));
    say(&spp, FLOW);
    say(&spp, "bye all");
    assert!(execute(&spp, "pri; status").is_err() && execute(&spp, "pri; launch vf 1 -l 0,1,2").is_err());
    assert_eq!(say(&spp, "pri; launch primary"), "Launched primary.\n");
    assert_eq!(spp.instance(Proc::PRIMARY).unwrap().cores, [0, 7], "those of the configuration");
    assert!(spp.flow_rules(0).is_empty());
    say_all(&spp, &["pri; launch vf 1 -l 0,1,2", "vf 1; component start f 1 forward", "pri; exit"]);
    assert_eq!(say(&spp, "pri; launch primary -l 3,4"), "Launched primary.\n");
    assert_eq!(spp.instance(Proc::PRIMARY).unwrap().cores, [3, 4]);
    assert_eq!(spp.processes().len(), 2);
}

#[test]
fn memif_is_refused_with_what_there_is_instead() {
    let spp = spp();
    let lines =
        ["nfv 2; add memif:1", "pri; add memif:1", "vf 1; add memif:1", "pri; launch pcap 8 -l 0 -- -c memif:1"];
    for line in lines {
        let told = execute(&spp, line).unwrap_err().to_string();
        assert!(told.contains("memif:1: memif is not supported here") && told.contains("ring:1"), "{line}: {told}");
    }
}
