//! Ports that are made for `vhost:N`, with real sockets.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use ctl_service::Service;
use ctl_service::state::Store;
use ctl_spp::shell::execute;
use ctl_spp::*;
use ctl_types::ConfigRequest;
use kit::{MISSING_NETDEV, VF_AND_NFV as TWO, panel, spp_of, tables};
use switch::model::*;

/// An empty directory for sockets, and a configuration that names it.
fn place(more: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("[spp.vhost]\ndirectory = {:?}\n{more}\n{TWO}", dir.path());
    (dir, config)
}

fn socket(dir: &tempfile::TempDir, no: u32) -> PathBuf {
    dir.path().join(format!("sock{no}"))
}

fn is_socket(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.file_type().is_socket())
}

fn say(spp: &Spp, line: &str) {
    execute(spp, line).unwrap_or_else(|error| panic!("{line}: {error}"));
}

fn why(spp: &Spp, line: &str) -> String {
    execute(spp, line).unwrap_err().to_string()
}

/// Names of vhost ports that are up, with their queue pairs.
fn vhosts(service: &Service) -> Vec<(String, usize)> {
    let ports = service.ports_in_brief().into_iter().filter(|port| port.spec.kind == PortKind::Vhost);
    ports.filter_map(|port| Some((port.name, port.info?.queues.len()))).collect()
}

fn running(spp: &Spp) -> Vec<String> {
    spp.working().0.into_iter().filter(|one| one.ready).map(|component| component.name).collect()
}

#[test]
fn a_port_is_made_when_it_is_named_and_goes_when_nobody_names_it() {
    let (dir, config) = place("");
    let (_host, service, spp) = panel(&config, Store::in_memory(tables()));
    say(&spp, "nfv 2; add vhost:0");
    assert_eq!(vhosts(&service), [("vhost0".to_owned(), 1)]);
    let meta = socket(&dir, 0).symlink_metadata().unwrap();
    assert!(meta.file_type().is_socket() && meta.mode() & 0o777 == 0o660, "{meta:?}");
    UnixStream::connect(socket(&dir, 0)).unwrap();
    say(&spp, "nfv 2; patch vhost:0 phy:0");
    say(&spp, "nfv 2; forward");
    assert_eq!(running(&spp), ["nfv 2/vhost:0-phy:0"]);
    // Another instance takes what goes the other way.
    say(&spp, "vf 1; component start f 1 forward");
    say(&spp, "vf 1; port add phy:0 rx f");
    say(&spp, "vf 1; port add vhost:0 tx f");
    assert_eq!(running(&spp).len(), 2);
    say(&spp, "nfv 2; patch reset");
    say(&spp, "nfv 2; del vhost:0");
    assert_eq!(vhosts(&service).len(), 1, "the vf has it");
    say(&spp, "vf 1; port del vhost:0 tx f");
    assert_eq!(vhosts(&service), []);
    assert!(!socket(&dir, 0).exists());
    // As with SPP, the end of a process is the end of its ports.
    say(&spp, "vf 1; port add vhost:7 tx f");
    assert!(is_socket(&socket(&dir, 7)));
    say(&spp, "bye sec");
    assert!(!socket(&dir, 7).exists() && vhosts(&service).is_empty());
}

#[test]
fn a_queue_in_a_name_is_there() {
    let (_dir, config) = place("queues = 2\nmode = \"600\"");
    let (_host, service, spp) = panel(&config, Store::in_memory(tables()));
    say(&spp, "nfv 2; add vhost:1");
    say(&spp, "nfv 2; add vhost:0 nq 0");
    assert_eq!(vhosts(&service), [("vhost1".to_owned(), 2), ("vhost0".to_owned(), 2)]);
    say(&spp, "nfv 2; patch vhost:0 nq 0 vhost:1");
    say(&spp, "nfv 2; forward");
    // More queues: the port is made anew, and the patch goes on.
    say(&spp, "vf 1; component start f 1 forward");
    say(&spp, "vf 1; port add vhost:0 nq 3 rx f");
    say(&spp, "vf 1; port add ring:0 tx f");
    assert_eq!(vhosts(&service), [("vhost1".to_owned(), 2), ("vhost0".to_owned(), 4)]);
    assert_eq!(running(&spp), ["vf 1/f", "nfv 2/vhost:0nq0-vhost:1"]);
    // It keeps them.
    say(&spp, "vf 1; component stop f");
    assert_eq!(vhosts(&service)[1], ("vhost0".to_owned(), 4));
    assert!(why(&spp, "nfv 2; add vhost:0 nq 128").contains("the largest queue is 127"));
}

