//! Two systems and the links between them, in made-up time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use model::MacAddr;

use super::super::*;
use crate::Duplex;

/// The systems' names.
pub(super) const A: usize = 0;
pub(super) const B: usize = 1;

pub(super) const fn ms(ms: u64) -> Time {
    Time::from_millis(ms)
}

pub(super) const fn s(seconds: u64) -> Time {
    Time::from_secs(seconds)
}

pub(super) fn config(n: u64) -> LacpConfig {
    LacpConfig {
        system: MacAddr::from_u64(0x0200_0000_0a00 + n),
        system_priority: 65535,
        user_key: 0,
        rate: LacpRate::Slow,
        active: true,
        select: AdSelect::Stable,
    }
}

pub(super) fn link(up: bool, speed: u32) -> Link {
    Link { up, speed: Some(speed), duplex: Some(Duplex::Full) }
}

/// What a link does to a frame: how often it arrives, and after how many milliseconds.
pub(super) type Fate = (usize, u64);

/// Systems of which port `n` of one is linked to port `n` of the other.
pub(super) struct Net {
    pub(super) systems: Vec<Lacp>,
    pub(super) now: Time,
    /// Frames on their way: when, order of sending, to which system and port.
    flying: BinaryHeap<Reverse<(Time, u64, usize, MemberId)>>,
    frames: BTreeMap<u64, [u8; pdu::FRAME_LEN]>,
    order: u64,
    /// LACPDUs that were sent: when, by which system and port.
    pub(super) sent: Vec<(Time, usize, MemberId)>,
    /// How the links of the systems are plugged: system and port to system and port.
    pub(super) cables: BTreeMap<(usize, MemberId), (usize, MemberId)>,
}

impl Net {
    /// Systems with so many ports each, all links up and plugged between the first two.
    pub(super) fn new(configs: &[LacpConfig], ports: u16) -> Self {
        let systems = configs.iter().map(|config| Lacp::new(*config)).collect();
        let mut net = Self {
            systems,
            now: ms(0),
            flying: BinaryHeap::new(),
            frames: BTreeMap::new(),
            order: 0,
            sent: Vec::new(),
            cables: BTreeMap::new(),
        };
        for port in (1..=ports).map(MemberId) {
            for system in 0..configs.len() {
                net.systems[system].add(port);
            }
            net.plug((A, port), (B, port));
            net.set_link(A, port, true);
            net.set_link(B, port, true);
        }
        net
    }

    pub(super) fn plug(&mut self, a: (usize, MemberId), b: (usize, MemberId)) {
        self.cables.insert(a, b);
        self.cables.insert(b, a);
    }

    pub(super) fn set_link(&mut self, system: usize, port: MemberId, up: bool) {
        self.systems[system].set_link(self.now, port, link(up, 10_000));
    }

    /// Both ends of a cable.
    pub(super) fn set_cable(&mut self, port: u16, up: bool) {
        self.set_link(A, MemberId(port), up);
        self.set_link(B, MemberId(port), up);
    }

    /// Lets time pass until `end`. `fate` says what becomes of each frame.
    pub(super) fn run(&mut self, end: Time, mut fate: impl FnMut() -> Fate) {
        loop {
            self.collect(&mut fate);
            let due = self.systems.iter().map(|system| system.deadline(self.now)).fold(None, earliest);
            if let Some(due) = due {
                assert!(due > self.now, "a thread would spin");
            }
            let arrival = self.flying.peek().map(|Reverse((at, ..))| *at);
            let next = earliest(due, arrival).filter(|next| *next <= end);
            let Some(next) = next else { break };
            self.now = next;
            while self.flying.peek().is_some_and(|Reverse((at, ..))| *at <= next) {
                let Some(Reverse((_, order, system, port))) = self.flying.pop() else { break };
                let frame = self.frames.remove(&order).unwrap();
                self.systems[system].receive(next, port, &frame).unwrap();
            }
            self.systems.iter_mut().for_each(|system| system.run(next));
        }
        self.now = end;
    }

    /// Frames arrive once, after a millisecond.
    pub(super) fn run_well(&mut self, end: Time) {
        self.run(end, || (1, 1));
    }

    fn collect(&mut self, fate: &mut impl FnMut() -> Fate) {
        for from in 0..self.systems.len() {
            for (port, pdu) in self.systems[from].take_frames() {
                self.sent.push((self.now, from, port));
                let Some(&(to, at)) = self.cables.get(&(from, port)) else { continue };
                let (copies, delay) = fate();
                for copy in 0..copies as u64 {
                    self.order += 1;
                    self.frames.insert(self.order, pdu.encode(MacAddr::from_u64(2)));
                    self.flying.push(Reverse((self.now + ms(1 + delay + copy), self.order, to, at)));
                }
            }
        }
    }

    /// Fails if any port sent more than three LACPDUs in any second.
    pub(super) fn assert_limit(&self) {
        let mut by_port: BTreeMap<(usize, MemberId), Vec<Time>> = BTreeMap::new();
        for &(at, system, port) in &self.sent {
            by_port.entry((system, port)).or_default().push(at);
        }
        for (port, times) in by_port {
            for four in times.windows(4) {
                assert!(four[3] - four[0] >= s(1), "{port:?} sent {four:?}");
            }
        }
    }

    /// State byte of a port.
    pub(super) fn state(&self, system: usize, port: u16) -> u8 {
        self.systems[system].port(MemberId(port)).unwrap().actor.state.0
    }

    /// Ports that distribute.
    pub(super) fn distributing(&self, system: usize) -> Vec<u16> {
        let lacp = &self.systems[system];
        lacp.ids().into_iter().filter(|id| lacp.distributes(*id)).map(|id| id.0).collect()
    }
}
