//! `disk`: creates, changes, shows and deletes disks.

mod show;

use anyhow::Context;
use clap::{Args, Subcommand};
use ctl_client::{Client, encode, query};
use ctl_types::{DiskEntry, DiskLimits, DiskRate, DiskSpec, DiskStats, DiskUpdate, PvfType};
use model::SocketRole;
use serde_json::{Value, json};

use crate::print::Printer;
use crate::values::word;

/// `disk`.
#[derive(Debug, Subcommand)]
pub enum DiskCommand {
    /// Create a disk. Its image is made if it is not there.
    Create(Box<CreateArguments>),
    /// Delete disks. Their images stay.
    #[command(visible_alias = "del")]
    Delete {
        /// Names or numbers.
        #[arg(required = true)]
        disks: Vec<String>,
        /// Delete them even if a guest uses them.
        #[arg(long)]
        force: bool,
        /// Delete their image files too, with everything that is in them.
        #[arg(long)]
        delete_image: bool,
    },
    /// Make a disk greater. A running guest sees it within a second.
    Grow {
        /// Name or number.
        disk: String,
        /// New size: bytes, or with K, M, G or T (powers of 1,024).
        #[arg(value_parser = size)]
        size: u64,
    },
    /// Pause a disk: requests in work end, later ones wait and never fail.
    Pause {
        /// Name or number.
        disk: String,
    },
    /// Resume a disk.
    Resume {
        /// Name or number.
        disk: String,
    },
    /// List disks.
    List,
    /// Show a disk.
    Show {
        /// Name or number.
        disk: String,
    },
    /// Counters and latencies of all disks, or of one by queue.
    Stats {
        /// Name or number.
        disk: Option<String>,
    },
    /// Show the limits of a disk, or change those that are given.
    Limits {
        /// Name or number.
        disk: String,
        #[command(flatten)]
        limits: LimitArguments,
    },
    /// Copy a disk as it is now to a new file, which shares its blocks. XFS and Btrfs have that.
    Snapshot {
        /// Name or number.
        disk: String,
        /// The new file, in a directory for images. A name without `/` is one beside the disk's image.
        path: String,
    },
}

/// Limits. Each is `RATE` or `RATE:BURST`, a second. 0 takes the limit away.
#[derive(Clone, Debug, Default, Args)]
pub struct LimitArguments {
    /// Reads a second: RATE or RATE:BURST. 0 is no limit.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    read_ops: Option<DiskRate>,
    /// Bytes read a second, with K, M, G or T: RATE or RATE:BURST. 0 is no limit.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    read_bytes: Option<DiskRate>,
    /// Writes a second: RATE or RATE:BURST. 0 is no limit.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    write_ops: Option<DiskRate>,
    /// Bytes written a second, with K, M, G or T: RATE or RATE:BURST. 0 is no limit.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    write_bytes: Option<DiskRate>,
}

impl From<LimitArguments> for DiskLimits {
    fn from(limits: LimitArguments) -> Self {
        let LimitArguments { read_ops, read_bytes, write_ops, write_bytes } = limits;
        DiskLimits { read_ops, read_bytes, write_ops, write_bytes }
    }
}

/// `disk create`.
#[derive(Debug, Args)]
pub struct CreateArguments {
    /// Name, unique: 1 to 128 characters.
    name: String,
    /// Number. Default: the lowest free one.
    #[arg(long)]
    pvf_id: Option<u32>,
    /// Size: bytes, or with K, M, G or T (powers of 1,024). Default: that of the image, or as configured.
    #[arg(long, value_parser = size)]
    size: Option<u64>,
    /// Image: a file in a configured directory, or a configured block device. Default: NAME.img in the first directory.
    #[arg(long)]
    path: Option<String>,
    /// Give a new image its space from the beginning.
    #[arg(long)]
    allocate: bool,
    /// Queues, 1 to 256. Default: 1.
    #[arg(long)]
    queues: Option<u32>,
    /// Largest ring in entries, a power of two. Default: 1024.
    #[arg(long)]
    queue_depth: Option<u32>,
    /// MSI-X vectors, kept and shown only. Default: queues + 1.
    #[arg(long)]
    msix: Option<u32>,
    /// Kind of PCI function, kept and shown only: pf or vf.
    #[arg(long, default_value = "pf", value_parser = word::<PvfType>)]
    port_type: PvfType,
    /// Bytes of a block: 512 or 4096. Default: 512.
    #[arg(long)]
    block_size: Option<u32>,
    /// The guest can't write.
    #[arg(long)]
    read_only: bool,
    /// Path of the vhost-user socket. Default: NAME.sock in the configured directory.
    #[arg(long)]
    socket: Option<String>,
    /// The guest's front end makes the socket, and the disk connects.
    #[arg(long, requires = "socket")]
    socket_client: bool,
    /// User that the socket belongs to.
    #[arg(long)]
    owner: Option<String>,
    /// Group that the socket belongs to.
    #[arg(long)]
    group: Option<String>,
    /// Permissions of the socket, in octal. Default: 660.
    #[arg(long)]
    mode: Option<String>,
    /// Threads that serve the queues. Default: as configured.
    #[arg(long)]
    threads: Option<u32>,
    /// CPUs of these threads, separated by commas. Default: as configured.
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
    #[command(flatten)]
    limits: LimitArguments,
    /// Serial number that the guest sees. Default: the first 20 bytes of the name.
    #[arg(long)]
    serial: Option<String>,
    /// Use the host's page cache, even if the image can be used without.
    #[arg(long)]
    buffered: bool,
    /// Other machines have the image too: lock it only while a guest uses it, so that the guest can migrate.
    #[arg(long)]
    shared_storage: bool,
    /// The disk is paused from the beginning.
    #[arg(long)]
    paused: bool,
}

