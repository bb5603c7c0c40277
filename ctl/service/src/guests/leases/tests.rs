//! Leases of made-up sockets, and processes that end.

use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use super::*;

fn drop_it(_: &str) {}

fn sleeper() -> Child {
    Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap()
}

fn socket() -> (OwnedFd, UnixStream) {
    let (one, other) = UnixStream::pair().unwrap();
    (one.into(), other)
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether all copies of the peer's socket are closed.
fn is_closed(other: &UnixStream) -> bool {
    let mut fds = [PollFd::new(other, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).unwrap() == 1 && fds[0].revents().contains(PollFlags::HUP)
}

#[test]
fn a_lease_ends_with_its_process_and_the_copies_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let leases = Leases::open(&dir.path().join("guests"), drop_it).unwrap();
    let mut child = sleeper();
    let (sent, other) = socket();
    leases.give("vm1", Process::open(child.id().cast_signed()).unwrap(), vec![sent], false).unwrap();
    let holder = leases.holder("vm1").unwrap();
    assert_eq!((holder.pid, holder.command.as_str()), (child.id().cast_signed(), "sleep"));
    assert_eq!((holder.bound_since, holder.sockets[0].bound), (None, false));
    assert!(!is_closed(&other) && leases.holders().len() == 1);
    child.kill().unwrap();
    until("nobody asked, and it is over", || is_closed(&other));
    assert_eq!(leases.holder("vm1"), None);
    assert_eq!(fs::read_dir(dir.path().join("guests")).unwrap().count(), 0);
    child.wait().unwrap();
}

#[test]
fn a_lease_outlives_the_daemon_but_not_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let (sent, _other) = socket();
    // This process holds the socket, in place of a guest's.
    let mine = sent.try_clone().unwrap();
    let this = || Process::open(std::process::id().cast_signed()).unwrap();
    let leases = Leases::open(dir.path(), drop_it).unwrap();
    leases.give("vm1", this(), vec![sent], false).unwrap();
    let before = leases.holder("vm1").unwrap();
    drop(leases);
    let leases = Leases::open(dir.path(), drop_it).unwrap();
    assert_eq!(leases.holder("vm1"), Some(before));
    leases.end("vm1");
    assert_eq!(Leases::open(dir.path(), drop_it).unwrap().holder("vm1"), None);

    let mut child = sleeper();
    let leases = Leases::open(dir.path(), drop_it).unwrap();
    leases.give("vm2", Process::open(child.id().cast_signed()).unwrap(), vec![mine], false).unwrap();
    drop(leases);
    child.kill().unwrap();
    child.wait().unwrap();
    fs::write(dir.path().join("damaged.json"), b"{").unwrap();
    let leases = Leases::open(dir.path(), drop_it).unwrap();
    assert!(leases.holders().is_empty());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn only_the_lease_of_those_sockets_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let leases = Leases::open(dir.path(), drop_it).unwrap();
    let this = Process::open(std::process::id().cast_signed()).unwrap();
    let ((sent, _other), (stranger, _another)) = (socket(), socket());
    let copy = sent.try_clone().unwrap();
    leases.give("vm1", this, vec![sent], false).unwrap();
    leases.end_of("vm1", &[stranger]);
    leases.end_of("vm2", &[copy.try_clone().unwrap()]);
    assert!(leases.holder("vm1").is_some());
    leases.end_of("vm1", &[copy]);
    assert_eq!(leases.holder("vm1"), None);
}

#[test]
fn another_process_of_the_same_number_has_no_lease() {
    let dir = tempfile::tempdir().unwrap();
    let (sent, _other) = socket();
    let leases = Leases::open(dir.path(), drop_it).unwrap();
    leases.give("vm1", Process::open(std::process::id().cast_signed()).unwrap(), vec![sent], false).unwrap();
    drop(leases);
    let path = dir.path().join("vm1.json");
    let mut record: Record = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    record.started += 1;
    fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
    assert!(Leases::open(dir.path(), drop_it).unwrap().holders().is_empty());
}

#[test]
fn an_end_that_was_opened_in_vain_is_told_once_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, told) = std::sync::mpsc::channel();
    let open = || {
        let sender = sender.clone();
        Leases::open(dir.path(), move |port: &str| sender.send(port.to_owned()).unwrap()).unwrap()
    };
    let mut children = [sleeper(), sleeper(), sleeper()];
    let process = |child: &Child| Process::open(child.id().cast_signed()).unwrap();
    let (a, b, c) = (socket(), socket(), socket());
    let leases = open();
    leases.give("opened", process(&children[0]), vec![a.0], true).unwrap();
    leases.give("open before", process(&children[1]), vec![b.0], false).unwrap();
    assert!(leases.is_opened_for("opened") && !leases.is_opened_for("open before"));
    children[..2].iter_mut().for_each(|child| child.kill().unwrap());
    assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap(), "opened");
    until("both are over", || leases.holders().is_empty());
    leases.give("later", process(&children[2]), vec![c.0], true).unwrap();
    drop(leases);
    children[2].kill().unwrap();
    for child in &mut children {
        child.wait().unwrap();
    }
    let _leases = open();
    assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap(), "later");
    assert!(told.try_recv().is_err(), "once");
}
