//! Checks of `doctor` for QEMU: its abilities, and how it copes with a port's configuration.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use ctl_guest::limits::{CAP_IPC_LOCK, effective_capabilities, memlock};
use ctl_types::{Check, PortEntry, Status};
use model::{DEFAULT_MTU, Mode, PortKind};
use rustix::process::{Resource, getrlimit};

use super::hotplug::FIRST_VERSION;

/// A version of QEMU.
pub type Version = (u64, u64, u64);

/// The first version that accepts `map-path`, and whose frame pool has room for all its frames.
const ADVISED_VERSION: Version = (10, 1, 0);
/// Largest MTU that the backend's frames can carry. Of 4,096 bytes the kernel reserves 256 as headroom. The Ethernet
/// header takes 14 and a VLAN tag 4.
pub const MAX_MTU: u32 = 4096 - 256 - 18;
/// Time for QEMU to answer a question about itself.
const PATIENCE: Duration = Duration::from_secs(10);
/// The question what backends it has. On some architectures QEMU answers only if a machine is chosen. All of them have
/// `none`.
const HELP: &[&str] = &["-machine", "none", "-netdev", "help"];
/// Most bytes read of its output.
const MAX_OUTPUT: u64 = 64 << 10;
/// Advice for a QEMU that lacks the backend.
const BUILD: &str = "build QEMU 10.1 or later with --enable-af-xdp (`make qemu` does, see docs/qemu.md): packages of \
                     distributions often lack it";

/// How QEMU treats several queues: with `inhibit=on` it polls the sockets of the last one only (`net_init_af_xdp` in
/// `net/af-xdp.c`). QEMU 10.2 was seen to ignore those of queue 0 instead.
const LAST_QUEUE_ONLY: &str = "QEMU that is given its sockets receives from the last queue only";
const ONE_QUEUE: &str =
    "packets in the others never reach the guest: a port for a guest in QEMU is to have one queue (`queues = 1`)";

/// A warning if a port has more queues than QEMU serves.
pub fn warn_of_queues(port: &str, queues: u32) -> Option<String> {
    (queues > 1).then(|| format!("port {port} has {queues} queues, and {LAST_QUEUE_ONLY}; {ONE_QUEUE}"))
}

/// The QEMU of this machine's architecture in `PATH`.
pub fn default_binary() -> Option<PathBuf> {
    let name = format!("qemu-system-{}", std::env::consts::ARCH);
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(&name)).find(|file| file.is_file())
}

/// Checks a QEMU program: its version, and whether it has the backend.
pub fn check_binary(path: &Path) -> Vec<Check> {
    let said = match output(path, &["--version"], PATIENCE) {
        Ok(said) => said,
        Err(error) => {
            let text = format!("{} does not run: {error}", path.display());
            return vec![Check::bad(Status::Fail, "QEMU", text, "name another file by --qemu FILE")];
        }
    };
    let Some(version) = version(&said) else {
        let text = format!("{} says no version of QEMU", path.display());
        return vec![Check::bad(Status::Fail, "QEMU", text, "name another file by --qemu FILE")];
    };
    let mut checks = vec![check_version(path, version)];
    if version >= FIRST_VERSION {
        let said = output(path, HELP, PATIENCE);
        checks.push(check_backend(&said.map_err(|error| error.to_string())));
    }
    checks
}

/// The version that a program says, if it is QEMU.
pub(crate) fn version_of(path: &Path) -> Option<Version> {
    version(&output(path, &["--version"], PATIENCE).ok()?)
}

/// Words of the list of netdev backends that a program prints. `None`: it prints none.
pub(crate) fn backends(path: &Path) -> Option<Vec<String>> {
    let said = output(path, HELP, PATIENCE).ok().filter(|said| said.contains("netdev"))?;
    Some(said.split_whitespace().map(str::to_owned).collect())
}

/// Parses `QEMU emulator version 10.1.0 (…)`.
fn version(said: &str) -> Option<Version> {
    let words = said.split_once("QEMU emulator version ")?.1;
    let numbers = words.split(|c: char| c.is_whitespace() || c == '(').next()?;
    let mut numbers = numbers.split(['.', '-', '+']).map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next()?, numbers.next().unwrap_or(0)))
}

