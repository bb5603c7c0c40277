//! A recorded conversation with Open vSwitch. What it sent comes in again at the same times. Our end must then come to
//! the same end, or it has changed what partners see.

use std::time::Duration;

use bond::lacp::{MuxState, PortState, ReceiveState};
use bond::options::Options;
use bond::{Action, Bond, Duplex, Link, MemberId, NewMember};

const RECORD: &str = include_str!("ovs-3.1.tsv");
const MEMBERS: [&str; 2] = ["da:b5:6a:00:83:02", "3e:f7:ba:c9:f7:9d"];
/// Activity, timeout, aggregation, synchronization, collecting and distributing.
const ALL: PortState = PortState(0x3f);

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two hex digits");
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn link(up: bool) -> Link {
    Link { up, speed: Some(10_000), duplex: Some(Duplex::Full) }
}

struct Replay {
    bond: Bond,
    now: Duration,
    /// LACPDUs that were sent: when, and by which member.
    sent: Vec<(Duration, MemberId)>,
}

impl Replay {
    fn new() -> Self {
        let mut bond = Bond::new(Options::default(), None);
        for (name, value) in [("mode", "802.3ad"), ("lacp_rate", "fast")] {
            bond.set_option(Duration::ZERO, name, value).expect("an option");
        }
        for (number, mac) in MEMBERS.iter().enumerate() {
            let mac = mac.parse().expect("an address");
            bond.add(Duration::ZERO, NewMember { name: format!("m{number}"), mac, link: link(true) });
        }
        bond.set_up(Duration::ZERO, true);
        Self { bond, now: Duration::ZERO, sent: Vec::new() }
    }

    /// Does all that is due until then.
    fn run(&mut self, until: Duration) {
        loop {
            for action in self.bond.take_actions() {
                if let Action::Send { member, .. } = action {
                    self.sent.push((self.now, member));
                }
            }
            let Some(due) = self.bond.deadline(self.now).filter(|due| *due <= until) else { break };
            self.now = due;
            self.bond.run(due, |_| 0);
        }
        self.now = until;
    }

    /// Plays the record up to that time, in milliseconds.
    fn play(&mut self, from: u64, to: u64) {
        for line in RECORD.lines().filter(|line| !line.starts_with('#')) {
            let mut columns = line.split('\t');
            let mut next = || columns.next().expect("three columns");
            let at: u64 = next().parse().expect("milliseconds");
            let member = MemberId(next().parse().expect("a member"));
            if (from..to).contains(&at) {
                self.run(Duration::from_millis(at));
                match next() {
                    "up" => self.bond.set_link(self.now, member, link(true)),
                    "down" => self.bond.set_link(self.now, member, link(false)),
                    frame => self.bond.receive(self.now, member, &bytes(frame)).expect("a PDU"),
                }
            }
        }
        self.run(Duration::from_millis(to));
    }

    fn states(&self) -> Vec<(ReceiveState, MuxState, PortState, PortState)> {
        let ports = self.bond.members().into_iter().filter_map(|member| member.lacp);
        ports.map(|port| (port.receive, port.mux, port.actor.state, port.partner.state)).collect()
    }
}

#[test]
fn a_conversation_with_open_vswitch_comes_to_the_same_end() {
    let mut replay = Replay::new();
    let works = (ReceiveState::Current, MuxState::Distributing, ALL, ALL);
    replay.play(0, 4000);
    assert_eq!(replay.states(), [works, works]);
    let aggregator = replay.bond.aggregator().expect("a partner");
    assert_eq!((aggregator.ports, aggregator.actor_key), (2, 15));
    // A member loses its link for two seconds.
    replay.play(4000, 7000);
    let [first, second] = replay.states()[..] else { panic!("two ports") };
    assert_eq!((first.0, first.1, second), (ReceiveState::Disabled, MuxState::Attached, works));
    assert_eq!(replay.bond.buckets().members(), [MemberId(2)]);
    replay.play(7000, 9000);
    assert_eq!(replay.states(), [works, works]);
    assert_eq!(replay.bond.buckets().members(), [MemberId(1), MemberId(2)]);
    // The partner asks for a LACPDU each second.
    for member in [MemberId(1), MemberId(2)] {
        let times: Vec<_> = replay.sent.iter().filter(|(_, by)| *by == member).map(|(at, _)| *at).collect();
        assert!(times.windows(4).all(|four| four[3] - four[0] >= Duration::from_secs(1)), "{times:?}");
        assert!(times.len() >= 7, "{times:?}");
    }
}
