//! `xswitch qemu run`: replaces this process by an unprivileged QEMU with sockets of the switch.
//!
//! The daemon hands the sockets to this process, and QEMU inherits them over `execve`. So the process that holds the
//! lease is QEMU itself, and the command's signals and exit code are QEMU's. With a restart policy this process stays.
//! It then runs itself without the policy for each start.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist, setgid, setgroups, setuid};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits, set_keep_capabilities, set_no_new_privs,
};
use tokio::signal::unix::{SignalKind, signal};

use super::check::warn_of_queues;
use super::options::{DEFAULT_DRIVER, Sockets, command_line, device_properties, netdev_properties};
use ctl_guest::client::HandOver;
use ctl_guest::protocol::{Offer, Request};

/// Exit code if QEMU was not started, because of the command's arguments or the daemon.
pub const NOT_LAUNCHED: u8 = 125;
/// Exit codes if QEMU's program can't be run, or does not exist (the shell's convention).
const CANNOT_RUN: u8 = 126;
const NO_PROGRAM: u8 = 127;
/// Name that stands for the first port of the command line in QEMU's options.
const ANY_PORT: &str = "PORT";
/// Pause before a failed guest is started again. It doubles with each failure, up to `LONGEST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After this run time a failure counts as the first one.
const SETTLED: Duration = Duration::from_secs(60);
/// Number of capabilities that a kernel may have: the sets are 64 bits wide.
const CAPABILITIES: u32 = 64;

/// Options of `xswitch qemu run`.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The daemon's run directory.
    pub run_dir: PathBuf,
    /// Ports, by name or number.
    pub ports: Vec<String>,
    /// User to run as. By default it is the caller.
    pub user: Option<String>,
    /// QEMU's program and options.
    pub command: Vec<OsString>,
}

/// A port with the descriptor numbers of its sockets.
#[derive(Debug)]
struct Nic {
    offer: Offer,
    fds: Vec<i32>,
}

impl Nic {
    fn sockets(&self) -> Sockets {
        Sockets::Numbers(self.fds.clone())
    }
}

/// Replaces this process by QEMU. Returns only on failure.
pub fn run(launch: &Launch) -> anyhow::Error {
    match prepare(launch) {
        Ok((mut command, sockets)) => {
            let error = command.exec();
            drop(sockets);
            let program = command.get_program().to_string_lossy().into_owned();
            let code = if error.kind() == std::io::ErrorKind::NotFound { NO_PROGRAM } else { CANNOT_RUN };
            anyhow::Error::new(NotRun { program, source: error, code })
        }
        Err(error) => error,
    }
}

/// QEMU's program can't be run.
#[derive(Debug, thiserror::Error)]
#[error("running {program}")]
struct NotRun {
    program: String,
    source: std::io::Error,
    code: u8,
}

/// Exit code for an error of [`run`].
pub fn exit_code(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<NotRun>().map_or(NOT_LAUNCHED, |error| error.code)
}

fn prepare(launch: &Launch) -> anyhow::Result<(Command, Vec<OwnedFd>)> {
    let Some((program, arguments)) = launch.command.split_first() else { bail!("QEMU's command line is empty") };
    if let Some(option) = arguments.iter().find(|option| ["-daemonize", "--daemonize"].iter().any(|bad| option == bad))
    {
        bail!(
            "{}: QEMU would go on in another process, and the daemon would take its sockets for free: let a service \
             manager or `&` put it in the background",
            option.display()
        );
    }
    let account = launch.user.as_deref().map(Account::find).transpose()?;
    let daemon = HandOver::connect(&launch.run_dir)?;
    let (mut nics, mut sockets, mut namespaces) = (Vec::new(), Vec::new(), Vec::new());
    for port in &launch.ports {
        let request = Request::Sockets { port: port.clone(), pid: None, netns: true };
        let (offer, mut fds) = daemon.ask(&request).with_context(|| format!("port {port}"))?;
        namespaces.extend(fds.pop());
        if fds.len() != offer.queues as usize {
            bail!("port {port}: the daemon sent {} sockets for {} queues", fds.len(), offer.queues);
        }
        if let Some(warning) = warn_of_queues(&offer.port, offer.queues) {
            eprintln!("xswitch: {warning}");
        }
        if nics.iter().any(|nic: &Nic| nic.offer.port == offer.port) {
            bail!("port {} is named twice", offer.port);
        }
        nics.push(Nic { offer, fds: fds.iter().map(AsRawFd::as_raw_fd).collect() });
        sockets.extend(fds);
    }
    drop(daemon);
    let arguments = fill(arguments, &nics)?;
    let memlock = raise_memlock(nics.iter().map(|nic| nic.offer.memlock).max().unwrap_or_default())?;
    enter(&namespaces, &nics)?;
    for socket in &sockets {
        fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty())).context("keeping a socket over execve")?;
    }
    drop_privileges(account.as_ref(), memlock)?;
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some(Account { name, home, .. }) = &account {
        command.env("USER", name).env("LOGNAME", name).env("HOME", home);
    }
    Ok((command, sockets))
}