fn check_version(path: &Path, version: Version) -> Check {
    let (major, minor, micro) = version;
    let text = format!("{major}.{minor}.{micro} ({})", path.display());
    if version < FIRST_VERSION {
        return Check::bad(Status::Fail, "QEMU", format!("{text}: 8.2 is the first with an af-xdp backend"), BUILD);
    }
    if version < ADVISED_VERSION {
        let text = format!("{text}: its af-xdp backend writes beyond its frame pool, and knows no map-path");
        return Check::bad(Status::Warn, "QEMU", text, "use 10.1 or later, in which that is mended");
    }
    Check::ok("QEMU", text)
}

fn check_backend(said: &Result<String, String>) -> Check {
    let name = "QEMU: af-xdp backend";
    match said {
        Ok(said) if said.split_whitespace().any(|word| word == "af-xdp") => Check::ok(name, "built in"),
        Ok(said) if said.contains("netdev") => Check::bad(Status::Fail, name, "not built in", BUILD),
        Ok(said) => {
            let line = said.lines().next().unwrap_or("nothing");
            let text = format!("whether it is built in can't be told: `-netdev help` says {line}");
            Check::bad(Status::Warn, name, text, "see what `-netdev help` lists")
        }
        Err(error) => {
            let text = format!("whether it is built in can't be told: {error}");
            Check::bad(Status::Warn, name, text, "see what `-netdev help` lists")
        }
    }
}

/// Runs a program and returns the first [`MAX_OUTPUT`] bytes that it writes.
fn output(path: &Path, arguments: &[&str], patience: Duration) -> io::Result<String> {
    let (mut reader, writer) = io::pipe()?;
    let mut command = Command::new(path);
    command.args(arguments).stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn()?;
    // The command holds copies of the pipe's writing end. The reader sees the end of file only without them.
    drop(command);
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let outcome = reader.by_ref().take(MAX_OUTPUT).read_to_end(&mut bytes);
        let _ = sender.send(outcome.map(|_| bytes));
    });
    let outcome = receiver.recv_timeout(patience);
    // Its output is complete, or too long, or late. In each case it is not needed any more.
    let _ = child.kill();
    child.wait()?;
    let bytes = outcome.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("it has not ended within {} s", patience.as_secs()))
    })??;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Checks made on the host where QEMU is started: the program, and the limit of locked memory for the guests of
/// `ports`. Without ports the limit is checked for one guest.
pub fn check_here(program: Option<&Path>, ports: &[PortEntry]) -> Vec<Check> {
    let mut checks = program.map(check_binary).unwrap_or_else(|| {
        let text = format!("no qemu-system-{} in PATH", std::env::consts::ARCH);
        vec![Check::bad(Status::Fail, "QEMU", text, "name a file by --qemu FILE")]
    });
    let guests = ports.iter().filter(|port| port.spec.kind == PortKind::Guest);
    let queues: u64 = guests.map(|port| u64::from(port.spec.queues.unwrap_or(1))).sum();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    // With CAP_IPC_LOCK the launcher can give QEMU any limit, or QEMU inherits the capability and needs none.
    let exempt = effective_capabilities(&status) >> CAP_IPC_LOCK & 1 != 0;
    let limit = getrlimit(Resource::Memlock).maximum.filter(|_| !exempt);
    checks.push(check_memlock(limit, memlock(queues.max(1))));
    checks
}

/// Checks the limit of locked memory, in bytes, of a QEMU started from here. `None` is unlimited.
pub fn check_memlock(hard_limit: Option<u64>, needed: u64) -> Check {
    let name = "QEMU: locked memory";
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    match hard_limit {
        Some(limit) if limit < needed => {
            let text = format!("guests need {} MiB, and from here QEMU may be given {} MiB", mib(needed), limit >> 20);
            let advice = format!(
                "raise it for who starts QEMU: `memlock` in limits.conf, `LimitMEMLOCK={needed}`, or as root `prlimit \
                 --memlock={needed}`"
            );
            Check::bad(Status::Fail, name, text, advice)
        }
        limit => {
            let limit =
                limit.map_or("there is no limit".to_owned(), |limit| format!("the limit is {} MiB", mib(limit)));
            Check::ok(name, format!("guests need {} MiB, {limit}", mib(needed)))
        }
    }
}

