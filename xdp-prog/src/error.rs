//! The crate's error.

use nix::errno::Errno;

use crate::attach::Mode;
use crate::query::ForeignProgram;

/// Kind of an error, for callers that map it to codes of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Somebody else's program or socket is in the way.
    Busy,
    /// The driver or the kernel can't do it.
    Unsupported,
    /// A map is full.
    Full,
    /// The system refused.
    System,
}

/// What went wrong with a program, and what to do about it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Another program is on the netdev.
    #[error(
        "{ifname} has an XDP program of somebody else: {program}; xswitch replaces none: stop what attached it, or take it off \
         yourself (`ip link set dev {ifname} {} off`; if the kernel then says that it is a BPF link, only ending what holds \
         the link does: `bpftool link`)",
        // Plain `xdp off` means the driver's hook. It leaves a generic program in place, without an error.
        match program.mode { Mode::Native => "xdpdrv", Mode::Generic => "xdpgeneric" }
    )]
    Foreign {
        /// Netdev.
        ifname: String,
        /// The other program.
        program: ForeignProgram,
    },
    /// The program is attached already.
    #[error("the XDP program of {ifname} is attached already, in {mode} mode: detach it first")]
    Attached {
        /// Netdev.
        ifname: String,
        /// Mode in force.
        mode: Mode,
    },
    /// The number of queues is out of range.
    #[error("{ifname}: {queues} queues are out of range, 1 to {max} are possible")]
    Queues {
        /// Netdev.
        ifname: String,
        /// Queues asked for.
        queues: u32,
        /// Highest number of queues of a port.
        max: u32,
    },
    /// The kernel refused the program.
    #[error("loading the XDP program for {ifname}: {why}")]
    Load {
        /// Netdev.
        ifname: String,
        /// Reason and advice.
        why: String,
    },
    /// The program can't be attached in the requested mode.
    #[error("{why}")]
    Attach {
        /// Kernel's error.
        errno: Errno,
        /// Reason and advice, naming netdev and mode.
        why: String,
    },
    /// The steering set is full.
    #[error(
        "the steering set of {ifname} is full: {max} stations can share a NIC with the host; use steering all, or fewer"
    )]
    SteeringFull {
        /// Netdev.
        ifname: String,
        /// Capacity.
        max: u32,
    },
    /// A call that should not fail did.
    #[error("{what}: {why}")]
    System {
        /// What was tried.
        what: String,
        /// What the kernel or libbpf said.
        why: String,
    },
}

impl Error {
    /// The kind of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Foreign { .. }
            | Error::Attached { .. }
            | Error::Attach { errno: Errno::EBUSY | Errno::EEXIST, .. } => ErrorKind::Busy,
            Error::Attach { errno: Errno::EPERM | Errno::ENOMEM | Errno::ENODEV, .. } => ErrorKind::System,
            Error::Attach { .. } | Error::Queues { .. } => ErrorKind::Unsupported,
            Error::SteeringFull { .. } => ErrorKind::Full,
            Error::Load { .. } | Error::System { .. } => ErrorKind::System,
        }
    }

    pub(crate) fn system(what: impl Into<String>, why: &impl std::fmt::Display) -> Self {
        // The alternate form shows an error's chain of causes.
        Self::System { what: what.into(), why: format!("{why:#}") }
    }
}
