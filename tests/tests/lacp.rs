//! LACP with Open vSwitch as partner. Our end is the state machine of the crate `bond` over packet sockets: what it
//! decides is carried out here, frame by frame, on two veth pairs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bond::buckets::{BUCKETS, Slot};
use bond::lacp::PortState;
use bond::options::Options;
use bond::{Action, Bond, Collect, Duplex, Link, MemberId, NewMember};
use tests::ovs::Ovs;
use tests::raw::RawSocket;
use tests::veth::{self, End, Veth};
use tests::{Frame, Mac, NetNs};

const ETHERTYPE_SLOW: [u8; 2] = [0x88, 0x09];
/// Streams in each direction.
const STREAMS: u32 = 8;
/// Time between two rounds of frames, one of each stream in each direction. Open vSwitch reads a netdev by a packet
/// socket of default size. On a busy machine its thread may be late, and then faster streams lose frames there.
const PACE: Duration = Duration::from_millis(20);
/// The requirement is four seconds. A busy machine gets more.
const PATIENCE: Duration = Duration::from_secs(20);
/// Number of the first stream towards us.
const TOWARDS_US: u32 = 32;
/// Actor and partner in sync, collecting and distributing.
const WORKING: u8 =
    PortState::AGGREGATION.0 | PortState::SYNCHRONIZATION.0 | PortState::COLLECTING.0 | PortState::DISTRIBUTING.0;

fn link(up: bool) -> Link {
    Link { up, speed: Some(10_000), duplex: Some(Duplex::Full) }
}

/// Frames of a stream: how many were sent, and which came, in order.
#[derive(Default)]
struct Stream {
    sent: u64,
    came: Vec<u64>,
}

/// Two namespaces with two links between them. One has Open vSwitch.
struct Sides {
    ours: NetNs,
    theirs: NetNs,
}

impl Sides {
    fn new() -> Self {
        let sides = Self { ours: NetNs::new("ours"), theirs: NetNs::new("ovs") };
        for number in 0..2 {
            let (a, b) = (format!("m{number}"), format!("va{number}"));
            Veth::default().connect(End { ns: &sides.ours, ifname: &a }, End { ns: &sides.theirs, ifname: &b });
        }
        sides
    }
}

/// Our end of the bond.
struct Ours<'a> {
    ns: &'a NetNs,
    bond: Bond,
    sockets: BTreeMap<MemberId, RawSocket>,
    /// The bridge's port at the other end.
    bridge: RawSocket,
    start: Instant,
    next_round: Option<Instant>,
    streams: BTreeMap<u32, Stream>,
    bucket_frames: [u64; BUCKETS],
    released: Vec<MemberId>,
}