#[test]
fn ports_outlive_the_daemon_and_follow_the_configuration() {
    let (dir, config) = place("");
    let state = tempfile::tempdir().unwrap();
    let open = || Store::open(state.path(), tables()).unwrap();
    let number = |service: &Service| service.port("vhost3").unwrap().spec.vport;
    let before = {
        let (_host, service, spp) = panel(&config, open());
        say(&spp, "nfv 2; add vhost:3");
        say(&spp, "nfv 2; patch phy:0 vhost:3");
        say(&spp, "nfv 2; forward");
        number(&service)
    };
    {
        let (_host, service, spp) = panel(&config, open());
        assert_eq!((number(&service), running(&spp)), (before, vec!["nfv 2/phy:0-vhost:3".to_owned()]));
        assert!(is_socket(&socket(&dir, 3)));
    }
    // Sockets are elsewhere now.
    let (other, config) = place("");
    let (_host, _service, spp) = panel(&config, open());
    assert_eq!(running(&spp), ["nfv 2/phy:0-vhost:3"]);
    assert!(is_socket(&socket(&other, 3)) && !socket(&dir, 3).exists());
}

#[test]
fn a_made_port_is_no_part_of_the_configuration() {
    let (dir, config) = place("");
    let (_host, service, spp) = panel(&config, Store::in_memory(tables()));
    say(&spp, "nfv 2; add vhost:3");
    say(&spp, "nfv 2; patch phy:0 vhost:3");
    say(&spp, "nfv 2; forward");
    let vport = service.port("vhost3").unwrap().spec.vport.unwrap();
    service.add_meter(MeterSpec::new(1, 1_000_000)).unwrap();
    let binding = MeterBinding { vport, direction: MeterDirection::To, meter: 1 };
    service.bind_meter(&binding).unwrap();
    // A port that somebody has added with such a name is a part.
    let mine = VhostSpec::new(dir.path().join("mine").display().to_string());
    let mine = PortSpec { vhost: Some(mine), ..PortSpec::new("vhost9", PortKind::Vhost) };
    service.add_port(mine).unwrap();
    let exported = service.config();
    let names: Vec<_> = exported.ports.iter().map(|port| port.name.as_str()).collect();
    assert!(names.contains(&"vhost9") && !names.contains(&"vhost3"), "{names:?}");
    assert_eq!(exported.bindings, []);
    // What declares nothing of it does not take it away either, however it is applied.
    let request = ConfigRequest { config: exported, prune: true, file: None };
    service.apply_config(&request).unwrap();
    assert_eq!(running(&spp), ["nfv 2/phy:0-vhost:3"]);
    assert!(service.port("vhost3").is_ok());
}

