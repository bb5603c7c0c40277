//! The servers of an image.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use tests::{programs, wait};

use crate::cpu;
use crate::devices::process::{self, Process};
use crate::names;

/// Longest time that a server takes to start. The one before may still hold the image's lock.
const PATIENCE: Duration = Duration::from_secs(10);

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ours.
    Xswitch,
    /// QEMU's storage daemon with one I/O thread, as its documents say.
    StorageDaemon,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Xswitch => names::XSWITCH,
            Self::StorageDaemon => names::STORAGE_DAEMON,
        }
    }

    /// Short name, for choosing devices.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Xswitch => "xswitch",
            Self::StorageDaemon => "qsd",
        }
    }

    pub(super) fn version(self) -> Option<(String, String)> {
        let version = match self {
            Self::Xswitch => env!("CARGO_PKG_VERSION").to_owned(),
            Self::StorageDaemon => {
                let output = Command::new("qemu-storage-daemon").arg("--version").output().ok()?;
                String::from_utf8_lossy(&output.stdout).split_whitespace().nth(2)?.to_owned()
            }
        };
        Some((self.name().to_owned(), version))
    }

    fn command(self, image: &Path, socket: &Path, queues: u16) -> Command {
        let (shown, at) = (image.display(), socket.display());
        match self {
            Self::Xswitch => {
                let mut command = Command::new(programs::path("examples/serve", "cargo build -p disk --examples"));
                command.arg(image).arg(socket).args(["--queues", &queues.to_string()]);
                // What O_DIRECT takes everywhere, also in memory.
                command.args(["--block", "4096"]);
                command
            }
            Self::StorageDaemon => {
                let mut command = Command::new("qemu-storage-daemon");
                command.args(["--object", "iothread,id=t", "--blockdev"]);
                command.arg(format!(
                    "driver=file,node-name=f,filename={shown},aio=io_uring,cache.direct=on,discard=unmap"
                ));
                command.arg("--export").arg(format!(
                    "type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path={at},writable=on,num-queues={queues},iothread=t"
                ));
                command
            }
        }
    }

    /// Starts it on the device's CPU. Its socket is there then.
    pub(super) fn start(self, image: &Path, socket: &Path, queues: u16) -> anyhow::Result<Server> {
        let mut command = self.command(image, socket, queues);
        // It ends when its input does.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let spawn = |command: &mut Command| -> anyhow::Result<Child> {
            let _there = cpu::Pinned::new(cpu::DEVICE);
            command.spawn().with_context(|| self.name())
        };
        let mut server = Server(Process(spawn(&mut command)?));
        let ready = wait::until(PATIENCE, || {
            if socket.exists() {
                return Some(Ok(()));
            }
            // Operations of the last server that the kernel still has keep the image's lock.
            let ended = server.0.0.try_wait().is_ok_and(|ended| ended.is_some());
            if ended {
                match spawn(&mut command) {
                    Ok(child) => server = Server(Process(child)),
                    Err(error) => return Some(Err(error)),
                }
            }
            None
        });
        ensure!(ready.transpose()?.is_some(), "{} does not start", self.name());
        Ok(server)
    }
}

/// A running server.
#[derive(Debug)]
pub(super) struct Server(Process);

impl Server {
    /// CPU time of all its threads in seconds.
    pub(super) fn cpu_seconds(&self) -> f64 {
        process::cpu_seconds(self.0.pid()).unwrap_or(0.0)
    }
}
