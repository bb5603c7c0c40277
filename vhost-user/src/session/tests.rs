//! Sessions: what each request does and how it is answered, whole conversations, requests at random.

mod answers;
mod features;
mod memory;
mod random;
mod replay;
mod rings;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;

use super::*;
use crate::message::features as bit;
use crate::message::{Code, Message, decode};

/// Virtio 1.0, which every offer here has.
const VERSION_1: u64 = 1 << 32;

const ALL_PROTOCOL: u64 = bit::MQ
    | bit::LOG_SHMFD
    | bit::RARP
    | bit::REPLY_ACK
    | bit::MTU
    | bit::BACKEND_REQ
    | bit::CONFIG
    | bit::INFLIGHT_SHMFD
    | bit::RESET_DEVICE
    | bit::CONFIGURE_MEM_SLOTS
    | bit::STATUS;

/// A net device with two pairs.
const OFFER: Offer = Offer {
    features: VERSION_1 | bit::LOG_ALL | bit::RING_PACKED,
    protocol_features: ALL_PROTOCOL,
    rings: 4,
    queue_num: 2,
    enabled_at_first: 2,
    mem_slots: 3,
    max_mtu: 9000,
};

/// The features that a front end sets.
const FEATURES: u64 = VERSION_1 | bit::PROTOCOL_FEATURES;

/// Where the memory of [`table`] is for the front end.
const MEMORY: u64 = 0x7fff_0000_0000;
const MEMORY_SIZE: u64 = 0x10_0000;

/// A session with a device that does as it is told. It checks that what it is told makes sense.
struct Rig {
    session: Session,
    /// Rings that the device has.
    running: BTreeSet<u8>,
    /// Where each ring is when it is stopped.
    base: RingBase,
    /// What comes of the next actions.
    outcome: Outcome,
}

/// What came of a request.
#[derive(Debug)]
struct Took {
    actions: Vec<Action>,
    /// Payload of the reply.
    reply: Option<Vec<u8>>,
    fd: Option<OwnedFd>,
    refusal: Option<String>,
    close: bool,
}

impl Took {
    fn number(&self) -> Option<u64> {
        self.reply.as_ref().map(|payload| u64::from_ne_bytes(payload.as_slice().try_into().expect("eight bytes")))
    }
}

impl Rig {
    fn new() -> Self {
        Self::of(OFFER)
    }

    fn of(offer: Offer) -> Self {
        Self { session: Session::new(offer), running: BTreeSet::new(), base: RingBase(77), outcome: Outcome::Done }
    }

    /// With features and memory.
    fn ready() -> Self {
        let mut rig = Self::new();
        rig.ok(number(Code::SetFeatures, FEATURES));
        rig.ok(table(&[(0, MEMORY_SIZE, MEMORY, 0)]));
        rig
    }

    fn take(&mut self, message: Message) -> Took {
        let code = message.code;
        let turn = self.session.handle(message);
        let actions = turn.actions.clone();
        self.carry_out(&actions);
        let outcome = std::mem::replace(&mut self.outcome, Outcome::Done);
        // Where there was nothing to do, nothing else can come of it.
        let outcome = if actions.is_empty() { Outcome::Done } else { outcome };
        let answer = self.session.finish(turn, outcome);
        let (reply, fd) = answer.reply.map_or((None, None), |reply| (Some(reply.bytes), reply.fd));
        let reply = reply.map(|bytes| {
            assert_eq!(bytes[..4], code.to_ne_bytes(), "the reply is to the request");
            assert_eq!(bytes[4..8], 5_u32.to_ne_bytes(), "version 1, and a reply");
            assert_eq!(bytes[8..12], u32::try_from(bytes.len() - 12).unwrap().to_ne_bytes());
            bytes[12..].to_vec()
        });
        Took { actions, reply, fd, refusal: answer.refusal, close: answer.close }
    }

    fn carry_out(&mut self, actions: &[Action]) {
        // Stops come first, then changes, then starts.
        let step = |action: &Action| match action {
            Action::StopRing(_) => 0,
            Action::StartRing(_) | Action::RingEnabled { .. } => 2,
            _ => 1,
        };
        assert!(actions.is_sorted_by_key(step), "{actions:?}");
        // What starts a ring may ask the session where, before the session knows where another has stopped.
        let stops = |ring| actions.contains(&Action::StopRing(ring));
        let again = actions.iter().any(|action| matches!(action, Action::StartRing(ring) if stops(*ring)));
        assert!(!again, "{actions:?}");
        for action in actions {
            match *action {
                Action::StopRing(ring) => {
                    assert!(self.running.remove(&ring), "{actions:?}");
                    self.session.ring_stopped(ring, self.base);
                }
                Action::StartRing(ring) => assert!(self.running.insert(ring), "{actions:?}"),
                Action::KickChanged(ring)
                | Action::CallChanged(ring)
                | Action::ErrChanged(ring)
                | Action::RingLogChanged(ring)
                | Action::RingEnabled { ring, .. } => assert!(self.running.contains(&ring), "{actions:?}"),
                // Rings that still run at a change of memory lie in what is there now.
                Action::MemoryChanged => {
                    for ring in &self.running {
                        let ring = self.session.ring(*ring).expect("a ring");
                        assert_eq!(ring.lacks(self.session.memory(), self.session.is_packed()), None);
                    }
                }
                Action::Reset => assert!(self.running.is_empty(), "{actions:?}"),
                _ => {}
            }
        }
    }

