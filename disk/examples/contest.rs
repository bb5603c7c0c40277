//! Measures this crate beside QEMU's storage daemon: same client, same file, O_DIRECT, in turns. Prints a table.
//!
//! ```text
//! cargo build --release -p disk --examples && target/release/examples/contest --directory /var/tmp
//! ```
#![allow(clippy::cast_precision_loss, reason = "figures for people")]
#![allow(clippy::cast_possible_truncation, reason = "figures for people")]
#![allow(clippy::cast_sign_loss, reason = "figures for people")]

use std::error::Error;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use disk::client::{Guest, GuestSpec, Task};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

#[derive(Debug, Parser)]
struct Options {
    /// Where the image is made.
    #[arg(long, default_value = "/var/tmp")]
    directory: PathBuf,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Measurements of each, in turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// MiB of the image.
    #[arg(long, default_value_t = 1024)]
    size: u64,
    /// Only cases that have this in their names.
    #[arg(long, default_value = "")]
    only: String,
    /// Packed rings. QEMU's storage daemon has none, so it takes no part.
    #[arg(long)]
    packed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    write: bool,
    bytes: u32,
    sequential: bool,
    depth: u16,
    queues: u16,
}

impl Case {
    fn name(&self) -> String {
        let Self { write, bytes, sequential, depth, queues } = self;
        let what = if *write { "write" } else { "read" };
        let how = if *sequential { "seq" } else { "rand" };
        format!("{how}{what} {}k depth {depth} queues {queues}", bytes >> 10)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    per_second: f64,
    cpu: f64,
    p50: f64,
    p99: f64,
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    fn ours(image: &Path, socket: &Path, queues: u16) -> std::io::Result<Self> {
        let serve = std::env::current_exe()?.with_file_name("serve");
        let mut command = Command::new(serve);
        command.arg(image).arg(socket).args(["--queues", &queues.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut first = [0; 7];
        if let Some(out) = &mut child.stdout {
            out.read_exact(&mut first)?;
        }
        Ok(Self(child))
    }

    fn qemu(image: &Path, socket: &Path, queues: u16) -> std::io::Result<Self> {
        let image = image.display();
        let mut command = Command::new("qemu-storage-daemon");
        command.args([
            "--object".to_owned(),
            "iothread,id=t".to_owned(),
            "--blockdev".to_owned(),
            format!("driver=file,node-name=f,filename={image},aio=io_uring,cache.direct=on,discard=unmap"),
            "--export".to_owned(),
            format!(
                "type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path={},writable=on,num-queues={queues},iothread=t",
                socket.display()
            ),
        ]);
        let child = command.stdin(Stdio::null()).spawn()?;
        let until = Instant::now() + Duration::from_secs(5);
        while !socket.exists() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self(child))
    }

    /// Nanoseconds on a CPU of all its threads.
    fn cpu(&self) -> u64 {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", self.0.id())) else { return 0 };
        let time = |path: PathBuf| {
            let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        };
        tasks.flatten().filter_map(|task| time(task.path())).sum()
    }
}

fn random(state: &mut u64, end: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % end
}

/// Runs a case for so long, and gives figures.
fn run(guest: &mut Guest, case: &Case, server: &Server, span: Duration, sectors: u64, seed: u64) -> Figures {
    let per = u64::from(case.bytes) / 512;
    let places = sectors / per;
    let (mut state, mut next) = (seed | 1, 0);
    let mut task = || {
        let place = if case.sequential { next } else { random(&mut state, places) };
        next = (next + 1) % places;
        let sector = place * per;
        if case.write { Task::write_again(sector, case.bytes) } else { Task::read(sector, case.bytes) }
    };
    let mut began = vec![vec![Instant::now(); usize::from(case.depth)]; guest.queues.len()];
    let mut latencies: Vec<u32> = Vec::with_capacity(1 << 20);
    let start = Instant::now();
    let cpu = server.cpu();
    let mut stopping = false;
    loop {
        let mut idle = true;
        for (at, queue) in guest.queues.iter_mut().enumerate() {
            while let Some((number, status)) = queue.collect(|_| None) {
                assert_eq!(status, 0, "a request has failed");
                let took = began[at][usize::from(number)].elapsed().as_nanos();
                latencies.push(u32::try_from(took).unwrap_or(u32::MAX));
                idle = false;
            }
            if !stopping {
                while let Some(number) = queue.add(&task()) {
                    began[at][usize::from(number)] = Instant::now();
                    idle = false;
                }
                queue.publish();
            }
        }
        stopping |= start.elapsed() >= span;
        if stopping && guest.queues.iter().all(|queue| queue.in_flight() == 0) {
            break;
        }
        if !idle {
            continue;
        }
        let mut ready = false;
        guest.queues.iter_mut().for_each(|queue| ready |= queue.enable_calls());
        if !ready {
            let calls: Vec<BorrowedFd<'_>> = guest.queues.iter().map(|queue| queue.call()).collect();
            let mut fds: Vec<_> = calls.into_iter().map(|call| PollFd::new(call, PollFlags::POLLIN)).collect();
            let most = PollTimeout::try_from(Duration::from_secs(5)).unwrap_or(PollTimeout::MAX);
            assert!(poll(&mut fds, most).is_ok_and(|count| count > 0), "the back end hangs");
        }
        guest.queues.iter_mut().for_each(|queue| queue.take_call());
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu = server.cpu().saturating_sub(cpu);
    latencies.sort_unstable();
    let count = latencies.len();
    let at = |part: f64| latencies.get((count as f64 * part) as usize).map_or(0.0, |ns| f64::from(*ns) / 1000.0);
    Figures {
        per_second: count as f64 / seconds,
        cpu: cpu as f64 / 1000.0 / count.max(1) as f64,
        p50: at(0.5),
        p99: at(0.99),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn medians(all: &[Figures]) -> Figures {
    let of = |each: fn(&Figures) -> f64| median(all.iter().map(each).collect());
    Figures { per_second: of(|f| f.per_second), cpu: of(|f| f.cpu), p50: of(|f| f.p50), p99: of(|f| f.p99) }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let directory = tempfile::TempDir::new_in(&options.directory)?;
    let (image, socket) = (directory.path().join("disk.img"), directory.path().join("disk.sock"));
    // Written, not sparse: both sides find the same blocks.
    let mut file = std::fs::File::create(&image)?;
    for _ in 0..options.size {
        std::io::Write::write_all(&mut file, &vec![0x5a; 1 << 20])?;
    }
    file.sync_all()?;
    let mut cases = Vec::new();
    for write in [false, true] {
        for queues in [1, 4] {
            for depth in [1, 32, 128] {
                cases.push(Case { write, bytes: 4096, sequential: false, depth, queues });
            }
        }
        cases.push(Case { write, bytes: 1 << 20, sequential: true, depth: 8, queues: 1 });
    }
    println!("| case | ops/s | ratio | CPU µs/op | ratio | p50 µs | ratio | p99 µs | ratio |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for case in cases.iter().filter(|case| case.name().contains(&options.only)) {
        let mut figures = [Vec::new(), Vec::new()];
        for round in 0..options.rounds * 2 {
            // A B B A: neither is always first.
            let which = (round + round / 2) % 2;
            if options.packed && which == 1 {
                continue;
            }
            let _ = std::fs::remove_file(&socket);
            let start = if which == 0 { Server::ours } else { Server::qemu };
            let server = start(&image, &socket, case.queues)?;
            let spec = GuestSpec {
                queues: case.queues,
                size: 256,
                depth: case.depth,
                bytes: case.bytes,
                packed: options.packed,
                ..GuestSpec::default()
            };
            let mut guest = Guest::new(spec);
            guest.connect(&socket);
            let sectors = options.size << 11;
            let (warm, span) = (Duration::from_millis(200), Duration::from_secs_f64(options.seconds));
            run(&mut guest, case, &server, warm, sectors, 7);
            figures[which].push(run(&mut guest, case, &server, span, sectors, 1000 + round as u64));
        }
        let [ours, theirs] = figures.map(|figures| medians(&figures));
        println!(
            "| {} | {:.0} : {:.0} | {:.2} | {:.2} : {:.2} | {:.2} | {:.0} : {:.0} | {:.2} | {:.0} : {:.0} | {:.2} |",
            case.name(),
            ours.per_second,
            theirs.per_second,
            ours.per_second / theirs.per_second,
            ours.cpu,
            theirs.cpu,
            ours.cpu / theirs.cpu,
            ours.p50,
            theirs.p50,
            ours.p50 / theirs.p50,
            ours.p99,
            theirs.p99,
            ours.p99 / theirs.p99,
        );
    }
    Ok(())
}
