//! The daemon is killed again and again while a guest has many requests in work. Nothing is lost, and nothing old comes
//! back.
#![allow(clippy::unwrap_used, reason = "tests fail by a panic")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers of tests")]

mod common;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{ImagePlace, MIB};
use disk::client::{Data, Guest, GuestSpec, Layout, Task, kind};

const OK: u8 = 0;
const PATIENCE: Duration = Duration::from_secs(30);
const BLOCK: usize = 4096;
/// Blocks of the disk. Few, so that each is written often.
const BLOCKS: u64 = 256;
const KILLS: usize = 50;

/// The example that serves an image. Cargo builds it with the tests.
fn serve() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().and_then(Path::parent).unwrap().join("examples/serve");
    assert!(path.exists(), "{} is not there: cargo build -p disk --example serve", path.display());
    path
}

/// A daemon in a process of its own.
struct Daemon(Child);

impl Daemon {
    fn start(place: &ImagePlace, more: &[&str]) -> Self {
        let mut command = Command::new(serve());
        command.args([place.image(), place.socket()]).args(["--queues", "2"]).args(more);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("serving"), "{line:?}");
        Self(child)
    }

    fn kill(&mut self) {
        // SIGKILL.
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Small numbers that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % end
    }
}

/// A block's bytes: its number and its version, all over.
fn block(number: u64, version: u64) -> Vec<u8> {
    [number, version].map(u64::to_le_bytes).concat().repeat(BLOCK / 16)
}

/// What is known of a block.
#[derive(Clone, Copy, Default)]
struct Known {
    /// Version of the last write that has ended.
    ended: u64,
    /// Version of a write in work, or 0.
    in_work: u64,
    /// Reads in work: no write begins meanwhile, so what they give is known.
    readers: u32,
}

struct Model {
    blocks: Vec<Known>,
    /// By queue and number of the request: what it is, and which block.
    tasks: Vec<Vec<Option<(Task, u64)>>>,
    version: u64,
    random: Random,
    ended: u64,
}

impl Model {
    /// Fills the queues with requests.
    fn add(&mut self, guest: &mut Guest) {
        for (queue, tasks) in guest.queues.iter_mut().zip(&mut self.tasks) {
            for _ in 0..tasks.len() {
                let number = self.random.below(BLOCKS);
                let known = &mut self.blocks[number as usize];
                let indirect = self.random.below(2) == 0;
                let task = match self.random.below(10) {
                    0 => Task::flush(),
                    1..=3 if known.in_work == 0 => Task::read(number * 8, BLOCK as u32),
                    _ if known.in_work == 0 && known.readers == 0 => {
                        Task::write(number * 8, block(number, self.version + 1))
                    }
                    _ => continue,
                };
                let task = task.laid_out(Layout { indirect, ..Layout::default() });
                let Some(id) = queue.add(&task) else { break };
                match task.kind {
                    kind::WRITE => {
                        self.version += 1;
                        known.in_work = self.version;
                    }
                    kind::READ => known.readers += 1,
                    _ => {}
                }
                tasks[usize::from(id)] = Some((task, number));
            }
            queue.publish();
        }
    }

    /// Looks at what has ended.
    fn collect(&mut self, guest: &mut Guest) {
        for (queue, tasks) in guest.queues.iter_mut().zip(&mut self.tasks) {
            while let Some((id, status)) = queue.collect(|_| None) {
                let (task, number) = tasks[usize::from(id)].take().expect("a request that was not repeated");
                assert_eq!(status, OK, "{task:?}");
                self.ended += 1;
                let known = &mut self.blocks[number as usize];
                match task.kind {
                    kind::WRITE => (known.ended, known.in_work) = (known.in_work, 0),
                    kind::READ => {
                        known.readers -= 1;
                        check(number, known.ended, &queue.data(id, &task));
                    }
                    _ => {}
                }
            }
        }
    }

    fn in_work(&self) -> usize {
        self.tasks.iter().flatten().flatten().count()
    }
}

