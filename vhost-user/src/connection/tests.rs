//! Connections over real sockets, with front ends that are slow, odd or gone.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};

use super::*;
use crate::message::{HEADER_LEN, InflightLayout, InflightRegion, Malformed, Message, Reply, Request};
use crate::session::{Action, Offer, Outcome};

const OFFER: Offer = Offer {
    features: 1 << 32,
    protocol_features: 1 << 3,
    rings: 2,
    queue_num: 1,
    enabled_at_first: 2,
    mem_slots: 8,
    max_mtu: 1500,
};

fn pair() -> (UnixStream, Connection) {
    let (front, back) = UnixStream::pair().expect("a pair");
    (front, back.into())
}

/// Bytes of a request without a wish for an acknowledgement.
fn bytes(code: u32, payload: &[u8]) -> Vec<u8> {
    flagged(code, 1, payload)
}

fn flagged(code: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap();
    [[code, flags, size].map(u32::to_ne_bytes).concat(), payload.to_vec()].concat()
}

fn send(front: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let numbers: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&numbers)];
    let sent = sendmsg::<()>(front.as_raw_fd(), &[std::io::IoSlice::new(bytes)], &control, MsgFlags::empty(), None);
    assert_eq!(sent, Ok(bytes.len()));
}

fn next(connection: &mut Connection) -> Message {
    connection.next_message().expect("a connection").expect("a message")
}

#[test]
fn messages_come_whole_however_they_were_sent() {
    let (mut front, mut back) = pair();
    assert!(back.next_message().unwrap().is_none(), "nobody waits");
    let kick = bytes(12, &[1, 0, 0, 0, 0, 0, 0, 0]);
    let null = File::open("/dev/null").unwrap();
    // A byte at a time. The descriptor comes with the first.
    send(&front, &kick[..1], &[std::os::fd::AsFd::as_fd(&null)]);
    for byte in &kick[1..] {
        assert!(back.next_message().unwrap().is_none());
        front.write_all(&[*byte]).unwrap();
    }
    let message = next(&mut back);
    assert!(matches!(message.request, Ok(Request::SetVringKick { ring: 1, fd: Some(_) })), "{message:?}");
    // Several at once, each with its own descriptors.
    front.write_all(&[bytes(3, &[]), bytes(1, &[])].concat()).unwrap();
    send(&front, &kick, &[std::os::fd::AsFd::as_fd(&null)]);
    front.write_all(&bytes(4, &[])).unwrap();
    let codes: Vec<_> =
        (0..4).map(|_| next(&mut back)).map(|message| (message.code, message.request.is_ok())).collect();
    assert_eq!(codes, [(3, true), (1, true), (12, true), (4, true)]);
    assert!(back.next_message().unwrap().is_none());
}

#[test]
fn descriptors_close_on_exec() {
    let (front, mut back) = pair();
    send(&front, &bytes(7, &[]), &[std::os::fd::AsFd::as_fd(&front)]);
    let Ok(Request::SetLogFd(fd)) = next(&mut back).request else { panic!("another request") };
    let flags = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_GETFD).unwrap();
    assert_eq!(flags, nix::libc::FD_CLOEXEC);
}

#[test]
fn the_end_is_told_and_whether_it_came_within_a_message() {
    let (front, mut back) = pair();
    assert!(!back.is_hung_up());
    drop(front);
    assert!(back.is_hung_up());
    assert!(matches!(back.next_message(), Err(Ended::Closed)));
    let (mut front, mut back) = pair();
    front.write_all(&bytes(3, &[])).unwrap();
    front.write_all(&bytes(1, &[])[..5]).unwrap();
    drop(front);
    assert!(back.is_hung_up(), "even if there is something to read");
    assert_eq!(next(&mut back).code, 3);
    assert!(matches!(back.next_message(), Err(Ended::Cut)));
}

#[test]
fn what_is_no_message_ends_the_connection() {
    let (mut front, mut back) = pair();
    front.write_all(&flagged(1, 5, &[])).unwrap();
    assert!(matches!(back.next_message(), Err(Ended::Malformed(Malformed::Reply))));
}

#[test]
fn more_descriptors_than_any_message_has_are_closed() {
    for with_each_byte in [false, true] {
        let (front, mut back) = pair();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let fd = std::os::fd::AsFd::as_fd(&writer);
        if with_each_byte {
            bytes(1, &[])[..9].iter().for_each(|byte| send(&front, &[*byte], &[fd]));
        } else {
            // As many as the kernel lets through.
            send(&front, &bytes(1, &[]), &[fd; 253]);
        }
        assert!(matches!(back.next_message(), Err(Ended::Malformed(Malformed::TooManyDescriptors))));
        drop((back, writer));
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "all are closed");
    }
}

/// A thread with descriptors of its own opens as many as it may. Other tests go on.
#[test]
fn descriptors_that_were_lost_end_the_connection_and_the_others_are_closed() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft.min(1024), hard).unwrap();
    let tried = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_FILES).expect("descriptors of its own");
        let (front, mut back) = pair();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut open: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        open.truncate(open.len() - 1);
        send(&front, &bytes(12, &[0; 8]), &[std::os::fd::AsFd::as_fd(&writer); 3]);
        let ended = back.next_message();
        assert!(matches!(ended, Err(Ended::DescriptorsLost)), "{ended:?}");
        drop((open, writer));
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the one that was not lost is closed");
    });
    tried.join().unwrap();
}