#[test]
fn what_somebody_else_has_at_the_path_stays() {
    let (dir, config) = place("");
    let state = tempfile::tempdir().unwrap();
    let open = || Store::open(state.path(), tables()).unwrap();
    let target = dir.path().join("target");
    std::fs::write(&target, "precious").unwrap();
    std::os::unix::fs::symlink(&target, socket(&dir, 1)).unwrap();
    std::fs::write(socket(&dir, 2), "a file").unwrap();
    {
        let (_host, service, spp) = panel(&config, open());
        let squatter = UnixListener::bind(socket(&dir, 0)).unwrap();
        let before = spp.instances();
        for no in 0..3 {
            let told = why(&spp, &format!("nfv 2; add vhost:{no}"));
            assert!(told.contains(&format!("sock{no}")), "{told}");
        }
        assert_eq!((spp.instances(), vhosts(&service)), (before, vec![]), "nothing has changed");
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
        assert!(socket(&dir, 1).is_symlink());
        drop(squatter);
        // A socket that nobody listens at is not in the way.
        say(&spp, "nfv 2; add vhost:0");
        say(&spp, "nfv 2; patch phy:0 vhost:0");
        say(&spp, "nfv 2; forward");
    }
    // After a restart somebody else is there. The instance waits for its port.
    let squatter = UnixListener::bind(socket(&dir, 0)).unwrap();
    let (_host, _service, spp) = panel(&config, open());
    assert_eq!(running(&spp), [""; 0]);
    assert_eq!(spp.instances()[2].running.ports.len(), 2);
    let bad = doctor::checks(&spp).into_iter().find(|check| check.name == "SPP port vhost:0").unwrap();
    assert!(bad.text.contains("sock0"), "{}", bad.text);
    say(&spp, "nfv 2; add ring:0");
    drop(squatter);
    std::fs::remove_file(socket(&dir, 0)).unwrap();
    spp.retry();
    assert_eq!(running(&spp), ["nfv 2/phy:0-vhost:0"]);
    assert!(!doctor::checks(&spp).iter().any(|check| check.name.contains("vhost")));
}

#[test]
fn a_port_of_the_switch_with_that_name_is_used_and_stays() {
    let (dir, config) = place("");
    let guest = "[[port]]\nname = \"vm\"\nkind = \"guest\"\nspp = \"vhost:0\"\n";
    let away =
        format!("[[port]]\nname = \"away\"\nkind = \"guest\"\nspp = \"vhost:1\"\nnetns = \"{MISSING_NETDEV}\"\n");
    let (_host, service, spp) = panel(&format!("{config}{guest}{away}"), Store::in_memory(tables()));
    say(&spp, "nfv 2; add vhost:0");
    assert!(!socket(&dir, 0).exists());
    say(&spp, "nfv 2; del vhost:0");
    assert!(service.port("vm").is_ok());
    // None is made in the place of one that is not up.
    assert!(service.port("away").unwrap().info.is_none());
    assert!(why(&spp, "nfv 2; add vhost:1").contains("not up"));
    assert!(!socket(&dir, 1).exists());
    assert!(why(&spp, "nfv 2; add vhost:128").contains("vhost:0 to vhost:127 are made"));
    // A name of a port that a user has added is the user's.
    let mine = PortSpec::new("vhost5", PortKind::Guest);
    service.add_port(mine).unwrap();
    assert!(why(&spp, "nfv 2; add vhost:5").contains("vhost5"));
    assert!(service.port("vhost5").is_ok());
}

#[test]
fn held_names_make_nothing() {
    let (dir, config) = place("");
    let spp = spp_of(&config, Store::in_memory(tables()));
    say(&spp, "nfv 2; flush on");
    say(&spp, "nfv 2; add vhost:0");
    assert!(!socket(&dir, 0).exists());
    say(&spp, "nfv 2; flush");
    assert!(is_socket(&socket(&dir, 0)));
    say(&spp, "nfv 2; del vhost:0");
    assert!(is_socket(&socket(&dir, 0)), "until the flush");
    say(&spp, "nfv 2; flush");
    assert!(!socket(&dir, 0).exists());
}

#[test]
fn the_configuration_of_sockets_is_checked() {
    for (wrong, key) in [
        ("directory = \"tmp\"", "spp.vhost.directory"),
        ("queues = 0", "spp.vhost.queues"),
        ("queues = 129", "spp.vhost.queues"),
        ("mode = \"9\"", "spp.vhost.mode"),
        ("colour = 1", "colour"),
    ] {
        let told = kit::Config::parse(&format!("[spp.vhost]\n{wrong}")).unwrap_err();
        assert!(told.contains(key), "{wrong}: {told}");
    }
    let long = format!("[spp.vhost]\ndirectory = \"/{}\"", "x".repeat(100));
    assert!(kit::Config::parse(&long).unwrap_err().contains("too long"));
    assert!(kit::Config::parse("[spp]\nmax_ports = 255").unwrap_err().contains("spp.max_ports"));
}
