//! Guests in QEMU: the Linux guest of `make qemu`. Any program that ends up as QEMU can start it. Tests drive it by
//! commands over its serial console.
//!
//! A guest runs on an emulated processor, so it is slow. It takes seconds to boot. Rates in it say nothing about the
//! switch.

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

/// Longest time to boot. It is a few seconds on an idle machine, but tests share theirs.
const BOOT: Duration = Duration::from_secs(120);
/// Longest time of a command in a guest, by default.
const COMMAND: Duration = Duration::from_secs(60);
/// Longest time that QEMU takes to start, and to end when asked to.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest line that the guest's terminal takes, in bytes.
const MAX_LINE: usize = 4000;
/// User and group `nobody` of Debian.
const NOBODY: u32 = 65_534;

/// A file of `make qemu`, by its path in the cache, such as `qemu/qemu-system-x86_64`.
pub fn cached(name: &str) -> PathBuf {
    let cache = std::env::var_os("XSWITCH_CACHE").filter(|dir| !dir.is_empty());
    let path = Path::new(cache.as_deref().unwrap_or("/var/cache/xswitch".as_ref())).join(name);
    assert!(path.exists(), "{} is missing: `make qemu peers` makes it", path.display());
    path
}

/// A command for the QEMU with af-xdp, without arguments.
pub fn qemu() -> Command {
    Command::new(cached("qemu/qemu-system-x86_64"))
}

/// Makes a command run as `nobody`.
pub fn as_nobody(command: &mut Command) -> &mut Command {
    command.uid(NOBODY).gid(NOBODY)
}

/// Properties of a guest.
#[derive(Clone, Debug)]
pub struct Setup {
    /// QEMU's machine type, with its options.
    pub machine: String,
    /// Memory in MiB.
    pub memory: u32,
    /// Addresses such as `10.0.0.1/24` for eth0, eth1, …
    pub addresses: Vec<String>,
    /// Their MTUs. Linux's defaults apply where there is none.
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
    /// A guest with addresses for eth0, eth1, …
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

/// QEMU's arguments for every guest. The cache has no option ROM, and none is needed. A reboot of the guest ends QEMU.
const QEMU: &str =
    "-nodefaults -no-user-config -display none -no-reboot -accel tcg -cpu max -smp 1 -global virtio-net-pci.romfile=";

/// The kernel's command line: few messages, and no slow probing. A panic ends QEMU.
const KERNEL: &str = "console=ttyS0 quiet loglevel=3 panic=-1 ipv6.disable=1 nokaslr mitigations=off tsc=reliable \
                      no_timer_check random.trust_cpu=on cryptomgr.notests rcupdate.rcu_expedited=1 8250.nr_uarts=1";

/// A running guest. It ends on drop.
#[derive(Debug)]
pub struct Vm {
    child: Child,
    dir: tempfile::TempDir,
    /// Its serial console.
    pub console: Console,
}

impl Vm {
    /// Does [`Vm::start`] and waits until the guest is up.
    pub fn launch(launcher: Command, setup: &Setup) -> Self {
        let mut vm = Self::start(launcher, setup);
        vm.wait_ready();
        vm
    }

    /// Starts a guest by `launcher`, which takes QEMU's arguments after its own. Several guests can boot side by side.
    /// QEMU's user must be able to enter the directory for temporary files.
    pub fn start(mut launcher: Command, setup: &Setup) -> Self {
        // QEMU may run as another user. It makes the monitor's socket here, and connects to the console's.
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

        // From here on the guard kills it, whatever happens.
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

    /// Runs a command in the guest. It must succeed. Returns its output.
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

    /// A directory that QEMU may write to. It goes with the guest.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Path of QEMU's monitor.
    pub fn qmp_path(&self) -> PathBuf {
        self.dir.path().join("qmp.sock")
    }

    /// A new connection to QEMU's monitor. The monitor takes one at a time.
    pub fn qmp(&self) -> Qmp {
        Qmp::connect(&self.qmp_path())
    }

    /// Process id of the started program.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Output of QEMU and its launcher.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Lets the guest turn its power off.
    pub fn power_off(mut self) -> ExitStatus {
        self.console.send("poweroff -f").expect("a console");
        self.wait()
    }

    /// Kills the started program by SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }

    /// Waits until the started program has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let ended = wait::until(PATIENCE, || self.child.try_wait().expect("it can be waited for"));
        ended.unwrap_or_else(|| panic!("QEMU does not end:\n{}", self.log()))
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // A launcher may have QEMU as a child. It gets a chance to end it.
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

/// Result of a command in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit status.
    pub status: i32,
    /// Its output, standard error included.
    pub stdout: String,
}

/// A guest's serial console. `scripts/guest/init` is the other end and documents the protocol.
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
    /// A console on the two directions of QEMU's serial port. A thread reads until the end.
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

    /// Does [`Console::run`] with another time limit. After an error the next output is not to be trusted.
    pub fn run_within(&mut self, command: &str, timeout: Duration) -> Result<Output, String> {
        let end = Instant::now() + timeout;
        let token = self.send(command).map_err(|error| error.to_string())?;
        let stdout = self.take_until(&format!("{token} "), end)?;
        let status = self.take_until("\n", end)?;
        let status = status.trim().parse().map_err(|_| format!("no exit status: {status}"))?;
        Ok(Output { status, stdout })
    }

    /// Sends a command without waiting for its end, because it ends the guest. Returns its token.
    pub fn send(&mut self, command: &str) -> std::io::Result<String> {
        assert!(command.len() < MAX_LINE && !command.contains('\n'), "not a line for a terminal: {command}");
        self.commands += 1;
        // A token that no program's output has by chance.
        let token = format!("@@{}@@", self.commands);
        writeln!(self.writer, "run {token} {command}")?;
        self.writer.flush()?;
        Ok(token)
    }

    /// Takes the guest's output up to and including `mark`. Returns what was before it.
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