/// Inserts the properties of the ports into QEMU's options.
///
/// They replace `@NAME` among the properties of a `-netdev` or `-device`. A port that is not named this way gets two
/// options of its own at the end.
fn fill(arguments: &[OsString], nics: &[Nic]) -> anyhow::Result<Vec<OsString>> {
    let find = |name: &str| {
        let named = nics.iter().find(|nic| nic.offer.port == name || nic.offer.vport.to_string() == name);
        named.or_else(|| nics.first().filter(|_| name == ANY_PORT))
    };
    let mut used = vec![false; nics.len()];
    let mut filled: Vec<OsString> = Vec::new();
    for argument in arguments {
        let option = filled.last().and_then(|last| last.to_str()).map(|last| last.trim_start_matches('-'));
        let (Some(text), Some(option @ ("netdev" | "device"))) = (argument.to_str(), option) else {
            filled.push(argument.clone());
            continue;
        };
        let mut properties = Vec::new();
        for property in split(text) {
            let Some(name) = property.strip_prefix('@') else {
                properties.push(property.to_owned());
                continue;
            };
            let Some(nic) = find(name) else {
                bail!("-{option} {text}: @{name} is none of the ports of this command line: name it before `--`");
            };
            used.iter_mut().zip(nics).filter(|(_, of)| std::ptr::eq(*of, nic)).for_each(|(used, _)| *used = true);
            properties.push(match option {
                "netdev" => netdev_properties(&nic.offer, &nic.sockets()),
                _ => device_properties(&nic.offer, driver(text)),
            });
        }
        filled.push(properties.join(",").into());
    }
    for (nic, _) in nics.iter().zip(used).filter(|(_, used)| !used) {
        filled.extend(command_line(&nic.offer, &nic.sockets(), DEFAULT_DRIVER).map(OsString::from));
    }
    Ok(filled)
}

/// The driver of a `-device`: its first property, or the one called `driver`.
fn driver(text: &str) -> &str {
    let properties = split(text);
    let named = properties.iter().find_map(|property| property.strip_prefix("driver="));
    named.or(properties.first().copied()).unwrap_or_default()
}

/// Splits an option into its properties. They are separated by commas, and two commas stand for a literal one.
fn split(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        if bytes[at] != b',' {
            at += 1;
        } else if bytes.get(at + 1) == Some(&b',') {
            at += 2;
        } else {
            parts.push(&text[start..at]);
            at += 1;
            start = at;
        }
    }
    parts.push(&text[start..]);
    parts
}

/// How QEMU may lock its packet memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memlock {
    /// Its limit is high enough.
    Limit,
    /// It keeps CAP_IPC_LOCK and no other capability, because the limit can't be raised.
    Capability,
}

