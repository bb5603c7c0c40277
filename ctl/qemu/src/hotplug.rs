//! Hot plug: gives a running QEMU the card of a port, and takes it away again.
//!
//! Attaching asks the daemon for the port's sockets on behalf of QEMU's process. It passes them to QEMU over QMP, and
//! has QEMU create a netdev and a card. When a step fails, the earlier ones are undone in reverse order, so that the
//! command can be repeated. The error names what could not be undone.
//!
//! Detaching continues where an earlier attempt stopped. It skips whatever is gone already.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ctl_guest::client::{HandOver, HandOverError};
use ctl_guest::limits::{CAP_IPC_LOCK, effective_capabilities};
use ctl_guest::protocol::{Offer, Request};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

use super::options::{Sockets, device_arguments, device_id, netdev_arguments, netdev_id};
use super::qmp::{Qmp, QmpError};

/// The first version with the af-xdp backend.
pub const FIRST_VERSION: (u64, u64, u64) = (8, 2, 0);
/// Time for a guest to release a card whose attachment failed.
const UNDO: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(5) };
/// Time for QEMU to close sockets that it no longer uses.
const CLOSING: Duration = if cfg!(test) { Duration::from_millis(500) } else { Duration::from_secs(3) };
/// Period of polling for a card's end. Another QMP client may have received the event.
const LOOK: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(1) };

/// Options of [`attach`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachOptions {
    /// Port, by name or number.
    pub port: String,
    /// QEMU's QMP socket.
    pub qmp: PathBuf,
    /// Bus for the card. By default QEMU chooses one.
    pub bus: Option<String>,
    /// Driver of the card, with further properties as in [`super::options::device_options`].
    pub driver: String,
    /// QEMU's process. By default it is the one that listens on the QMP socket.
    pub pid: Option<i32>,
}

/// Options of [`detach`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachOptions {
    /// Port, by name or number.
    pub port: String,
    /// QEMU's QMP socket.
    pub qmp: PathBuf,
    /// Time for the guest to release the card.
    pub timeout: Duration,
}

/// Result of [`attach`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The port, as the daemon describes it.
    pub offer: Offer,
    /// QEMU's process.
    pub pid: i32,
    /// Id of the netdev in QEMU.
    pub netdev: String,
    /// Id of the card in QEMU.
    pub device: String,
}

/// Result of [`detach`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detached {
    /// The port, as the daemon describes it.
    pub offer: Offer,
    /// Id of the card, if QEMU still had it.
    pub device: Option<String>,
    /// Id of the netdev, if QEMU still had it.
    pub netdev: Option<String>,
}

/// Why a card could not be attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum HotplugError {
    /// QEMU refused, or the connection to it failed.
    #[error("{error}{advice}")]
    Qmp {
        /// The error.
        error: QmpError,
        /// What to do about it, with a separator in front. May be empty.
        advice: &'static str,
    },
    /// The daemon refused, or the connection to it failed.
    #[error(transparent)]
    HandOver(#[from] HandOverError),
    /// QEMU is too old.
    #[error("QEMU {0}.{1}.{2} has no af-xdp backend: 8.2 is the first version with one, 10.1 or later is advised")]
    TooOld(u64, u64, u64),
    /// The process that listens on the QMP socket is not visible.
    #[error("which process listens on {0} can't be seen from here: name QEMU's by --pid")]
    NoProcess(PathBuf),
    /// The daemon's answer contradicts itself.
    #[error("the daemon gave {given} descriptors for {queues} queues and a namespace: are both of one version?")]
    Descriptors {
        /// Descriptors received.
        given: usize,
        /// Queues of the port, each with a socket.
        queues: u32,
    },
    /// QEMU is in another network namespace, so it could not bind the sockets.
    #[error(
        "process {pid} is not in the network namespace of {ifname} ({netns}): start QEMU there (`nsenter --net=…`, `ip netns \
         exec …`), or name QEMU's process by --pid if it is another"
    )]
    Namespace {
        /// The process.
        pid: i32,
        /// The guest's end.
        ifname: String,
        /// Network namespace of the guest's end.
        netns: String,
    },
    /// QEMU could not lock its packet memory.
    #[error(
        "process {pid} may lock {} KiB of memory and needs {} KiB, and the limit can't be raised from here ({why}): run \
         this as root, or start QEMU with a higher one (`ulimit -l {}`, `LimitMEMLOCK={needed}`)",
        limit >> 10, needed.div_ceil(1024), needed.div_ceil(1024)
    )]
    Memlock {
        /// The process.
        pid: i32,
        /// Its limit, in bytes.
        limit: u64,
        /// The limit it needs, in bytes.
        needed: u64,
        /// Why the limit could not be raised.
        why: std::io::Error,
    },
    /// QEMU accepted the card, but does not have it.
    #[error("QEMU took the card {0} and does not have it: see what QEMU has written")]
    Vanished(String),
    /// The guest rejected the request to release the card.
    #[error("the guest refuses to let go of the card {0}: nothing was changed; see what the guest says")]
    GuestRefuses(String),
    /// The guest did not react to the request to release the card.
    #[error(
        "the guest has not let go of the card {device} within {seconds} s: netdev and sockets are left as they are, and it can \
         be tried again; a guest that is stopped, still starting or without PCI hot plug never will"
    )]
    GuestSilent {
        /// The card.
        device: String,
        /// Time waited, in seconds.
        seconds: u64,
    },
}

