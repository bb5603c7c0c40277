//! Disks: what they are to be, and what there is to be seen of them.

use model::SocketRole;
use serde::{Deserialize, Serialize};

/// A rate, and how much may come at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DiskRate {
    /// Operations or bytes a second. 0 is no limit.
    pub per_second: u64,
    /// Operations or bytes that may come at once after a pause. 0, the default, is what comes in a tenth of a second.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub burst: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Limits of a disk. Absent ones are none, or stay as they are in a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct DiskLimits {
    /// Reads a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_ops: Option<DiskRate>,
    /// Bytes read a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_bytes: Option<DiskRate>,
    /// Writes, discards and ranges of zeroes a second. Flushes are not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_ops: Option<DiskRate>,
    /// Bytes written a second. Discards and ranges of zeroes count as operations only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_bytes: Option<DiskRate>,
}

impl DiskLimits {
    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// These limits, changed by those that `change` has. A rate of 0 takes a limit away.
    #[must_use]
    pub fn changed_by(&self, change: &Self) -> Self {
        let one = |is: Option<DiskRate>, to: Option<DiskRate>| to.or(is).filter(|rate| rate.per_second > 0);
        Self {
            read_ops: one(self.read_ops, change.read_ops),
            read_bytes: one(self.read_bytes, change.read_bytes),
            write_ops: one(self.write_ops, change.write_ops),
            write_bytes: one(self.write_bytes, change.write_bytes),
        }
    }
}

/// Kind of the PCI function that a disk is said to be. It is kept and shown, and changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum PvfType {
    /// Physical function.
    #[default]
    Pf,
    /// Virtual function.
    Vf,
}

/// What a disk is to be. Fields that are absent have their defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// Name, unique: 1 to 128 characters without control characters, `/` and `*`, no `.` first, and not only digits.
    pub name: String,
    /// Its number, 0 to the number of disks that there can be, less 1. Default: the lowest free one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pvf_id: Option<u32>,
    /// Absolute path of its image: a file in one of the configured directories, or a configured block device. Default:
    /// `NAME.img` in the first directory. A file that is not there is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Bytes, a multiple of `block_size`. Default: those of the image, or those that are configured for new images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// A new image has its space from the beginning. Otherwise it is sparse.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allocate: bool,
    /// Queues, 1 to 256. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u32>,
    /// Largest ring in entries, a power of two from 2 to 32,768. Default: 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_depth: Option<u32>,
    /// MSI-X vectors of the guest's device, 0 to 2,048. The VMM makes that device, so the number is only kept and
    /// shown. Default: `queues` + 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msix: Option<u32>,
    /// Kind of its PCI function, kept and shown. Default: `pf`.
    #[serde(default)]
    pub port_type: PvfType,
    /// Bytes of a block: 512 or 4096. Default: 512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u32>,
    /// The guest can't write.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Absolute path of its vhost-user socket, at most 107 bytes. Default: `NAME.sock` in the configured directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// Which side makes the socket: `server` is this one.
    #[serde(default)]
    pub role: SocketRole,
    /// `server` only: user that the socket belongs to, a name or a number. Default: the daemon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// `server` only: group that the socket belongs to, a name or a number. Default: what the directory gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// `server` only: permission bits of the socket, in octal. Default: `660`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Threads that serve its queues, 1 to `queues`. Default: as configured for all disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// CPUs of these threads, in turn. Default: as configured for all disks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<usize>,
    /// Limits.
    #[serde(default, skip_serializing_if = "DiskLimits::is_none")]
    pub limits: DiskLimits,
    /// Serial number that the guest sees, 1 to 20 printable ASCII characters. Default: the first 20 bytes of the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The image is used by the host's page cache, even if it could be used without.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub buffered: bool,
    /// The image lies on storage that other machines have too. It is locked only while a guest's rings run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared_storage: bool,
    /// It takes no requests until it is resumed. Default: false, or as it is. A configuration that says `false` resumes
    /// the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

impl DiskSpec {
    /// A disk of that name with every default.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Whether it takes no requests.
    pub fn is_paused(&self) -> bool {
        self.paused == Some(true)
    }
}

/// Changes of a disk in operation. Absent fields keep their value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct DiskUpdate {
    /// Bytes, not less than now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Limits that change. A rate of 0 takes a limit away.
    #[serde(skip_serializing_if = "DiskLimits::is_none")]
    pub limits: DiskLimits,
}

/// Whether a disk is in operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum DiskState {
    /// It is being brought up.
    Starting,
    /// It is served.
    Up,
    /// It is served, and something is not as it should be.
    Degraded,
    /// It is configured, and can't be served.
    Failed,
}

/// State of the way between a disk and its guest, as `trans_status` of the DPU interface has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum DiskTransport {
    /// 0: no front end is connected.
    #[default]
    Disconnected = 0,
    /// 1: a front end is connected, and no ring runs.
    Negotiated = 1,
    /// 2: rings run.
    Running = 2,
    /// 3: the disk is paused, connected or not.
    Paused = 3,
}

