//! What operators do with a disk that is in use: grow, pause, limit, lock, hand over, copy.
#![allow(clippy::unwrap_used, reason = "tests fail by a panic")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers of tests")]

mod common;

use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{ImagePlace, MIB, pattern};
use disk::client::{FEATURES, Guest, GuestSpec, Task};
use disk::disk::{Disk, DiskError};
use disk::image::{ImageError, Opening};
use disk::limits::{Direction, LimitSpec, Rate};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use vhost_user::socket::Role;

const OK: u8 = 0;
const PATIENCE: Duration = Duration::from_secs(20);

/// Adds so many reads, and shows them.
fn read_many(guest: &mut Guest, count: u16) {
    for sector in 0..u64::from(count) {
        assert!(guest.queues[0].add(&Task::read(sector * 8, 4096)).is_some());
    }
    guest.queues[0].publish();
}

/// Waits until so many requests have ended.
fn end(guest: &mut Guest, count: u16) {
    for ended in 0..count {
        let done = guest.queues[0].wait(PATIENCE);
        assert_eq!(done.map(|(_, status)| status), Some(OK), "{ended} of {count} have ended");
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_disk_grows_under_its_guest_and_never_shrinks() {
    let place = ImagePlace::new(MIB);
    let disk = place.start(|_| {});
    let mut guest = place.guest(GuestSpec::default());
    assert_ne!(guest.queues[0].run(&Task::write(MIB / 512, vec![1; 512])).0, OK);
    disk.grow(2 * MIB).unwrap();
    assert!(guest.config_changes(PATIENCE), "the guest is told");
    assert_eq!(guest.sectors(), 2 * MIB / 512);
    assert_eq!(guest.queues[0].run(&Task::write(MIB / 512, vec![1; 512])).0, OK);
    for bytes in [MIB, 2 * MIB - 512, 0, 2 * MIB + 1] {
        assert!(matches!(disk.grow(bytes), Err(DiskError::Invalid(_))), "{bytes}");
    }
    disk.grow(2 * MIB).unwrap();
    assert!(!guest.config_changes(Duration::from_millis(50)), "nothing has changed");
    assert_eq!(place.image().metadata().unwrap().len(), 2 * MIB);
}

#[test]
fn a_paused_disk_is_quiet_and_what_waits_is_done_without_a_kick() {
    for packed in [false, true] {
        let place = ImagePlace::new(MIB);
        let disk = place.start(|_| {});
        let mut guest = place.guest(GuestSpec { packed, ..GuestSpec::default() });
        read_many(&mut guest, 32);
        disk.pause(PATIENCE).unwrap();
        assert_eq!(disk.counters()[0].in_flight.get(), 0, "it is quiet");
        let before = disk.counters()[0].read.operations.get();
        while guest.queues[0].wait(Duration::ZERO).is_some() {}
        let room = 32 - guest.queues[0].in_flight() as u16;
        read_many(&mut guest, room);
        guest.queues[0].kick();
        assert_eq!(guest.queues[0].wait(Duration::from_millis(100)), None, "requests wait");
        assert_eq!(disk.counters()[0].read.operations.get(), before);
        disk.pause(PATIENCE).unwrap();
        disk.resume();
        end(&mut guest, 32);
        assert!(!disk.info().paused);
    }
}

/// Makes a write to the event wait for ever.
fn fill(event: BorrowedFd<'_>) {
    let set = |flags| fcntl(event, FcntlArg::F_SETFL(flags)).unwrap();
    set(OFlag::O_NONBLOCK);
    while nix::unistd::write(event, &(u64::MAX - 1).to_ne_bytes()).is_err() {
        let _ = nix::unistd::read(event, &mut [0; 8]);
    }
    set(OFlag::empty());
}

#[test]
fn a_call_that_blocks_stops_no_request() {
    for packed in [false, true] {
        let place = ImagePlace::new(MIB);
        let disk = place.start(|_| {});
        let mut guest = place.guest(GuestSpec { packed, ..GuestSpec::default() });
        for _ in 0..100 {
            fill(guest.queues[0].call());
            read_many(&mut guest, 8);
            guest.queues[0].kick();
            let mut ended = 0;
            wait_until("requests end", || {
                ended += usize::from(guest.queues[0].enable_calls() && guest.queues[0].wait(Duration::ZERO).is_some());
                ended == 8
            });
        }
        // The disk's threads still do what they are told.
        disk.pause(PATIENCE).unwrap();
        disk.resume();
    }
}

#[test]
fn a_disk_that_starts_paused_waits_for_resume() {
    let place = ImagePlace::new(MIB);
    let disk = place.start(|spec| spec.paused = true);
    let mut guest = place.guest(GuestSpec::default());
    read_many(&mut guest, 8);
    assert_eq!(guest.queues[0].wait(Duration::from_millis(100)), None);
    assert!(disk.info().paused);
    // Rings can stop and start meanwhile.
    guest.stop();
    guest.connect(&place.socket());
    assert_eq!(guest.queues[0].wait(Duration::from_millis(50)), None);
    disk.resume();
    end(&mut guest, 8);
}

#[test]
fn limits_hold_apart_and_can_be_changed_while_requests_wait() {
    let place = ImagePlace::new(MIB);
    // Less than one operation an hour after the first five.
    let slow = Rate { per_second: 1, burst: 5 };
    let hour =
        |rate: Rate| LimitSpec { read: Direction { operations: rate, ..Direction::default() }, ..LimitSpec::default() };
    let disk = place.start(|spec| spec.limits = hour(slow));
    let mut guest = place.guest(GuestSpec::default());
    read_many(&mut guest, 30);
    end(&mut guest, 5);
    wait_until("the others wait", || disk.counters()[0].limited.get() >= 20);
    assert!(guest.queues[0].in_flight() > 10);
    // Writes have no limit.
    let write = guest.queues[0].add(&Task::write(0, vec![1; 512])).unwrap();
    guest.queues[0].publish();
    loop {
        let (number, status) = guest.queues[0].wait(PATIENCE).unwrap();
        assert_eq!(status, OK);
        if number == write {
            break;
        }
    }
    disk.set_limits(&LimitSpec::default());
    // It looks again when the next would have been due, or at once when something comes.
    guest.queues[0].kick();
    let left = guest.queues[0].in_flight() as u16;
    end(&mut guest, left);
}

#[test]
fn requests_that_all_wait_for_limits_get_through() {
    let place = ImagePlace::new(MIB);
    let rate = Rate { per_second: 4, burst: 5 };
    let _disk = place.start(|spec| spec.limits.read.operations = rate);
    let mut guest = place.guest(GuestSpec::default());
    // A bucket that is not empty lets one more pass.
    read_many(&mut guest, 6);
    end(&mut guest, 6);
    // Nothing is in work that would end, and nothing else comes.
    read_many(&mut guest, 4);
    end(&mut guest, 4);
}

#[test]
fn a_pause_does_not_wait_for_limits() {
    let place = ImagePlace::new(MIB);
    let rate = Rate { per_second: 1, burst: 1 };
    let disk = place.start(|spec| spec.limits.read.operations = rate);
    let mut guest = place.guest(GuestSpec::default());
    read_many(&mut guest, 32);
    wait_until("some wait for limits", || disk.counters()[0].limited.get() > 10);
    disk.pause(PATIENCE).unwrap();
    assert_eq!(disk.counters()[0].in_flight.get(), 0);
    end(&mut guest, 32);
}

#[test]
fn a_second_disk_on_an_image_is_refused_until_the_first_has_gone() {
    let place = ImagePlace::new(MIB);
    let disk = place.start(|_| {});
    let refused = place.store(Opening::default()).own(Duration::ZERO);
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    let readers = [place.reader(), place.reader()];
    assert!(readers[0].own(Duration::ZERO).is_err(), "not even a reader");
    drop(disk);
    readers.iter().for_each(|reader| reader.own(Duration::ZERO).unwrap());
    assert!(place.store(Opening::default()).own(Duration::ZERO).is_err(), "readers share it, a writer does not");
}

#[test]
fn on_shared_storage_the_image_goes_from_one_disk_to_the_next() {
    let place = ImagePlace::new(MIB);
    let first = place.start(|spec| spec.shared_storage = true);
    let second = place.start(|spec| {
        spec.shared_storage = true;
        spec.place.path = place.directory.path().join("second.sock");
    });
    let mut source = place.guest(GuestSpec::default());
    assert_eq!(source.queues[0].run(&Task::write(0, pattern(1, 4096))).0, OK);
    let path = place.directory.path().join("second.sock");
    // The other side may begin before this one has ended.
    let target = std::thread::spawn(move || {
        let mut target = Guest::new(GuestSpec::default());
        target.connect(&path);
        target
    });
    assert_eq!(source.queues[0].run(&Task::write(8, pattern(2, 4096))).0, OK);
    source.stop();
    let mut target = target.join().unwrap();
    assert_eq!(target.queues[0].run(&Task::read(8, 4096)), (OK, pattern(2, 4096)));
    assert_eq!(target.queues[0].run(&Task::write(0, pattern(3, 4096))).0, OK);
    // Back again.
    target.stop();
    source.connect(&place.socket());
    assert_eq!(source.queues[0].run(&Task::read(0, 4096)), (OK, pattern(3, 4096)));
    drop((first, second));
}

#[test]
fn memory_can_be_plugged_while_requests_are_in_work() {
    for packed in [false, true] {
        let place = ImagePlace::new(MIB);
        let disk = place.start(|_| {});
        let mut guest = place.guest(GuestSpec { packed, ..GuestSpec::default() });
        read_many(&mut guest, 32);
        guest.plug_memory(1 << 20);
        end(&mut guest, 32);
        read_many(&mut guest, 32);
        end(&mut guest, 32);
        assert_eq!(disk.counters()[0].read.operations.get(), 64);
        assert_eq!(disk.info().session.sessions, 1);
    }
}

#[test]
fn a_guest_that_takes_its_memory_away_harms_nobody() {
    let place = ImagePlace::new(4 * MIB);
    let disk = place.start(|_| {});
    // Behind this there are the data of the first request, and all of the second.
    let keep = 512 << 10;
    for (requests, keep) in [(1, keep), (2, keep), (1, 0)] {
        let mut guest = place.guest(GuestSpec { bytes: 1 << 20, depth: 4, ..GuestSpec::default() });
        disk.pause(PATIENCE).unwrap();
        for _ in 0..requests {
            guest.queues[0].add(&Task::read(0, 1 << 20)).unwrap();
        }
        guest.queues[0].publish();
        guest.shrink_memory(keep);
        disk.resume();
        if (requests, keep > 0) == (1, true) {
            // Only the kernel has touched what is gone, and says so.
            assert_eq!(guest.queues[0].wait(PATIENCE).map(|(_, status)| status), Some(1));
            assert_eq!(disk.counters()[0].errors.get(), 1);
            guest.hang_up();
        }
        wait_until("the session has ended", || !disk.info().session.connected);
    }
    let mut guest = place.guest(GuestSpec::default());
    assert_eq!(guest.queues[0].run(&Task::read(0, 512)), (OK, vec![0; 512]));
}

#[test]
fn a_driver_that_knows_no_cache_gets_durable_writes_and_the_next_daemon_knows() {
    let place = ImagePlace::new(MIB);
    let disk = place.start(|_| {});
    let mut guest = place.guest(GuestSpec::default());
    assert!(!disk.info().write_through);
    guest.set_cache(false);
    assert!(disk.info().write_through);
    assert_eq!(guest.config()[32], 0);
    assert_eq!(guest.queues[0].run(&Task::write(0, vec![1; 4096])).0, OK);
    drop(disk);
    let disk = place.start(|_| {});
    guest.connect(&place.socket());
    assert!(disk.info().write_through, "the guest was not asked again");
    guest.set_cache(true);
    assert!(!disk.info().write_through);
    guest.hang_up();
    // Without FLUSH the driver believes that there is no cache.
    let features = FEATURES & !(1 << 9 | 1 << 11);
    let _guest = place.guest(GuestSpec { features, ..GuestSpec::default() });
    assert!(disk.info().write_through);
}

#[test]
fn a_full_file_system_is_an_error_to_the_guest_and_an_alarm() {
    let place = ImagePlace::on_tmpfs("1m", 4 * MIB);
    let disk = place.start(|spec| spec.block = 4096);
    let mut guest = place.guest(GuestSpec { bytes: 1 << 20, ..GuestSpec::default() });
    let queue = &mut guest.queues[0];
    let bytes = 256 << 10;
    let statuses: Vec<u8> =
        (0..8).map(|part| queue.run(&Task::write(part * (bytes as u64 / 512), vec![7; bytes])).0).collect();
    assert!(statuses[0] == OK && statuses[7] == 1, "{statuses:?}");
    assert!(disk.info().full && disk.counters()[0].no_space.get() > 0);
    // What is there can be written again, and discarded.
    assert_eq!(queue.run(&Task::write(0, vec![8; 4096])).0, OK);
    assert!(disk.info().full, "that needed no space");
    assert_eq!(queue.run(&Task::segments(11, &[(0, 512, 0)])).0, OK);
    disk.look_for_space();
    assert!(disk.info().full, "some is not enough");
    assert_eq!(queue.run(&Task::write(7 * (bytes as u64 / 512), vec![8; 4096])).0, OK);
    assert!(!disk.info().full, "the alarm is over");
}

#[test]
fn a_file_system_without_reflinks_has_no_snapshots_and_says_so() {
    let place = ImagePlace::on_tmpfs("8m", MIB);
    let disk = place.start(|spec| spec.block = 4096);
    let copy = place.directory.path().join("copy.img");
    let error = disk.snapshot(&place.images, &copy).unwrap_err();
    assert!(matches!(error, DiskError::Image(ImageError::NoReflink(_))), "{error}");
    assert!(!copy.exists(), "nothing is left");
    let there = disk.snapshot(&place.images, &place.image()).unwrap_err();
    assert!(matches!(there, DiskError::Image(ImageError::Failed { .. })), "{there}");
}

#[test]
fn no_name_leads_out_of_the_directories() {
    let place = ImagePlace::new(MIB);
    let (inside, outside) = (place.directory.path(), tempfile::tempdir().unwrap());
    let secret = outside.path().join("secret");
    std::fs::write(&secret, "x").unwrap();
    std::os::unix::fs::symlink(&secret, inside.join("link")).unwrap();
    std::os::unix::fs::symlink(outside.path(), inside.join("way")).unwrap();
    let up = inside.join("..").join(outside.path().file_name().unwrap()).join("secret");
    for path in [&secret, &inside.join("link"), &inside.join("way/secret"), &up, &inside.join("../x")] {
        assert!(place.images.open(path, Opening::default()).is_err(), "{}", path.display());
        assert!(place.images.create(path, 4096, false).is_err(), "{}", path.display());
    }
    assert!(place.images.create(&inside.join("new"), 4096, true).is_ok());
    assert!(place.images.create(&inside.join("new"), 4096, false).is_err(), "it is there");
}

#[test]
fn numbers_that_can_not_be_are_refused_before_anything_is_made() {
    let place = ImagePlace::new(MIB);
    type Change = fn(&mut disk::disk::DiskSpec);
    let changes: [Change; 6] = [
        |spec| spec.max_queue = 0,
        |spec| spec.max_queue = 257,
        |spec| spec.queue_depth = 100,
        |spec| spec.block = 1024,
        |spec| spec.threads = 5,
        |spec| spec.cpus = vec![100_000],
    ];
    for change in changes {
        assert!(place.try_start(change).is_err());
        assert!(!place.socket().exists());
    }
    place.start(|_| {});
}

#[test]
fn two_guests_use_two_disks_at_once() {
    let places = [ImagePlace::new(8 * MIB), ImagePlace::new(8 * MIB)];
    let _disks: Vec<Disk> = places.iter().map(|place| place.start(|spec| spec.threads = 2)).collect();
    let places = Arc::new(places);
    let use_it = |number: u64| {
        let places = Arc::clone(&places);
        std::thread::spawn(move || {
            let mut guest = places[number as usize].guest(GuestSpec { queues: 2, ..GuestSpec::default() });
            for round in 0..100 {
                for (at, queue) in (0..).zip(&mut guest.queues) {
                    let sector = (round * 2 + at) * 64;
                    let bytes = pattern(number * 1000 + sector, 16384);
                    assert_eq!(queue.run(&Task::write(sector, bytes.clone())).0, OK);
                    assert!(queue.run(&Task::read(sector, 16384)) == (OK, bytes));
                }
            }
        })
    };
    let users: Vec<_> = (0..2).map(use_it).collect();
    users.into_iter().for_each(|user| user.join().unwrap());
}

#[test]
fn a_second_front_end_is_turned_away() {
    let place = ImagePlace::new(MIB);
    let _disk = place.start(|_| {});
    let mut guest = place.guest(GuestSpec::default());
    assert!(Guest::new(GuestSpec::default()).try_connect(&place.socket()).is_err());
    assert_eq!(guest.queues[0].run(&Task::flush()).0, OK);
}

#[test]
fn a_socket_whose_file_was_removed_is_made_anew() {
    let place = ImagePlace::new(MIB);
    let _disk = place.start(|_| {});
    std::fs::remove_file(place.socket()).unwrap();
    let mut guest = place.guest(GuestSpec::default());
    assert_eq!(guest.queues[0].run(&Task::flush()).0, OK);
}

#[test]
fn an_idle_disk_does_nothing() {
    const ALONE: &str = "DISK_TEST_IS_ALONE";
    if std::env::var_os(ALONE).is_none() {
        // Other tests have disks in this process. So this one has a process of its own.
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let output = alone.args(["--exact", "an_idle_disk_does_nothing"]).env(ALONE, "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let place = ImagePlace::new(MIB);
    let _disk = place.start(|_| {});
    let mut guest = place.guest(GuestSpec::default());
    assert_eq!(guest.queues[0].run(&Task::flush()).0, OK);
    let switches = || -> Vec<String> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let status = |task: std::io::Result<std::fs::DirEntry>| {
            let path = task.unwrap().path();
            let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
            let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
            let line = status.lines().find(|line| line.starts_with("voluntary")).unwrap_or_default().to_owned();
            name.starts_with("xs-disk").then(|| format!("{}{line}", name.trim()))
        };
        tasks.filter_map(status).collect()
    };
    std::thread::sleep(Duration::from_millis(300));
    let before = switches();
    assert_eq!(before.len(), 2, "{before:?}");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(switches(), before, "its threads have slept");
}

#[test]
fn a_disk_that_connects_does_so_again_when_its_front_end_is_back() {
    let place = ImagePlace::new(MIB);
    let disk = place.start(|spec| spec.place.role = Role::Client);
    let mut guest = Guest::new(GuestSpec::default());
    for round in 0..3_u8 {
        assert!(!disk.info().session.connected, "nobody listens");
        assert!(!place.socket().exists(), "it makes no socket");
        let listener = UnixListener::bind(place.socket()).unwrap();
        guest.accept(&listener);
        assert_eq!(guest.queues[0].run(&Task::write(0, vec![round; 512])).0, OK);
        assert_eq!(guest.queues[0].run(&Task::read(0, 512)), (OK, vec![round; 512]));
        std::fs::remove_file(place.socket()).unwrap();
        drop(listener);
        guest.hang_up();
        wait_until("the session ends", || !disk.info().session.connected);
    }
    assert_eq!(disk.info().session.sessions, 3);
}

#[test]
fn shared_storage_is_made_greater_by_its_owner_only() {
    let place = ImagePlace::new(MIB);
    let other = ImagePlace::new(MIB);
    let shared = |spec: &mut disk::disk::DiskSpec| spec.shared_storage = true;
    let here = place.start(shared);
    let there = place.start(|spec| {
        shared(spec);
        spec.place.path = other.socket();
    });
    let mut guest = place.guest(GuestSpec::default());
    assert_eq!(guest.queues[0].run(&Task::flush()).0, OK);
    let error = there.grow(2 * MIB).unwrap_err().to_string();
    assert!(error.contains("another machine"), "{error}");
    assert_eq!(place.image().metadata().unwrap().len(), MIB);
    here.grow(2 * MIB).unwrap();
    there.grow(2 * MIB).unwrap();
    assert_eq!((here.info().bytes, there.info().bytes), (2 * MIB, 2 * MIB));
    guest.stop();
    // Nobody uses it, so that any of them may. What the other one did is never undone.
    there.grow(4 * MIB).unwrap();
    here.grow(3 * MIB).unwrap();
    assert_eq!(place.image().metadata().unwrap().len(), 4 * MIB);
}
