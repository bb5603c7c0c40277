//! vhost-user ports with QEMU as the front end: the stock kind of guest.

mod dpdk;
mod front_end;
mod hostile;
mod migration;
mod offloads;
mod restart;

use std::time::Duration;

use serde_json::{Value, json};
use tests::guest::{Setup, Vm, qemu};
use tests::{Daemon, wait};

/// Longest time that a port takes to follow its guest.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which end makes the socket.
#[derive(Clone, Copy)]
enum Server {
    Switch,
    Qemu,
}

/// A port with its socket, in the daemon's directory.
fn add_port(daemon: &Daemon, name: &str, server: Server, queues: u32) -> String {
    let socket = daemon.path(&format!("{name}.sock")).display().to_string();
    let role = match server {
        Server::Switch => "server",
        Server::Qemu => "client",
    };
    let vhost = json!({ "socket": socket, "role": role });
    daemon.ok("POST", "ports", json!({ "name": name, "kind": "vhost", "queues": queues, "vhost": vhost }));
    socket
}

/// A guest at such a socket, whose only netdev has that address and those queue pairs.
fn start_guest(socket: &str, server: Server, number: u8, pairs: u32, more: &[String]) -> Vm {
    start_guest_with(socket, server, number, pairs, "", more)
}

/// The same, with further options of the device.
fn start_guest_with(socket: &str, server: Server, number: u8, pairs: u32, device: &str, more: &[String]) -> Vm {
    let mut setup = Setup::with_addresses(&[&format!("10.0.0.{number}/24")]);
    setup.machine = "pc,memory-backend=mem".to_owned();
    // Else Linux writes to each page before the switch does, and the log of a migration is hardly needed.
    setup.append.push_str(" init_on_alloc=0");
    let wait = match server {
        Server::Switch => ",reconnect-ms=200".to_owned(),
        Server::Qemu => ",server=on,wait=off".to_owned(),
    };
    let mq = if pairs > 1 { format!(",mq=on,vectors={}", 2 * pairs + 2) } else { String::new() };
    let args = [
        "-object".to_owned(),
        format!("memory-backend-memfd,id=mem,size={}M,share=on", setup.memory),
        "-chardev".to_owned(),
        format!("socket,id=vhost,path={socket}{wait}"),
        "-netdev".to_owned(),
        format!("vhost-user,id=net,chardev=vhost,queues={pairs}"),
        "-device".to_owned(),
        format!("virtio-net-pci,netdev=net,mac=52:54:00:00:00:0{number}{mq}{device}"),
    ];
    setup.args.extend(args.into_iter().chain(more.iter().cloned()).map(Into::into));
    Vm::start(qemu(), &setup)
}

/// A guest that is up.
fn guest(daemon: &Daemon, name: &str, server: Server, number: u8) -> Vm {
    guest_with(daemon, name, server, number, "")
}

/// The same, with further options of its device.
fn guest_with(daemon: &Daemon, name: &str, server: Server, number: u8, device: &str) -> Vm {
    let socket = add_port(daemon, name, server, 1);
    let mut vm = start_guest_with(&socket, server, number, 1, device, &[]);
    vm.wait_ready();
    vm
}

fn vhost(daemon: &Daemon, port: &str) -> Value {
    daemon.get(&format!("ports/{port}"))["info"]["vhost"].clone()
}

fn expect_link(daemon: &Daemon, port: &str, up: bool) {
    let state = || daemon.get(&format!("ports/{port}"))["info"]["link_up"] == up;
    wait::expect(&format!("the link of {port} is up: {up}"), PATIENCE, state);
}

#[test]
fn guests_reach_each_other_and_a_guest_on_a_veth() {
    let daemon = Daemon::start("vhost");
    let veth = daemon.guest("c", json!({}));
    veth.address("10.0.0.3/24");
    let mut a = guest(&daemon, "a", Server::Switch, 1);
    let mut b = guest(&daemon, "b", Server::Qemu, 2);
    assert!(a.pings("10.0.0.2"), "from vhost to vhost");
    assert!(b.pings("10.0.0.3"), "from vhost to veth");
    // Sizes around those of the guest's buffers, and the largest.
    for size in [18, 1400, 1472] {
        a.sh(&format!("ping -A -c 3 -W 2 -s {size} 10.0.0.2"));
    }
    let info = daemon.get("ports/a")["info"].clone();
    assert_eq!((&info["link_up"], &info["active_queues"]), (&json!(true), &json!(1)));
    assert_eq!(vhost(&daemon, "a")["connected"], true);
    let rows = daemon.get("fdb");
    let learned = |mac: &str| rows.as_array().is_some_and(|rows| rows.iter().any(|row| row["mac"] == mac));
    assert!(learned("52:54:00:00:00:01") && learned("52:54:00:00:00:02"), "{rows}");
    drop(a);
    expect_link(&daemon, "a", false);
    daemon.assert_balanced();
    daemon.finish();
}

#[test]
fn a_port_takes_the_next_guest() {
    let daemon = Daemon::start("vhostnext");
    let socket = add_port(&daemon, "a", Server::Switch, 1);
    let mut b = guest(&daemon, "b", Server::Switch, 2);
    for _ in 0..2 {
        let mut a = start_guest(&socket, Server::Switch, 1, 1, &[]);
        a.wait_ready();
        assert!(b.pings("10.0.0.1"));
        a.kill();
        expect_link(&daemon, "a", false);
    }
    assert_eq!(vhost(&daemon, "a")["sessions"], 2);
    daemon.assert_balanced();
    daemon.finish();
}

#[test]
fn several_queues_are_used_as_the_guest_sets_them() {
    let daemon = Daemon::start("vhostmq");
    let socket = add_port(&daemon, "a", Server::Switch, 2);
    let mut a = start_guest(&socket, Server::Switch, 1, 2, &[]);
    a.wait_ready();
    let mut b = guest(&daemon, "b", Server::Switch, 2);
    let active = |count: u32| {
        wait::expect(&format!("{count} pairs"), PATIENCE, || vhost(&daemon, "a")["active_pairs"] == count);
    };
    for pairs in [1, 2, 2, 1, 2] {
        a.sh(&format!("ethtool -L eth0 combined {pairs}"));
        active(pairs);
        assert!(a.pings("10.0.0.2"), "{pairs} pairs");
        assert!(b.pings("10.0.0.1"), "{pairs} pairs");
    }
    a.sh("ip link set eth0 down; ip link set eth0 up");
    assert!(b.pings("10.0.0.1"), "after the link was down");
    daemon.finish();
}
