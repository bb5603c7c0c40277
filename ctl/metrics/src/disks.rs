//! Series of disks.

use ctl_types::{DiskCount, DiskEntry, DiskQueueStats, DiskState, DiskStats};

use crate::text::Families;

/// Ends of the buckets of latency, in nanoseconds: from 4 µs, each four times the one before, to 17 s.
const BUCKETS: [u64; 12] = {
    let mut ends = [0; 12];
    let mut at = 0;
    while at < ends.len() {
        ends[at] = 1 << (12 + 2 * at);
        at += 1;
    }
    ends
};

impl Families {
    /// What a disk is.
    pub(crate) fn disk(&mut self, disk: &DiskEntry) {
        let here = [("disk", disk.name.as_str())];
        let flag = |value: bool| f64::from(u8::from(value));
        let number = disk.pvf_id.to_string();
        let path = disk.spec.path.as_deref().unwrap_or_default();
        let labels = [("disk", disk.name.as_str()), ("pvf_id", number.as_str()), ("path", path)];
        self.gauge("xswitch_disk_info", "What the disk is; always 1.", &labels, 1.0);
        let up = matches!(disk.state, DiskState::Up | DiskState::Degraded);
        self.gauge("xswitch_disk_up", "Whether the disk is served.", &here, flag(up));
        let degraded = "Whether something is not as it should be with a disk that is served.";
        self.gauge("xswitch_disk_degraded", degraded, &here, flag(disk.state == DiskState::Degraded));
        let paused = "Whether the disk takes no requests, because it is paused.";
        self.gauge("xswitch_disk_paused", paused, &here, flag(disk.spec.is_paused()));
        let info = disk.info.as_ref();
        let connected = "Whether a front end is connected.";
        self.gauge("xswitch_disk_connected", connected, &here, flag(info.is_some_and(|info| info.connected)));
        let full = "Whether there was no space for the last write that failed: the alarm of a full storage.";
        self.gauge("xswitch_disk_full", full, &here, flag(info.is_some_and(|info| info.full)));
        let Some(info) = info else { return };
        #[expect(clippy::cast_precision_loss, reason = "Prometheus has floats only")]
        self.gauge("xswitch_disk_size_bytes", "Bytes of the disk.", &here, info.bytes as f64);
        let queues = "Queues that the guest uses now.";
        self.gauge("xswitch_disk_active_queues", queues, &here, f64::from(info.active_queues));
        self.counter("xswitch_disk_sessions_total", "Front ends that have connected.", &here, info.sessions);
    }

    /// What a disk has done, by queue.
    pub(crate) fn disk_stats(&mut self, stats: &DiskStats) {
        stats.queues.iter().for_each(|queue| self.disk_queue(&stats.name, queue));
    }

    fn disk_queue(&mut self, disk: &str, queue: &DiskQueueStats) {
        let number = queue.queue.to_string();
        let labels = [("disk", disk), ("queue", number.as_str())];
        for (operation, count) in [
            ("read", &queue.read),
            ("write", &queue.write),
            ("flush", &queue.flush),
            ("discard", &queue.discard),
            ("write_zeroes", &queue.zero),
        ] {
            let labels = [labels[0], labels[1], ("operation", operation)];
            let help = "Requests of the guest that were done, by kind.";
            self.counter("xswitch_disk_operations_total", help, &labels, count.operations);
            let help = "Bytes of the guest's requests that were done, by kind.";
            self.counter("xswitch_disk_bytes_total", help, &labels, count.bytes);
            if count.operations > 0 {
                self.latency(&labels, count);
            }
        }
        for (name, help, value) in [
            ("xswitch_disk_errors_total", "Requests that failed in the storage.", queue.errors),
            ("xswitch_disk_no_space_total", "Requests that failed because the storage was full.", queue.no_space),
            ("xswitch_disk_refused_total", "Requests that were refused as malformed.", queue.refused),
            ("xswitch_disk_limited_total", "Requests that had to wait for limits.", queue.limited),
            (
                "xswitch_disk_copied_total",
                "Requests whose memory was not aligned, so that it was copied.",
                queue.copied,
            ),
            ("xswitch_disk_replayed_total", "Requests of an earlier daemon that were done again.", queue.replayed),
        ] {
            self.counter(name, help, &labels, value);
        }
        #[expect(clippy::cast_precision_loss, reason = "Prometheus has floats only")]
        self.gauge("xswitch_disk_in_flight", "Requests in work.", &labels, queue.in_flight as f64);
    }

    /// Only kinds of requests that there were have a histogram.
    fn latency(&mut self, labels: &[(&str, &str)], count: &DiskCount) {
        let below = |end: u64| {
            let classes = count.latencies.iter().filter(|(class, _)| *class <= end);
            (seconds(end), classes.map(|(_, count)| count).sum())
        };
        let help = "Time of the guest's requests from taking to end, without the wait for limits.";
        let name = "xswitch_disk_request_seconds";
        let all = count.latencies.iter().map(|(_, count)| count).sum();
        self.histogram(name, help, labels, &BUCKETS.map(below), (seconds(count.nanoseconds), all));
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has floats only")]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_adds_up_and_ends_with_all() {
        let mut families = Families::default();
        let read = DiskCount {
            operations: 6,
            bytes: 6 << 12,
            nanoseconds: 20_000_000_000,
            latencies: vec![(4096, 1), (5120, 2), (16_384, 1), (1 << 34, 1), (1 << 36, 1)],
        };
        let queue = DiskQueueStats { read, in_flight: 3, no_space: 1, ..DiskQueueStats::default() };
        families.disk_stats(&DiskStats { name: "a".into(), pvf_id: 0, queues: vec![queue] });
        let text = families.finish();
        let of = |line: &str| {
            let found = text.lines().find_map(|other| other.strip_prefix(line));
            found.unwrap_or_else(|| panic!("{line}: {text}")).trim().to_owned()
        };
        let bucket = |le: &str| {
            of(&format!("xswitch_disk_request_seconds_bucket{{disk=\"a\",queue=\"0\",operation=\"read\",le=\"{le}\"}}"))
        };
        assert_eq!(
            ["0.000004096", "0.000016384", "0.000065536", "17.179869184", "+Inf"].map(bucket),
            ["1", "4", "4", "5", "6"]
        );
        assert_eq!(of("xswitch_disk_request_seconds_sum{disk=\"a\",queue=\"0\",operation=\"read\"}"), "20");
        assert_eq!(of("xswitch_disk_request_seconds_count{disk=\"a\",queue=\"0\",operation=\"read\"}"), "6");
        assert_eq!(of("xswitch_disk_no_space_total{disk=\"a\",queue=\"0\"}"), "1");
        assert_eq!(text.matches("# TYPE xswitch_disk_request_seconds histogram").count(), 1);
        assert!(!text.contains("operation=\"write\",le="), "{text}");
    }
}
