//! Starting the double of QEMU (`qemu-double`, which documents itself), and what it needs of a host.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::XskMap;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::gensink::attach;
use crate::netns::NetNs;
use crate::number::narrow;
use crate::{programs, wait};

/// Longest time for an answer, a start or an end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes that the double locks in memory for each queue, as QEMU does. `RLIMIT_MEMLOCK` must allow this to its user,
/// over all processes of that user.
pub const UMEM_BYTES: u64 = 8192 * 4096;
/// User and group `nobody`.
pub const NOBODY: u32 = 65_534;

/// Path of the built double.
pub fn binary() -> PathBuf {
    programs::path("qemu-double", "cargo build -p tests")
}

/// `struct __user_cap_header_struct` and `struct __user_cap_data_struct` of `linux/capability.h`, version 3.
#[repr(C)]
struct Capabilities {
    version: u32,
    pid: libc::c_int,
}
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const CAP_IPC_LOCK: u32 = 14;

fn check(result: libc::c_int) -> std::io::Result<()> {
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Leaves the calling thread only `CAP_IPC_LOCK`, also over the next `exec`.
fn keep_ipc_lock() -> std::io::Result<()> {
    let header = Capabilities { version: CAPABILITY_VERSION_3, pid: 0 };
    let bit = 1_u32 << CAP_IPC_LOCK;
    // Effective, permitted and inheritable. The upper half of each follows.
    let sets = [[bit; 3], [0; 3]];
    // SAFETY: the structs have the layout of this version, and the kernel only reads them. The rest are numbers.
    unsafe {
        check(narrow(libc::syscall(libc::SYS_capset, &raw const header, &raw const sets)))?;
        check(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, CAP_IPC_LOCK, 0, 0))
    }
}

/// Makes `command` run as user and group `nobody`, without other groups or capabilities. It gets that limit of locked
/// memory in bytes, and `fds` open under the same numbers.
///
/// Some containers can't raise the limit, because their root lacks `CAP_SYS_RESOURCE`. There the command gets
/// `CAP_IPC_LOCK` instead, which is exempt from the limit.
pub fn unprivileged(command: &mut Command, memlock: u64, fds: &[&OwnedFd]) {
    let fds: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let limit = libc::rlimit { rlim_cur: memlock, rlim_max: memlock };
    // SAFETY: only system calls are made between fork and exec. This runs after the closures of the command's maker,
    // which may need the privileges, for example to enter a namespace. It asks for the death signal again, because a
    // change of user clears it.
    unsafe {
        command.pre_exec(move || {
            let exempt = libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) != 0;
            fds.iter().try_for_each(|fd| check(libc::fcntl(*fd, libc::F_SETFD, 0)))?;
            check(libc::setgroups(0, std::ptr::null()))?;
            check(libc::prctl(libc::PR_SET_KEEPCAPS, libc::c_ulong::from(exempt)))?;
            check(libc::setresgid(NOBODY, NOBODY, NOBODY))?;
            check(libc::setresuid(NOBODY, NOBODY, NOBODY))?;
            if exempt {
                keep_ipc_lock()?;
            }
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))
        });
    }
}

/// A running double. Another program may have started it and passes standard input and output on to it.
#[derive(Debug)]
pub struct Double {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    errors: Arc<Mutex<String>>,
}

