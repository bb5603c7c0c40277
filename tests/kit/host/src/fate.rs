//! How calls go.

use std::collections::BTreeMap;

use nix::errno::Errno;
use switch::{Error, ErrorKind};

/// A kind of call that control makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// Make a veth pair.
    MakePair,
    /// Change a netdev: address, MTU, offloads, up or down.
    Change,
    /// Move a netdev to another namespace.
    MoveTo,
    /// Delete a netdev.
    Delete,
    /// Make a tap.
    MakeTap,
    /// Make the tap of a port.
    MakePortTap,
    /// Give a tap to another user or group.
    GiveTap,
    /// Redirect all that comes in by a netdev.
    Redirect,
    /// Load a port's program.
    LoadProgram,
    /// Have a program send packets to a queue.
    SetSocket,
    /// Attach a port's program.
    Attach,
    /// Detach a port's program.
    Detach,
    /// Change a steering set.
    SetSteering,
    /// Attach a program to a guest's end.
    AttachGuestEnd,
    /// Open a queue.
    OpenQueue,
    /// Make a netdev promiscuous.
    MakePromiscuous,
    /// Have group-addressed frames copied.
    CopyGroupFrames,
    /// Open a way to send frames beside the queues.
    OpenFrameSocket,
    /// Open sockets for a guest.
    OpenGuestSockets,
    /// Open the file in which positions of rings outlive the process.
    OpenJournal,
}

impl Call {
    /// All kinds.
    pub const ALL: [Self; 20] = [
        Self::MakePair,
        Self::Change,
        Self::MoveTo,
        Self::Delete,
        Self::MakeTap,
        Self::MakePortTap,
        Self::GiveTap,
        Self::Redirect,
        Self::LoadProgram,
        Self::SetSocket,
        Self::Attach,
        Self::Detach,
        Self::SetSteering,
        Self::AttachGuestEnd,
        Self::OpenQueue,
        Self::MakePromiscuous,
        Self::CopyGroupFrames,
        Self::OpenFrameSocket,
        Self::OpenGuestSockets,
        Self::OpenJournal,
    ];
}

/// What a call of a kind does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// What it is for.
    #[default]
    Works,
    /// It works so many times, and fails from then on.
    FailsAfter(u32, Errno),
    /// It fails.
    Fails(Errno),
    /// It fails once.
    FailsOnce(Errno),
    /// It works so many times, fails once, and works again.
    FailsOnceAfter(u32, Errno),
}

/// Carries out the fate of a call for a netdev.
pub(crate) fn meet(fates: &mut BTreeMap<Call, Fate>, call: Call, netdev: &str) -> Result<(), Error> {
    let Some(fate) = fates.get_mut(&call) else { return Ok(()) };
    let errno = match *fate {
        Fate::Works => return Ok(()),
        Fate::FailsAfter(0, errno) | Fate::Fails(errno) => errno,
        Fate::FailsAfter(more, errno) => {
            *fate = Fate::FailsAfter(more - 1, errno);
            return Ok(());
        }
        Fate::FailsOnceAfter(more @ 1.., errno) => {
            *fate = Fate::FailsOnceAfter(more - 1, errno);
            return Ok(());
        }
        Fate::FailsOnce(errno) | Fate::FailsOnceAfter(_, errno) => {
            *fate = Fate::Works;
            errno
        }
    };
    let kind = match errno {
        Errno::EBUSY => ErrorKind::Busy,
        Errno::EEXIST => ErrorKind::Exists,
        Errno::ENOENT | Errno::ENODEV => ErrorKind::NotFound,
        Errno::EOPNOTSUPP => ErrorKind::Unsupported,
        Errno::EPERM | Errno::EACCES => ErrorKind::Denied,
        Errno::EINVAL => ErrorKind::Invalid,
        _ => ErrorKind::System,
    };
    Err(Error::new(kind, format!("{call:?} of {netdev}: {errno}")))
}