impl From<QmpError> for HotplugError {
    fn from(error: QmpError) -> Self {
        let desc = if let QmpError::Refused { desc, .. } = &error { desc.as_str() } else { "" };
        let advice = if desc.contains("value 'af-xdp'") {
            "; it was built without the af-xdp backend: build it with --enable-af-xdp (`make qemu`)"
        } else if desc.contains("hotplugging") || desc.contains("hot-plug") {
            "; name a bus that does by --bus, such as a pcie-root-port (-device pcie-root-port,id=NAME)"
        } else if desc.contains("romfile") {
            "; it lacks the card's boot program, which can be done without: `--device virtio-net-pci,romfile=`"
        } else if desc.contains("Duplicate ID") {
            "; QEMU still has the card of an earlier port of that number: detach that first"
        } else if desc.contains("No buffer space") {
            "; its limit of locked memory is too low for all that its user runs"
        } else {
            ""
        };
        Self::Qmp { error, advice }
    }
}

/// Why nothing was attached, and what remains of the attempt.
#[derive(Debug, thiserror::Error)]
#[error("{}{}{}", in_full(cause), if left.is_empty() { "" } else { "; what could not be undone: " }, left.join("; "))]
pub struct AttachError {
    /// The first error.
    pub cause: HotplugError,
    /// What could not be undone.
    pub left: Vec<String>,
}

impl<T: Into<HotplugError>> From<T> for AttachError {
    fn from(cause: T) -> Self {
        Self { cause: cause.into(), left: Vec::new() }
    }
}

/// An error with its chain of sources.
fn in_full(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A step that has to be undone if a later one fails.
#[derive(Debug)]
enum Step {
    Lease,
    Descriptor(String),
    Netdev(String),
    Device(String),
}

/// An attachment under way.
struct Attempt<'a> {
    run_dir: &'a Path,
    qmp: Qmp,
    offer: Offer,
    /// The sockets in queue order, followed by the network namespace of the guest's end.
    fds: Vec<OwnedFd>,
    done: Vec<Step>,
}

/// Gives a running QEMU the card of a port.
///
/// # Errors
/// The first error. Everything before it has been undone, except what [`AttachError::left`] names. A raised limit of
/// locked memory stays raised.
pub fn attach(run_dir: &Path, options: &AttachOptions) -> Result<Attached, AttachError> {
    let qmp = Qmp::connect(&options.qmp)?;
    if qmp.version() < FIRST_VERSION {
        let (major, minor, micro) = qmp.version();
        return Err(HotplugError::TooOld(major, minor, micro).into());
    }
    let pid = options.pid.or_else(|| qmp.peer()).ok_or_else(|| HotplugError::NoProcess(options.qmp.clone()))?;
    let request = Request::Sockets { port: options.port.clone(), pid: Some(pid), netns: true };
    let (offer, fds) = HandOver::connect(run_dir)?.ask(&request)?;
    let mut attempt = Attempt { run_dir, qmp, offer, fds, done: vec![Step::Lease] };
    match attempt.carry_out(options, pid) {
        Ok(()) => {
            let (netdev, device) = (netdev_id(&attempt.offer), device_id(&attempt.offer));
            Ok(Attached { offer: attempt.offer, pid, netdev, device })
        }
        Err(cause) => Err(AttachError { cause, left: attempt.undo() }),
    }
}

