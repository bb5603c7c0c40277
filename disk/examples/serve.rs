//! Serves one image as a disk, for tests and the bench. Commands come by standard input, a line each: `grow BYTES`,
//! `pause`, `resume`, `limit READ_OPS READ_BYTES WRITE_OPS WRITE_BYTES`, `snapshot PATH`, `stats`, `quit`.
//!
//! ```text
//! cargo run -p disk --example serve -- disk.img /tmp/disk.sock --queues 2
//! ```

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use disk::disk::{Disk, DiskSpec};
use disk::image::{Images, Opening};
use disk::limits::{Direction, LimitSpec, Rate};
use disk::store::FileStore;
use vhost_user::socket::{Access, Place, Role};

#[derive(Debug, Parser)]
struct Options {
    image: PathBuf,
    socket: PathBuf,
    #[arg(long, default_value_t = 1)]
    queues: u16,
    #[arg(long, default_value_t = 1)]
    threads: u16,
    #[arg(long, default_value_t = 1024)]
    depth: u16,
    #[arg(long, default_value_t = 512)]
    block: u32,
    #[arg(long)]
    read_only: bool,
    #[arg(long)]
    buffered: bool,
    #[arg(long)]
    paused: bool,
    #[arg(long)]
    shared: bool,
    /// The image is a block device.
    #[arg(long)]
    device: bool,
    #[arg(long)]
    cpu: Vec<usize>,
    #[arg(long, default_value = "disk")]
    name: String,
}

fn start(options: Options) -> Result<(Disk, Images), Box<dyn Error>> {
    let image = std::path::absolute(&options.image)?;
    let directory = image.parent().map(Path::to_path_buf).unwrap_or_default();
    let images = match options.device {
        true => Images::new([], [image.clone()])?,
        false => Images::new([directory], [])?,
    };
    let opening = Opening { read_only: options.read_only, buffered: options.buffered };
    let store = Arc::new(FileStore::new(images.open(&image, opening)?)?);
    let spec = DiskSpec {
        serial: options.name.clone(),
        name: options.name,
        max_queue: options.queues,
        queue_depth: options.depth,
        block: options.block,
        read_only: options.read_only,
        place: Place {
            path: options.socket,
            role: Role::Server,
            access: Access { owner: None, group: None, mode: 0o600 },
        },
        threads: options.threads,
        cpus: options.cpu,
        limits: LimitSpec::default(),
        paused: options.paused,
        shared_storage: options.shared,
        lock_wait: disk::disk::LOCK_WAIT,
    };
    Ok((Disk::start(spec, store)?, images))
}

fn limits(numbers: &[u64]) -> LimitSpec {
    let rate = |at: usize| Rate { per_second: numbers.get(at).copied().unwrap_or(0), burst: 0 };
    LimitSpec {
        read: Direction { operations: rate(0), bytes: rate(1) },
        write: Direction { operations: rate(2), bytes: rate(3) },
    }
}

fn command(disk: &Disk, images: &Images, line: &str) -> Result<String, Box<dyn Error>> {
    let mut words = line.split_whitespace();
    let word = words.next().unwrap_or_default();
    let numbers: Vec<u64> = words.clone().filter_map(|word| word.parse().ok()).collect();
    match word {
        "grow" => disk.grow(numbers.first().copied().unwrap_or(0))?,
        "pause" => disk.pause(Duration::from_secs(30))?,
        "resume" => disk.resume(),
        "limit" => disk.set_limits(&limits(&numbers)),
        "snapshot" => disk.snapshot(images, Path::new(words.next().unwrap_or_default()))?,
        "stats" => {
            let sum = |each: fn(&disk::stats::QueueCounters) -> u64| disk.counters().iter().map(each).sum::<u64>();
            return Ok(format!(
                "reads {} writes {} flushes {} errors {} no_space {} refused {} limited {} copied {} replayed {} in_flight {}",
                sum(|c| c.read.operations.get()),
                sum(|c| c.write.operations.get()),
                sum(|c| c.flush.operations.get()),
                sum(|c| c.errors.get()),
                sum(|c| c.no_space.get()),
                sum(|c| c.refused.get()),
                sum(|c| c.limited.get()),
                sum(|c| c.copied.get()),
                sum(|c| c.replayed.get()),
                sum(|c| c.in_flight.get()),
            ));
        }
        other => return Err(format!("no command {other:?}").into()),
    }
    Ok("ok".to_owned())
}

fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let (disk, images) = start(Options::parse())?;
    let mut out = std::io::stdout();
    writeln!(out, "serving {} bytes", disk.info().bytes)?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line == "quit" {
            return Ok(());
        }
        match command(&disk, &images, &line) {
            Ok(answer) => writeln!(out, "{answer}")?,
            Err(error) => writeln!(out, "error: {error}")?,
        }
        out.flush()?;
    }
    Ok(())
}
