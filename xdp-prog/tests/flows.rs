//! The flow table as XDP follows it, between two pairs of real netdevs.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test")]
#![allow(unsafe_code, reason = "system calls")]

mod support;

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;

use support::{ifindex, ip, send, udp, with_veth};
use xdp_prog::{
    FlowAction, FlowDepth, FlowEdit, FlowTable, FlowTableKey, LoadOptions, Mode, ModeRequest, PortProgram,
    QueueCounters, Steering, driver_features, wait_for_programs,
};

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Numbers of the port that packets come in from, and of that which they go out of.
const FROM: u16 = 3;
const TO: u16 = 700;

/// A frame with a tag behind its addresses.
fn tagged(frame: &[u8], tpid: u16, tci: u16) -> Vec<u8> {
    [&frame[..12], &tpid.to_be_bytes(), &tci.to_be_bytes(), &frame[12..]].concat()
}

/// The key of a frame as the switch's flow cache makes it.
fn key(frame: &[u8], depth: FlowDepth) -> FlowTableKey {
    let word = |at: usize| u64::from_ne_bytes(*frame[at..].first_chunk().unwrap());
    let half = |at: usize| u64::from(u32::from_ne_bytes(*frame[at..].first_chunk().unwrap()));
    let is_tagged = matches!(frame[12..14], [0x81, 0x00] | [0x88, 0xa8]);
    let ip = if is_tagged { 18 } else { 14 };
    let mut words = [word(0), word(6), u64::from(FROM) << 48, 0, 0, 0, 0];
    if depth == FlowDepth::L2 {
        words[2] |= if is_tagged { half(14) } else { 0 };
        return FlowTableKey::new(words, 0, true);
    }
    if is_tagged {
        words[2] |= u64::from(u16::from_be_bytes([frame[14], frame[15]])) << 32;
    }
    if frame[ip] >> 4 == 6 {
        words[2] |= 1 << 63 | half(ip + 40);
        (0..4).for_each(|n| words[3 + n] = word(ip + 8 + 8 * n));
    } else {
        words[2] |= half(ip + 20);
        words[3] = word(ip + 12);
    }
    words[2] |= if frame[if frame[ip] >> 4 == 6 { ip + 6 } else { ip + 9 }] == 6 { 1 << 62 } else { 0 };
    FlowTableKey::new(words, 0, false)
}

/// An IPv6 packet with TCP.
fn tcp6(port: u16) -> Vec<u8> {
    let mut frame = [&OURS[..], &[2, 0, 0, 0, 0, 0xfe, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]].concat();
    frame.extend((1..=32).collect::<Vec<u8>>());
    frame.extend(port.to_be_bytes());
    frame.resize(14 + 60, 0);
    frame
}

struct Bed {
    table: Arc<FlowTable>,
    program: PortProgram,
    received: OwnedFd,
}