impl Attempt<'_> {
    fn carry_out(&mut self, options: &AttachOptions, pid: i32) -> Result<(), HotplugError> {
        let queues = self.offer.queues;
        let given = self.fds.len();
        let netns = self.fds.pop().filter(|_| given == queues as usize + 1);
        let netns = netns.ok_or(HotplugError::Descriptors { given, queues })?;
        check_namespace(&self.offer, pid, netns)?;
        raise_memlock(pid, self.offer.memlock)?;
        let names = names(&self.offer);
        for (queue, name) in names.iter().enumerate() {
            self.step(Step::Descriptor(name.clone()), "getfd", json!({ "fdname": name }), Some(queue))?;
        }
        let (netdev, device) = (netdev_id(&self.offer), device_id(&self.offer));
        let arguments = netdev_arguments(&self.offer, &netdev, &Sockets::Names(names));
        self.step(Step::Netdev(netdev.clone()), "netdev_add", arguments, None)?;
        // The netdev owns the sockets from here on. Copies kept here would keep the kernel from freeing the queues.
        self.done.retain(|step| !matches!(step, Step::Descriptor(_)));
        self.fds.clear();
        let arguments = device_arguments(&self.offer, &netdev, &device, &options.driver, options.bus.as_deref());
        self.step(Step::Device(device.clone()), "device_add", arguments, None)?;
        if has_device(&mut self.qmp, &device)? { Ok(()) } else { Err(HotplugError::Vanished(device)) }
    }

    /// Executes a step, with the socket of `queue` if there is one. Only a refusal proves that QEMU did nothing. After
    /// any other error the step has to be undone as well.
    fn step(&mut self, step: Step, command: &str, arguments: Value, queue: Option<usize>) -> Result<(), QmpError> {
        let fds: Vec<_> = queue.and_then(|queue| self.fds.get(queue)).map(AsFd::as_fd).into_iter().collect();
        let outcome = self.qmp.execute_with(command, arguments, &fds).map(drop);
        if outcome.as_ref().err().is_none_or(|error| !error.is_refusal()) {
            self.done.push(step);
        }
        outcome
    }

    /// Undoes the steps, last one first. Returns a description of those that could not be undone.
    fn undo(mut self) -> Vec<String> {
        self.fds.clear();
        let mut left = Vec::new();
        // A QEMU that stopped answering is asked nothing more.
        let mut lost = false;
        for step in self.done.iter().rev() {
            if lost && !matches!(step, Step::Lease) {
                continue;
            }
            let (what, outcome) = match step {
                Step::Device(id) => (format!("card {id}"), remove_device(&mut self.qmp, id, UNDO).map(drop)),
                Step::Netdev(id) => (format!("netdev {id}"), remove(&mut self.qmp, "netdev_del", "id", id).map(drop)),
                Step::Descriptor(name) => {
                    (format!("descriptor {name}"), remove(&mut self.qmp, "closefd", "fdname", name).map(drop))
                }
                Step::Lease => {
                    (format!("lease of port {}", self.offer.port), release(self.run_dir, &self.offer.port).map(drop))
                }
            };
            if let Err(error) = outcome {
                lost |= matches!(&error, HotplugError::Qmp { error, .. } if !error.is_refusal());
                left.push(format!("{what} ({})", in_full(&error)));
            }
        }
        left
    }
}

/// Takes the card of a port from a running QEMU, and frees the port.
///
/// # Errors
/// The first error. A repeated call continues from there.
pub fn detach(run_dir: &Path, options: &DetachOptions) -> Result<Detached, HotplugError> {
    let (offer, _) = HandOver::connect(run_dir)?.ask(&Request::Describe { port: options.port.clone(), open: false })?;
    let mut qmp = Qmp::connect(&options.qmp)?;
    let (netdev, device) = (netdev_id(&offer), device_id(&offer));
    let had_device = remove_device(&mut qmp, &device, options.timeout)?;
    let had_netdev = remove(&mut qmp, "netdev_del", "id", &netdev)?;
    // Sockets left by an interrupted attachment.
    for name in names(&offer) {
        remove(&mut qmp, "closefd", "fdname", &name)?;
    }
    let offer = release(run_dir, &offer.port)?;
    Ok(Detached { offer, device: had_device.then_some(device), netdev: had_netdev.then_some(netdev) })
}

