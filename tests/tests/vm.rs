//! QEMU and its guest from `make qemu`. The tests with real guests build on them.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tests::guest::{Setup, Vm, as_nobody, qemu};
use tests::shell;

/// A guest in a QEMU of user `nobody`.
fn start(setup: &Setup) -> Vm {
    let mut command = qemu();
    as_nobody(&mut command);
    Vm::launch(command, setup)
}

#[test]
fn qemu_has_af_xdp() {
    let netdevs = shell::run(qemu().args(["-nodefaults", "-netdev", "help"]));
    assert!(netdevs.lines().any(|line| line == "af-xdp"), "{netdevs}");
}

#[test]
fn a_guest_of_nobody_runs_commands_and_turns_itself_off() {
    let mut vm = start(&Setup { append: "xswitch.hostname=alpha".to_owned(), ..Setup::default() });
    let status = std::fs::read_to_string(format!("/proc/{}/status", vm.pid())).expect("a process");
    assert!(status.contains("Uid:\t65534\t65534\t65534\t65534\n"), "{status}");

    assert_eq!(vm.sh("hostname"), "alpha\n");
    let output = vm.console.run("echo out; echo err >&2; printf end; exit 3").expect("an answer");
    assert_eq!((output.status, output.stdout.as_str()), (3, "out\nerr\nend"));
    assert_eq!(vm.console.run("no-such-program 2>/dev/null").expect("an answer").status, 127);
    // More output than all buffers on the way hold.
    assert_eq!(vm.sh("seq 20000"), (1..=20_000).map(|number| format!("{number}\n")).collect::<String>());
    // A background process lives on.
    vm.sh("iperf3 -s >/tmp/server 2>&1 &");
    let report = vm.sh("for try in 1 2 3 4 5; do iperf3 -c 127.0.0.1 -t 1 && exit; sleep 1; done; exit 1");
    assert!(report.contains("receiver"), "{report}");
    assert_eq!(vm.power_off().code(), Some(0));
}

#[test]
fn a_command_that_takes_too_long_is_an_error_that_tells_what_came() {
    let mut vm = start(&Setup::default());
    let late = vm.console.run_within("echo started; sleep 30", Duration::from_secs(3)).expect_err("no answer");
    assert!(late.contains("started"), "{late}");
    // The guard ends the guest in the midst of it.
    let process = format!("/proc/{}", vm.pid());
    drop(vm);
    assert!(!Path::new(&process).exists(), "QEMU lives on");
}

#[test]
fn netdevs_are_set_up_at_boot_and_when_plugged_in() {
    let mut setup = Setup::with_addresses(&["10.0.0.1/24", "10.0.1.1/24"]);
    setup.mtus = vec![1400];
    for (name, mac) in [("a", 1), ("b", 2)] {
        setup.args.extend(["-netdev".into(), format!("hubport,id={name},hubid=0").into()]);
        let nic = format!("virtio-net-pci,netdev={name},mac=52:54:00:00:00:0{mac},romfile=");
        setup.args.extend(["-device".into(), nic.into()]);
    }
    let mut vm = start(&setup);
    let links = vm.sh("ip -o link; ip -o -4 address");
    for part in [
        "MULTICAST,UP,LOWER_UP> mtu 1400",
        "MULTICAST,UP,LOWER_UP> mtu 1500",
        "52:54:00:00:00:02",
        "10.0.0.1/24",
        "10.0.1.1/24",
    ] {
        assert!(links.contains(part), "{part} in {links}");
    }

    let mut qmp = vm.qmp();
    let refused = qmp.fails("device_del", json!({ "id": "nic" })).1;
    assert!(refused.contains("not found"), "{refused}");
    qmp.ok("netdev_add", json!({ "type": "hubport", "id": "c", "hubid": 0 }));
    let nic =
        json!({ "driver": "virtio-net-pci", "id": "nic", "netdev": "c", "mac": "52:54:00:00:00:03", "romfile": "" });
    qmp.ok("device_add", nic);
    vm.sh("net-up eth2 10.0.2.1/24 1300");
    assert!(vm.sh("ip -o link show eth2").contains("mtu 1300"));
    assert_eq!(vm.sh("cat /sys/class/net/eth2/address"), "52:54:00:00:00:03\n");
    qmp.ok("device_del", json!({ "id": "nic" }));
    qmp.event("DEVICE_DELETED", "device", "nic");
    assert_ne!(vm.console.run("ip link show eth2").expect("an answer").status, 0);
}

#[test]
fn qemu_that_does_not_start_is_told_with_what_it_said() {
    let launch = || {
        let setup = Setup { args: vec!["-device".into(), "no-such-device".into()], ..Setup::default() };
        start(&setup)
    };
    let panic = std::panic::catch_unwind(launch).expect_err("no guest");
    let text = panic.downcast_ref::<String>().expect("a text");
    assert!(text.contains("no-such-device"), "{text}");
}
