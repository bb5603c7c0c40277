//! The double of QEMU does what it says, as an ordinary user. Tests of what starts a QEMU build on it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tests::qemu_double::{Double, NOBODY, UMEM_BYTES, XskNetdev, binary, unprivileged};
use tests::qmp::Qmp;
use tests::raw::RawSocket;
use tests::veth::{End, Veth, address, mac};
use tests::{Frame, Mac, NetNs, shell, wait};

const GUEST: &str = "10.0.0.1";
const KERNEL: &str = "10.0.0.2";
const MAC: &str = "02:00:00:00:00:01";
const SOON: Duration = Duration::from_secs(5);
/// Room for several at a time, because the limit counts all processes of a user.
const MEMLOCK: u64 = 64 * UMEM_BYTES;

/// `vm0` is for the double. `sw0` at the other end has an address of the kernel's.
fn wire(ns: &NetNs, queues: u32) -> (End<'_>, End<'_>) {
    let (vm, sw) = (End { ns, ifname: "vm0" }, End { ns, ifname: "sw0" });
    Veth { queues, ..Veth::default() }.connect(vm, sw);
    address(sw, &format!("{KERNEL}/24"));
    (vm, sw)
}

/// A directory open to everybody.
fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).expect("it is ours");
    dir
}

fn netdev(fd: &OwnedFd) -> String {
    let number = fd.as_raw_fd();
    format!("af-xdp,id=n0,ifname=vm0,mode=native,queues=1,inhibit=on,sock-fds={number}")
}

/// The double as nobody, with one netdev and one device.
fn command(ns: &NetNs, memlock: u64, fd: &OwnedFd) -> Command {
    let mut command = ns.command(binary());
    command.args(["-m", "128", "-nographic", "-netdev", &netdev(fd)]);
    command.args(["-device", &format!("virtio-net-pci,netdev=n0,id=net0,mac={MAC}")]);
    command.args(["-guest", &format!("ip={GUEST}/24")]);
    unprivileged(&mut command, memlock, &[fd]);
    command
}

/// Starts a double. The kernel frees a queue some time after its socket is closed. So a double right after another may
/// find the queue busy.
fn start(ns: &NetNs, netdev: &mut XskNetdev<'_>) -> Double {
    let started = wait::until(SOON, || {
        let fd = netdev.socket(0);
        let mut double = Double::spawn(command(ns, MEMLOCK, &fd));
        drop(fd);
        if double.gets_ready() {
            return Some(double);
        }
        double.wait();
        let busy = || double.errors().contains("queue_id: 0: Device or resource busy").then_some(());
        assert!(wait::until(SOON, busy).is_some(), "{}", double.errors());
        None
    });
    started.expect("the queue becomes free")
}

fn kernel_pings(ns: &NetNs) -> bool {
    let mut ping = ns.command("ping");
    shell::output(ping.args(["-c", "3", "-i", "0.02", "-W", "2", GUEST])).status.success()
}

#[test]
fn an_unprivileged_double_and_the_kernel_reach_each_other_again_after_each_start() {
    let ns = NetNs::new("double");
    let (vm, _) = wire(&ns, 1);
    let mut netdev = XskNetdev::new(&ns, vm.ifname);
    let mut double = start(&ns, &mut netdev);
    let status = double.status();
    for (field, value) in [("uid", json!(NOBODY)), ("gid", json!(NOBODY)), ("groups", json!([]))] {
        assert_eq!(status[field], value, "{field}: {status}");
    }
    // It is exempt from the limit where that can't be raised.
    let capabilities = if status["memlock"] == MEMLOCK { "0000000000000000" } else { "0000000000004000" };
    assert_eq!(status["cap_eff"], capabilities, "{status}");
    assert!(double.ping(KERNEL) && kernel_pings(&ns));
    double.kill();
    double.wait();
    let mut double = start(&ns, &mut netdev);
    assert!(double.ping(KERNEL));
    double.terminate();
    assert_eq!(double.wait().code(), Some(0));
    let told = || double.errors().contains("qemu-double: terminating on signal 15").then_some(());
    assert!(wait::until(SOON, told).is_some(), "{}", double.errors());
    let mut double = start(&ns, &mut netdev);
    assert!(kernel_pings(&ns));
    double.say("crash");
    assert_eq!(double.wait().code(), None);
    let mut double = start(&ns, &mut netdev);
    double.say("exit 7");
    assert_eq!(double.wait().code(), Some(7));
}

