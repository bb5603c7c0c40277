//! The program on a guest's end: slots, counters, and what outlives the attaching process.
#![allow(unsafe_code, reason = "puts a program into a pinned link, as another version would")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use libbpf_rs::libbpf_sys;
use support::{frame, ifindex, ip, load_for, send, with_veth, xdp_socket};
use xdp_prog::{
    Error, GuestOptions, GuestProgram, Mode, ModeRequest, QueueCounters, Steering, attached_programs, bpffs_at,
};

/// A directory for pins. It goes with its guard.
struct Pins(PathBuf);

impl Pins {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let root = Path::new("/sys/fs/bpf");
        bpffs_at(root).unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = root.join(format!("xswitch_test_{}_{number}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn options(&self) -> GuestOptions {
        // `sw` is the guest's end here, because `send` sends to it.
        GuestOptions { ifname: "sw".into(), ifindex: ifindex("sw"), queues: 2, pins: self.0.join("p0") }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        for name in ["p0/link", "p0/sockets", "p0/counters"] {
            let _ = std::fs::remove_file(self.0.join(name));
        }
        let _ = std::fs::remove_dir(self.0.join("p0"));
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Puts a program into the pinned link, as another version would have left it.
fn replace_by_another(pins: &Pins) {
    let other = load_for("sw", 2, Steering::All).unwrap();
    let path = CString::new(pins.0.join("p0/link").into_os_string().into_encoded_bytes()).unwrap();
    // SAFETY: the path ends in a zero and outlives the calls. This function owns the descriptors, and gives no options.
    unsafe {
        let link = OwnedFd::from_raw_fd(libbpf_sys::bpf_obj_get(path.as_ptr()));
        let program = OwnedFd::from_raw_fd(libbpf_sys::bpf_prog_get_fd_by_id(other.id()));
        assert_eq!(libbpf_sys::bpf_link_update(link.as_raw_fd(), program.as_raw_fd(), std::ptr::null()), 0);
    }
}

fn sum(program: &GuestProgram, counters: fn(&QueueCounters) -> u64) -> u64 {
    program.counters().unwrap().iter().map(counters).sum()
}

#[test]
fn what_nobody_takes_is_dropped_and_counted_by_why() {
    with_veth(|| {
        let pins = Pins::new();
        let (program, attached) = GuestProgram::attach(&pins.options(), ModeRequest::Auto).unwrap();
        assert_eq!((attached.mode, program.mode()), (Mode::Native, Mode::Native));
        send(&[&frame([2; 6], None)]);
        assert_eq!((sum(&program, |c| c.drop_no_socket), sum(&program, |c| c.drop_unbound)), (1, 0));
        let sockets = [xdp_socket(), xdp_socket()];
        for (queue, socket) in (0..).zip(&sockets) {
            assert!(program.offer(queue, socket.as_fd()).unwrap());
        }
        send(&[&frame([2; 6], None), &frame([2; 6], None)]);
        assert_eq!((sum(&program, |c| c.drop_no_socket), sum(&program, |c| c.drop_unbound)), (1, 2));
        assert_eq!(sum(&program, |c| c.redirect), 0);
        program.remove().unwrap();
        assert_eq!(attached_programs(ifindex("sw")).unwrap(), []);
        assert!(!pins.0.join("p0").exists());
    });
}

#[test]
fn a_slot_is_another_sockets_until_that_is_closed() {
    with_veth(|| {
        let pins = Pins::new();
        let (program, _) = GuestProgram::attach(&pins.options(), ModeRequest::Generic).unwrap();
        let (first, second) = (xdp_socket(), xdp_socket());
        assert!(program.offer(1, first.as_fd()).unwrap());
        assert!(program.offer(1, first.as_fd()).unwrap(), "it is in its own slot");
        assert!(!program.offer(1, second.as_fd()).unwrap());
        drop(first);
        assert!(program.offer(1, second.as_fd()).unwrap());
        program.remove().unwrap();
    });
}

#[test]
fn a_program_goes_on_without_the_process_that_attached_it() {
    with_veth(|| {
        let pins = Pins::new();
        let sockets = [xdp_socket(), xdp_socket()];
        let (program, _) = GuestProgram::attach(&pins.options(), ModeRequest::Auto).unwrap();
        // A frame's queue depends on its hash, and the kernel chooses the seed.
        for (queue, socket) in (0..).zip(&sockets) {
            assert!(program.offer(queue, socket.as_fd()).unwrap());
        }
        send(&[&frame([2; 6], None)]);
        // A killed process leaves this: closed descriptors, and all pins.
        drop(program);
        assert_eq!(attached_programs(ifindex("sw")).unwrap().len(), 1);
        replace_by_another(&pins);
        let before = attached_programs(ifindex("sw")).unwrap();
        let program = GuestProgram::resume(&pins.options()).unwrap().expect("it is pinned").program;
        assert_eq!(program.mode(), Mode::Native);
        let after = attached_programs(ifindex("sw")).unwrap();
        assert_eq!(after.len(), 1);
        assert_ne!(after[0].id, before[0].id, "the program is that of the daemon that resumed");
        for queue in 0..2 {
            assert!(!program.offer(queue, xdp_socket().as_fd()).unwrap(), "the guest's socket is where it was");
        }
        send(&[&frame([2; 6], None)]);
        assert_eq!(sum(&program, |c| c.drop_unbound), 2, "counters go on");
        program.remove().unwrap();
    });
}

#[test]
fn pins_of_another_netdev_or_of_none_are_removed() {
    with_veth(|| {
        let pins = Pins::new();
        assert!(GuestProgram::resume(&pins.options()).unwrap().is_none());
        drop(GuestProgram::attach(&pins.options(), ModeRequest::Auto).unwrap());
        let on_vm = GuestOptions { ifname: "vm".into(), ifindex: ifindex("vm"), ..pins.options() };
        assert!(GuestProgram::resume(&on_vm).unwrap().is_none());
        assert!(!pins.0.join("p0").exists());
        assert_eq!(attached_programs(ifindex("sw")).unwrap(), [], "nothing held it but the pin");

        drop(GuestProgram::attach(&pins.options(), ModeRequest::Auto).unwrap());
        ip("link del sw");
        ip("link add sw numtxqueues 2 numrxqueues 2 type veth peer name vm numtxqueues 2 numrxqueues 2");
        assert!(GuestProgram::resume(&pins.options()).unwrap().is_none());
        assert!(!pins.0.join("p0").exists());
    });
}

#[test]
fn pins_of_a_port_with_fewer_queues_give_way() {
    with_veth(|| {
        let pins = Pins::new();
        drop(GuestProgram::attach(&pins.options(), ModeRequest::Auto).unwrap());
        let more = GuestOptions { queues: 200, ..pins.options() };
        assert!(GuestProgram::resume(&more).unwrap().is_none());
        assert_eq!(attached_programs(ifindex("sw")).unwrap(), []);
        let (program, _) = GuestProgram::attach(&more, ModeRequest::Auto).unwrap();
        assert!(program.offer(199, xdp_socket().as_fd()).unwrap());
        assert_eq!(program.counters().unwrap().len(), 200);
        // A map with room for more is as good.
        drop(program);
        let program = GuestProgram::resume(&pins.options()).unwrap().expect("it is pinned").program;
        assert_eq!(program.counters().unwrap().len(), 2);
        program.remove().unwrap();
    });
}

#[test]
fn a_netdev_with_somebody_elses_program_is_left_alone() {
    with_veth(|| {
        let pins = Pins::new();
        let mut other = load_for("sw", 2, Steering::All).unwrap();
        other.attach(ModeRequest::Auto).unwrap();
        let error = GuestProgram::attach(&pins.options(), ModeRequest::Auto).unwrap_err();
        assert!(matches!(error, Error::Foreign { .. }), "{error}");
        assert!(!pins.0.join("p0").exists());
    });
}

#[test]
fn a_program_of_this_version_is_not_loaded_twice() {
    with_veth(|| {
        let pins = Pins::new();
        let (program, _) = GuestProgram::attach(&pins.options(), ModeRequest::Auto).unwrap();
        let before = attached_programs(ifindex("sw")).unwrap();
        drop(program);
        let program = GuestProgram::resume(&pins.options()).unwrap().expect("it is pinned").program;
        assert_eq!(attached_programs(ifindex("sw")).unwrap(), before);
        program.remove().unwrap();
    });
}

#[test]
fn what_was_left_incomplete_is_made_anew() {
    with_veth(|| {
        let pins = Pins::new();
        drop(GuestProgram::attach(&pins.options(), ModeRequest::Auto).unwrap());
        std::fs::remove_file(pins.0.join("p0/counters")).unwrap();
        assert!(GuestProgram::resume(&pins.options()).unwrap().is_none());
        assert_eq!(attached_programs(ifindex("sw")).unwrap(), []);
        // An interrupted start leaves its maps. A link of a deleted port may be there too.
        drop(GuestProgram::attach(&pins.options(), ModeRequest::Auto).unwrap());
        let (program, _) = GuestProgram::attach(
            &GuestOptions { ifname: "vm".into(), ifindex: ifindex("vm"), ..pins.options() },
            ModeRequest::Auto,
        )
        .unwrap();
        assert_eq!(attached_programs(ifindex("sw")).unwrap(), []);
        program.remove().unwrap();
    });
}