impl Bed {
    /// Pairs of one queue, `sw` and `vm`, `sw2` and `vm2`, and a program on `sw` that follows a table.
    fn new(depth: FlowDepth) -> Self {
        ip("link del sw");
        for (near, far) in [("sw", "vm"), ("sw2", "vm2")] {
            ip(&format!(
                "link add {near} numtxqueues 1 numrxqueues 1 type veth peer name {far} numtxqueues 1 numrxqueues 1"
            ));
            ip(&format!("link set {near} up"));
            ip(&format!("link set {far} up"));
        }
        assert!(Command::new("ethtool").args(["-K", "vm2", "gro", "on"]).status().unwrap().success());
        assert!(driver_features(ifindex("sw2")).unwrap().takes_long_redirects);
        let table = Arc::new(FlowTable::new(64).unwrap());
        table.begin_epoch(1, depth);
        table.set_exit(TO, Some(ifindex("sw2"))).unwrap();
        let mut program = PortProgram::load(&LoadOptions {
            ifname: "sw".into(),
            ifindex: ifindex("sw"),
            queues: 1,
            steering: Steering::All,
            multi_buffer: true,
            flows: Some((Arc::clone(&table), FROM)),
        })
        .unwrap();
        assert_eq!(program.attach(ModeRequest::Native).unwrap().mode, Mode::Native);
        // SAFETY: no pointers. A descriptor that is not negative is nobody else's.
        let received = unsafe {
            let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            let fd = libc::socket(libc::AF_PACKET, kind, i32::from((libc::ETH_P_ALL as u16).to_be()));
            assert!(fd >= 0);
            OwnedFd::from_raw_fd(fd)
        };
        let option = 1_u32;
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: ifindex("vm2").cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        };
        // SAFETY: the structures live during the calls, and have the given lengths. A tag that the stack has taken
        // off is told beside the packet.
        unsafe {
            let len = size_of_val(&address) as u32;
            assert_eq!(libc::bind(received.as_raw_fd(), (&raw const address).cast(), len), 0);
            let (level, name) = (libc::SOL_PACKET, libc::PACKET_AUXDATA);
            assert_eq!(libc::setsockopt(received.as_raw_fd(), level, name, (&raw const option).cast(), 4), 0);
        }
        Self { table, program, received }
    }

    /// Installs a flow. Returns its slot.
    fn install(&self, key: &FlowTableKey, action: FlowAction) -> usize {
        let slot = self.table.places(key)[2];
        let before = self.table.install(slot, key, action, 1);
        assert_eq!(before, self.table.sent(slot));
        self.table.set_installed(FROM, 1);
        slot
    }

    /// The same, with no packet of the flow on its way.
    fn forward(&self, key: &FlowTableKey, action: FlowAction) -> usize {
        let slot = self.install(key, action);
        self.table.set_done(slot, self.table.sent(slot));
        slot
    }

    fn counters(&self) -> QueueCounters {
        self.program.counters().unwrap()[0]
    }

    /// What came to `vm2`, tags put back.
    fn take(&self) -> Vec<Vec<u8>> {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let mut all = Vec::new();
        loop {
            let (mut bytes, mut control) = ([0_u8; 9000], [0_u64; 16]);
            let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
            // SAFETY: an all-zero header is a valid one, and all that it points to lives during the call.
            let (len, tag) = unsafe {
                let mut header: libc::msghdr = std::mem::zeroed();
                (header.msg_iov, header.msg_iovlen) = (&raw mut part, 1);
                header.msg_control = control.as_mut_ptr().cast();
                header.msg_controllen = size_of_val(&control);
                let len = libc::recvmsg(self.received.as_raw_fd(), &raw mut header, 0);
                let first = libc::CMSG_FIRSTHDR(&raw const header);
                let aux = (len >= 0 && !first.is_null())
                    .then(|| libc::CMSG_DATA(first).cast::<libc::tpacket_auxdata>().read_unaligned());
                (len, aux.filter(|aux| aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0))
            };
            let Ok(len) = usize::try_from(len) else { return all };
            all.push(match tag {
                Some(aux) => tagged(&bytes[..len], aux.tp_vlan_tpid, aux.tp_vlan_tci),
                None => bytes[..len].to_vec(),
            });
        }
    }
}

fn to(edit: FlowEdit) -> FlowAction {
    FlowAction::Send { port: TO, edit, longest: 1518, multi_buffer: true }
}

#[test]
fn a_flow_goes_on_in_the_kernel_once_its_last_packet_has_left() {
    with_veth(|| {
        let bed = Bed::new(FlowDepth::L4);
        let frame = udp(OURS, 7);
        let slot = bed.install(&key(&frame, FlowDepth::L4), to(FlowEdit::None));
        let first = bed.table.sent(slot);
        send(&[&frame, &frame]);
        assert!(bed.take().is_empty());
        assert_eq!(bed.table.sent(slot), first.wrapping_add(2));
        bed.table.set_done(slot, first.wrapping_add(1));
        send(&[&frame]);
        assert!(bed.take().is_empty(), "two are on their way");
        assert_eq!((bed.counters().drop_no_socket, bed.counters().flow), (3, 0));
        bed.table.set_done(slot, bed.table.sent(slot));
        send(&[&frame, &udp(OURS, 8), &frame]);
        assert_eq!(bed.take(), [frame.clone(), frame.clone()]);
        assert_eq!((bed.counters().drop_no_socket, bed.counters().flow), (4, 2));
        assert_eq!(bed.table.counts(slot), (2, 2 * frame.len() as u64));
        // An older number changes nothing.
        bed.table.set_done(slot, first);
        assert_eq!(bed.table.done(slot), bed.table.sent(slot));
    });
}

#[test]
fn a_flow_that_waits_too_long_is_held_up() {
    with_veth(|| {
        let bed = Bed::new(FlowDepth::L4);
        let frame = udp(OURS, 7);
        let slot = bed.install(&key(&frame, FlowDepth::L4), to(FlowEdit::None));
        send(&[&frame]);
        bed.take();
        let sent = bed.table.sent(slot);
        bed.table.limit(slot, sent.wrapping_add(1));
        send(&[&frame, &frame, &frame]);
        assert!(bed.take().is_empty());
        assert_eq!(bed.table.sent(slot), sent.wrapping_add(1));
        assert_eq!((bed.counters().drop_moving, bed.counters().drop_no_socket), (2, 2));
        bed.table.set_done(slot, sent.wrapping_add(1));
        send(&[&frame]);
        assert_eq!(bed.take().len(), 1);
        // A new entry of the slot has no limit.
        bed.table.void(slot);
        wait_for_programs().unwrap();
        bed.install(&key(&frame, FlowDepth::L4), to(FlowEdit::None));
        send(&[&frame, &frame, &frame]);
        assert_eq!((bed.counters().drop_moving, bed.counters().drop_no_socket), (2, 5));
    });
}