fn check(number: u64, version: u64, bytes: &[u8]) {
    let expected = if version == 0 { vec![0; BLOCK] } else { block(number, version) };
    let version_of = |bytes: &[u8]| u64::from_le_bytes(bytes[8..16].try_into().unwrap());
    assert!(bytes == expected, "block {number} has version {} for {version}", version_of(bytes));
}

fn crash(packed: bool, more: &[&str]) {
    let place = ImagePlace::new(BLOCKS * BLOCK as u64);
    let mut daemon = Daemon::start(&place, more);
    let spec = GuestSpec { queues: 2, size: 256, depth: 64, bytes: BLOCK as u32, packed, ..GuestSpec::default() };
    let mut guest = place.guest(spec);
    let mut model = Model {
        blocks: vec![Known::default(); BLOCKS as usize],
        tasks: vec![vec![None; 64]; 2],
        version: 0,
        random: Random(42),
        ended: 0,
    };
    let mut killed_in_work = 0;
    for kill in 0..KILLS {
        let before = model.ended;
        let until = Instant::now() + Duration::from_micros(500 + model.random.below(20_000));
        let give_up = Instant::now() + PATIENCE;
        // Some requests end in each round, else nothing is tried.
        while Instant::now() < until || model.ended < before + 20 {
            model.add(&mut guest);
            model.collect(&mut guest);
            assert!(Instant::now() < give_up, "nothing ends after kill {kill}: {} in work", model.in_work());
        }
        daemon.kill();
        model.collect(&mut guest);
        killed_in_work += model.in_work();
        daemon = Daemon::start(&place, more);
        guest.connect(&place.socket());
    }
    assert!(killed_in_work > KILLS, "there were requests in work when it was killed: {killed_in_work}");
    let give_up = Instant::now() + PATIENCE;
    while model.in_work() > 0 {
        model.collect(&mut guest);
        assert!(Instant::now() < give_up, "{} requests are lost", model.in_work());
    }
    assert_eq!(guest.queues[0].run(&Task::flush()).0, OK);
    for number in 0..BLOCKS {
        let task = Task { data: Data::In(BLOCK as u32), ..Task::read(number * 8, BLOCK as u32) };
        let (status, bytes) = guest.queues[1].run(&task);
        assert_eq!(status, OK);
        check(number, model.blocks[number as usize].ended, &bytes);
    }
    daemon.kill();
    let file = std::fs::read(place.image()).unwrap();
    for (number, bytes) in file.chunks(BLOCK).enumerate() {
        check(number as u64, model.blocks[number].ended, bytes);
    }
    println!("{} requests have ended, {killed_in_work} were in work at kills", model.ended);
}

#[test]
fn nothing_is_lost_or_repeated_when_the_daemon_is_killed_split() {
    crash(false, &["--threads", "2"]);
}

#[test]
fn nothing_is_lost_or_repeated_when_the_daemon_is_killed_packed() {
    crash(true, &[]);
}

#[test]
fn a_disk_that_was_paused_stays_so_and_does_what_was_in_work_when_it_was_killed() {
    let place = ImagePlace::new(MIB);
    let mut daemon = Daemon::start(&place, &["--paused"]);
    let mut guest = place.guest(GuestSpec::default());
    guest.queues[0].add(&Task::write(0, block(1, 1))).unwrap();
    guest.queues[0].publish();
    assert_eq!(guest.queues[0].wait(Duration::from_millis(50)), None);
    daemon.kill();
    daemon = Daemon::start(&place, &["--paused"]);
    guest.connect(&place.socket());
    assert_eq!(guest.queues[0].wait(Duration::from_millis(50)), None, "it was not in work");
    daemon.kill();
    let _daemon = Daemon::start(&place, &[]);
    guest.connect(&place.socket());
    assert_eq!(guest.queues[0].wait(PATIENCE).map(|(_, status)| status), Some(OK));
}