/// Names of the sockets in QEMU (`getfd`), in queue order.
fn names(offer: &Offer) -> Vec<String> {
    (0..offer.queues).map(|queue| format!("{}-q{queue}", netdev_id(offer))).collect()
}

/// Has QEMU remove an object. False if there is no such object.
fn remove(qmp: &mut Qmp, command: &str, key: &str, id: &str) -> Result<bool, HotplugError> {
    match qmp.execute(command, json!({ key: id })) {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn has_device(qmp: &mut Qmp, id: &str) -> Result<bool, QmpError> {
    let children = qmp.execute("qom-list", json!({ "path": "/machine/peripheral" }))?;
    Ok(children.as_array().is_some_and(|children| children.iter().any(|child| child["name"] == id)))
}

/// Unplugs a card, which needs the guest's cooperation and therefore time. False if there is no such card.
fn remove_device(qmp: &mut Qmp, id: &str, timeout: Duration) -> Result<bool, HotplugError> {
    let deadline = Instant::now() + timeout;
    match qmp.execute("device_del", json!({ "id": id })) {
        Ok(_) => {}
        Err(error) if error.is_not_found() => return Ok(false),
        Err(QmpError::Refused { desc, .. }) if desc.contains("already in the process of unplug") => {}
        Err(error) => return Err(error.into()),
    }
    loop {
        let names = ["DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR"];
        let event = qmp.wait_event(&names, |data| data["device"] == id, deadline.min(Instant::now() + LOOK))?;
        match event {
            Some(event) if event.name == names[0] => return Ok(true),
            Some(_) => return Err(HotplugError::GuestRefuses(id.to_owned())),
            None if !has_device(qmp, id)? => return Ok(true),
            None if Instant::now() >= deadline => {
                return Err(HotplugError::GuestSilent { device: id.to_owned(), seconds: timeout.as_secs() });
            }
            None => {}
        }
    }
}

/// Tells the daemon that the sockets are unused. It is repeated for a moment, because QEMU closes them asynchronously.
fn release(run_dir: &Path, port: &str) -> Result<Offer, HotplugError> {
    let deadline = Instant::now() + CLOSING;
    loop {
        match HandOver::connect(run_dir)?.ask(&Request::Release { port: port.to_owned(), force: false }) {
            Err(HandOverError::Refused(error)) if error.code == "EBUSY" && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            outcome => return Ok(outcome?.0),
        }
    }
}

/// Checks that QEMU is in the network namespace of the guest's end. A process that can't be inspected passes.
fn check_namespace(offer: &Offer, pid: i32, netns: OwnedFd) -> Result<(), HotplugError> {
    let (Ok(there), Ok(wanted)) = (fs::metadata(format!("/proc/{pid}/ns/net")), File::from(netns).metadata()) else {
        return Ok(());
    };
    if (there.dev(), there.ino()) == (wanted.dev(), wanted.ino()) {
        return Ok(());
    }
    let netns = offer.netns.as_ref().map_or("that of the daemon".to_owned(), |name| format!("`{name}`"));
    Err(HotplugError::Namespace { pid, ifname: offer.ifname.clone(), netns })
}

/// Soft and hard limit of locked memory from the text of `/proc/PID/limits`, in bytes. Unlimited is `u64::MAX`.
fn memlock_limits(limits: &str) -> Option<(u64, u64)> {
    let mut words = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?.split_whitespace();
    let mut limit = || match words.next()? {
        "unlimited" => Some(u64::MAX),
        bytes => bytes.parse().ok(),
    };
    Some((limit()?, limit()?))
}

/// Raises a process's limit of locked memory to `needed` bytes, unless it is higher or the process is exempt.
fn raise_memlock(pid: i32, needed: u64) -> Result<(), HotplugError> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let Some((soft, hard)) = memlock_limits(&read("limits")) else { return Ok(()) };
    if soft >= needed {
        return Ok(());
    }
    let limit = |bytes: u64| (bytes != u64::MAX).then_some(bytes);
    let new = Rlimit { current: limit(needed), maximum: limit(hard.max(needed)) };
    // `from_raw` gives `None` for 0 only, and `pid` is the number of an existing process.
    let outcome = prlimit(Pid::from_raw(pid), Resource::Memlock, new);
    let exempt = || effective_capabilities(&read("status")) >> CAP_IPC_LOCK & 1 != 0;
    match outcome {
        Err(errno) if !exempt() => Err(HotplugError::Memlock { pid, limit: soft, needed, why: errno.into() }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
