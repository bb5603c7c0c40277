//! What a disk may be: checks and defaults. Pure, but for the number of CPUs.

use std::path::{Path, PathBuf};

use ctl_types::{DiskLimits, DiskSpec};
use disk::disk::{MAX_DEPTH, MAX_QUEUES};
use disk::limits::{Direction, LimitSpec, Rate};
use disk::request::ID_LEN;
use model::{MAX_SOCKET_PATH, SocketRole};
use nix::unistd::{SysconfVar, sysconf};
use vhost_user::socket::Access;

use crate::config::{DiskSettings, is_plain};
use crate::error::Error;

/// Bytes of a sector. The DPU interface and virtio count in these, whatever a disk's blocks are.
pub const SECTOR: u64 = 512;
/// Longest name, in characters.
const MAX_NAME: usize = 128;
/// Queues of a disk that names no number.
pub const DEFAULT_QUEUES: u32 = 1;
/// Entries of the rings of a disk that names no number. QEMU asks for 128, and for 1,024 at most.
pub const DEFAULT_DEPTH: u32 = 1024;
/// Most MSI-X vectors of a PCI function (PCI 3.0, 6.8.2).
pub const MAX_MSIX: u32 = 2048;
/// Permissions of a socket.
const DEFAULT_MODE: &str = "660";
/// Most bytes of a disk: the largest offset of a file.
const MAX_BYTES: u64 = i64::MAX.unsigned_abs();

/// Fills in the defaults that are known without a look at the machine, and checks what can be checked so. The size and
/// the number may stay open.
///
/// # Errors
/// The field, and what is wrong with it.
pub fn complete(spec: &DiskSpec, settings: &DiskSettings) -> Result<DiskSpec, Error> {
    check_name(&spec.name)?;
    if let Some(number) = spec.pvf_id.filter(|number| *number >= settings.capacity) {
        let most = settings.capacity - 1;
        return Err(Error::invalid(format!("pvf_id: {number} is out of range, 0 to {most} are possible")));
    }
    let queues = spec.queues.unwrap_or(DEFAULT_QUEUES);
    in_range("queues", queues, 1, u32::from(MAX_QUEUES))?;
    let queue_depth = spec.queue_depth.unwrap_or(DEFAULT_DEPTH);
    if !queue_depth.is_power_of_two() || queue_depth < 2 || queue_depth > u32::from(MAX_DEPTH) {
        let text = format!("queue_depth: {queue_depth} is no power of two from 2 to {MAX_DEPTH}");
        return Err(Error::invalid(text));
    }
    let msix = spec.msix.unwrap_or(queues + 1);
    in_range("msix", msix, 0, MAX_MSIX)?;
    let block_size = spec.block_size.unwrap_or(512);
    if block_size != 512 && block_size != 4096 {
        return Err(Error::invalid(format!("block_size: blocks have 512 or 4096 bytes, not {block_size}")));
    }
    spec.size.map_or(Ok(()), |size| check_size(size, block_size))?;
    let threads = spec.threads.unwrap_or(settings.threads.min(queues));
    in_range("threads", threads, 1, queues)?;
    check_cpus("cpus", &spec.cpus)?;
    check_limits(&spec.limits)?;
    if let Some(serial) = &spec.serial {
        let printable = serial.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if serial.is_empty() || serial.len() > ID_LEN || !printable {
            let serial = serial.escape_default();
            let text = format!("serial: `{serial}` is not 1 to {ID_LEN} printable ASCII characters");
            return Err(Error::invalid(text));
        }
    }
    Ok(DiskSpec {
        path: Some(path_of(spec, settings)?),
        queues: Some(queues),
        queue_depth: Some(queue_depth),
        msix: Some(msix),
        block_size: Some(block_size),
        socket: Some(socket_of(spec, settings)?),
        mode: mode_of(spec)?,
        threads: Some(threads),
        cpus: if spec.cpus.is_empty() { settings.cpus.clone() } else { spec.cpus.clone() },
        limits: DiskLimits::default().changed_by(&spec.limits),
        paused: spec.is_paused().then_some(true),
        ..spec.clone()
    })
}

fn in_range(field: &str, value: u32, least: u32, most: u32) -> Result<(), Error> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::invalid(format!("{field}: {value} is out of range, {least} to {most} are possible")))
}

fn check_name(name: &str) -> Result<(), Error> {
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::invalid(format!("name: `{name}` would be taken for a number: add a letter")));
    }
    let odd = |c: char| c.is_control() || c == '/' || c == '*';
    if (1..=MAX_NAME).contains(&name.chars().count()) && !name.contains(odd) && !name.starts_with('.') {
        return Ok(());
    }
    let name = name.escape_default();
    let what = "characters without control characters, `/` and `*`, and no `.` first";
    Err(Error::invalid(format!("name: `{name}` is not 1 to {MAX_NAME} {what}")))
}

