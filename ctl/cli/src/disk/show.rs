//! Disks as tables.

use ctl_types::table::Table;
use ctl_types::{
    DiskCount, DiskEntry, DiskLimits, DiskQueueStats, DiskRate, DiskState, DiskStats, DiskTransport, PvfType,
};
use model::SocketRole;

fn state(state: DiskState) -> &'static str {
    match state {
        DiskState::Starting => "starting",
        DiskState::Up => "up",
        DiskState::Degraded => "degraded",
        DiskState::Failed => "failed",
    }
}

fn transport(disk: &DiskEntry) -> &'static str {
    match disk.info.as_ref().map(|info| info.transport) {
        None => "",
        Some(DiskTransport::Disconnected) => "none",
        Some(DiskTransport::Negotiated) => "connected",
        Some(DiskTransport::Running) => "running",
        Some(DiskTransport::Paused) => "paused",
    }
}

/// Bytes, with a binary prefix if they are a multiple of it.
fn bytes(bytes: u64) -> String {
    let units = ["", " KiB", " MiB", " GiB", " TiB"];
    let exact = |at: &usize| *at == 0 || bytes > 0 && bytes.is_multiple_of(1 << (10 * at));
    let at = (0..units.len()).rev().find(exact).unwrap_or(0);
    format!("{}{}", bytes >> (10 * at), units[at])
}

fn size(disk: &DiskEntry) -> u64 {
    disk.info.as_ref().map_or(disk.spec.size.unwrap_or_default(), |info| info.bytes)
}

/// `disk list`.
pub(super) fn list(disks: &[DiskEntry]) -> String {
    let mut table = Table::new(&["PVF", "DISK", "STATE", "GUEST", "SIZE", "QUEUES", "MODE", "IMAGE", "SOCKET"]);
    for disk in disks {
        let spec = &disk.spec;
        let active = disk.info.as_ref().map_or(0, |info| info.active_queues);
        table.row([
            disk.pvf_id.to_string(),
            disk.name.clone(),
            state(disk.state).to_owned(),
            transport(disk).to_owned(),
            bytes(size(disk)),
            format!("{active} of {}", spec.queues.unwrap_or_default()),
            if spec.read_only { "ro" } else { "rw" }.to_owned(),
            spec.path.clone().unwrap_or_default(),
            spec.socket.clone().unwrap_or_default(),
        ]);
    }
    let mut text = table.render();
    for disk in disks {
        text += &disk.error.as_ref().map(|error| format!("{}: {error}\n", disk.name)).unwrap_or_default();
    }
    text
}

/// `disk show`.
pub(super) fn disk(disk: &DiskEntry) -> String {
    let spec = &disk.spec;
    let number = |number: Option<u32>| number.unwrap_or_default().to_string();
    let sectors = format!("{} ({} sectors)", bytes(size(disk)), size(disk) / 512);
    let mut lines =
        vec![("disk", disk.name.clone()), ("number", disk.pvf_id.to_string()), ("state", state(disk.state).to_owned())];
    lines.extend(disk.error.iter().map(|error| ("error", error.clone())));
    lines.push(("image", spec.path.clone().unwrap_or_default()));
    lines.push(("size", sectors));
    lines.push(("blocks", format!("{} bytes", number(spec.block_size))));
    lines.push(("access", if spec.read_only { "read only" } else { "read and write" }.to_owned()));
    lines.push(("paused", if spec.is_paused() { "yes" } else { "no" }.to_owned()));
    let role = match spec.role {
        SocketRole::Server => "server",
        SocketRole::Client => "client",
    };
    lines.push(("socket", format!("{} ({role})", spec.socket.clone().unwrap_or_default())));
    lines.extend(spec.owner.iter().map(|owner| ("owner", owner.clone())));
    lines.extend(spec.group.iter().map(|group| ("group", group.clone())));
    lines.extend(spec.mode.iter().map(|mode| ("permissions", mode.clone())));
    lines.push(("queues", number(spec.queues)));
    lines.push(("queue depth", number(spec.queue_depth)));
    lines.push(("MSI-X", number(spec.msix)));
    let port_type = match spec.port_type {
        PvfType::Pf => "pf",
        PvfType::Vf => "vf",
    };
    lines.push(("function", port_type.to_owned()));
    lines.push(("threads", number(spec.threads)));
    if !spec.cpus.is_empty() {
        let cpus: Vec<_> = spec.cpus.iter().map(ToString::to_string).collect();
        lines.push(("CPUs", cpus.join(",")));
    }
    lines.extend(spec.serial.iter().map(|serial| ("serial", serial.clone())));
    lines.extend(spec.shared_storage.then(|| ("storage", "shared with other machines".to_owned())));
    if let Some(info) = &disk.info {
        lines.push(("guest", transport(disk).to_owned()));
        lines.push(("active queues", info.active_queues.to_string()));
        lines.extend(info.features.map(|features| ("features", format!("{features:#x}"))));
        lines.push(("sessions", info.sessions.to_string()));
        lines.extend(info.last_error.iter().map(|error| ("last error", error.clone())));
        lines.push(("page cache", if info.direct { "not used" } else { "used" }.to_owned()));
        lines.push(("guest's cache", if info.write_through { "write through" } else { "write back" }.to_owned()));
    }
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect();
    if !spec.limits.is_none() {
        text += &format!("\n{}", limits(&spec.limits));
    }
    text
}