#[test]
fn tags_are_edited_on_the_way() {
    with_veth(|| {
        let bed = Bed::new(FlowDepth::L4);
        let plain = udp(OURS, 9);
        let with_c = tagged(&plain, 0x8100, 0x2064);
        for (frame, edit, expected) in [
            (&plain, FlowEdit::PushC(0x6123), tagged(&plain, 0x8100, 0x6123)),
            (&plain, FlowEdit::PushS(0x0005), tagged(&plain, 0x88a8, 0x0005)),
            (&with_c, FlowEdit::Pop, plain.clone()),
            (&with_c, FlowEdit::SetTci(0x8fff), tagged(&plain, 0x8100, 0x8fff)),
            (&with_c, FlowEdit::None, with_c.clone()),
        ] {
            for depth in [FlowDepth::L4, FlowDepth::L2] {
                bed.table.begin_epoch(1, depth);
                let slot = bed.forward(&key(frame, depth), to(edit));
                send(&[frame]);
                assert_eq!(bed.take(), std::slice::from_ref(&expected), "{edit:?} {depth:?}");
                bed.table.void(slot);
                wait_for_programs().unwrap();
                send(&[frame]);
                assert!(bed.take().is_empty(), "{edit:?} {depth:?}");
            }
        }
    });
}

#[test]
fn an_entry_holds_for_its_flow_its_epoch_and_its_lengths() {
    with_veth(|| {
        let bed = Bed::new(FlowDepth::L4);
        let (four, six) = (udp(OURS, 9), tcp6(9));
        let slot = bed.forward(&key(&six, FlowDepth::L4), to(FlowEdit::None));
        let mut other_address = six.clone();
        other_address[14 + 39] ^= 1;
        let mut fragment = four.clone();
        fragment[14 + 6] = 0x20;
        send(&[&six, &tcp6(10), &other_address, &four, &tagged(&six, 0x8100, 1), &six]);
        assert_eq!(bed.take(), [six.clone(), six.clone()]);
        assert_eq!(bed.counters().drop_no_socket, 4);
        bed.table.begin_epoch(2, FlowDepth::L4);
        send(&[&six]);
        assert!(bed.take().is_empty());
        bed.table.restamp(slot, 2);
        send(&[&six]);
        assert_eq!(bed.take().len(), 1);
        // Nobody looks in it for a port without entries.
        bed.table.set_installed(FROM, 0);
        send(&[&six]);
        assert!(bed.take().is_empty());
        // What is dropped is counted too.
        bed.table.begin_epoch(1, FlowDepth::L4);
        let dropped = bed.forward(&key(&four, FlowDepth::L4), FlowAction::Drop);
        let before = bed.counters();
        send(&[&four, &fragment, &four]);
        assert!(bed.take().is_empty());
        assert_eq!(bed.table.counts(dropped), (2, 2 * four.len() as u64));
        assert_eq!(bed.counters().flow, before.flow + 2);
        // Too long a packet is the switch's.
        bed.table.void(dropped);
        wait_for_programs().unwrap();
        let short = FlowAction::Send { port: TO, edit: FlowEdit::None, longest: 60, multi_buffer: true };
        bed.forward(&key(&four, FlowDepth::L4), short);
        let mut long = four.clone();
        long.push(0);
        send(&[&four, &long]);
        assert_eq!(bed.take(), [four]);
    });
}

#[test]
fn flows_have_places_of_their_own() {
    let table = FlowTable::detached(4096).unwrap();
    assert_eq!(table.slots(), 4096);
    let mut taken = vec![false; 4096];
    let mut lost = 0;
    for n in 0..2048_u64 {
        let key = FlowTableKey::new([0x0200_0000_0001, 7, n << 16, 0, 0, 0, 0], 0, false);
        let places = table.places(&key);
        assert!(places.iter().all(|place| *place < 4096));
        match places.into_iter().find(|place| !taken[*place]) {
            Some(place) => taken[place] = true,
            None => lost += 1,
        }
    }
    assert!(lost < 100, "{lost} of 2048 found no place in a table of twice as many");
}