#[test]
fn frames_that_are_nothing_for_its_stack_are_kept_and_sent_as_they_are() {
    let ns = NetNs::new("frames");
    let (vm, sw) = wire(&ns, 1);
    let mut netdev = XskNetdev::new(&ns, vm.ifname);
    let mut double = start(&ns, &mut netdev);
    let raw = RawSocket::open(&ns, sw.ifname);
    let guest: Mac = MAC.parse().expect("an address");
    let there = Frame::ethernet(mac(sw), guest).payload(0x88b5, b"there");
    raw.send(&there);
    assert_eq!(double.ask("recv 2000"), there.hex());
    assert_eq!(double.ask("recv 0"), "none");
    let back = Frame::ethernet(guest, Mac::BROADCAST).payload(0x88b5, b"back");
    assert_eq!(double.ask(&format!("send {}", back.hex())), "ok");
    assert!(raw.recv_if(SOON, |frame| *frame == back).is_some());
    // A frame that is too long for a chunk is lost in silence.
    assert_eq!(double.ask(&format!("send {}", back.padded(4097).hex())), "ok");
    let counts = double.ask_json("count");
    assert_eq!((&counts["rx"], &counts["tx"], &counts["swallowed"]), (&json!(1), &json!(1), &json!(1)), "{counts}");
    // More frames than the kernel takes in one call and the pool holds. Only the main loop's poll sends them.
    let to = mac(sw);
    let numbered = |n: u32| Frame::ethernet(guest, to).payload(0x88b6, &n.to_be_bytes());
    let lines: Vec<String> = (0..9000).map(|n| format!("send {}", numbered(n).hex())).collect();
    assert!(double.ask_all(&lines).iter().all(|answer| answer == "ok"));
    for n in 0..9000 {
        let frame = raw.recv_if(SOON, |frame| frame.0[12..14] == [0x88, 0xb6]).expect("a frame");
        assert_eq!(frame, numbered(n));
    }
    assert!(double.ping(KERNEL));
}

#[test]
fn too_little_lockable_memory_is_told_as_qemu_tells_it() {
    let ns = NetNs::new("memlock");
    let (vm, _) = wire(&ns, 1);
    let fd = XskNetdev::new(&ns, vm.ifname).socket(0);
    let ended = shell::output(&mut command(&ns, UMEM_BYTES / 8, &fd));
    assert_eq!(ended.status.code(), Some(1));
    let netdev = netdev(&fd);
    let reason = "failed to create umem for vm0 queue_index: 0: No buffer space available";
    assert_eq!(shell::text(&ended), format!("qemu-double: -netdev {netdev}: {reason}\n"));
}

#[test]
fn only_the_last_of_several_queues_is_read() {
    let ns = NetNs::new("queues");
    let (vm, _) = wire(&ns, 2);
    let mut netdev = XskNetdev::new(&ns, vm.ifname);
    let fds = [netdev.socket(0), netdev.socket(1)];
    let mut command = ns.command(binary());
    let list = fds.each_ref().map(|fd| fd.as_raw_fd().to_string()).join(":");
    command.args(["-netdev", &format!("af-xdp,id=n0,ifname=vm0,queues=2,inhibit=on,force-copy=on,sock-fds={list}")]);
    command.args(["-device", "virtio-net-pci,netdev=n0,mq=on,vectors=6"]);
    unprivileged(&mut command, MEMLOCK, &fds.each_ref());
    let mut double = Double::spawn(command);
    double.wait_ready();
    let counts = double.ask_json("count");
    assert_eq!((&counts["queues"][0]["reads"], &counts["queues"][1]["reads"]), (&json!(false), &json!(true)));
}

#[test]
fn a_privileged_one_opens_its_socket_and_puts_it_into_a_pinned_map() {
    let ns = NetNs::new("map");
    let (vm, _) = wire(&ns, 1);
    let mut netdev = XskNetdev::new(&ns, vm.ifname);
    let pins = BpfFs::mount();
    let path = pins.0.path().join("sockets");
    netdev.pin(&path);
    let command = |path: &Path| {
        let mut command = ns.command(binary());
        let netdev = format!("af-xdp,id=n0,ifname=vm0,inhibit=on,map-path={},map-start-index=0", path.display());
        command.args(["-netdev", &netdev, "-device", "virtio-net-pci,netdev=n0", "-guest", &format!("ip={GUEST}")]);
        command
    };
    let mut double = Double::spawn(command(&path));
    double.wait_ready();
    assert!(double.ping(KERNEL) && kernel_pings(&ns));
    double.terminate();
    assert_eq!(double.wait().code(), Some(0));
    assert_eq!(double.errors().matches("unable to remove").count(), 0, "{}", double.errors());
    let started = wait::until(SOON, || {
        let ended = shell::output(&mut command(&pins.0.path().join("nothing")));
        let text = shell::text(&ended);
        (!text.contains("Device or resource busy")).then_some(text)
    });
    let text = started.expect("the queue becomes free");
    assert!(text.contains("failed to insert AF_XDP socket into map") && text.contains("No such file"), "{text}");
}

