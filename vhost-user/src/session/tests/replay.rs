//! Conversations with real front ends, recorded between them and a device with nothing behind it (`examples/idle.rs`).
//!
//! A line is a message: `>` is the front end's, `<` the back end's. After the name come its bytes as they were, and
//! `+1` if a descriptor came along. `# connected` begins a connection. Other comments tell what was done. After some of
//! them stand the rings that ran then, with brackets around those that were disabled: `# the guest is up: 0 1 (2) (3)`.

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::*;
use crate::message::{Assembler, InflightLayout, InflightRegion};

/// What the example offers, by kind of device.
fn offer(device: &str) -> Offer {
    let rings = 1 << 32 | 1 << 29 | 1 << 28;
    let protocol = ALL_PROTOCOL & !bit::CONFIG;
    let segments = 0b11 | 0x7f << 7 | 1 << 15 | 1 << 17 | 1 << 21 | 1 << 22;
    let net = Offer {
        features: rings | segments | bit::LOG_ALL | bit::RING_PACKED,
        protocol_features: protocol,
        mem_slots: 32,
        ..OFFER
    };
    match device {
        "net" => net,
        "old" => Offer { features: rings | 1 << 15 | 1 << 17 | 1 << 22, protocol_features: bit::MQ, ..net },
        "blk" => Offer {
            features: rings | 1 << 6 | 1 << 9 | 1 << 11 | 1 << 12 | bit::LOG_ALL,
            protocol_features: protocol & !(bit::RARP | bit::MTU | bit::STATUS) | bit::CONFIG,
            rings: 2,
            enabled_at_first: 0,
            max_mtu: 0,
            ..net
        },
        other => panic!("{other}"),
    }
}

/// The example's configuration space: 2,048 sectors of 512 bytes, two queues.
fn config(offset: u32, size: u32) -> Vec<u8> {
    let mut space = [0; 60];
    (space[1], space[5 * 4 + 1], space[34]) = (8, 2, 2);
    let (offset, size) = (usize::try_from(offset).unwrap(), usize::try_from(size).unwrap());
    space[offset..offset + size].to_vec()
}

fn bytes(words: &str) -> Vec<u8> {
    let digits: Vec<u8> = words
        .split_whitespace()
        .filter(|word| !word.starts_with('+'))
        .flat_map(|word| word.chars().map(|digit| u8::try_from(digit.to_digit(16).expect("a digit")).unwrap()))
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The device of a connection.
struct Idle(Session);

impl Idle {
    /// The reply to a message, and whether a descriptor goes along.
    fn take(&mut self, sent: &[u8], fds: usize) -> Option<(Vec<u8>, bool)> {
        let mut assembler = Assembler::default();
        let mut came: Vec<OwnedFd> =
            (0..fds).map(|_| memfd_create("guest", MFdFlags::MFD_CLOEXEC).expect("a file")).collect();
        let mut rest = sent;
        let message = loop {
            let room = assembler.room();
            let length = room.len();
            room.copy_from_slice(&rest[..length]);
            rest = &rest[length..];
            if let Some(message) = assembler.advance(length, std::mem::take(&mut came)).expect("a message") {
                break message;
            }
        };
        let turn = self.0.handle(message);
        let outcome = self.carry_out(&turn.actions);
        let answer = self.0.finish(turn, outcome);
        assert_eq!((answer.refusal, answer.close), (None, false));
        answer.reply.map(|reply| (reply.bytes, reply.fd.is_some()))
    }

    fn carry_out(&mut self, actions: &[Action]) -> Outcome {
        let mut outcome = Outcome::Done;
        for action in actions {
            match *action {
                Action::StopRing(ring) => {
                    let base = self.0.ring(ring).expect("a ring").start_base(self.0.is_packed());
                    self.0.ring_stopped(ring, base);
                }
                Action::ReadConfig { offset, size } => outcome = Outcome::Config(config(offset, size)),
                Action::MakeInflight { rings, ring_size } => {
                    let layout = InflightLayout { size: u64::from(rings) * 4096, offset: 0, rings, ring_size };
                    outcome = Outcome::Inflight(InflightRegion { layout, fd: file() });
                }
                _ => {}
            }
        }
        outcome
    }

    /// The rings that run, with brackets around those that are disabled.
    fn running(&self) -> String {
        let rings = self.0.rings().iter().enumerate().filter(|(_, ring)| ring.is_started());
        let words: Vec<_> = rings
            .map(|(number, ring)| if ring.is_enabled() { number.to_string() } else { format!("({number})") })
            .collect();
        if words.is_empty() { "none".to_owned() } else { words.join(" ") }
    }
}

fn replay(conversation: &str, device: &str) {
    let mut idle = Idle(Session::new(offer(device)));
    let (mut due, mut looks) = (None, 0);
    for (number, line) in conversation.lines().enumerate() {
        let place = format!("line {}: {line}", number + 1);
        let expected = line.strip_prefix("< ");
        if let Some((reply, has_fd)) = due.take() {
            let (_, words) =
                expected.unwrap_or_else(|| panic!("{place}: a reply that was not given")).split_once(": ").unwrap();
            assert_eq!((reply, has_fd), (bytes(words), words.contains('+')), "{place}");
            continue;
        }
        assert_eq!(expected, None, "{place}: a reply is missing");
        if line == "# connected" {
            let actions = idle.0.hang_up();
            idle.carry_out(&actions);
            idle = Idle(Session::new(offer(device)));
        } else if let Some((_, rings)) = line.strip_prefix("# ").and_then(|words| words.split_once(": ")) {
            assert_eq!(idle.running(), rings, "{place}");
            looks += 1;
        } else if let Some(words) = line.strip_prefix("> ").and_then(|line| line.split_once(": ")) {
            let fds = words.1.split_once('+').map_or(0, |(_, count)| count.parse().unwrap());
            due = idle.take(&bytes(words.1), fds);
        } else {
            assert!(line.starts_with("# "), "{place}");
        }
    }
    assert!(due.is_none() && looks > 0);
}

#[test]
fn qemu_10_with_a_net_device() {
    replay(include_str!("conversations/qemu-10.2-net.txt"), "net");
}

#[test]
fn qemu_10_migrates_a_net_device() {
    replay(include_str!("conversations/qemu-10.2-migration.txt"), "net");
}

#[test]
fn qemu_10_with_a_block_device_that_is_connected_again() {
    replay(include_str!("conversations/qemu-10.2-blk.txt"), "blk");
}

#[test]
fn qemu_7_with_a_net_device() {
    replay(include_str!("conversations/qemu-7.2-net.txt"), "net");
}

#[test]
fn qemu_7_with_a_net_device_that_has_multiple_queues_and_no_more() {
    replay(include_str!("conversations/qemu-7.2-net-2015.txt"), "old");
}

/// It sends only the lower half of a position.
#[test]
fn dpdk_with_packed_rings() {
    replay(include_str!("conversations/dpdk-22.11-packed.txt"), "net");
}