impl Double {
    /// Starts `command`. It must be complete except for its standard streams.
    pub fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}; can its user reach the program?"));
        let (output, mut stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let errors = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&errors);
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(len @ 1..) = stderr.read(&mut part) {
                let text = String::from_utf8_lossy(&part[..len]).into_owned();
                heard.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        let input = child.stdin.take().expect("piped");
        Self { child, input, lines, errors }
    }

    /// Its standard error so far.
    pub fn errors(&self) -> String {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn line(&mut self, what: &str) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            let status = self.child.try_wait();
            panic!("{what}: {error}, {status:?}\n{}", self.errors())
        })
    }

    /// Waits until all its netdevs are bound. Panics if it ends instead. Lines of its starter are skipped.
    pub fn wait_ready(&mut self) {
        while self.line("ready") != "ready" {}
    }

    /// Waits until it is ready or has ended. Returns whether it is ready.
    pub fn gets_ready(&mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if line == "ready" => return true,
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(error) => panic!("ready: {error}\n{}", self.errors()),
            }
        }
    }

    /// Sends a line without an answer, such as `crash`.
    pub fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap_or_else(|error| panic!("{line}: {error}\n{}", self.errors()));
    }

    /// The next answer to a line.
    pub fn answer(&mut self) -> String {
        self.line("an answer")
    }

    /// Sends a line and returns the answer.
    pub fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.line(line)
    }

    /// Sends many lines at once and returns their answers.
    pub fn ask_all(&mut self, lines: &[String]) -> Vec<String> {
        self.say(&lines.join("\n"));
        lines.iter().map(|line| self.line(line)).collect()
    }

    /// Does [`Double::ask`] for a line that is answered in JSON.
    pub fn ask_json(&mut self, line: &str) -> Value {
        let answer = self.ask(line);
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{line}: {error}: {answer}"))
    }

    /// How it was started: user, groups, capabilities, limits, arguments, and descriptors (`fds` at the start,
    /// `open_fds` at this moment).
    pub fn status(&mut self) -> Value {
        self.ask_json("status")
    }

    /// Process id of the double itself, also if another program started it.
    pub fn pid(&mut self) -> i32 {
        let pid = self.status()["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        pid.expect("a process id")
    }

    /// Whether its first guest gets an answer to each of three pings.
    pub fn ping(&mut self, ip: &str) -> bool {
        self.ask(&format!("ping {ip} 3 20")) == "received 3 of 3"
    }

    /// Sends SIGTERM to the started process.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Sends a signal to the started process.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("it can be signalled");
    }

    /// Ends the started process by SIGTERM if it still runs, or by SIGKILL if that does nothing.
    pub fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.terminate();
        }
        if wait::until(PATIENCE, || self.child.try_wait().ok().flatten()).is_none() {
            let _ = self.child.kill();
        }
    }

    /// Sends SIGKILL to the started process.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
    }

    /// Waits for the end of the started process.
    pub fn wait(&mut self) -> ExitStatus {
        let ended = wait::until(PATIENCE, || self.child.try_wait().expect("it can be waited for"));
        ended.unwrap_or_else(|| panic!("it does not end\n{}", self.errors()))
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("standard error of the double:\n{}", self.errors());
        }
    }
}

/// A netdev whose packets go to AF_XDP sockets, by an XDP program and an XSKMAP. It serves the double without the
/// switch.
#[derive(Debug)]
pub struct XskNetdev<'a> {
    program: Ebpf,
    ns: &'a NetNs,
}

impl<'a> XskNetdev<'a> {
    /// Attaches the program to `ifname` in native mode. Packets of a queue without a socket go to the stack.
    pub fn new(ns: &'a NetNs, ifname: &str) -> Self {
        Self { program: attach(ns, ifname, "xsk_guest", "to_socket"), ns }
    }

    /// Pins the XSKMAP for `map-path`. `path` is in a bpffs.
    pub fn pin(&mut self, path: &Path) {
        let map = self.program.map_mut("SOCKETS").expect("the map");
        map.pin(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// A new, unbound socket in the map's slot of `queue`. QEMU wants such a one as `sock-fds`.
    pub fn socket(&mut self, queue: u32) -> OwnedFd {
        let fd = self.ns.run(|| {
            // SAFETY: the call takes no pointers. The descriptor, if there is one, belongs to nobody else.
            unsafe {
                match libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) {
                    -1 => Err(std::io::Error::last_os_error()),
                    fd => Ok(OwnedFd::from_raw_fd(fd)),
                }
            }
        });
        let fd = fd.expect("root may open an AF_XDP socket");
        let mut map: XskMap<_> = self.program.map_mut("SOCKETS").expect("the map").try_into().expect("an XSKMAP");
        map.set(queue, fd.as_raw_fd(), 0).expect("the map takes the socket");
        fd
    }
}
