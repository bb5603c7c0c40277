//! Standard error that can be full, slow or gone without harm.
//!
//! Its reader may have ended (EPIPE), its disk may be full (ENOSPC), or nobody may read the pipe. Then lines are lost,
//! and nothing else happens. `eprintln!` would panic or wait.
//!
//! The daemon writes through a [`Log`], which never waits. The command line says a line now and then, with
//! [`complain`]. Rust's runtime opens `/dev/null` for standard streams that are closed at the start, so no other file
//! gets their numbers.
//!
//! This crate depends on nothing else of the project.
#![forbid(unsafe_code)]

mod log;

use std::fmt::Display;
use std::io::Write;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use self::log::{Log, lost_lines};

/// Longest wait for room in standard error, in milliseconds.
const PATIENCE_MS: u16 = 1000;

/// Whether somebody can still read standard output. True for a file or a terminal.
pub fn output_has_reader() -> bool {
    let out = std::io::stdout();
    let mut fds = [PollFd::new(out.as_fd(), PollFlags::empty())];
    // A pipe without readers has POLLERR, a socket or terminal whose other end is gone POLLHUP.
    let over = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
    poll(&mut fds, PollTimeout::ZERO).is_err() || !fds[0].revents().is_some_and(|events| events.intersects(over))
}

/// Says a line on standard error. If that is not possible within a second, the line is lost.
pub fn complain(text: impl Display) {
    let mut out = std::io::stderr().lock();
    // A pipe with this flag takes at least 4,096 bytes at once (pipe(7)).
    let mut fds = [PollFd::new(out.as_fd(), PollFlags::POLLOUT)];
    let ready = poll(&mut fds, PollTimeout::from(PATIENCE_MS)).is_ok_and(|ready| ready > 0);
    if ready {
        let _ = out.write_all(format!("{text}\n").as_bytes());
    }
}