/// Checks a disk's size in bytes.
pub(crate) fn check_size(size: u64, block_size: u32) -> Result<(), Error> {
    if size == 0 || size > MAX_BYTES || !size.is_multiple_of(u64::from(block_size)) {
        let text = format!("size: {size} bytes are no multiple of {block_size} from {block_size} to {MAX_BYTES}");
        return Err(Error::invalid(text));
    }
    Ok(())
}

/// Checks that the machine has these CPUs. `field` names them in an error.
pub(crate) fn check_cpus(field: &str, cpus: &[usize]) -> Result<(), Error> {
    let known = sysconf(SysconfVar::_NPROCESSORS_CONF).ok().flatten();
    let known = known.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    match cpus.iter().find(|cpu| **cpu >= known) {
        Some(cpu) => Err(Error::invalid(format!("{field}: there is no CPU {cpu}, the machine has 0 to {}", known - 1))),
        None => Ok(()),
    }
}

/// Checks limits.
pub(crate) fn check_limits(limits: &DiskLimits) -> Result<(), Error> {
    let DiskLimits { read_ops, read_bytes, write_ops, write_bytes } = limits;
    for (field, rate) in
        [("read_ops", read_ops), ("read_bytes", read_bytes), ("write_ops", write_ops), ("write_bytes", write_bytes)]
    {
        if rate.is_some_and(|rate| rate.per_second == 0 && rate.burst != 0) {
            return Err(Error::invalid(format!("limits.{field}: a burst without a rate has no meaning")));
        }
    }
    Ok(())
}

/// Path of the image.
fn path_of(spec: &DiskSpec, settings: &DiskSettings) -> Result<String, Error> {
    let Some(text) = &spec.path else {
        let first = settings.directories.first().ok_or_else(|| {
            let text = "path: no directory for images is configured, so a block device has to be named";
            Error::invalid(text)
        })?;
        return text_of("path", &first.join(format!("{}.img", spec.name)));
    };
    let path = Path::new(text);
    if !is_plain(path) {
        let text = text.escape_default();
        return Err(Error::invalid(format!("path: `{text}` is not an absolute path without `.` and `..`")));
    }
    let inside = settings.directories.iter().any(|directory| path != directory && path.starts_with(directory));
    if !inside && !settings.devices.iter().any(|device| device == path) {
        let directories: Vec<_> = settings.directories.iter().map(|path| path.display().to_string()).collect();
        let devices: Vec<_> = settings.devices.iter().map(|path| path.display().to_string()).collect();
        let list = |names: Vec<String>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let (directories, devices) = (list(directories), list(devices));
        let text = format!("it has to be in a configured directory ({directories}) or a configured device ({devices})");
        return Err(Error::invalid(format!("path: {}: {text}", path.display())));
    }
    Ok(text.clone())
}

fn text_of(field: &str, path: &Path) -> Result<String, Error> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::invalid(format!("{field}: {} is not UTF-8", path.display())))
}

/// Path of the socket.
fn socket_of(spec: &DiskSpec, settings: &DiskSettings) -> Result<String, Error> {
    let path = match &spec.socket {
        Some(text) => PathBuf::from(text),
        None if spec.role == SocketRole::Client => {
            return Err(Error::invalid("socket: a disk that connects needs the path of the front end's socket"));
        }
        None => settings.socket_directory.join(format!("{}.sock", spec.name)),
    };
    let text = text_of("socket", &path)?;
    if !is_plain(&path) {
        let text = text.escape_default();
        return Err(Error::invalid(format!("socket: `{text}` is not an absolute path without `.` and `..`")));
    }
    if text.len() > MAX_SOCKET_PATH {
        let text = format!("socket: {text} has more than {MAX_SOCKET_PATH} bytes: name a shorter path");
        return Err(Error::invalid(text));
    }
    Ok(text)
}

/// Permissions of the socket.
fn mode_of(spec: &DiskSpec) -> Result<Option<String>, Error> {
    if spec.role == SocketRole::Client {
        let named = [("owner", &spec.owner), ("group", &spec.group), ("mode", &spec.mode)];
        let named = named.iter().find(|(_, value)| value.is_some());
        return match named {
            Some((field, _)) => Err(Error::invalid(format!("{field}: the front end makes the socket, not this disk"))),
            None => Ok(None),
        };
    }
    let mode = spec.mode.as_deref().unwrap_or(DEFAULT_MODE);
    Access::mode_of(mode).map_err(|error| Error::invalid(error.to_string()))?;
    Ok(Some(mode.to_owned()))
}