/// Raises the limit of locked memory to `needed` bytes, unless it is higher. Going beyond the hard limit takes
/// CAP_SYS_RESOURCE, which root lacks in some containers.
fn raise_memlock(needed: u64) -> anyhow::Result<Memlock> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).context("reading RLIMIT_MEMLOCK")?;
    if soft >= needed {
        return Ok(Memlock::Limit);
    }
    match setrlimit(Resource::RLIMIT_MEMLOCK, needed, hard.max(needed)) {
        Ok(()) => Ok(Memlock::Limit),
        Err(Errno::EPERM) => {
            let held = capabilities(None).context("reading the capabilities")?;
            if held.permitted.contains(CapabilitySet::IPC_LOCK) {
                return Ok(Memlock::Capability);
            }
            bail!(
                "QEMU needs {} MiB of locked memory for its packets, and this user may have {} MiB: raise `memlock` in \
                 /etc/security/limits.conf, LimitMEMLOCK= of the service, or run as root with --user",
                needed >> 20,
                hard >> 20
            )
        }
        Err(errno) => Err(errno).context("raising RLIMIT_MEMLOCK"),
    }
}

/// Enters the network namespace of the ports, unless this process is in it already.
fn enter(namespaces: &[OwnedFd], nics: &[Nic]) -> anyhow::Result<()> {
    let identity = |file: std::fs::File| file.metadata().map(|meta| (meta.dev(), meta.ino()));
    let here = std::fs::File::open("/proc/thread-self/ns/net").and_then(identity);
    let mut current = here.context("looking at the network namespace")?;
    for (n, (namespace, nic)) in namespaces.iter().zip(nics).enumerate() {
        let wanted = namespace.try_clone().and_then(|fd| identity(fd.into()));
        let wanted = wanted.context("looking at a port's network namespace")?;
        if wanted == current {
            continue;
        }
        if n > 0 {
            bail!("ports {} and {} are in different network namespaces", nics[0].offer.port, nic.offer.port);
        }
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| {
            let name = nic.offer.netns.as_deref().unwrap_or("of the daemon");
            anyhow::anyhow!(
                "port {} is in network namespace {name}, which can't be entered ({errno}): run as root with --user, or in that \
                 namespace",
                nic.offer.port
            )
        })?;
        current = wanted;
    }
    Ok(())
}

/// The user that QEMU runs as.
#[derive(Debug)]
struct Account {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    name: String,
    home: PathBuf,
}

impl Account {
    fn find(user: &str) -> anyhow::Result<Self> {
        let found = match user.parse() {
            Ok(uid) => User::from_uid(Uid::from_raw(uid)),
            Err(_) => User::from_name(user),
        };
        let Some(found) = found.with_context(|| format!("looking up user {user}"))? else {
            bail!("--user: there is no user `{user}`");
        };
        if !geteuid().is_root() && found.uid != geteuid() {
            bail!("--user: only root can run QEMU as somebody else");
        }
        let name = std::ffi::CString::new(found.name.as_str()).context("a user's name")?;
        let groups = getgrouplist(&name, found.gid).with_context(|| format!("looking up the groups of {user}"))?;
        Ok(Self { uid: found.uid, gid: found.gid, groups, name: found.name, home: found.dir })
    }
}

/// Becomes the requested user and drops all capabilities except the one that `memlock` names. `no_new_privs` keeps
/// programs that QEMU executes from gaining any.
fn drop_privileges(account: Option<&Account>, memlock: Memlock) -> anyhow::Result<()> {
    let kept = match memlock {
        Memlock::Limit => CapabilitySet::empty(),
        Memlock::Capability => CapabilitySet::IPC_LOCK,
    };
    set_no_new_privs(true).context("setting no_new_privs")?;
    clear_ambient_capability_set().context("clearing the ambient capabilities")?;
    if geteuid().is_root() {
        let all = (0..CAPABILITIES).map(|number| CapabilitySet::from_bits_retain(1 << number));
        for capability in all.filter(|capability| !kept.contains(*capability)) {
            match remove_capability_from_bounding_set(capability) {
                // The kernel does not know this capability.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                // Root without CAP_SETPCAP. Its own capabilities are cleared below.
                Err(rustix::io::Errno::PERM) => break,
                Err(errno) => return Err(errno).context("giving up a capability"),
            }
        }
        // With NO_ROOT a user that stays root regains nothing on `execve`. KEEP_CAPS lets another user keep `kept`.
        set_keep_capabilities(true).context("keeping capabilities over a change of user")?;
        let bits = CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_ROOT_LOCKED;
        match set_capabilities_secure_bits(bits | CapabilitiesSecureBits::KEEP_CAPS) {
            Ok(()) | Err(rustix::io::Errno::PERM) => {}
            Err(errno) => return Err(errno).context("setting the secure bits"),
        }
        if let Some(Account { uid, gid, groups, .. }) = account {
            setgroups(groups).context("setting the groups")?;
            setgid(*gid).context("setting the group")?;
            setuid(*uid).context("setting the user")?;
        }
    }
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: kept };
    set_capabilities(None, sets).context("giving up capabilities")?;
    if memlock == Memlock::Capability {
        eprintln!(
            "xswitch: RLIMIT_MEMLOCK can't be raised without CAP_SYS_RESOURCE: QEMU keeps CAP_IPC_LOCK, and no other capability"
        );
        configure_capability_in_ambient_set(CapabilitySet::IPC_LOCK, true).context("keeping CAP_IPC_LOCK")?;
    }
    Ok(())
}