impl<'a> Ours<'a> {
    fn new(sides: &'a Sides, options: &[(&str, &str)]) -> Self {
        let start = Instant::now();
        let mut bond = Bond::new(Options::default(), None);
        for (name, value) in [("mode", "802.3ad")].iter().chain(options) {
            bond.set_option(Duration::ZERO, name, value).expect("an option");
        }
        let mut sockets = BTreeMap::new();
        for name in ["m0", "m1"] {
            let mac = model::MacAddr::new(veth::mac(End { ns: &sides.ours, ifname: name }).0);
            let new = NewMember { name: name.to_owned(), mac, link: link(true) };
            sockets.insert(bond.add(Duration::ZERO, new), RawSocket::open(&sides.ours, name));
        }
        bond.set_up(Duration::ZERO, true);
        let bridge = RawSocket::open(&sides.theirs, "br0");
        let (streams, released, bucket_frames) = (BTreeMap::new(), Vec::new(), [0; BUCKETS]);
        let ns = &sides.ours;
        Self { ns, bond, sockets, bridge, start, next_round: None, streams, bucket_frames, released }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Pulls or plugs a cable. The bond hears of it as it would from the kernel.
    fn set_link(&mut self, number: u16, up: bool) {
        self.ns.sh(&format!("ip link set m{} {}", number - 1, if up { "up" } else { "down" }));
        self.bond.set_link(self.now(), MemberId(number), link(up));
        self.act();
    }

    fn act(&mut self) {
        for action in self.bond.take_actions() {
            match action {
                // A link that has just gone down takes no frame.
                Action::Send { member, frame } => {
                    let _ = self.sockets[&member].try_send(&Frame(frame.to_vec()));
                }
                Action::Release(member) => self.released.push(member),
                Action::Announce | Action::RenewGroups => {}
            }
        }
    }

    /// Goes on until `done` says so, or for that time.
    fn run(&mut self, time: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = Instant::now() + time;
        while !done(self) {
            if Instant::now() >= end {
                return false;
            }
            self.turn();
        }
        true
    }

    fn turn(&mut self) {
        let now = self.now();
        for id in self.sockets.keys().copied().collect::<Vec<_>>() {
            let first = self.sockets[&id].recv(Duration::from_millis(1));
            let others = if first.is_some() { self.sockets[&id].drain() } else { Vec::new() };
            for frame in first.into_iter().chain(others) {
                self.receive(id, &frame);
            }
        }
        for frame in self.bridge.drain() {
            self.note(&frame, |stream| stream < TOWARDS_US);
        }
        let frames = self.bucket_frames;
        self.bond.run(now, |bucket| frames[bucket]);
        self.act();
        if self.next_round.is_some_and(|at| at <= Instant::now()) {
            self.next_round = self.next_round.map(|at| at + PACE);
            self.send_round();
        }
    }

    fn receive(&mut self, id: MemberId, frame: &Frame) {
        if frame.0.get(12..14) == Some(&ETHERTYPE_SLOW) {
            let now = self.now();
            self.bond.receive(now, id, &frame.0).expect("a PDU that is well formed");
            self.act();
        } else if self.bond.collect(id) == Collect::All {
            self.note(frame, |stream| stream >= TOWARDS_US);
        }
    }

    fn note(&mut self, frame: &Frame, wanted: impl Fn(u32) -> bool) {
        if let Some((stream, number)) = frame.mark().filter(|(stream, _)| wanted(*stream)) {
            self.streams.entry(stream).or_default().came.push(number);
        }
    }

    /// A frame of each stream in each direction. A held bucket makes its stream wait for the next round.
    fn send_round(&mut self) {
        for stream in 0..STREAMS {
            let bucket = stream as usize * BUCKETS / STREAMS as usize;
            let Slot::Member(member) = self.bond.buckets().slot(bucket) else { continue };
            let entry = self.streams.entry(stream).or_default();
            let frame = Frame::ethernet(Mac::stranger(stream), Mac::stranger(TOWARDS_US + stream));
            if self.sockets[&member].try_send(&frame.stream(stream, entry.sent, 60)).is_ok() {
                self.bucket_frames[bucket] += 1;
            }
            entry.sent += 1;
            let back = TOWARDS_US + stream;
            let entry = self.streams.entry(back).or_default();
            self.bridge.send(&Frame::ethernet(Mac::stranger(back), Mac::stranger(stream)).stream(back, entry.sent, 60));
            entry.sent += 1;
        }
    }

    /// Streams run while `work` does, and then until all frames had time to arrive. Returns how many were lost to Open
    /// vSwitch, and how many to us.
    ///
    /// # Panics
    /// If a frame came twice, or frames of a stream came in another order.
    fn while_streaming(&mut self, work: impl FnOnce(&mut Self)) -> [u64; 2] {
        self.streams.clear();
        self.next_round = Some(Instant::now());
        self.run(Duration::from_millis(100), |_| false);
        work(self);
        self.run(Duration::from_millis(300), |_| false);
        self.next_round = None;
        self.run(Duration::from_millis(500), |_| false);
        let mut lost = [0; 2];
        for (stream, Stream { sent, came }) in &self.streams {
            assert!(came.windows(2).all(|pair| pair[0] < pair[1]), "stream {stream}: {came:?}");
            lost[usize::from(*stream >= TOWARDS_US)] += sent - came.len() as u64;
        }
        lost
    }

    /// Members whose both ends work.
    fn working(&self) -> usize {
        let members = self.bond.members().into_iter().filter_map(|member| member.lacp);
        let works = |state: PortState| state.has(PortState(WORKING));
        members.filter(|port| works(port.actor.state) && works(port.partner.state)).count()
    }
}

#[test]
fn open_vswitch_agrees_in_each_combination_of_rate_and_activity() {
    let combinations = [
        ([("lacp_rate", "fast"), ("lacp_active", "on")], "lacp=active other_config:lacp-time=fast"),
        ([("lacp_rate", "slow"), ("lacp_active", "on")], "lacp=passive other_config:lacp-time=fast"),
        ([("lacp_rate", "slow"), ("lacp_active", "off")], "lacp=active other_config:lacp-time=slow"),
    ];
    // Side by side, because each takes its seconds.
    std::thread::scope(|scope| {
        for (ours, theirs) in combinations {
            scope.spawn(move || agree(&ours, theirs));
        }
    });
}

fn agree(ours: &[(&str, &str)], theirs: &str) {
    let sides = Sides::new();
    let ovs = Ovs::bond(&sides.theirs, &["va0", "va1"], &format!("bond_mode=balance-tcp {theirs}"));
    let mut bond = Ours::new(&sides, ours);
    let agreed = bond.run(PATIENCE, |bond| bond.working() == 2);
    println!("{ours:?} with {theirs}: agreed after {:?}", bond.now());
    let shown = ovs.ask("lacp/show bond0");
    assert!(agreed, "{:#?}\n{shown}", bond.bond.members());
    assert!(shown.contains("negotiated"), "{shown}");
    assert_eq!(shown.matches(": current attached").count(), 2, "{shown}");
    let system = format!("partner sys_id: {}", bond.bond.system().0);
    assert_eq!(shown.matches(&system).count(), 2, "{shown}");
}

#[test]
fn members_go_and_come_under_streams_with_open_vswitch() {
    let sides = Sides::new();
    let options = "bond_mode=balance-tcp lacp=active other_config:lacp-time=fast";
    let ovs = Ovs::bond(&sides.theirs, &["va0", "va1"], options);
    let mut ours = Ours::new(&sides, &[("lacp_rate", "fast")]);
    assert!(ours.run(PATIENCE, |ours| ours.working() == 2), "{}", ovs.ask("lacp/show bond0"));
    // Addresses are learned first.
    ours.while_streaming(|_| {});
    let lost = ours.while_streaming(|ours| {
        ours.run(Duration::from_millis(500), |_| false);
    });
    assert_eq!(lost, [0, 0], "without any change");
    // The cable is pulled. What was on it is lost, and nothing afterwards.
    let lost = ours.while_streaming(|ours| {
        ours.set_link(1, false);
        ours.run(Duration::from_secs(1), |_| false);
    });
    println!("link lost: {lost:?} frames lost");
    assert_eq!(ours.bond.buckets().members(), [MemberId(2)]);
    // It comes back, and takes its share of streams, which are busy, without disorder.
    let lost = ours.while_streaming(|ours| {
        ours.set_link(1, true);
        assert!(ours.run(PATIENCE, |ours| ours.working() == 2), "{}", ovs.ask("lacp/show bond0"));
        assert!(ours.run(PATIENCE, |ours| !ours.bond.buckets().unsettled()));
    });
    assert_eq!(lost, [0, 0], "a link that comes back");
    let share = |slot| ours.bond.buckets().slots().iter().filter(|at| **at == Slot::Member(MemberId(slot))).count();
    assert_eq!([share(1), share(2)], [128, 128]);
    // A member is removed with notice.
    let lost = ours.while_streaming(|ours| {
        ours.bond.remove(ours.now(), MemberId(2));
        ours.act();
        assert!(ours.run(PATIENCE, |ours| ours.released == [MemberId(2)]));
    });
    assert_eq!(lost, [0, 0], "an announced removal");
    assert_eq!(ours.bond.buckets().members(), [MemberId(1)]);
}