/// It costs the connection one reply of memory, and nobody waits.
#[test]
fn a_front_end_that_does_not_read_is_not_served_until_it_does() {
    let (mut front, mut back) = pair();
    front.set_nonblocking(true).unwrap();
    setsockopt(&back, sockopt::SndBuf, &4096).unwrap();
    let (mut asked, mut answered) = (0_u64, 0_u64);
    // Both ways fill.
    loop {
        let sent = front.write(&bytes(1, &[]));
        let is_full = sent.is_err();
        asked += u64::from(!is_full);
        let served = match back.next_message().unwrap() {
            Some(message) => {
                back.send(Reply::number(message.code, answered)).unwrap();
                answered += 1;
                true
            }
            None => false,
        };
        if is_full && !served {
            break;
        }
    }
    assert_eq!(back.events(), PollFlags::POLLOUT);
    assert!(answered < asked);
    // It reads at last, and has lost nothing.
    for expected in 0..asked {
        let mut reply = [0; HEADER_LEN + 8];
        while let Some(message) = back.next_message().unwrap() {
            back.send(Reply::number(message.code, answered)).unwrap();
            answered += 1;
        }
        front.read_exact(&mut reply).unwrap();
        assert_eq!(reply[HEADER_LEN..], expected.to_ne_bytes());
    }
    assert!(back.flush().unwrap());
    assert_eq!((answered, back.events()), (asked, PollFlags::POLLIN));
}

#[test]
fn a_reply_takes_its_descriptor_along() {
    let (front, mut back) = pair();
    let layout = InflightLayout { size: 4096, offset: 0, rings: 1, ring_size: 128 };
    let fd = File::open("/dev/null").unwrap().into();
    back.send(Reply::inflight(Some(InflightRegion { layout, fd }), 24)).unwrap();
    let mut buffer = [0; 100];
    let received = super::receive::receive(std::os::fd::AsFd::as_fd(&front), &mut buffer).unwrap();
    assert_eq!((received.count, received.fds.len(), received.lost), (HEADER_LEN + 24, 1, false));
}

#[test]
fn a_front_end_that_is_gone_when_it_is_answered_ends_the_connection() {
    let (front, mut back) = pair();
    drop(front);
    assert!(matches!(back.send(Reply::number(1, 1)), Err(Ended::Closed)));
}

fn front_end() -> (UnixStream, FrontEnd) {
    let (front, back) = pair();
    (front, FrontEnd::new(back, OFFER))
}

fn turn(back: &mut FrontEnd) -> crate::session::Turn {
    back.next_turn().expect("a connection").expect("a turn")
}

#[test]
fn a_device_may_take_its_time_for_a_request() {
    let (mut front, mut back) = front_end();
    front.write_all(&[flagged(3, 9, &[]), bytes(1, &[])].concat()).unwrap();
    assert_eq!(back.events(), PollFlags::POLLIN);
    let owner = turn(&mut back);
    assert!(back.session().is_owned());
    // Nothing else is taken, and nothing is answered, until it is done.
    assert_eq!(back.events(), PollFlags::empty());
    assert!(back.next_turn().unwrap().is_none());
    front.set_nonblocking(true).unwrap();
    assert!(front.read(&mut [0]).is_err());
    assert_eq!(back.finish(owner, Outcome::Done).unwrap(), None);
    let features = turn(&mut back);
    back.finish(features, Outcome::Done).unwrap();
    let mut replies = [0; 2 * (HEADER_LEN + 8)];
    front.read_exact(&mut replies).unwrap();
    assert_eq!(replies[..HEADER_LEN], flagged(3, 5, &[0; 8])[..HEADER_LEN]);
    assert_eq!(replies[32..], (1_u64 << 32 | 1 << 30).to_ne_bytes());
    assert!(back.next_turn().unwrap().is_none());
}

#[test]
fn a_refusal_is_told_and_the_connection_goes_on_or_ends() {
    let (mut front, mut back) = front_end();
    front.write_all(&flagged(99, 9, &[])).unwrap();
    let unknown = turn(&mut back);
    assert_eq!(back.finish(unknown, Outcome::Done).unwrap().as_deref(), Some("request 99: request 99 is not known"));
    let mut reply = [0; HEADER_LEN + 8];
    front.read_exact(&mut reply).unwrap();
    assert_eq!(reply[HEADER_LEN..], 1_u64.to_ne_bytes());
    front.write_all(&flagged(5, 9, &[0; 8])).unwrap();
    let table = turn(&mut back);
    assert_eq!(table.actions, [Action::MemoryChanged]);
    let ended = back.finish(table, Outcome::Failed("no memory".to_owned()));
    assert!(matches!(ended, Err(Ended::Refused(why)) if why == "SET_MEM_TABLE: no memory"));
    front.read_exact(&mut reply).unwrap();
    assert_eq!(reply[HEADER_LEN..], 1_u64.to_ne_bytes(), "it was told before the end");
    assert_eq!(back.hang_up(), []);
}

#[test]
fn the_front_end_is_asked_to_read_the_configuration_again() {
    let (mut front, back) = UnixStream::pair().unwrap();
    let channel = BackendChannel::from(Arc::new(OwnedFd::from(back)));
    channel.config_changed().unwrap();
    let mut request = [0; HEADER_LEN];
    front.read_exact(&mut request).unwrap();
    assert_eq!(request[..], bytes(2, &[]));
    // It never reads, and nobody waits for it.
    let refused = (0..1_000_000).find_map(|_| channel.config_changed().err());
    assert_eq!(refused, Some(Errno::EAGAIN));
    drop(front);
    assert_eq!(channel.config_changed(), Err(Errno::EPIPE));
}

#[test]
fn a_channel_that_is_no_socket_is_of_no_use_and_no_harm() {
    let null = File::options().write(true).open("/dev/null").unwrap();
    assert_eq!(BackendChannel::from(Arc::new(null.into())).config_changed(), Err(Errno::ENOTSOCK));
    let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(BackendChannel::from(Arc::new(other.into())).config_changed(), Err(Errno::EAFNOSUPPORT));
}