/// Limits as the crate `disk` has them.
pub(crate) fn limit_spec(limits: &DiskLimits) -> LimitSpec {
    let rate = |rate: Option<ctl_types::DiskRate>| {
        rate.map_or(Rate::default(), |rate| Rate { per_second: rate.per_second, burst: rate.burst })
    };
    LimitSpec {
        read: Direction { operations: rate(limits.read_ops), bytes: rate(limits.read_bytes) },
        write: Direction { operations: rate(limits.write_ops), bytes: rate(limits.write_bytes) },
    }
}

/// A disk that a file declares. `is` is the disk of that name that there is. What the file leaves open stays: number,
/// image, size, socket, threads, and whether it is paused. All else has its default.
#[must_use]
pub fn declared(wish: &DiskSpec, is: Option<&DiskSpec>) -> DiskSpec {
    let paused = |paused: Option<bool>| paused.filter(|paused| *paused);
    let Some(is) = is else { return DiskSpec { paused: paused(wish.paused), ..wish.clone() } };
    let queues = wish.queues.unwrap_or(DEFAULT_QUEUES);
    let is_server = wish.role == SocketRole::Server;
    DiskSpec {
        pvf_id: wish.pvf_id.or(is.pvf_id),
        path: wish.path.clone().or_else(|| is.path.clone()),
        size: wish.size.or(is.size),
        queues: Some(queues),
        queue_depth: wish.queue_depth.or(Some(DEFAULT_DEPTH)),
        msix: wish.msix.or(Some(queues + 1)),
        block_size: wish.block_size.or(Some(512)),
        socket: wish.socket.clone().or_else(|| is.socket.clone()),
        mode: wish.mode.clone().or_else(|| is_server.then(|| DEFAULT_MODE.to_owned())),
        threads: wish.threads.or_else(|| is.threads.map(|threads| threads.min(queues))),
        cpus: if wish.cpus.is_empty() { is.cpus.clone() } else { wish.cpus.clone() },
        limits: DiskLimits::default().changed_by(&wish.limits),
        paused: paused(wish.paused.or(is.paused)),
        ..wish.clone()
    }
}

/// Whether a disk that is served can become so without being made anew.
pub fn is_live_change(is: &DiskSpec, to: &DiskSpec) -> bool {
    let like = DiskSpec {
        pvf_id: to.pvf_id,
        size: to.size,
        allocate: to.allocate,
        msix: to.msix,
        port_type: to.port_type,
        limits: to.limits,
        paused: to.paused,
        ..is.clone()
    };
    like == *to
}

#[cfg(test)]
mod tests {
    use ctl_types::DiskRate;

    use super::*;
    use crate::DisksConfig;

    fn settings() -> DiskSettings {
        DisksConfig::default().settings(Path::new("/run/x"), Path::new("/state"))
    }

    #[test]
    fn what_is_left_open_has_its_default_and_completing_twice_changes_nothing() {
        let whole = complete(&DiskSpec::new("a"), &settings()).unwrap();
        assert_eq!(
            (whole.path.as_deref(), whole.socket.as_deref()),
            (Some("/state/disks/a.img"), Some("/run/x/disks/a.sock"))
        );
        assert_eq!(
            (whole.queues, whole.queue_depth, whole.msix, whole.threads),
            (Some(1), Some(1024), Some(2), Some(1))
        );
        assert_eq!((whole.size, whole.pvf_id), (None, None), "the machine has to be asked");
        assert_eq!(complete(&whole, &settings()).unwrap(), whole);
        assert_eq!(declared(&whole, Some(&whole)), whole);
        assert_eq!(declared(&DiskSpec::new("a"), Some(&whole)), whole);
    }

    #[test]
    fn a_file_that_says_nothing_of_it_leaves_a_disk_paused_and_sized_and_takes_limits_away() {
        let limits = DiskLimits { read_ops: Some(DiskRate { per_second: 1, burst: 0 }), ..DiskLimits::default() };
        let made = DiskSpec { size: Some(1 << 30), pvf_id: Some(7), paused: Some(true), limits, ..DiskSpec::new("a") };
        let is = complete(&made, &settings()).unwrap();
        let to = declared(&DiskSpec::new("a"), Some(&is));
        assert_eq!((to.size, to.pvf_id, to.is_paused(), to.limits), (is.size, is.pvf_id, true, DiskLimits::default()));
        assert!(is_live_change(&is, &to));
        let resumed = declared(&DiskSpec { paused: Some(false), ..DiskSpec::new("a") }, Some(&is));
        assert!(!resumed.is_paused() && complete(&resumed, &settings()).unwrap() == resumed);
        let other = declared(&DiskSpec { queues: Some(2), ..DiskSpec::new("a") }, Some(&is));
        assert!(!is_live_change(&is, &other));
    }
}
