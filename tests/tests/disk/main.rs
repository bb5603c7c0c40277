//! Disks with QEMU at the other end: as the guest's front end, and as another back end for the same client.

mod guest;
mod reference;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The example that serves an image, in a process of its own.
struct Serve {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Serve {
    fn start(image: &Path, socket: &Path, more: &[&str]) -> Self {
        let tests = std::env::current_exe().expect("a path");
        let program = tests.parent().and_then(Path::parent).expect("a directory").join("examples/serve");
        assert!(program.exists(), "{} is missing: `cargo build -p disk --example serve`", program.display());
        let mut command = Command::new(program);
        command.arg(image).arg(socket).args(more).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let (input, output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let mut serve = Self { child, input, output: BufReader::new(output) };
        let line = serve.line();
        assert!(line.starts_with("serving"), "{line:?}");
        serve
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line.trim().to_owned()
    }

    /// Gives a command, and its answer.
    fn ask(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").expect("it reads");
        self.line()
    }

    fn ok(&mut self, command: &str) {
        assert_eq!(self.ask(command), "ok", "{command}");
    }

    fn kill(&mut self) {
        // SIGKILL.
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory with an image.
struct Place(tempfile::TempDir);

impl Place {
    fn new(mib: u64) -> Self {
        let place = Self(tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory"));
        std::fs::File::create(place.image()).and_then(|file| file.set_len(mib << 20)).expect("an image");
        place
    }

    fn image(&self) -> PathBuf {
        self.0.path().join("disk.img")
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("disk.sock")
    }
}
