//! Guests in QEMU: the Linux guest that `make qemu` makes, started by any program that ends up as QEMU, and driven by commands
//! over its serial console.
//!
//! A guest runs on an emulated processor, so it is slow: it takes seconds to boot, and no rate seen in it says anything about
//! the switch.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::qmp::Qmp;
use crate::wait;

/// How long a guest may take to boot: it is a few seconds on an idle machine, and tests share theirs.
const BOOT: Duration = Duration::from_secs(120);
/// How long a command in a guest may take, unless told otherwise.
const COMMAND: Duration = Duration::from_secs(60);
/// How long QEMU may take to start, and to end when asked to.
const PATIENCE: Duration = Duration::from_secs(20);
/// Length of a line that the guest's terminal takes.
const MAX_LINE: usize = 4000;
/// User and group `nobody` of Debian.
const NOBODY: u32 = 65_534;

/// A file that `make qemu` makes, by its path in the cache, such as `qemu/qemu-system-x86_64`.
pub fn cached(name: &str) -> PathBuf {
    let cache = std::env::var_os("XSWITCH_CACHE").filter(|dir| !dir.is_empty());
    let path = Path::new(cache.as_deref().unwrap_or("/var/cache/xswitch".as_ref())).join(name);
    assert!(path.exists(), "{} is missing: `make qemu` makes it", path.display());
    path
}

/// A command for the QEMU with af-xdp, its arguments still to come.
pub fn qemu() -> Command {
    Command::new(cached("qemu/qemu-system-x86_64"))
}

/// Lets a command run as `nobody`.
pub fn as_nobody(command: &mut Command) -> &mut Command {
    command.uid(NOBODY).gid(NOBODY)
}

/// What a guest is like.
#[derive(Clone, Debug)]
pub struct Setup {
    /// QEMU's machine type, with its options.
    pub machine: String,
    /// Memory in MiB.
    pub memory: u32,
    /// Addresses such as `10.0.0.1/24` for eth0, eth1, …
    pub addresses: Vec<String>,
    /// Their MTUs; as Linux has them where there is none.
    pub mtus: Vec<u32>,
    /// More words of the kernel's command line.
    pub append: String,
    /// More arguments of QEMU.
    pub args: Vec<OsString>,
}

impl Default for Setup {
    fn default() -> Self {
        let (addresses, mtus, append, args) = Default::default();
        Self { machine: "pc".to_owned(), memory: 128, addresses, mtus, append, args }
    }
}

impl Setup {
    /// One with addresses for eth0, eth1, …
    pub fn with_addresses(addresses: &[&str]) -> Self {
        Self { addresses: addresses.iter().map(|&address| address.to_owned()).collect(), ..Self::default() }
    }

    /// QEMU's arguments, for sockets in `dir`.
    fn args(&self, dir: &Path) -> Vec<OsString> {
        let mtus: Vec<String> = self.mtus.iter().map(u32::to_string).collect();
        let append =
            format!("{KERNEL} xswitch.ip={} xswitch.mtu={} {}", self.addresses.join(","), mtus.join(","), self.append);
        let file = |name: &str| cached(name).into_os_string();
        let socket = |before: &str, name: &str, after: &str| {
            let path = dir.join(name);
            OsString::from(format!("{before}{}{after}", path.to_str().expect("a path of the test's own")))
        };
        let mut args: Vec<OsString> =
            QEMU.split_whitespace().chain(["-machine", &self.machine, "-m"]).map(OsString::from).collect();
        args.extend([format!("{}", self.memory).into(), "-L".into(), file("qemu/firmware")]);
        args.extend(["-kernel".into(), file("guest/vmlinux"), "-initrd".into(), file("guest/initramfs")]);
        args.extend(["-append".into(), append.into()]);
        args.extend(["-chardev".into(), socket("socket,id=console,path=", "console.sock", "")]);
        args.extend(["-serial".into(), "chardev:console".into()]);
        args.extend(["-qmp".into(), socket("unix:", "qmp.sock", ",server=on,wait=off")]);
        args.extend(self.args.iter().cloned());
        args
    }
}