/// How a number is shown.
type Text = fn(u64) -> String;

/// `disk limits`.
pub(super) fn limits(limits: &DiskLimits) -> String {
    let mut table = Table::new(&["LIMIT", "RATE", "BURST"]);
    let count = |number: u64| number.to_string();
    let rows: [(&str, Option<DiskRate>, Text); 4] = [
        ("reads", limits.read_ops, count),
        ("bytes read", limits.read_bytes, bytes),
        ("writes", limits.write_ops, count),
        ("bytes written", limits.write_bytes, bytes),
    ];
    for (name, rate, text) in rows {
        let (rate, burst) = match rate {
            None => ("none".to_owned(), String::new()),
            Some(DiskRate { per_second, burst: 0 }) => (format!("{}/s", text(per_second)), "default".to_owned()),
            Some(DiskRate { per_second, burst }) => (format!("{}/s", text(per_second)), text(burst)),
        };
        table.row([name.to_owned(), rate, burst]);
    }
    table.render()
}

/// A time in nanoseconds, in microseconds or milliseconds.
fn time(nanoseconds: u64) -> String {
    match nanoseconds {
        0 => String::new(),
        1..1_000_000 => format!("{} us", nanoseconds.div_ceil(1000)),
        _ => format!("{} ms", nanoseconds.div_ceil(1_000_000)),
    }
}

/// Finds the counters of an operation.
type Of = fn(&DiskQueueStats) -> &DiskCount;

const OPERATIONS: [(&str, Of); 5] = [
    ("read", |queue| &queue.read),
    ("write", |queue| &queue.write),
    ("flush", |queue| &queue.flush),
    ("discard", |queue| &queue.discard),
    ("zeroes", |queue| &queue.zero),
];

/// `disk stats`.
pub(super) fn stats(disks: &[DiskStats]) -> String {
    let mut table =
        Table::new(&["DISK", "READS", "READ", "WRITES", "WRITTEN", "FLUSHES", "ERRORS", "NO SPACE", "IN FLIGHT"]);
    for disk in disks {
        let sum = |of: fn(&DiskQueueStats) -> u64| disk.queues.iter().map(of).sum::<u64>();
        table.row([
            disk.name.clone(),
            sum(|queue| queue.read.operations).to_string(),
            bytes(sum(|queue| queue.read.bytes)),
            sum(|queue| queue.write.operations).to_string(),
            bytes(sum(|queue| queue.write.bytes)),
            sum(|queue| queue.flush.operations).to_string(),
            sum(|queue| queue.errors).to_string(),
            sum(|queue| queue.no_space).to_string(),
            sum(|queue| queue.in_flight).to_string(),
        ]);
    }
    table.render()
}

/// `disk stats DISK`.
pub(super) fn queues(disk: &DiskStats) -> String {
    let mut table = Table::new(&["QUEUE", "OPERATION", "COUNT", "BYTES", "MEAN", "P50", "P99", "MAX"]);
    for queue in &disk.queues {
        for (name, of) in OPERATIONS {
            let count = of(queue);
            table.row([
                queue.queue.to_string(),
                name.to_owned(),
                count.operations.to_string(),
                bytes(count.bytes),
                time(count.nanoseconds.checked_div(count.operations).unwrap_or(0)),
                time(count.percentile(50)),
                time(count.percentile(99)),
                time(count.percentile(100)),
            ]);
        }
    }
    let headings = ["QUEUE", "IN FLIGHT", "ERRORS", "NO SPACE", "REFUSED", "LIMITED", "COPIED", "REPLAYED"];
    let mut others = Table::new(&headings);
    for queue in &disk.queues {
        let DiskQueueStats { queue, in_flight, errors, no_space, refused, limited, copied, replayed, .. } = queue;
        others.row([
            queue.to_string(),
            in_flight.to_string(),
            errors.to_string(),
            no_space.to_string(),
            refused.to_string(),
            limited.to_string(),
            copied.to_string(),
            replayed.to_string(),
        ]);
    }
    format!("{}\n{}", table.render(), others.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_exact() {
        for (number, text) in
            [(0, "0"), (511, "511"), (1024, "1 KiB"), (1536, "1536"), (3 << 29, "1536 MiB"), (1 << 40, "1 TiB")]
        {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn limits_that_there_are_not_are_told() {
        let rate = Some(DiskRate { per_second: 1 << 20, burst: 0 });
        let text = limits(&DiskLimits { read_bytes: rate, read_ops: rate, ..DiskLimits::default() });
        assert_eq!(
            text,
            "LIMIT          RATE       BURST\nreads          1048576/s  default\nbytes read     1 MiB/s    default\n\
             writes         none\nbytes written  none\n"
        );
    }
}
