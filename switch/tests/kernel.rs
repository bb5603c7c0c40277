//! The data plane on real netdevs. Each test has a network namespace of its own, which ends with its thread.
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(unsafe_code, reason = "packet memory without a switch")]

use std::alloc::{Layout, alloc};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use switch::io::queue_rings::RingMemory;
use switch::io::socket::{SocketOptions, UmemSharers, XskSocket};
use switch::io::sys::{self, RingKind};
use switch::io::umem::{FrameCache, Umem};
use switch::model::*;
use switch::{ErrorKind, PinPlace, Places, Switch};

fn settings(workers: usize) -> DataplaneSettings {
    DataplaneSettings { workers, frames: 16_384, ..DataplaneSettings::default() }
}

/// The first so many queues of guests share UMEM, and further ones have a UMEM of their own.
fn sharing(workers: usize, shared_queues: u32) -> DataplaneSettings {
    DataplaneSettings { frames: 32_768, shared_queues, ..settings(workers) }
}

fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status().unwrap();
    assert!(status.success(), "ip {args}");
}

/// Runs `test` in a new namespace. Two named namespaces for guests exist meanwhile.
fn in_namespaces(hint: &str, test: impl FnOnce([&str; 2]) + Send) {
    struct Named(String);
    impl Drop for Named {
        fn drop(&mut self) {
            let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
        }
    }
    let names = ["a", "b"].map(|guest| Named(format!("xt-{}-{hint}-{guest}", std::process::id())));
    names.iter().for_each(|name| ip(&format!("netns add {}", name.0)));
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            test([&names[0].0, &names[1].0]);
        });
        run.join().unwrap();
    });
}

fn guest(name: &str, netns: &str) -> PortSpec {
    PortSpec { netns: Some(netns.to_owned()), ..PortSpec::new(name, PortKind::Guest) }
}

/// Waits until every frame is accounted for and every packet counted.
fn assert_balanced(switch: &Switch) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let stats = switch.stats();
        let audit = switch.audit();
        assert!(audit.consistent, "{audit:?}");
        if stats.unaccounted_packets == 0 && stats.unaccounted_bytes == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{stats:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn two_guests_talk(hint: &str, settings: &DataplaneSettings, mode: ModeRequest) {
    in_namespaces(hint, |[a, b]| {
        let switch = Switch::start(settings, BridgeSettings::default(), Places::default()).unwrap();
        for (name, ns, address) in [("vm1", a, "10.0.0.1"), ("vm2", b, "10.0.0.2")] {
            let port = switch.add_port(PortSpec { mode, ..guest(name, ns) }).unwrap();
            let expected = if mode == ModeRequest::Generic { Mode::Generic } else { Mode::Native };
            assert_eq!(port.mode, Some(expected), "{:?}", port.mode_reason);
            ip(&format!("-n {ns} addr add {address}/24 dev {}", port.spec.guest_ifname.unwrap()));
        }
        let ping =
            Command::new("ip").args(["netns", "exec", a, "ping", "-c3", "-i0.2", "-W2", "10.0.0.2"]).output().unwrap();
        assert!(ping.status.success(), "{}", String::from_utf8_lossy(&ping.stdout));
        // A stream goes through both stacks. Wrong checksums would stall it.
        const BYTES: usize = 20 << 20;
        let in_namespace = |ns: &str| {
            let file = std::fs::File::open(format!("/run/netns/{ns}")).unwrap();
            nix::sched::setns(file, CloneFlags::CLONE_NEWNET).unwrap();
        };
        std::thread::scope(|scope| {
            let (ready, is_ready) = std::sync::mpsc::channel();
            scope.spawn(move || {
                in_namespace(b);
                let listener = TcpListener::bind("10.0.0.2:5000").unwrap();
                ready.send(()).unwrap();
                let mut received = Vec::new();
                listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
                assert_eq!(received.len(), BYTES);
            });
            scope.spawn(move || {
                in_namespace(a);
                is_ready.recv().unwrap();
                TcpStream::connect("10.0.0.2:5000").unwrap().write_all(&vec![7; BYTES]).unwrap();
            });
        });
        assert_balanced(&switch);
        let learned = switch.fdb();
        assert!(
            learned.iter().any(|row| row.port == "vm1") && learned.iter().any(|row| row.port == "vm2"),
            "{learned:?}"
        );
        switch.del_port("vm1").unwrap();
        assert_balanced(&switch);
        switch.shutdown();
    });
}

#[test]
fn two_guests_talk_in_native_mode() {
    two_guests_talk("native", &settings(1), ModeRequest::Auto);
}

#[test]
fn two_guests_talk_in_generic_mode() {
    two_guests_talk("generic", &settings(1), ModeRequest::Generic);
}

#[test]
fn two_guests_talk_across_two_workers() {
    two_guests_talk("workers", &settings(2), ModeRequest::Auto);
}

#[test]
fn two_guests_with_packet_memory_of_their_own_talk() {
    two_guests_talk("own", &sharing(1, 0), ModeRequest::Auto);
}

#[test]
fn a_guest_that_shares_and_one_that_does_not_talk_across_two_workers() {
    two_guests_talk("mixed", &sharing(2, 1), ModeRequest::Generic);
}

#[test]
fn frames_and_queues_come_back_when_ports_go_in_any_order() {
    ports_come_and_go("churn", &settings(2), 0);
}

#[test]
fn packet_memory_of_queues_comes_and_goes_with_them() {
    // Of six ports with two queues three share.
    ports_come_and_go("own-churn", &sharing(2, 6), 3 * 2 * OWN_UMEM_FRAMES);
}

/// Adds and deletes six ports with two queues each. They have `own` frames in UMEMs of their own.
fn ports_come_and_go(hint: &str, settings: &DataplaneSettings, own: u32) {
    in_namespaces(hint, |_| {
        let switch = Switch::start(settings, BridgeSettings::default(), Places::default()).unwrap();
        for round in 0..5 {
            for n in 0..6 {
                switch
                    .add_port(PortSpec { queues: Some(2), ..PortSpec::new(format!("p{n}"), PortKind::Guest) })
                    .unwrap();
            }
            let audit = switch.audit();
            assert!(audit.consistent && audit.own == own, "{audit:?}");
            // Even rounds close the first socket first. Other sockets share its UMEM registration.
            let order: Vec<_> = if round % 2 == 0 { (0..6).collect() } else { (0..6).rev().collect() };
            for n in order {
                switch.del_port(&format!("p{n}")).unwrap();
            }
        }
        let audit = switch.audit();
        assert!(audit.consistent && audit.free == audit.frames && audit.own == 0, "{audit:?}");
    });
}

/// Pins of a test. They go with their guard.
struct Pins(PinPlace);

impl Pins {
    fn new(hint: &str) -> Self {
        Self(PinPlace { mount: "/sys/fs/bpf".into(), instance: format!("test_{}_{hint}", std::process::id()) })
    }

    fn places(&self) -> Places {
        Places { pins: Some(self.0.clone()), journals: None }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.mount.join("xswitch").join(&self.0.instance));
    }
}