/// Checks a guest port whose end is open for QEMU. Other ports yield no checks.
pub fn check_port(port: &PortEntry) -> Vec<Check> {
    let Some((info, end)) = port.info.as_ref().and_then(|info| Some((info, info.guest_end.as_ref()?))) else {
        return Vec::new();
    };
    if info.spec.kind != PortKind::Guest {
        return Vec::new();
    }
    let name = |what: &str| format!("port {}: guest's {what}", port.name);
    let mut checks = Vec::new();
    if end.queues.len() > 1 {
        let text = format!("{} of them: {LAST_QUEUE_ONLY}", end.queues.len());
        checks.push(Check::bad(Status::Warn, name("queues"), text, ONE_QUEUE));
    }
    let mtu = info.spec.mtu.unwrap_or(DEFAULT_MTU);
    if mtu > MAX_MTU {
        checks.push(Check::bad(
            Status::Warn,
            name("MTU"),
            format!("{mtu}: frames of QEMU's backend carry {MAX_MTU}, and longer ones are lost"),
            format!("`xswitch port set {} --mtu {MAX_MTU}` or less", port.name),
        ));
    }
    if end.mode == Mode::Generic {
        let reason = end.mode_reason.as_deref().unwrap_or("it was asked for, or so since an earlier daemon");
        checks.push(Check::bad(Status::Warn, name("end"), "generic XDP mode, which is slower", reason));
    }
    let unbound: u64 = end.queues.iter().map(|queue| queue.drop_unbound).sum();
    let lost = end.queues.iter().map(|queue| queue.drop_no_socket).sum::<u64>() + unbound;
    let bound = port.guest.as_ref().is_some_and(|guest| guest.bound_since.is_some());
    match &port.guest {
        _ if lost == 0 => {}
        _ if bound => checks.push(Check::ok(
            name("packets"),
            format!("{lost} were dropped while no guest received; now one has bound its sockets"),
        )),
        Some(guest) => checks.push(Check::bad(
            Status::Warn,
            name("packets"),
            format!(
                "{lost} were dropped: process {} ({}) has the sockets and has not bound them",
                guest.pid, guest.command
            ),
            "see what that process says; it binds them to the guest's end, in that namespace",
        )),
        None => checks.push(Check::bad(
            Status::Warn,
            name("packets"),
            format!("{lost} were dropped: no guest has its sockets"),
            format!("start the guest, or attach its card (`xswitch qemu attach {} --qmp SOCKET`)", port.name),
        )),
    }
    if checks.is_empty() {
        checks.push(Check::ok(name("end"), "open, in native XDP mode"));
    }
    checks
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;

    use model::{GuestEndInfo, GuestQueue, PortInfo, PortSpec};

    use super::*;
    use ctl_types::{GuestHolder, PortState};

    /// A shell script of these lines in place of QEMU.
    fn program(dir: &Path, lines: &str) -> PathBuf {
        let path = dir.join("qemu");
        let new = dir.join("new");
        std::fs::write(&new, format!("#!/bin/sh\n{lines}\n")).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&new, &path).unwrap();
        path
    }

    fn statuses(checks: &[Check]) -> Vec<Status> {
        checks.iter().map(|check| check.status).collect()
    }

    #[test]
    fn versions_are_read() {
        for (said, wanted) in [
            ("QEMU emulator version 10.1.0\nCopyright (c) 2003", Some((10, 1, 0))),
            ("QEMU emulator version 7.2.15 (Debian 1:7.2+dfsg-7+deb12u13)", Some((7, 2, 15))),
            ("QEMU emulator version 10.0.90 (v10.1.0-rc0)", Some((10, 0, 90))),
            ("QEMU emulator version 11", None),
            ("qemu-img version 10.1.0", None),
        ] {
            assert_eq!(version(said), wanted, "{said}");
        }
    }

    #[test]
    fn a_binary_is_judged_by_its_version_and_what_is_built_in() {
        let dir = tempfile::tempdir().unwrap();
        let qemu = |version: &str, backends: &str| {
            let lines = format!(
                "case $1 in --version) echo QEMU emulator version {version};; *) printf 'Available netdev backend types:\\n{backends}\\n';; esac"
            );
            check_binary(&program(dir.path(), &lines))
        };
        assert_eq!(statuses(&qemu("10.1.2", "user\\naf-xdp")), [Status::Ok, Status::Ok]);
        assert_eq!(statuses(&qemu("9.0.0", "af-xdp\\nuser")), [Status::Warn, Status::Ok]);
        let checks = qemu("10.1.0", "user\\nvhost-user");
        assert_eq!(statuses(&checks), [Status::Ok, Status::Fail]);
        assert!(checks[1].advice.as_ref().unwrap().contains("--enable-af-xdp"));
        assert_eq!(statuses(&qemu("7.2.0", "user")), [Status::Fail]);
        assert_eq!(statuses(&check_binary(&program(dir.path(), "echo hello"))), [Status::Fail]);
        assert_eq!(statuses(&check_binary(&dir.path().join("none"))), [Status::Fail]);
        let odd = program(dir.path(), "[ $1 = --version ] && echo QEMU emulator version 10.1.0 || echo no machine");
        assert_eq!(statuses(&check_binary(&odd)), [Status::Ok, Status::Warn]);
    }

    #[test]
    fn a_program_that_never_ends_or_is_never_silent_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let started = Instant::now();
        let sleeper = program(dir.path(), "exec sleep 60");
        let error = output(&sleeper, &[], Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let said = output(Path::new("/bin/sh"), &["-c", "while :; do echo x; done"], PATIENCE).unwrap();
        assert_eq!(said.len() as u64, MAX_OUTPUT);
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn locked_memory_is_measured_against_the_limit() {
        let mib = |n: u64| n << 20;
        assert_eq!(check_memlock(None, mib(40)).status, Status::Ok);
        assert_eq!(check_memlock(Some(mib(40)), mib(40)).status, Status::Ok);
        let check = check_memlock(Some(mib(8)), mib(40));
        assert_eq!(check.status, Status::Fail);
        assert!(check.advice.unwrap().contains("LimitMEMLOCK=41943040"));
    }

    fn port(queues: u32, mtu: u32, end: Option<GuestEndInfo>) -> PortEntry {
        let spec = PortSpec { mtu: Some(mtu), queues: Some(queues), ..PortSpec::new("vm1", PortKind::Guest) };
        let info = PortInfo {
            spec: spec.clone(),
            vport: 1,
            ifindex: Some(2),
            mode: Some(Mode::Native),
            mode_reason: None,
            mac: None,
            problems: Vec::new(),
            link_up: true,
            max_mtu: 3500,
            queues: Vec::new(),
            active_queues: 0,
            fdb_entries: 0,
            guest_end: end,
            vhost: None,
            bond: None,
            tap: None,
        };
        PortEntry { name: "vm1".to_owned(), state: PortState::Up, error: None, spec, info: Some(info), guest: None }
    }

    fn end(queues: u32, lost: u64) -> GuestEndInfo {
        let queue = |queue| GuestQueue { queue, drop_no_socket: lost, ..GuestQueue::default() };
        GuestEndInfo {
            mode: Mode::Native,
            mode_reason: None,
            map_path: "/m".to_owned(),
            queues: (0..queues).map(queue).collect(),
        }
    }

    #[test]
    fn a_port_is_judged_by_what_qemu_makes_of_it() {
        assert_eq!(check_port(&port(2, 9000, None)), []);
        assert_eq!(statuses(&check_port(&port(1, MAX_MTU, Some(end(1, 0))))), [Status::Ok]);
        let generic = GuestEndInfo { mode: Mode::Generic, mode_reason: Some("the MTU".to_owned()), ..end(2, 0) };
        let checks = check_port(&port(2, MAX_MTU + 1, Some(generic)));
        assert_eq!(statuses(&checks), [Status::Warn; 3]);
        assert_eq!(checks[2].advice.as_deref(), Some("the MTU"));
    }

    #[test]
    fn lost_packets_are_explained_by_who_has_the_sockets() {
        let mut port = port(1, 1500, Some(end(1, 5)));
        let check = |port: &PortEntry| check_port(port).remove(0);
        assert!(check(&port).text.contains("5 were dropped: no guest"));
        let mut holder =
            GuestHolder { pid: 7, command: "cat".to_owned(), uid: None, since: 1, bound_since: None, sockets: vec![] };
        port.guest = Some(holder.clone());
        assert!(check(&port).text.contains("process 7 (cat) has the sockets"));
        holder.bound_since = Some(2);
        port.guest = Some(holder);
        assert_eq!(check(&port).status, Status::Ok);
    }
}