    /// It is done, with those actions. Nobody waits for a reply.
    fn ok(&mut self, message: Message) -> Vec<Action> {
        let took = self.take(message);
        assert_eq!((took.reply, took.refusal, took.close), (None, None, false));
        took.actions
    }

    /// It is answered with that number.
    fn number(&mut self, message: Message) -> u64 {
        let took = self.take(message);
        assert_eq!((took.refusal.as_deref(), took.close), (None, false));
        took.number().expect("a reply")
    }

    /// It is refused with those words, changes nothing, and the connection is over or not.
    fn refused(&mut self, message: Message, words: &str) -> bool {
        let before = format!("{:?}", self.session);
        let took = self.take(message);
        let refusal = took.refusal.unwrap_or_else(|| panic!("{words}: not refused"));
        assert!(refusal.contains(words), "{refusal:?} has not {words:?}");
        assert_eq!(took.actions, []);
        assert_eq!(format!("{:?}", self.session), before, "a refusal changes nothing");
        took.close
    }

    /// Starts a ring in the memory of [`Rig::ready`], with all that it needs. The kick is the last.
    fn start(&mut self, ring: u8) -> Vec<Action> {
        self.ok(state(Code::SetVringNum, ring, 256));
        self.ok(state(Code::SetVringBase, ring, 0));
        self.ok(addresses(ring, ring_at(ring), 0));
        self.ok(event(Code::SetVringCall, ring, true));
        self.ok(event(Code::SetVringKick, ring, true))
    }
}

/// Parts of a ring of 256 entries in the memory of [`Rig::ready`]: descriptors, used, available.
fn ring_at(ring: u8) -> [u64; 3] {
    let start = MEMORY + 0x1_0000 * u64::from(ring);
    [start, start + 0x2000, start + 0x4000]
}

fn file() -> OwnedFd {
    File::open("/dev/null").expect("/dev/null").into()
}

fn message(code: Code, payload: &[u8], fds: usize) -> Message {
    let request = decode(code.number(), payload, (0..fds).map(|_| file()).collect());
    Message { code: code.number(), need_reply: false, size: payload.len(), request }
}

/// The same with a wish for an acknowledgement.
fn wished(message: Message) -> Message {
    Message { need_reply: true, ..message }
}

fn empty(code: Code) -> Message {
    message(code, &[], 0)
}

fn number(code: Code, number: u64) -> Message {
    message(code, &number.to_ne_bytes(), 0)
}

fn state(code: Code, ring: u8, value: u32) -> Message {
    message(code, &[u32::from(ring), value].map(u32::to_ne_bytes).concat(), 0)
}

/// Bit 8 says that there is no descriptor.
fn event(code: Code, ring: u8, given: bool) -> Message {
    let flag = if given { 0 } else { 0x100 };
    message(code, &(u64::from(ring) | flag).to_ne_bytes(), usize::from(given))
}

/// Descriptors, used, available. `log` is the address for the log of written pages, or 0 for none.
fn addresses(ring: u8, [descriptors, used, available]: [u64; 3], log: u64) -> Message {
    let mut payload = [u32::from(ring), u32::from(log != 0)].map(u32::to_ne_bytes).concat();
    payload.extend([descriptors, used, available, log].map(u64::to_ne_bytes).concat());
    message(Code::SetVringAddr, &payload, 0)
}

/// Guest address, size, user address, offset.
type Region = (u64, u64, u64, u64);

fn region_bytes(&(guest, size, user, offset): &Region) -> Vec<u8> {
    [guest, size, user, offset].map(u64::to_ne_bytes).concat()
}

fn table(regions: &[Region]) -> Message {
    let mut payload = [u32::try_from(regions.len()).unwrap(), 0].map(u32::to_ne_bytes).concat();
    payload.extend(regions.iter().flat_map(region_bytes));
    message(Code::SetMemTable, &payload, regions.len())
}

fn slot(code: Code, region: Region) -> Message {
    let payload = [vec![0; 8], region_bytes(&region)].concat();
    message(code, &payload, usize::from(code == Code::AddMemReg))
}

/// Size, offset, rings and their size, as QEMU pads it.
fn inflight(code: Code, size: u64, offset: u64, rings: u16, ring_size: u16) -> Message {
    let mut payload = [size, offset].map(u64::to_ne_bytes).concat();
    payload.extend([rings, ring_size].map(u16::to_ne_bytes).concat());
    payload.extend([0; 4]);
    message(code, &payload, usize::from(code == Code::SetInflightFd))
}