/// What to do after a guest under a restart policy has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// End with this exit code.
    End(u8),
    /// Start it again.
    Again,
}

/// Decides what follows a guest's end. `told` means that a signal asked it to end, `first` that this was the first
/// start.
fn next(status: ExitStatus, told: bool, first: bool) -> Next {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, signal) => 128 + signal.unwrap_or_default() as u8,
    };
    match code {
        0 => Next::End(0),
        code if told => Next::End(code),
        CANNOT_RUN | NO_PROGRAM => Next::End(code),
        // On a later start the daemon may just be restarting.
        NOT_LAUNCHED if first => Next::End(code),
        _ => Next::Again,
    }
}

/// Runs this program with `arguments` until it succeeds, can't be started at all, or receives a signal to end. Passes
/// signals on, and returns the exit code.
pub async fn keep_running(arguments: &[OsString]) -> anyhow::Result<u8> {
    let kinds = [
        (SignalKind::terminate(), libc::SIGTERM, true),
        (SignalKind::interrupt(), libc::SIGINT, true),
        (SignalKind::quit(), libc::SIGQUIT, true),
        (SignalKind::hangup(), libc::SIGHUP, true),
        (SignalKind::user_defined1(), libc::SIGUSR1, false),
        (SignalKind::user_defined2(), libc::SIGUSR2, false),
    ];
    let (sender, mut signals) = tokio::sync::mpsc::unbounded_channel();
    for (kind, number, ends) in kinds {
        let (mut stream, sender) = (signal(kind).context("waiting for signals")?, sender.clone());
        tokio::spawn(async move { while stream.recv().await.is_some() && sender.send((number, ends)).is_ok() {} });
    }
    let (mut first, mut pause, mut told) = (true, FIRST_PAUSE, false);
    loop {
        let started = Instant::now();
        // The file of this very program, even if it has been replaced on disk.
        let mut child =
            tokio::process::Command::new("/proc/self/exe").args(arguments).spawn().context("starting QEMU")?;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status.context("waiting for QEMU")?,
                Some((number, ends)) = signals.recv() => {
                    told |= ends;
                    pass_on(&child, number);
                }
            }
        };
        match next(status, told, first) {
            Next::End(code) => return Ok(code),
            Next::Again if started.elapsed() >= SETTLED => pause = FIRST_PAUSE,
            Next::Again => {}
        }
        eprintln!("xswitch: QEMU ended with {status}; it is started again in {} s", pause.as_secs());
        first = false;
        let wait = tokio::time::sleep(pause);
        tokio::pin!(wait);
        loop {
            tokio::select! {
                () = &mut wait => break,
                Some((number, ends)) = signals.recv() => {
                    if ends {
                        return Ok(128 + number as u8);
                    }
                }
            }
        }
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

fn pass_on(child: &tokio::process::Child, number: i32) {
    let Some(pid) = child.id() else { return };
    if let Ok(signal) = nix::sys::signal::Signal::try_from(number) {
        // The child has not been reaped, so the number can't belong to another process.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal);
    }
}