/// A disk in operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DiskInfo {
    /// Bytes that the guest sees.
    pub bytes: u64,
    /// State of the way to the guest.
    pub transport: DiskTransport,
    /// Whether a front end is connected.
    pub connected: bool,
    /// Rings that run.
    pub active_queues: u32,
    /// Virtio feature bits in use. Absent before they are negotiated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<u64>,
    /// Feature bits of vhost-user in use.
    pub protocol_features: u64,
    /// Front ends that have connected until now.
    pub sessions: u64,
    /// Why the last session has ended, or why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Whether it takes no requests.
    pub paused: bool,
    /// Whether there was no space for the last write that failed.
    pub full: bool,
    /// Whether the image is used without the host's page cache.
    pub direct: bool,
    /// Whether writes are durable before the guest is told.
    pub write_through: bool,
}

/// A configured disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DiskEntry {
    /// Name.
    pub name: String,
    /// Number.
    pub pvf_id: u32,
    /// Whether it is in operation.
    pub state: DiskState,
    /// Why it is not in operation, or not as it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its configuration, with defaults filled in.
    pub spec: DiskSpec,
    /// Its state, if it is in operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<DiskInfo>,
}

/// Operations of one kind that were done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DiskCount {
    /// Number.
    pub operations: u64,
    /// Bytes.
    pub bytes: u64,
    /// Nanoseconds of all of them together, from taking a request to its end, without the wait for limits.
    pub nanoseconds: u64,
    /// How many took how long: pairs of a time in nanoseconds, and of the number that took less than that time and not
    /// less than the one before. Four for each power of two. Those of no operation are left out.
    pub latencies: Vec<(u64, u64)>,
}

impl DiskCount {
    /// Time in nanoseconds that `percent` of the operations took at most. 0 without operations.
    pub fn percentile(&self, percent: u64) -> u64 {
        let all: u64 = self.latencies.iter().map(|(_, count)| count).sum();
        let wanted = (u128::from(all) * u128::from(percent)).div_ceil(100);
        let mut seen = 0_u128;
        let found = self.latencies.iter().find(|(_, count)| {
            seen += u128::from(*count);
            seen >= wanted
        });
        found.map_or(0, |(below, _)| *below)
    }
}

/// Counters of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DiskQueueStats {
    /// The queue, from 0.
    pub queue: u32,
    /// Reads.
    pub read: DiskCount,
    /// Writes.
    pub write: DiskCount,
    /// Flushes that the guest asked for.
    pub flush: DiskCount,
    /// Discards.
    pub discard: DiskCount,
    /// Ranges of zeroes.
    pub zero: DiskCount,
    /// Requests that failed in the storage, those for lack of space too.
    pub errors: u64,
    /// Requests that failed because the storage was full.
    pub no_space: u64,
    /// Requests that were refused: out of range, unknown, malformed.
    pub refused: u64,
    /// Requests that had to wait for limits.
    pub limited: u64,
    /// Requests whose memory was not aligned as the storage needs, so that they were copied.
    pub copied: u64,
    /// Requests that were in work when an earlier daemon ended, and were done again.
    pub replayed: u64,
    /// Requests in work now.
    pub in_flight: u64,
}

/// Counters of a disk since it was brought up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DiskStats {
    /// Name.
    pub name: String,
    /// Number.
    pub pvf_id: u32,
    /// Counters by queue. None while the disk is not in operation.
    pub queues: Vec<DiskQueueStats>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_change_one_by_one_and_zero_takes_one_away() {
        let rate = |per_second| Some(DiskRate { per_second, burst: 0 });
        let limits = DiskLimits { read_ops: rate(5), write_bytes: rate(7), ..DiskLimits::default() };
        let change = DiskLimits { read_ops: rate(0), read_bytes: rate(9), ..DiskLimits::default() };
        let changed = DiskLimits { read_bytes: rate(9), write_bytes: rate(7), ..DiskLimits::default() };
        assert_eq!(limits.changed_by(&change), changed);
        assert!(limits.changed_by(&DiskLimits { write_bytes: rate(0), ..change }).read_bytes.is_some());
    }

    #[test]
    fn a_percentile_is_the_end_of_the_class_that_has_it() {
        let count = DiskCount { latencies: vec![(10, 50), (20, 49), (40, 1)], ..DiskCount::default() };
        assert_eq!([50, 51, 99, 100].map(|percent| count.percentile(percent)), [10, 20, 20, 40]);
        assert_eq!(DiskCount::default().percentile(99), 0);
    }

    #[test]
    fn a_spec_is_written_without_defaults_and_refuses_what_it_does_not_know() {
        let text = serde_json::to_string(&DiskSpec::new("a")).unwrap();
        assert_eq!(text, r#"{"name":"a","port_type":"pf","role":"server"}"#);
        assert_eq!(serde_json::from_str::<DiskSpec>(r#"{"name":"a"}"#).unwrap(), DiskSpec::new("a"));
        let error = serde_json::from_str::<DiskSpec>(r#"{"name":"a","szie":1}"#).unwrap_err();
        assert!(error.to_string().contains("szie"), "{error}");
    }
}
