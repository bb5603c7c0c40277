//! The DPU interface as a stranger uses it: a Python client generated from the document's own messages, over gRPC.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::{Daemon, shell};

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Makes the client's environment, once for all runs, among the build output.
fn environment() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its program");
    let target = test.ancestors().nth(3).expect("a test is in target/<profile>/deps");
    let dir = target.join("python-client");
    let made = shell::output(Command::new(source("scripts/python-client.sh")).arg(&dir));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    dir
}

fn drive(daemon: &Daemon, environment: &Path, phase: &str) -> String {
    let mut client = Command::new(environment.join("venv/bin/python3"));
    client.arg(source("tests/python/drive.py")).arg(daemon.path("run/dpu.sock")).arg(phase);
    let driven = shell::output(client.env("PYTHONPATH", environment.join("gen")));
    let said = String::from_utf8_lossy(&driven.stdout).into_owned();
    let failed = String::from_utf8_lossy(&driven.stderr);
    assert!(driven.status.success(), "{phase}: {said}\n{failed}\n{}", daemon.log());
    said
}

#[test]
fn a_python_client_made_from_the_document_drives_every_method_through_kill_and_restart() {
    let environment = environment();
    let mut daemon = Daemon::start("python");
    let said = drive(&daemon, &environment, "configure");
    let services = ["ElasticNic", "Vdisk", "Meter", "TrafficControl", "PortStats", "EthMac"];
    for service in services {
        assert!(said.contains(&format!("ok {service}.")), "{service} was not driven:\n{said}");
    }
    daemon.kill();
    daemon.launch();
    drive(&daemon, &environment, "verify");
    daemon.stop();
    daemon.launch();
    drive(&daemon, &environment, "verify");
    drive(&daemon, &environment, "cleanup");
    daemon.finish();
}