/// Arguments for a single start under a restart policy: the same without the policy.
pub fn one_start(run_dir: &Path, launch: &Launch) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--run-dir".into(), run_dir.into(), "qemu".into(), "run".into()];
    arguments.extend(launch.ports.iter().map(OsString::from));
    if let Some(user) = &launch.user {
        arguments.extend(["--user".into(), OsString::from(user)]);
    }
    arguments.push("--".into());
    arguments.extend(launch.command.iter().cloned());
    arguments
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use model::{MacAddr, Mode};

    fn nic(vport: u16, port: &str, fds: &[i32]) -> Nic {
        let offer = Offer {
            port: port.to_owned(),
            vport,
            ifname: format!("xg{vport}"),
            netns: None,
            mac: MacAddr::new([2, 0, 0, 0, 0, vport as u8]),
            mtu: 1500,
            mode: Mode::Native,
            queues: fds.len() as u32,
            memlock: 40 << 20,
            map_path: Some("/sys/fs/bpf/x".to_owned()),
        };
        Nic { offer, fds: fds.to_vec() }
    }

    fn filled(line: &str, nics: &[Nic]) -> anyhow::Result<String> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        Ok(fill(&words, nics)?.join(OsStr::new(" ")).into_string().unwrap())
    }

    #[test]
    fn a_port_that_no_option_names_gets_two_of_its_own() {
        let text = filled("-m 128", &[nic(3, "vm1", &[7])]).unwrap();
        assert_eq!(
            text,
            "-m 128 -netdev af-xdp,id=xsw3,ifname=xg3,mode=native,queues=1,inhibit=on,sock-fds=7 \
             -device virtio-net-pci,netdev=xsw3,id=xsw3-nic,mac=02:00:00:00:00:03"
        );
    }

    #[test]
    fn placeholders_are_filled_where_they_stand() {
        let nics = [nic(3, "vm1", &[7]), nic(4, "vm2", &[8])];
        let line = "-netdev af-xdp,id=a,@vm1 -device e1000,@PORT,netdev=a --netdev @4,type=af-xdp,id=b -name x,@y,,z";
        assert_eq!(
            filled(line, &nics).unwrap(),
            "-netdev af-xdp,id=a,ifname=xg3,mode=native,queues=1,inhibit=on,sock-fds=7 \
             -device e1000,mac=02:00:00:00:00:03,netdev=a \
             --netdev ifname=xg4,mode=native,queues=1,inhibit=on,sock-fds=8,type=af-xdp,id=b -name x,@y,,z"
        );
        let error = filled("-netdev af-xdp,@vm3", &nics).unwrap_err();
        assert!(error.to_string().contains("@vm3"), "{error}");
        assert_eq!(split("a,b,,c,@d"), ["a", "b,,c", "@d"]);
        assert_eq!(split(""), [""]);
    }

    #[test]
    fn what_is_started_again_and_what_is_not() {
        let exit = |code: i32| ExitStatus::from_raw(code << 8);
        let killed = ExitStatus::from_raw(libc::SIGKILL);
        for (status, told, first, then) in [
            (exit(0), false, true, Next::End(0)),
            (exit(1), false, true, Next::Again),
            (killed, false, false, Next::Again),
            (killed, true, false, Next::End(137)),
            (exit(1), true, false, Next::End(1)),
            (exit(125), false, true, Next::End(125)),
            (exit(125), false, false, Next::Again),
            (exit(127), false, false, Next::End(127)),
        ] {
            assert_eq!(next(status, told, first), then, "{status} {told} {first}");
        }
    }

    #[test]
    fn one_start_is_the_same_command_without_the_policy() {
        let launch = Launch {
            run_dir: "/run/x".into(),
            ports: vec!["vm1".into()],
            user: Some("nobody".into()),
            command: vec!["qemu".into(), "-m".into(), "1".into()],
        };
        let line = one_start(&launch.run_dir, &launch).join(OsStr::new(" "));
        assert_eq!(line, "--run-dir /run/x qemu run vm1 --user nobody -- qemu -m 1");
    }
}
