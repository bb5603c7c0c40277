//! A namespace with a veth pair, and a socket that sends raw frames.
#![allow(dead_code, reason = "each test program uses some of it")]
#![allow(unsafe_code, reason = "system calls")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use xdp_prog::{Error, LoadOptions, PortProgram, Steering};

/// Runs `test` in a network namespace of its own, with the pair `sw` and `vm` up. The namespace ends with its thread.
pub fn with_veth(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root makes namespaces");
            // The counters would include the stack's own neighbour discovery.
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
            ip("link add sw numtxqueues 2 numrxqueues 2 type veth peer name vm numtxqueues 2 numrxqueues 2");
            ip("link set sw up");
            ip("link set vm up");
            test();
        });
        if let Err(panic) = run.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs `ip` with these arguments.
pub fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status().expect("ip runs");
    assert!(status.success(), "ip {args}");
}

/// Index of a netdev of this namespace.
pub fn ifindex(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).expect("the netdev exists")
}

/// Loads a program for `sw`.
pub fn load(steering: Steering) -> PortProgram {
    load_for("sw", 2, steering).expect("it loads")
}

/// Loads a program for a port with that many queues.
pub fn load_for(ifname: &str, queues: u32, steering: Steering) -> Result<PortProgram, Error> {
    let (ifname, ifindex) = (ifname.into(), ifindex(ifname));
    PortProgram::load(&LoadOptions { ifname, ifindex, queues, steering, multi_buffer: false, flows: None })
}

/// Sends frames out of `vm`, so that they come in at `sw`.
pub fn send(frames: &[&[u8]]) {
    let index = ifindex("vm").cast_signed();
    // SAFETY: the call takes no pointers. A non-negative result is a descriptor that nobody else owns.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0);
    // SAFETY: see above.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    for frame in frames {
        let to = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET.try_into().expect("an address family fits"),
            sll_protocol: 0,
            sll_ifindex: index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        };
        // SAFETY: frame and address live during the call and have the given lengths.
        let sent = unsafe {
            libc::sendto(
                fd.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                std::ptr::from_ref(&to).cast(),
                size_of_val(&to).try_into().expect("an address is short"),
            )
        };
        assert_eq!(sent, frame.len().cast_signed());
    }
}

/// A frame of 60 bytes to `dst`, with a VLAN tag if `vid` is given.
pub fn frame(dst: [u8; 6], vid: Option<u16>) -> Vec<u8> {
    let mut frame = [&dst[..], &[2, 0, 0, 0, 0, 0xfe]].concat();
    if let Some(vid) = vid {
        frame.extend([0x81, 0x00]);
        frame.extend(vid.to_be_bytes());
    }
    frame.extend([0x88, 0xb5]);
    frame.resize(60, 0);
    frame
}

/// An empty IPv4/UDP packet to `dst` from that port. Its hash decides the sending queue.
pub fn udp(dst: [u8; 6], port: u16) -> Vec<u8> {
    let mut frame = [&dst[..], &[2, 0, 0, 0, 0, 0xfe, 0x08, 0x00]].concat();
    frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend(port.to_be_bytes());
    frame.extend([0, 53, 0, 8, 0, 0]);
    frame.resize(60, 0);
    frame
}

/// A fresh AF_XDP socket.
pub fn xdp_socket() -> OwnedFd {
    // SAFETY: the call takes no pointers. A non-negative result is a descriptor that nobody else owns.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0, "root opens AF_XDP sockets");
    // SAFETY: see above.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