/// Binds a fresh socket to queue 0 of a netdev, as a guest does.
fn bind_as_guest(socket: &OwnedFd, ifname: &str) -> Result<(), Errno> {
    let memory = Layout::from_size_align(16 * 4096, 4096).unwrap();
    // SAFETY: the memory has a size above 0, is never freed, and nothing else uses it.
    unsafe { sys::register_umem(socket.as_fd(), alloc(memory), memory.size(), 4096).unwrap() };
    for ring in [RingKind::Fill, RingKind::Completion, RingKind::Rx, RingKind::Tx] {
        sys::set_ring_size(socket.as_fd(), ring, 64).unwrap();
    }
    let ifindex = nix::net::if_::if_nametoindex(ifname).unwrap();
    sys::bind(socket.as_fd(), ifindex, 0, libc::XDP_USE_NEED_WAKEUP)
}

#[test]
fn a_guests_socket_can_be_bound_to_its_own_end_only() {
    in_namespaces("own", |_| {
        ip("link set lo up");
        let pins = Pins::new("own");
        let switch = Switch::start(&settings(1), BridgeSettings::default(), pins.places()).unwrap();
        for name in ["a", "b"] {
            switch.add_port(PortSpec::new(name, PortKind::Guest)).unwrap();
        }
        assert_eq!(switch.guest_sockets("a").unwrap_err().kind(), ErrorKind::Busy, "its end is not open");
        switch.open_guest_end("a").unwrap();
        for elsewhere in ["lo", "xs0", "xg1"] {
            let taken = switch.guest_sockets("a").unwrap();
            assert_eq!(bind_as_guest(&taken.sockets[0], elsewhere), Err(Errno::EINVAL), "{elsewhere}");
        }
        let taken = switch.guest_sockets("a").unwrap();
        assert!(!sys::is_bound(taken.sockets[0].as_fd()));
        assert_eq!(bind_as_guest(&taken.sockets[0], "xg0"), Ok(()));
        assert!(sys::is_bound(taken.sockets[0].as_fd()));
        assert!(switch.guest_sockets("a").is_err(), "it has a guest");
        for name in ["a", "b"] {
            switch.del_port(name).unwrap();
        }
        assert!(!pins.0.mount.join("xswitch").join(&pins.0.instance).exists());
    });
}

