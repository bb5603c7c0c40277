//! Standard streams that are full, slow, gone or closed: lines are lost, and the switch goes on.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::{Daemon, http, shell, wait};

const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon with a standard error of the test's choice. Dropping it kills it.
struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).expect("it lives");
    }

    /// Makes the daemon say something.
    fn speak(&self) {
        for _ in 0..40 {
            self.signal(Signal::SIGHUP);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the daemon of those directories with that standard error, and waits until it answers.
fn start(daemon: &Daemon, stderr: impl Into<Stdio>) -> Running {
    let mut command = daemon.command();
    running(daemon, command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr))
}

/// Starts the daemon of those directories by this command, and waits until it answers.
fn running(daemon: &Daemon, command: &mut Command) -> Running {
    let mut running = Running(command.spawn().expect("it starts"));
    let socket = daemon.path("run/api.sock");
    let answers = wait::until(PATIENCE, || http::over_unix(&socket, "GET", "/api/v1/version", b"").ok());
    assert!(answers.is_some(), "it does not answer: {:?}", running.0.try_wait());
    running
}

/// Lines that the daemon says it has lost.
fn lost(daemon: &Daemon) -> u64 {
    let scrape = daemon.ns.run(|| http::over_tcp("127.0.0.1:9477", "GET", "/metrics", b"").expect("a scrape"));
    let text = String::from_utf8(scrape.body).expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix("xswitch_log_lines_lost_total "));
    line.unwrap_or_else(|| panic!("no count in {text}")).parse().expect("a number")
}

/// Checks that the daemon works, and ends it.
fn works_and_ends(daemon: &Daemon, mut running: Running) {
    let port = json!({ "name": "vm1", "kind": "guest" });
    daemon.ok("POST", "ports", port);
    assert_eq!(daemon.get("ports/vm1")["state"], "up");
    daemon.ok("DELETE", "ports/vm1", Value::Null);
    let log = daemon.get("doctor").as_array().expect("checks").iter().find(|check| check["name"] == "log").cloned();
    assert_eq!(log.expect("a check of the log")["status"], if lost(daemon) > 0 { "warn" } else { "ok" });
    running.signal(Signal::SIGTERM);
    let ended = wait::until(PATIENCE, || running.0.try_wait().expect("it can be waited for"));
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
}

#[test]
fn the_daemon_goes_on_when_nobody_reads_its_log() {
    let mut daemon = Daemon::start("log");
    daemon.stop();
    // The reader is gone (EPIPE).
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let child = start(&daemon, OwnedFd::from(writer));
    drop(reader);
    child.speak();
    wait::expect("lines are lost", PATIENCE, || lost(&daemon) > 0);
    works_and_ends(&daemon, child);
    // The reader does not read: a pipe of one page is full at once.
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).expect("a small pipe");
    let child = start(&daemon, OwnedFd::from(writer));
    child.speak();
    works_and_ends(&daemon, child);
    let mut said = String::new();
    reader.read_to_string(&mut said).expect("text");
    assert!(said.contains("ready"), "{said}");
    // The disk is full (ENOSPC).
    let child = start(&daemon, File::options().write(true).open("/dev/full").expect("/dev/full"));
    child.speak();
    wait::expect("lines are lost", PATIENCE, || lost(&daemon) > 0);
    works_and_ends(&daemon, child);
}

#[test]
fn a_log_file_that_may_not_grow_ends_nothing() {
    let mut daemon = Daemon::start("fsize");
    daemon.stop();
    // A limit that the state file is within, and a log that is at the limit already (RLIMIT_FSIZE, SIGXFSZ).
    let path = daemon.path("long");
    File::create(&path).and_then(|file| file.set_len(8 << 20)).expect("a file");
    let log = File::options().append(true).open(&path).expect("the file");
    let mut command = daemon.ns.command("prlimit");
    command.args(["--fsize=8388608", "--"]).arg(tests::programs::product("xswitchd"));
    command.args(daemon.command().get_args());
    let child = running(&daemon, command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log));
    child.speak();
    wait::expect("lines are lost", PATIENCE, || lost(&daemon) > 0);
    works_and_ends(&daemon, child);
}

#[test]
fn closed_standard_streams_are_not_taken_by_other_files() {
    let mut daemon = Daemon::start("closed");
    daemon.stop();
    let mut command = daemon.ns.command("bash");
    command.args(["-c", "exec \"$@\" <&- >&- 2>&-", "bash"]).arg(tests::programs::product("xswitchd"));
    command.args(daemon.command().get_args());
    let child = running(&daemon, &mut command);
    for number in 0..3 {
        let file = std::fs::read_link(format!("/proc/{}/fd/{number}", child.0.id())).expect("it is open");
        assert_eq!(file.to_str(), Some("/dev/null"), "{number}");
    }
    let before = std::fs::read(daemon.path("state/state.redb")).expect("a state file");
    child.speak();
    assert!(std::fs::read(daemon.path("state/state.redb")).expect("it is there") == before, "the log went into it");
    works_and_ends(&daemon, child);
}

/// Runs a command line with an output that is gone, full or closed. Returns its exit code.
fn code(daemon: &Daemon, redirected: &str, words: &str) -> Option<i32> {
    let mut command = daemon.ns.command("bash");
    let line = format!("set -o pipefail; \"$0\" --run-dir \"$1\" {words} {redirected}");
    command.args(["-c", &line]).arg(tests::programs::product("xswitch")).arg(daemon.path("run"));
    shell::output(command.env("RUST_BACKTRACE", "0")).status.code()
}

#[test]
fn the_command_line_ends_quietly_when_nobody_reads_it() {
    let daemon = Daemon::start("quiet");
    for words in ["port list", "--json stats", "top --interval 0.05", "--help", "bridge show"] {
        assert_eq!(code(&daemon, "| true", words), Some(0), "{words}");
    }
    assert_eq!(code(&daemon, "| head -c 8", "capture"), Some(0), "without a frame");
    // A refusal keeps its exit code, even if nobody can be told.
    for redirected in ["2>/dev/full", "2>&-", "2> >(true)"] {
        assert_eq!(code(&daemon, redirected, "port show nothing"), Some(1), "{redirected}");
        assert_eq!(code(&daemon, redirected, "qemu run nothing -- true"), Some(125), "{redirected}");
    }
    assert_eq!(code(&daemon, ">/dev/full", "port list"), Some(1), "what can't be written is an error");
    let mut reader = Command::new(tests::programs::product("xswitchd"));
    let mut child = reader.arg("--doctor").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    drop(child.stdout.take());
    assert!(child.wait().expect("it ends").success());
    daemon.finish();
}
