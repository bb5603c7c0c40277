//! Events that their owner makes block, and other descriptors.
#![cfg(not(miri))]

use std::fs::File;
use std::sync::mpsc::channel;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::*;

/// Tests with contexts go one after the other: a new context may get the address of one that has gone.
static ONE: Mutex<()> = Mutex::new(());

/// An event as its front end has it, and as it is here.
fn event(flags: EfdFlags) -> (EventFd, Event) {
    let theirs = EventFd::from_flags(flags | EfdFlags::EFD_CLOEXEC).unwrap();
    let ours = Arc::new(theirs.as_fd().try_clone_to_owned().unwrap());
    (theirs, Event::try_from(ours).unwrap())
}

/// Signals on a thread of its own, which may hang if there is a mistake.
fn signal_in_time(event: &Event) {
    let (tell, told) = channel();
    let event = event.clone();
    std::thread::spawn(move || tell.send(event.signal()));
    assert_eq!(told.recv_timeout(Duration::from_secs(60)).expect("nobody waits"), Ok(()));
}

#[test]
fn each_signal_adds_one() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (theirs, ours) = event(EfdFlags::EFD_NONBLOCK);
    for count in [1, 2, 1000] {
        for _ in 0..count {
            ours.signal().unwrap();
        }
        assert_eq!(theirs.read(), Ok(count), "more signals than the context has room for");
    }
    let signal = |ours: Event| std::thread::spawn(move || (0..100).for_each(|_| ours.signal_rarely().unwrap()));
    let threads: Vec<_> = (0..4).map(|_| signal(ours.clone())).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(theirs.read(), Ok(400));
    assert_eq!(theirs.read(), Err(Errno::EAGAIN));
}

#[test]
fn a_full_counter_that_blocks_stops_nobody() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (theirs, ours) = event(EfdFlags::empty());
    theirs.write(u64::MAX - 1).unwrap();
    let flags = OFlag::from_bits_retain(fcntl(&theirs, FcntlArg::F_GETFL).unwrap());
    assert!(!flags.contains(OFlag::O_NONBLOCK), "nobody has changed its mode");
    for _ in 0..3 {
        signal_in_time(&ours);
    }
    assert_eq!(theirs.read(), Ok(u64::MAX), "a reader is woken as well");
    signal_in_time(&ours);
    assert_eq!(theirs.read(), Ok(1));
}

#[test]
fn what_is_no_eventfd_is_refused() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let memory = memfd_create(c"anon_inode:[eventfd]", MFdFlags::MFD_CLOEXEC).unwrap();
    let epoll = nix::sys::epoll::Epoll::new(nix::sys::epoll::EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let null = File::options().write(true).open("/dev/null").unwrap();
    for fd in [reader, writer, memory, epoll.0, null.into()] {
        assert_eq!(Event::try_from(Arc::new(fd)).err(), Some(EventError::NoEventFd));
    }
    // Even if it had not been found out.
    let (reader, _writer) = nix::unistd::pipe().unwrap();
    assert_eq!(Event(Arc::new(reader)).signal(), Err(EventError::NoEventFd));
}

#[test]
fn a_context_goes_with_its_thread() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let has = |start: libc::c_ulong| {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().any(|line| line.starts_with(&format!("{start:x}-")) && line.contains("[aio]"))
    };
    let used = std::thread::spawn(move || {
        let (_, ours) = event(EfdFlags::EFD_NONBLOCK);
        ours.signal().unwrap();
        let id = CONTEXT.with_borrow(|context| context.as_ref().unwrap().id);
        assert!(has(id), "the number is the address of what the kernel shares");
        id
    });
    assert!(!has(used.join().unwrap()));
}