#[test]
fn a_guests_end_is_opened_and_given_back_on_demand() {
    in_namespaces("back", |_| {
        let pins = Pins::new("back");
        let start = || Switch::start(&settings(1), BridgeSettings::default(), pins.places()).unwrap();
        let switch = start();
        let info = switch.add_port(PortSpec::new("a", PortKind::Guest)).unwrap();
        assert_eq!(info.guest_end, None);
        let set = |open| PortUpdate { guest_sockets: Some(open), ..PortUpdate::default() };
        let info = switch.update_port("a", set(true)).unwrap();
        assert!(info.spec.guest_sockets && info.guest_end.is_some());
        // The next switch takes up the pins. Those of a port that it does not have go.
        drop(switch);
        std::fs::create_dir(pins.0.mount.join("xswitch").join(&pins.0.instance).join("7")).unwrap();
        let switch = start();
        switch.add_port(info.spec.clone()).unwrap();
        switch.forget_stale_pins();
        assert!(!pins.0.mount.join("xswitch").join(&pins.0.instance).join("7").exists());
        let info = switch.update_port("a", set(false)).unwrap();
        assert!(!info.spec.guest_sockets && info.guest_end.is_none());
        assert!(!pins.0.mount.join("xswitch").join(&pins.0.instance).exists());
        switch.del_port("a").unwrap();
    });
}

/// Takes CAP_IPC_LOCK from the calling thread and its children.
fn drop_ipc_lock() {
    const VERSION: u32 = 0x2008_0522;
    const CAP_IPC_LOCK: u32 = 14;
    let mut header = [VERSION, 0];
    // Effective, permitted, inheritable, each twice for 64 capabilities.
    let mut data = [0u32; 6];
    // SAFETY: both have the length that this version of the call uses.
    let got = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), data.as_mut_ptr()) };
    data[0] &= !(1 << CAP_IPC_LOCK);
    // SAFETY: as above.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), data.as_ptr()) };
    assert_eq!((got, set), (0, 0), "{}", std::io::Error::last_os_error());
}

#[test]
fn sockets_that_are_opened_at_the_same_time_lock_their_memory_once() {
    const QUEUES: u32 = 8;
    in_namespaces("once", |_| {
        let queues = format!("numrxqueues {QUEUES} numtxqueues {QUEUES}");
        ip(&format!("link add x0 {queues} type veth peer name x1 {queues}"));
        ip("link set x1 up");
        ip("link set x0 up");
        let ifindex = nix::net::if_::if_nametoindex("x0").unwrap();
        let umem = Umem::new(1024, 4096, HugePages::Off).unwrap();
        let limit = umem.region().1 as u64 * 3 / 2;
        setrlimit(Resource::RLIMIT_MEMLOCK, limit, limit).unwrap();
        drop_ipc_lock();
        let (sharers, start) = (UmemSharers::default(), Barrier::new(QUEUES as usize));
        let open = |queue| {
            let memory = RingMemory::Shared { fill: 64 };
            let options =
                SocketOptions { ifindex, queue, depth: 64, zero_copy: ZeroCopy::Off, memory, takes_chains: false };
            let mut cache = FrameCache::new(Arc::clone(&umem));
            start.wait();
            let opened = XskSocket::open(&options, &sharers, &mut cache);
            (opened, cache)
        };
        std::thread::scope(|scope| {
            let open = &open;
            let threads: Vec<_> = (0..QUEUES).map(|queue| scope.spawn(move || open(queue))).collect();
            // A closed socket can't be shared with, so all are opened before any is closed.
            for (opened, mut cache) in threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>() {
                opened.unwrap().close(Duration::ZERO, &mut cache);
            }
        });
    });
}

#[test]
fn one_of_several_ports_fails_alone_and_leaves_nothing() {
    in_namespaces("several", |[a, _]| {
        let switch = Switch::start(&settings(1), BridgeSettings::default(), Places::default()).unwrap();
        let named = |name: &str, ifname: &str| PortSpec { ifname: Some(ifname.to_owned()), ..guest(name, a) };
        let specs = vec![
            PortSpec { guest_ifname: Some("eth0".to_owned()), ..named("p0", "x0") },
            // The guest's end has the same name, in the same namespace.
            PortSpec { guest_ifname: Some("eth0".to_owned()), ..named("p1", "x1") },
            named("p2", "x0"),
            named("p0", "x3"),
            named("p4", "x4"),
        ];
        let added = switch.add_ports(specs);
        let kinds: Vec<_> =
            added.iter().map(|added| added.as_ref().map(|info| info.vport).map_err(switch::Error::kind)).collect();
        // Either of the two with the same name may come first.
        let taken = |kind: &Result<u16, ErrorKind>| *kind == Err(ErrorKind::Exists);
        assert_eq!(kinds[..2].iter().filter(|kind| taken(kind)).count(), 1, "{kinds:?}");
        assert!(taken(&kinds[2]) && taken(&kinds[3]), "{kinds:?}");
        assert!(kinds[4].is_ok(), "{kinds:?}");
        assert_eq!(switch.ports().len(), 2);
        assert_eq!(
            ["x0", "x1", "x3", "x4"].iter().filter(|name| nix::net::if_::if_nametoindex(**name).is_ok()).count(),
            2
        );
        assert_balanced(&switch);
    });
}
