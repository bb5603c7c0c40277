//! A guest under a restart policy. This process stays, and runs itself without the policy for each start.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::Context;
use ctl_stdio::complain;
use tokio::signal::unix::{SignalKind, signal};

use super::{CANNOT_RUN, Launch, NO_PROGRAM, NOT_LAUNCHED};

/// Pause before a failed guest is started again. It doubles with each failure, up to `LONGEST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After this run time a failure counts as the first one.
const SETTLED: Duration = Duration::from_secs(60);

/// What to do after a guest under a restart policy has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// End with this exit code.
    End(u8),
    /// Start it again.
    Again,
}

/// An exit code, of which the kernel keeps a byte.
fn exit_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// Decides what follows a guest's end. `told` means that a signal asked it to end, `first` that this was the first
/// start.
fn next(status: ExitStatus, told: bool, first: bool) -> Next {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => exit_code(code),
        (None, signal) => exit_code(128 + signal.unwrap_or_default()),
    };
    match code {
        0 => Next::End(0),
        code if told => Next::End(code),
        CANNOT_RUN | NO_PROGRAM => Next::End(code),
        // On a later start the daemon may just be restarting.
        NOT_LAUNCHED if first => Next::End(code),
        _ => Next::Again,
    }
}

/// Runs this program with `arguments` until it succeeds, can't be started at all, or receives a signal to end. Passes
/// signals on, and returns the exit code.
pub async fn keep_running(arguments: &[OsString]) -> anyhow::Result<u8> {
    let kinds = [
        (SignalKind::terminate(), libc::SIGTERM, true),
        (SignalKind::interrupt(), libc::SIGINT, true),
        (SignalKind::quit(), libc::SIGQUIT, true),
        (SignalKind::hangup(), libc::SIGHUP, true),
        (SignalKind::user_defined1(), libc::SIGUSR1, false),
        (SignalKind::user_defined2(), libc::SIGUSR2, false),
    ];
    let (sender, mut signals) = tokio::sync::mpsc::unbounded_channel();
    for (kind, number, ends) in kinds {
        let (mut stream, sender) = (signal(kind).context("waiting for signals")?, sender.clone());
        tokio::spawn(async move { while stream.recv().await.is_some() && sender.send((number, ends)).is_ok() {} });
    }
    let (mut first, mut pause, mut told) = (true, FIRST_PAUSE, false);
    loop {
        let started = Instant::now();
        // The file of this very program, even if it has been replaced on disk.
        let mut child =
            tokio::process::Command::new("/proc/self/exe").args(arguments).spawn().context("starting QEMU")?;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status.context("waiting for QEMU")?,
                Some((number, ends)) = signals.recv() => {
                    told |= ends;
                    pass_on(&child, number);
                }
            }
        };
        match next(status, told, first) {
            Next::End(code) => return Ok(code),
            Next::Again if started.elapsed() >= SETTLED => pause = FIRST_PAUSE,
            Next::Again => {}
        }
        complain(format_args!("xswitch: QEMU ended with {status}; it is started again in {} s", pause.as_secs()));
        first = false;
        let wait = tokio::time::sleep(pause);
        tokio::pin!(wait);
        loop {
            tokio::select! {
                () = &mut wait => break,
                Some((number, ends)) = signals.recv() => {
                    if ends {
                        return Ok(exit_code(128 + number));
                    }
                }
            }
        }
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

fn pass_on(child: &tokio::process::Child, number: i32) {
    let Some(pid) = child.id() else { return };
    if let Ok(signal) = nix::sys::signal::Signal::try_from(number) {
        // The child has not been reaped, so the number can't belong to another process.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal);
    }
}

/// Arguments for a single start under a restart policy: the same without the policy.
pub fn one_start(run_dir: &Path, launch: &Launch) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--run-dir".into(), run_dir.into(), "qemu".into(), "run".into()];
    arguments.extend(launch.ports.iter().map(|port| OsString::from(&port.name)));
    if let Some(net) = launch.net {
        arguments.extend(["--net".into(), net.word().into()]);
    }
    if let Some(user) = &launch.user {
        arguments.extend(["--user".into(), OsString::from(user)]);
    }
    arguments.push("--".into());
    arguments.extend(launch.command.iter().cloned());
    arguments
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::direct::Net;
    use crate::launch::LaunchPort;

    #[test]
    fn what_is_started_again_and_what_is_not() {
        let exit = |code: i32| ExitStatus::from_raw(code << 8);
        let killed = ExitStatus::from_raw(libc::SIGKILL);
        for (status, told, first, then) in [
            (exit(0), false, true, Next::End(0)),
            (exit(1), false, true, Next::Again),
            (killed, false, false, Next::Again),
            (killed, true, false, Next::End(137)),
            (exit(1), true, false, Next::End(1)),
            (exit(125), false, true, Next::End(125)),
            (exit(125), false, false, Next::Again),
            (exit(127), false, false, Next::End(127)),
        ] {
            assert_eq!(next(status, told, first), then, "{status} {told} {first}");
        }
    }

    #[test]
    fn one_start_is_the_same_command_without_the_policy() {
        let launch = Launch {
            run_dir: "/run/x".into(),
            ports: vec![LaunchPort { name: "vm1".into(), direct: None }],
            net: Some(Net::AfXdp),
            user: Some("nobody".into()),
            command: vec!["qemu".into(), "-m".into(), "1".into()],
        };
        let line = one_start(&launch.run_dir, &launch).join(OsStr::new(" "));
        assert_eq!(line, "--run-dir /run/x qemu run vm1 --net af-xdp --user nobody -- qemu -m 1");
    }
}
