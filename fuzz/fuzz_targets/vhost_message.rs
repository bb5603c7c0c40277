//! Fuzzes the vhost-user message layer: arbitrary bytes and messages with odd descriptors over a real socket, to a
//! device that does as it is told. The session stays sound, nobody waits for ever, and no descriptor is left open.
#![no_main]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::EventFd;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use vhost_user::connection::{BackendChannel, FrontEnd};
use vhost_user::message::{InflightLayout, InflightRegion};
use vhost_user::session::{Action, Kick, Offer, Outcome, RingBase};

/// Payload sizes that requests have.
const SIZES: [usize; 12] = [0, 8, 16, 20, 24, 40, 72, 13, 268, 264, 9, 64];

/// Few rings, so that one input finds several in use.
const RINGS: u16 = 3;

/// Descriptors that a front end might send: files of odd sizes, and what is no memory at all.
static ODD: LazyLock<Vec<OwnedFd>> = LazyLock::new(|| {
    let memory = |size| {
        let file = File::from(memfd_create("guest", MFdFlags::MFD_CLOEXEC).expect("a file"));
        file.set_len(size).expect("a size");
        OwnedFd::from(file)
    };
    let (socket, _) = UnixStream::pair().expect("sockets");
    let (reader, _) = std::io::pipe().expect("a pipe");
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("an epoll set");
    vec![
        memory(0),
        memory(1),
        memory(0x1001),
        memory(1 << 40),
        EventFd::new().expect("an event").into(),
        File::open("/dev/null").expect("/dev/null").into(),
        File::open("/").expect("a directory").into(),
        socket.into(),
        reader.into(),
        epoll.0,
    ]
});

/// The lowest number that is free when nothing of an input is open.
static LOWEST: LazyLock<RawFd> = LazyLock::new(|| {
    LazyLock::force(&ODD);
    lowest()
});

fn lowest() -> RawFd {
    File::open("/dev/null").expect("/dev/null").as_raw_fd()
}

/// What is left of an input.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// As many bytes, or as there are.
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// What a front end sends next: now and then bytes of any kind, else a message with a proper header.
    fn next(&mut self) -> Option<(Vec<u8>, Vec<RawFd>)> {
        let kind = self.byte()?;
        let count = [0, 0, 1, 1, 1, 2, 8, 9][usize::from(kind & 7)];
        let fds = (0..count).map(|_| ODD[usize::from(self.byte().unwrap_or(0)) % ODD.len()].as_raw_fd()).collect();
        if kind >> 4 == 15 {
            let count = usize::from(self.byte()?) + 1;
            let bytes = self.bytes(count).to_vec();
            return (!bytes.is_empty()).then_some((bytes, fds));
        }
        let code = u32::from(self.byte()? % 45);
        let flags = if kind & 8 == 0 { 1_u32 } else { 9 };
        let size = SIZES[usize::from(kind >> 4) % SIZES.len()];
        let mut payload = self.bytes(size).to_vec();
        payload.resize(size, 0);
        let header = [code, flags, u32::try_from(size).ok()?].map(u32::to_ne_bytes).concat();
        Some(([header, payload].concat(), fds))
    }
}

/// A device. It knows which rings it was told to run.
struct Device {
    running: BTreeSet<u8>,
}

impl Device {
    fn carry_out(&mut self, front_end: &mut FrontEnd, actions: &[Action], choice: u8) -> Outcome {
        let mut outcome = if choice == 0 { Outcome::Failed("no".to_owned()) } else { Outcome::Done };
        for action in actions {
            match *action {
                Action::StopRing(ring) => {
                    assert!(self.running.remove(&ring));
                    front_end.ring_stopped(ring, RingBase(choice.into()));
                }
                Action::StartRing(ring) => assert!(self.running.insert(ring)),
                Action::KickChanged(ring)
                | Action::CallChanged(ring)
                | Action::ErrChanged(ring)
                | Action::RingLogChanged(ring)
                | Action::RingEnabled { ring, .. } => assert!(self.running.contains(&ring)),
                Action::BackendChannelChanged => {
                    let channel = front_end.session().backend_channel().expect("a channel").clone();
                    let _ = BackendChannel::from(channel).config_changed();
                }
                Action::ReadConfig { size, .. } if choice.is_multiple_of(2) => {
                    outcome = Outcome::Config(vec![choice; usize::try_from(size).expect("some bytes")]);
                }
                Action::MakeInflight { rings, ring_size } if choice.is_multiple_of(2) => {
                    let fd = ODD[0].try_clone().expect("a descriptor");
                    let layout = InflightLayout { size: 4096, offset: 0, rings, ring_size };
                    outcome = Outcome::Inflight(InflightRegion { layout, fd });
                }
                _ => {}
            }
        }
        outcome
    }

    fn check(&self, front_end: &FrontEnd) {
        let session = front_end.session();
        assert_eq!(session.rings().len(), usize::from(RINGS));
        for (number, ring) in (0..).zip(session.rings()) {
            assert_eq!(ring.is_started(), self.running.contains(&number));
            if ring.is_started() {
                assert!(ring.num.is_some_and(|num| num > 0) && ring.addresses.is_some());
                assert!(!matches!(ring.kick, Kick::Unset) && session.features().is_some());
                assert_eq!(ring.lacks(session.memory(), session.is_packed()), None);
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let (mut input, lowest_before) = (Input(data), *LOWEST);
    let offer = Offer {
        features: u64::MAX >> 1,
        protocol_features: if input.byte().unwrap_or(0) & 1 == 0 { u64::MAX } else { 1 << 3 },
        rings: RINGS,
        queue_num: 1,
        enabled_at_first: 2,
        mem_slots: 8,
        max_mtu: 9000,
    };
    let (mut front, back) = UnixStream::pair().expect("sockets");
    front.set_nonblocking(true).expect("a socket that does not wait");
    let mut front_end = FrontEnd::new(back.into(), offer);
    let mut device = Device { running: BTreeSet::new() };
    let mut replies = [0; 1024];
    'connection: while let Some((bytes, fds)) = input.next() {
        let control = [ControlMessage::ScmRights(&fds)];
        let control = if fds.is_empty() { &control[..0] } else { &control[..] };
        sendmsg::<()>(front.as_fd().as_raw_fd(), &[IoSlice::new(&bytes)], control, MsgFlags::empty(), None)
            .expect("room");
        loop {
            let turn = match front_end.next_turn() {
                Ok(Some(turn)) => turn,
                Ok(None) => break,
                Err(_) => break 'connection,
            };
            let actions = turn.actions.clone();
            let choice = input.0.first().copied().unwrap_or(1);
            let outcome = device.carry_out(&mut front_end, &actions, choice);
            if front_end.finish(turn, outcome).is_err() {
                break 'connection;
            }
            device.check(&front_end);
        }
        // Descriptors in replies are closed by that, too.
        while front.read(&mut replies).is_ok_and(|count| count > 0) {}
    }
    let actions = front_end.hang_up();
    device.carry_out(&mut front_end, &actions, 1);
    assert!(device.running.is_empty());
    drop((front_end, front));
    assert_eq!(lowest(), lowest_before, "a descriptor is left open");
});
