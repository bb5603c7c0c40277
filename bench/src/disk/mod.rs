//! Disks beside QEMU's storage daemon: the same client, the same image, O_DIRECT, in turns.
//!
//! Both are vhost-user-blk back ends. The client is this process, with rings in its own memory, so there is no virtual
//! machine whose speed would count. It and the server are pinned to a CPU each.

mod client;
mod servers;

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use disk::client::{Guest, GuestSpec};

use self::servers::Kind;
use crate::cpu::{self, Pinned};
use crate::results::{DiskPoint, DiskSample};
use crate::run::{Run, guarded};
use crate::stop;

/// MiB of the image. It is written in full, so that both find the same blocks.
const IMAGE: usize = 1024;
/// Where the image is, in the order of the report: on the machine's storage, and in memory, where storage is no limit.
const PLACES: [(&str, &str); 2] = [("/var/tmp", ""), ("/dev/shm", ", image in memory")];
/// Entries of a ring.
const RING: u16 = 256;
/// Longest time of a measurement. Storage may be slow.
const SPAN: Duration = Duration::from_secs(2);

/// What the client does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// It writes.
    write: bool,
    /// Bytes of a request.
    bytes: u32,
    /// One place after the other, else anywhere.
    sequential: bool,
    /// Requests at once of each queue.
    depth: u16,
    /// Queues.
    queues: u16,
}

impl Case {
    /// All of them, in the order of the report.
    fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for write in [false, true] {
            for queues in [1, 4] {
                let case = |depth| Self { write, bytes: 4096, sequential: false, depth, queues };
                cases.extend([1, 32, 128].map(case));
            }
            cases.push(Self { write, bytes: 1 << 20, sequential: true, depth: 8, queues: 1 });
        }
        cases
    }

    fn name(&self) -> String {
        let Self { write, bytes, sequential, depth, queues } = self;
        let (what, how) = (if *write { "write" } else { "read" }, if *sequential { "sequential" } else { "random" });
        let size = if *bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) };
        let queues = if *queues == 1 { "1 queue".to_owned() } else { format!("{queues} queues") };
        format!("{size} {how} {what}, depth {depth}, {queues}")
    }

    fn guest(&self) -> Guest {
        let Self { queues, depth, bytes, .. } = *self;
        Guest::new(GuestSpec { queues, size: RING, depth, bytes, ..GuestSpec::default() })
    }
}

/// Measures both servers, and saves.
///
/// # Errors
/// A signal came, or the results can't be written.
pub fn measure(run: &mut Run) -> anyhow::Result<()> {
    let kinds: Vec<Kind> =
        [Kind::Xswitch, Kind::StorageDaemon].into_iter().filter(|it| run.plan.wants(it.kind())).collect();
    if kinds.is_empty() {
        return Ok(());
    }
    kinds.iter().for_each(|kind| run.note_version(kind.version()));
    for (place, shown) in PLACES {
        let directory = tempfile::TempDir::new_in(place).context("a directory for the image")?;
        measure_in(run, &kinds, directory.path(), shown)?;
    }
    run.save()
}

/// Measures all cases with an image in that directory.
fn measure_in(run: &mut Run, kinds: &[Kind], directory: &Path, shown: &str) -> anyhow::Result<()> {
    let image = directory.join("disk.img");
    write_image(&image)?;
    let span = SPAN.min(run.plan.times.measure * 2);
    for case in Case::all() {
        let name = case.name() + shown;
        for round in 0..run.plan.disk_rounds {
            let mut turns = kinds.to_vec();
            if round % 2 == 1 {
                turns.reverse();
            }
            for kind in turns {
                let sample = guarded(|| turn(kind, &case, &image, directory, span, round as u64));
                stop::check()?;
                match sample {
                    Ok(sample) => {
                        eprintln!("  {name}, {}: {sample:?}", kind.name());
                        disk_point(run, &name, kind.name()).samples.push(sample);
                    }
                    Err(error) => run.skip(&format!("{name}, {}", kind.name()), &error),
                }
            }
        }
    }
    Ok(())
}

fn turn(kind: Kind, case: &Case, image: &Path, dir: &Path, span: Duration, round: u64) -> anyhow::Result<DiskSample> {
    let socket = dir.join("disk.sock");
    let _ = std::fs::remove_file(&socket);
    let server = kind.start(image, &socket, case.queues)?;
    let _beside = Pinned::new(cpu::GENERATOR);
    let mut guest = case.guest();
    guest.connect(&socket);
    client::run(&mut guest, case, &server, span / 5, 7);
    Ok(client::run(&mut guest, case, &server, span, 1000 + round))
}

fn disk_point<'a>(run: &'a mut Run, case: &str, device: &str) -> &'a mut DiskPoint {
    let points = &mut run.results.disks;
    let at = points.iter().position(|point| point.case == case && point.device == device).unwrap_or_else(|| {
        points.push(DiskPoint { case: case.to_owned(), device: device.to_owned(), samples: Vec::new() });
        points.len() - 1
    });
    &mut points[at]
}

fn write_image(path: &Path) -> anyhow::Result<()> {
    let mut file = std::fs::File::create(path).context("an image")?;
    let part = vec![0x5a; 1 << 20];
    (0..IMAGE).try_for_each(|_| std::io::Write::write_all(&mut file, &part)).context("writing the image")?;
    file.sync_all().context("writing the image")
}