impl From<CreateArguments> for DiskSpec {
    fn from(a: CreateArguments) -> Self {
        DiskSpec {
            name: a.name,
            pvf_id: a.pvf_id,
            path: a.path,
            size: a.size,
            allocate: a.allocate,
            queues: a.queues,
            queue_depth: a.queue_depth,
            msix: a.msix,
            port_type: a.port_type,
            block_size: a.block_size,
            read_only: a.read_only,
            socket: a.socket,
            role: if a.socket_client { SocketRole::Client } else { SocketRole::Server },
            owner: a.owner,
            group: a.group,
            mode: a.mode,
            threads: a.threads,
            cpus: a.cpus,
            limits: a.limits.into(),
            serial: a.serial,
            buffered: a.buffered,
            shared_storage: a.shared_storage,
            paused: a.paused.then_some(true),
        }
    }
}

/// A number with K, M, G or T behind it, in powers of 1,024.
fn size(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" => 0,
        "K" | "KIB" => 10,
        "M" | "MIB" => 20,
        "G" | "GIB" => 30,
        "T" | "TIB" => 40,
        _ => return Err("a whole number is expected, alone or with K, M, G or T behind it".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|error| format!("{error}"))?;
    number.checked_mul(1 << shift).ok_or_else(|| "it is too large".to_owned())
}

/// `RATE` or `RATE:BURST`.
fn rate(text: &str) -> Result<DiskRate, String> {
    let (rate, burst) = match text.split_once(':') {
        Some((rate, burst)) => (rate, size(burst)?),
        None => (text, 0),
    };
    Ok(DiskRate { per_second: size(rate)?, burst })
}

pub(crate) async fn run(client: &Client, printer: &Printer, command: DiskCommand) -> anyhow::Result<()> {
    let one = |answer: &Value| printer.show(answer, |disk: DiskEntry| show::disk(&disk));
    let path = |disk: &str| format!("disks/{}", encode(disk));
    match command {
        DiskCommand::Create(arguments) => one(&client.post("disks", &DiskSpec::from(*arguments)).await?),
        DiskCommand::Delete { disks, force, delete_image } => {
            let flag = |set: bool| set.then(|| "true".to_owned());
            let how = query(&[("force", flag(force)), ("delete_image", flag(delete_image))]);
            for disk in disks {
                let answer = client.delete(&format!("{}{how}", path(&disk))).await;
                answer.with_context(|| format!("disk {disk}"))?;
            }
            Ok(())
        }
        DiskCommand::Grow { disk, size } => {
            let update = DiskUpdate { size: Some(size), ..DiskUpdate::default() };
            one(&client.patch(&path(&disk), &update).await?)
        }
        DiskCommand::Pause { disk } => one(&client.post(&format!("{}/pause", path(&disk)), &json!({})).await?),
        DiskCommand::Resume { disk } => one(&client.post(&format!("{}/resume", path(&disk)), &json!({})).await?),
        DiskCommand::List => {
            let answer = client.get("disks").await?;
            printer.show(&answer, |disks: Vec<DiskEntry>| show::list(&disks))
        }
        DiskCommand::Show { disk } => one(&client.get(&path(&disk)).await?),
        DiskCommand::Stats { disk: Some(disk) } => {
            let answer = client.get(&format!("disk-stats/{}", encode(&disk))).await?;
            printer.show(&answer, |stats: DiskStats| show::queues(&stats))
        }
        DiskCommand::Stats { disk: None } => {
            let answer = client.get("disk-stats").await?;
            printer.show(&answer, |stats: Vec<DiskStats>| show::stats(&stats))
        }
        DiskCommand::Limits { disk, limits } => {
            let limits = DiskLimits::from(limits);
            let answer = if limits.is_none() {
                client.get(&path(&disk)).await?
            } else {
                client.patch(&path(&disk), &DiskUpdate { limits, ..DiskUpdate::default() }).await?
            };
            printer.show(&answer, |disk: DiskEntry| show::limits(&disk.spec.limits))
        }
        DiskCommand::Snapshot { disk, path: to } => {
            let answer = client.post(&format!("{}/snapshot", path(&disk)), &json!({ "path": to })).await?;
            printer.show(&answer, |answer: Value| format!("{}\n", answer["path"].as_str().unwrap_or_default()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, expected) in
            [("0", 0), ("512", 512), ("4k", 4096), ("1M", 1 << 20), ("10GiB", 10 << 30), ("2T", 2 << 40)]
        {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for wrong in ["", "G", "1.5G", "1GB", "-1", "1 G", "99999999999T", "x"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rate_may_have_a_burst() {
        assert_eq!(rate("100"), Ok(DiskRate { per_second: 100, burst: 0 }));
        assert_eq!(rate("1M:2M"), Ok(DiskRate { per_second: 1 << 20, burst: 2 << 20 }));
        assert!(rate("1:").is_err() && rate(":1").is_err() && rate("1:2:3").is_err());
    }
}