/// A bpffs of its own, unmounted on drop.
struct BpfFs(tempfile::TempDir);

impl BpfFs {
    fn mount() -> Self {
        let dir = directory();
        shell::run(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(dir.path()));
        Self(dir)
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// Number of its open sockets, of all kinds.
fn sockets(double: &mut Double) -> usize {
    let status = double.status();
    let open = status["open_fds"].as_object().expect("an object").values();
    open.filter(|target| target.as_str().is_some_and(|target| target.starts_with("socket:"))).count()
}

/// Makes a netdev on a named socket. Repeats that while the queue is busy. Each attempt consumes a socket.
fn plug(qmp: &mut Qmp, netdev: &mut XskNetdev<'_>, backend: &Value) {
    let added = wait::until(SOON, || {
        qmp.getfd("a", &netdev.socket(0));
        let answer = qmp.execute("netdev_add", backend.clone(), None);
        let busy = answer["error"]["desc"].as_str().is_some_and(|desc| desc.contains("Device or resource busy"));
        assert!(busy || answer.get("return").is_some(), "{answer}");
        (!busy).then_some(())
    });
    added.expect("the queue becomes free");
}

fn monitored(command: &mut Command, path: &Path) {
    command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", path.display()));
}

#[test]
fn a_netdev_is_plugged_and_unplugged_while_it_runs() {
    let ns = NetNs::new("hotplug");
    let (vm, _) = wire(&ns, 1);
    let mut netdev = XskNetdev::new(&ns, vm.ifname);
    let dir = directory();
    let path = dir.path().join("qmp");
    let mut command = ns.command(binary());
    monitored(&mut command, &path);
    command.args(["-guest", &format!("netdev=n0,ip={GUEST}")]);
    unprivileged(&mut command, MEMLOCK, &[]);
    let mut double = Double::spawn(command);
    double.wait_ready();
    let mut qmp = Qmp::connect(&path);
    assert_eq!(qmp.ok("query-version", Value::Null)["qemu"], json!({ "major": 10, "minor": 2, "micro": 2 }));
    assert_eq!(qmp.ok("query-status", json!({}))["running"], true);
    assert_eq!(qmp.fails("query-kvm", Value::Null).0, "CommandNotFound");
    assert_eq!(qmp.fails("getfd", json!({ "fdname": "a" })).1, "No file descriptor supplied via SCM_RIGHTS");
    let backend =
        json!({ "type": "af-xdp", "id": "n0", "ifname": "vm0", "mode": "native", "inhibit": true, "sock-fds": "a" });
    let device = json!({ "driver": "virtio-net-pci", "netdev": "n0", "id": "net0", "mac": MAC });
    assert!(qmp.fails("netdev_add", backend.clone()).1.contains("File descriptor named 'a' has not been found"));
    assert_eq!(qmp.fails("device_add", device.clone()).1, "Property 'virtio-net-pci.netdev' can't find value 'n0'");
    let before = sockets(&mut double);
    for _ in 0..2 {
        plug(&mut qmp, &mut netdev, &backend);
        assert_eq!(qmp.fails("closefd", json!({ "fdname": "a" })).0, "GenericError", "the netdev has it");
        assert!(qmp.fails("netdev_add", backend.clone()).1.contains("Duplicate ID"));
        qmp.ok("device_add", device.clone());
        assert!(qmp.fails("device_add", json!({ "driver": "e1000", "netdev": "n0" })).1.contains("in use"));
        assert!(double.ping(KERNEL) && kernel_pings(&ns));
        qmp.events.clear();
        qmp.ok("device_del", json!({ "id": "net0" }));
        qmp.event("DEVICE_DELETED", "device", "net0");
        assert_eq!(sockets(&mut double), before + 1);
        qmp.ok("netdev_del", json!({ "id": "n0" }));
        assert_eq!(sockets(&mut double), before);
        assert_eq!(qmp.fails("netdev_del", json!({ "id": "n0" })).0, "DeviceNotFound");
        assert_eq!(qmp.fails("device_del", json!({ "id": "net0" })).0, "DeviceNotFound");
    }
    qmp.ok("quit", Value::Null);
    assert_eq!(double.wait().code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn a_deleted_netdev_keeps_its_socket_for_as_long_as_its_device_stays() {
    let ns = NetNs::new("hold");
    let (vm, _) = wire(&ns, 1);
    let mut netdev = XskNetdev::new(&ns, vm.ifname);
    let dir = directory();
    let path = dir.path().join("qmp");
    let fd = netdev.socket(0);
    let mut command = command(&ns, MEMLOCK, &fd);
    monitored(&mut command, &path);
    command.env("QEMU_DOUBLE_KEEP_DEVICE", "1").env("QEMU_DOUBLE_FAIL", "getfd");
    let mut double = Double::spawn(command);
    double.wait_ready();
    assert!(double.ping(KERNEL));
    let mut qmp = Qmp::connect(&path);
    let refused = qmp.execute("getfd", json!({ "fdname": "a" }), Some(fd.as_raw_fd()));
    assert_eq!(refused["error"]["class"], "GenericError", "{refused}");
    qmp.ok("device_del", json!({ "id": "net0" }));
    let (class, desc) = qmp.fails("device_del", json!({ "id": "net0" }));
    assert_eq!((class.as_str(), desc.as_str()), ("GenericError", "Device net0 is already in the process of unplug"));
    assert!(kernel_pings(&ns), "the guest uses it still");
    let before = sockets(&mut double);
    qmp.ok("netdev_del", json!({ "id": "n0" }));
    assert_eq!(qmp.fails("netdev_del", json!({ "id": "n0" })).0, "DeviceNotFound");
    assert_eq!(sockets(&mut double), before);
    let lost = double.ask(&format!("ping {KERNEL} 1 0"));
    assert_eq!(lost, "received 0 of 1", "its link is down");
    assert!(qmp.events.is_empty(), "{:?}", qmp.events);
}

#[test]
fn versions_backends_and_wrong_options_are_told_as_qemu_tells_them() {
    let run = |args: &[&str]| {
        let ended = shell::output(Command::new(binary()).args(args).stdin(Stdio::null()));
        (ended.status.code(), shell::text(&ended))
    };
    assert!(run(&["--version"]).1.starts_with("QEMU emulator version 10.2.2\n"));
    let (code, list) = run(&["-M", "none", "-netdev", "help"]);
    assert_eq!((code, list.lines().any(|line| line == "af-xdp")), (Some(0), true));
    let without = shell::output(Command::new(binary()).args(["-netdev", "help"]).env("QEMU_DOUBLE_NO_AF_XDP", "1"));
    assert!(!shell::text(&without).contains("af-xdp"));
    for (options, message) in [
        ("id=n,ifname=lo,inhibit=on,sock-fds=3:4", "expected 1 socket fds, got 2"),
        ("id=n,ifname=lo,inhibit=on", "'inhibit=on' requires 'sock-fds' or 'map-path'"),
        ("id=n,ifname=lo,sock-fds=3", "'sock-fds' and 'map-path' require 'inhibit=on'"),
        ("id=n,ifname=lo,inhibit=on,sock-fds=3,map-path=/x", "'sock-fds' and 'map-path' are mutually exclusive"),
        ("id=n,ifname=lo,inhibit=on,sock-fds=3,map-start-index=1", "'map-start-index' requires 'map-path'"),
        ("id=n,ifname=lo,inhibit=on,sock-fds=name", "Invalid file descriptor number 'name'"),
        ("id=n,ifname=lo,inhibit=on,sock-fds=999", "failed to create umem for lo queue_index: 0: Bad file descriptor"),
        ("id=n,ifname=none0", "failed to get ifindex for 'none0': No such device"),
        ("id=n,ifname=lo,queues=0", "invalid number of queues (0) for 'lo'"),
        ("id=n,ifname=lo,inhibit=maybe", "Parameter 'inhibit' expects 'on' or 'off'"),
        ("id=n,ifname=lo,mode=fast", "Parameter 'mode' does not accept value 'fast'"),
        ("id=n", "Parameter 'ifname' is missing"),
        ("ifname=lo", "Parameter 'id' is missing"),
        ("id=n,ifname=lo,speed=9", "Invalid parameter 'speed'"),
    ] {
        let options = format!("af-xdp,{options}");
        let expected = format!("qemu-double: -netdev {options}: {message}\n");
        assert_eq!(run(&["-netdev", &options]), (Some(1), expected));
    }
    let device = "virtio-net-pci,netdev=n0";
    let expected = format!("qemu-double: -device {device}: Property 'virtio-net-pci.netdev' can't find value 'n0'\n");
    assert_eq!(run(&["-device", device]), (Some(1), expected));
    // Messages begin with the program's name.
    let dir = directory();
    let other = dir.path().join("qemu-system-x86_64");
    symlink(binary(), &other).expect("a link");
    let ended = shell::output(Command::new(&other).args(["-netdev", "fast,id=n"]));
    assert!(shell::text(&ended).starts_with("qemu-system-x86_64: -netdev fast,id=n: Parameter 'type'"));
}
