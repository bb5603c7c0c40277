//! Disks of a real daemon: made by its interfaces, used through their sockets, killed and restarted in the middle.

mod configured;
mod full;
mod guest;
mod hanging;
mod killed;
mod load;
mod migration;
mod operator;
mod storage;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use disk::client::{Guest, GuestSpec};
use nix::fcntl::{FcntlArg, fcntl};
use serde_json::Value;
use tests::{Daemon, shell, wait};

const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of a sector.
const SECTOR: u64 = 512;

fn socket(daemon: &Daemon, disk: &str) -> PathBuf {
    PathBuf::from(daemon.get(&format!("disks/{disk}"))["spec"]["socket"].as_str().expect("a socket"))
}

/// A guest at a disk's socket.
fn guest(daemon: &Daemon, disk: &str, spec: GuestSpec) -> Guest {
    let mut guest = Guest::new(spec);
    guest.connect(&socket(daemon, disk));
    guest
}

fn state(daemon: &Daemon, disk: &str) -> Value {
    daemon.get(&format!("disks/{disk}"))["state"].clone()
}

fn comes_up(daemon: &Daemon, disk: &str) {
    wait::expect(&format!("{disk} is up"), PATIENCE, || state(daemon, disk) == "up");
}

/// Locks an image as another writer does, if nobody has it.
fn lock(image: &Path) -> Option<File> {
    let file = File::options().read(true).write(true).open(image).expect("an image");
    let [kind, whence] = [libc::F_WRLCK, libc::SEEK_SET].map(|word| libc::c_short::try_from(word).expect("small"));
    let whole = libc::flock { l_type: kind, l_whence: whence, l_start: 0, l_len: 0, l_pid: 0 };
    fcntl(&file, FcntlArg::F_OFD_SETLK(&whole)).is_ok().then_some(file)
}

/// A file system in memory. It goes with this.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(place: PathBuf, size: &str) -> Self {
        std::fs::create_dir_all(&place).expect("a directory");
        shell::run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&place));
        Self(place)
    }

    fn resize(&self, size: &str) {
        shell::run(Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0));
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // A daemon may still have an image open.
        shell::output(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

/// A counter of the disk, over all its queues.
fn counter(daemon: &Daemon, disk: &str, path: &[&str]) -> u64 {
    let stats = daemon.get(&format!("disk-stats/{disk}"));
    let of = |queue: &Value| path.iter().fold(queue, |at, name| &at[*name]).as_u64().expect("a number");
    stats["queues"].as_array().expect("queues").iter().map(of).sum()
}

/// What a command that must succeed prints.
fn prints(output: &Output) -> String {
    assert!(output.status.success(), "{}", shell::text(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a command that must fail says.
fn complains(output: &Output) -> String {
    assert!(!output.status.success(), "{}", shell::text(output));
    String::from_utf8_lossy(&output.stderr).into_owned()
}
