//! Disks of a real daemon: made by its interfaces, used through their sockets, killed and restarted in the middle.

mod configured;
mod hanging;
mod killed;
mod load;
mod operator;

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use disk::client::{Guest, GuestSpec};
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
