//! Runs the system's tools (`ip`, `ethtool`, `ping`, …) and shows their output when they fail.

use std::process::{Command, Output};

/// Runs `command` to its end. Returns its output, whatever its exit code. Panics if it can't be started.
pub fn output(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; `make setup` installs the tools that tests use"))
}

/// Runs `command`. Returns its output. Panics with all of it unless the command succeeds.
pub fn run(command: &mut Command) -> String {
    let done = output(command);
    assert!(done.status.success(), "{command:?}: {}\n{}", done.status, text(&done));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Both outputs of a process, for messages.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A command from one line of words. No word may hold a blank.
pub fn words(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a command line names a program"));
    command.args(words);
    command
}
