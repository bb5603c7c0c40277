//! The DPU interface from Python, with a client generated from the document's own messages.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Daemon, shell};

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Makes the client's environment among the build output, once for all runs.
pub fn environment() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its program");
    let target = test.ancestors().nth(3).expect("a test is in target/<profile>/deps");
    let dir = target.join("python-client");
    let made = shell::output(Command::new(source("scripts/python-client.sh")).arg(&dir));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    dir
}

/// A client's script, in the namespace of the daemon.
pub fn script(daemon: &Daemon, environment: &Path, name: &str) -> Command {
    let mut client = daemon.ns.command(environment.join("venv/bin/python3"));
    client.arg(source("tests/python").join(name)).env("PYTHONPATH", environment.join("gen"));
    client
}