/// Arguments of QEMU that no guest does without. There is no option ROM in the cache, and none is needed. The guest has no way to reboot but to end QEMU.
const QEMU: &str =
    "-nodefaults -no-user-config -display none -no-reboot -accel tcg -cpu max -smp 1 -global virtio-net-pci.romfile=";

/// The kernel's command line: little talk, and nothing that takes time to find out. A panic ends QEMU.
const KERNEL: &str = "console=ttyS0 quiet loglevel=3 panic=-1 ipv6.disable=1 nokaslr mitigations=off tsc=reliable \
                      no_timer_check random.trust_cpu=on cryptomgr.notests rcupdate.rcu_expedited=1 8250.nr_uarts=1";

/// A running guest; ended on drop.
#[derive(Debug)]
pub struct Vm {
    child: Child,
    dir: tempfile::TempDir,
    /// Its serial console.
    pub console: Console,
}

impl Vm {
    /// As [`Vm::start`], and waits until the guest is up.
    pub fn launch(launcher: Command, setup: &Setup) -> Self {
        let mut vm = Self::start(launcher, setup);
        vm.wait_ready();
        vm
    }

    /// Starts a guest by `launcher`, which takes QEMU's arguments after its own; several can so boot side by side. Whoever QEMU
    /// is run as must be able to go through the directory for temporary files.
    pub fn start(mut launcher: Command, setup: &Setup) -> Self {
        // QEMU may be somebody else: it makes the monitor's socket here, and connects to the console's.
        let dir = tempfile::tempdir().expect("a temporary directory");
        let open = |path: &Path| std::fs::set_permissions(path, Permissions::from_mode(0o777)).expect("permissions");
        open(dir.path());
        let listener = UnixListener::bind(dir.path().join("console.sock")).expect("a socket");
        open(&dir.path().join("console.sock"));
        listener.set_nonblocking(true).expect("a socket that does not block");
        let log = File::create(dir.path().join("log")).expect("a log file");
        launcher.args(setup.args(dir.path())).stdin(Stdio::null());
        launcher.stdout(log.try_clone().expect("a second descriptor")).stderr(log);
        let child = launcher.spawn().unwrap_or_else(|error| panic!("{launcher:?}: {error}"));

        // It is killed from here on, whatever happens.
        let mut vm = Self { child, dir, console: Console::new(std::io::empty(), std::io::sink()) };
        let stream = wait::until(PATIENCE, || {
            if let Some(status) = vm.child.try_wait().expect("it can be waited for") {
                panic!("QEMU ended at once, with {status}:\n{}", vm.log());
            }
            listener.accept().ok()
        });
        let (stream, _) = stream.unwrap_or_else(|| panic!("QEMU does not open its console:\n{}", vm.log()));
        stream.set_nonblocking(false).expect("a stream that blocks");
        vm.console = Console::new(stream.try_clone().expect("a second descriptor"), stream);
        vm
    }

    /// Waits until the guest is up and its netdevs are configured.
    pub fn wait_ready(&mut self) {
        if let Err(error) = self.console.wait_ready(BOOT) {
            panic!("the guest does not boot: {error}\n{}", self.log());
        }
    }

    /// Runs a command in the guest that must succeed; gives what it prints.
    pub fn sh(&mut self, command: &str) -> String {
        let output = self.console.run(command).unwrap_or_else(|error| panic!("{command}: {error}\n{}", self.log()));
        assert_eq!(output.status, 0, "{command}:\n{}", output.stdout);
        output.stdout
    }

    /// Whether the guest gets answers to pings.
    pub fn pings(&mut self, ip: &str) -> bool {
        let ping = self.console.run(&format!("ping -A -c 3 -W 2 {ip}"));
        ping.is_ok_and(|output| output.status == 0)
    }

    /// Path of QEMU's monitor.
    pub fn qmp_path(&self) -> PathBuf {
        self.dir.path().join("qmp.sock")
    }

    /// A new connection to QEMU's monitor, which takes one at a time.
    pub fn qmp(&self) -> Qmp {
        Qmp::connect(&self.qmp_path())
    }

