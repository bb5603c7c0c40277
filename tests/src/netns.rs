//! Network namespaces that go with their guard.
//!
//! They have names, as `ip netns add` gives them. So `ip netns exec NAME …` works while somebody looks at a test, and
//! the switch can move a guest's end into one. A name is `xswt-<pid>-<n>-<label>`. A killed test process leaves its
//! namespaces. The next test process finds that their pid is gone, and removes them.
//!
//! A namespace belongs to a thread. So work inside one runs on a thread of its own ([`NetNs::run`]), or in a process
//! that enters it first ([`NetNs::command`]). IPv6 is off, so that no router solicitation or multicast report comes
//! between the frames that a test counts.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

use crate::shell;

const NETNS_DIR: &str = "/run/netns";
const PREFIX: &str = "xswt-";

static SWEEP: Once = Once::new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A named network namespace, removed on drop.
#[derive(Debug)]
pub struct NetNs {
    name: String,
    file: File,
}

impl NetNs {
    /// Makes a namespace with loopback up. `label` ends its name.
    pub fn new(label: &str) -> Self {
        SWEEP.call_once(sweep);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{label}", std::process::id());
        shell::run(Command::new("ip").args(["netns", "add", &name]));
        let file = File::open(Path::new(NETNS_DIR).join(&name)).expect("the namespace that was just made");
        let ns = Self { name, file };
        ns.run(|| {
            for scope in ["all", "default"] {
                // The file is absent in a kernel without IPv6, which is as good.
                let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1");
            }
        });
        ns.sh("ip link set lo up");
        ns
    }

    /// Its name, for `ip netns` and for the field `netns` of a port.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread inside the namespace. Returns its result. A panic passes through.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let entered = || {
            self.enter();
            work()
        };
        let done = std::thread::scope(|scope| scope.spawn(entered).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Moves the calling thread into the namespace for good.
    pub fn enter(&self) {
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
            .unwrap_or_else(|errno| panic!("entering {}: {errno}", self.name));
    }

    /// A command that runs inside the namespace. It is killed when the thread that starts it ends.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let fd = self.file.as_raw_fd();
        // SAFETY: only system calls are made between fork and exec. The descriptor is open, because a `Command` is
        // started while its namespace is alive. Its number is the same in the child.
        unsafe {
            command.pre_exec(move || {
                if libc::setns(fd, libc::CLONE_NEWNET) != 0 || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        command
    }

    /// Runs a line of words inside. Returns its output. Panics unless it succeeds.
    pub fn sh(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        shell::run(self.command(words.next().expect("a command line names a program")).args(words))
    }

    /// Index of the netdev `ifname` in it, if there is one.
    pub fn find_ifindex(&self, ifname: &str) -> Option<u32> {
        self.run(|| nix::net::if_::if_nametoindex(ifname).ok())
    }

    /// Index of the netdev `ifname` in it. Panics if there is none.
    pub fn ifindex(&self, ifname: &str) -> u32 {
        self.find_ifindex(ifname).unwrap_or_else(|| panic!("no netdev {ifname} in {}", self.name))
    }

    /// Its netdevs, in the form of `ip -details -json link show`.
    pub fn links(&self) -> Vec<serde_json::Value> {
        let text = self.sh("ip -details -json link show");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("ip -json: {error}: {text}"))
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        // Its netdevs go with the last reference. A veth takes its other end with it.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Removes the namespaces of dead test processes. Two processes may do so at once, and the second finds nothing.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(NETNS_DIR) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner =
            name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
}