    /// Process id of what was started.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// What QEMU (and its launcher) had to say.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Lets the guest turn its power off.
    pub fn power_off(mut self) -> ExitStatus {
        self.console.send("poweroff -f").expect("a console");
        self.wait()
    }

    /// Ends what was started by SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }

    /// Waits until what was started has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let ended = wait::until(PATIENCE, || self.child.try_wait().expect("it can be waited for"));
        ended.unwrap_or_else(|| panic!("QEMU does not end:\n{}", self.log()))
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // A launcher may have QEMU for a child, and gets a chance to end it.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
            wait::until(PATIENCE, || self.child.try_wait().ok().flatten());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of QEMU:\n{}", self.log());
        }
    }
}

/// What came of a command in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit status.
    pub status: i32,
    /// What it printed, on standard error too.
    pub stdout: String,
}

/// A guest's serial console; `scripts/guest/init` is the other end, and says what is spoken.
pub struct Console {
    writer: Box<dyn Write + Send>,
    chunks: Receiver<Vec<u8>>,
    pending: Vec<u8>,
    commands: u32,
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").field("commands", &self.commands).finish_non_exhaustive()
    }
}

impl Console {
    /// One on the two directions of whatever QEMU's serial port is connected to. A thread reads until the end.
    pub fn new(mut reader: impl Read + Send + 'static, writer: impl Write + Send + 'static) -> Self {
        let (sender, chunks) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match reader.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(length) if sender.send(buffer[..length].to_vec()).is_ok() => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    _ => return,
                }
            }
        });
        Self { writer: Box::new(writer), chunks, pending: Vec::new(), commands: 0 }
    }

    /// Waits until the guest takes commands.
    pub fn wait_ready(&mut self, timeout: Duration) -> Result<(), String> {
        self.take_until("xswitch-guest ready\n", Instant::now() + timeout).map(drop)
    }

    /// Runs a line of shell in the guest.
    pub fn run(&mut self, command: &str) -> Result<Output, String> {
        self.run_within(command, COMMAND)
    }

    /// As [`Console::run`], for what may take longer. After an error, what comes next is not to be trusted.
    pub fn run_within(&mut self, command: &str, timeout: Duration) -> Result<Output, String> {
        let end = Instant::now() + timeout;
        let token = self.send(command).map_err(|error| error.to_string())?;
        let stdout = self.take_until(&format!("{token} "), end)?;
        let status = self.take_until("\n", end)?;
        let status = status.trim().parse().map_err(|_| format!("no exit status: {status}"))?;
        Ok(Output { status, stdout })
    }

    /// Sends a command whose end is not waited for, because it ends the guest; gives its token.
    pub fn send(&mut self, command: &str) -> std::io::Result<String> {
        assert!(command.len() < MAX_LINE && !command.contains('\n'), "not a line for a terminal: {command}");
        self.commands += 1;
        // Not to be found in the output of a program by chance.
        let token = format!("@@{}@@", self.commands);
        writeln!(self.writer, "run {token} {command}")?;
        self.writer.flush()?;
        Ok(token)
    }

    /// Takes what the guest prints before `mark`, and the mark.
    fn take_until(&mut self, mark: &str, end: Instant) -> Result<String, String> {
        let mut from = 0;
        loop {
            let found = self.pending[from..].windows(mark.len()).position(|window| window == mark.as_bytes());
            if let Some(at) = found {
                let text = String::from_utf8_lossy(&self.pending[..from + at]).into_owned();
                self.pending.drain(..from + at + mark.len());
                return Ok(text);
            }
            from = self.pending.len().saturating_sub(mark.len());
            let left = end.saturating_duration_since(Instant::now());
            match self.chunks.recv_timeout(left) {
                Ok(chunk) => self.pending.extend_from_slice(&chunk),
                Err(reason) => {
                    let reason = match reason {
                        RecvTimeoutError::Timeout => "nothing more in time",
                        RecvTimeoutError::Disconnected => "the console is closed",
                    };
                    return Err(format!("{reason}, after: {}", String::from_utf8_lossy(&self.pending)));
                }
            }
        }
    }
}
