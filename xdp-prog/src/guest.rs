//! The program on the guest's end of a port. Its link is pinned, and its sockets are in a pinned map.
//!
//! Each port has a directory of pins: `link`, `sockets` (an XSKMAP with a slot for each queue) and `counters`. A daemon
//! that starts again finds them, and puts its own version of the program into the link. The guest's sockets are in the
//! map, so they get their packets all the while.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::attach::{Attached, Mode, ModeRequest, XdpLink, attach};
use crate::counters::QueueCounters;
use crate::error::Error;
use crate::guest_skeleton::GuestSkelBuilder;
use crate::pins::{COUNTERS, LINK, SOCKETS, forget_pins, make_pins};
use crate::program::{MAX_QUEUES, explain_load_error};
use crate::query::{self, attached_programs};

/// The kernel's type information (BTF), if it has some.
const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";

/// Netdev and pins of a guest's program.
#[derive(Clone, Debug)]
pub struct GuestOptions {
    /// Name of the netdev, for messages.
    pub ifname: String,
    /// Index of the netdev in the caller's namespace.
    pub ifindex: u32,
    /// Queues of the port, 1 to [`MAX_QUEUES`].
    pub queues: u32,
    /// The port's directory of pins, on a BPF file system. Its path must have no dot.
    pub pins: PathBuf,
}

/// A program on a guest's end. It stays there after a drop. [`GuestProgram::remove`] detaches it.
#[derive(Debug)]
pub struct GuestProgram {
    options: GuestOptions,
    link: XdpLink,
    mode: Mode,
    sockets: MapHandle,
    counters: MapHandle,
}

/// Tag of this version's program, once it was loaded. Loading takes the verifier's time. A daemon that starts again
/// finds its own program at every guest but the first.
static CURRENT: Mutex<Option<[u8; 8]>> = Mutex::new(None);

/// Whether the program with that id is of this version.
fn is_current(id: u32) -> bool {
    let current = *CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    let tag = || query::info(&query::by_id(id)?).ok().map(|info| info.tag);
    current.is_some() && tag() == current
}

/// Maps for a program that is loaded.
enum Maps<'a> {
    /// New ones, for so many queues.
    New(u32),
    /// Those that a program of another version left.
    Pinned { sockets: &'a MapHandle, counters: &'a MapHandle },
}

/// A program that was taken up.
#[derive(Debug)]
pub struct Resumed {
    /// The program.
    pub program: GuestProgram,
    /// Why this version's program could not replace the pinned one, which then goes on.
    pub replace_failed: Option<Error>,
}

impl GuestProgram {
    /// Takes up the pins of that netdev, and puts this version's program into the link. `None` if nothing usable is
    /// pinned. Pins of another netdev, of none, or incomplete ones are removed.
    ///
    /// # Errors
    /// [`Error::Queues`] or [`Error::System`]. The pinned program goes on as it is.
    pub fn resume(options: &GuestOptions) -> Result<Option<Resumed>, Error> {
        check_queues(options)?;
        let Some(link) = XdpLink::pinned(&options.pins.join(LINK))? else {
            forget_pins(&options.pins)?;
            return Ok(None);
        };
        // Program ids are unique in the whole system. Netdev indices are so in a namespace only.
        let id = link.program_id()?;
        let Some(mode) = attached_programs(options.ifindex)?.iter().find(|on| on.id == id).map(|on| on.mode) else {
            forget_pins(&options.pins)?;
            return Ok(None);
        };
        if [SOCKETS, COUNTERS].iter().any(|name| !options.pins.join(name).exists()) {
            // Somebody has removed some pins. The rest is of no use.
            forget_pins(&options.pins)?;
            return Ok(None);
        }
        let map = |name: &str| {
            let path = options.pins.join(name);
            MapHandle::from_pinned_path(&path)
                .map_err(|error| Error::system(format!("opening the pinned map {}", path.display()), &error))
        };
        let (sockets, counters) = (map(SOCKETS)?, map(COUNTERS)?);
        if [&sockets, &counters].iter().any(|map| map.max_entries() < options.queues) {
            // They are those of a port that had fewer queues.
            forget_pins(&options.pins)?;
            return Ok(None);
        }
        let mut replace_failed = None;
        if !is_current(id) {
            let pinned = Maps::Pinned { sockets: &sockets, counters: &counters };
            let replaced = load(&options.ifname, &pinned).and_then(|loaded| link.replace(loaded.0.as_fd()));
            replace_failed = replaced.err();
        }
        let program = Self { options: options.clone(), link, mode, sockets, counters };
        Ok(Some(Resumed { program, replace_failed }))
    }

    /// Loads the program, pins its maps, attaches it and pins the link.
    ///
    /// # Errors
    /// Those of loading and attaching. Nothing is left pinned.
    pub fn attach(options: &GuestOptions, request: ModeRequest) -> Result<(Self, Attached), Error> {
        check_queues(options)?;
        let (program, mut sockets, mut counters) = load(&options.ifname, &Maps::New(options.queues))?;
        let pins = &options.pins;
        // Existing pins are left from a deleted port or an interrupted start.
        forget_pins(pins)?;
        make_pins(pins)?;
        let attached = (|| {
            for (map, name) in [(&mut sockets, SOCKETS), (&mut counters, COUNTERS)] {
                let path = pins.join(name);
                map.pin(&path)
                    .map_err(|error| Error::system(format!("pinning a map at {}", path.display()), &error))?;
            }
            let (link, attached) = attach(program.as_fd(), options.ifindex, &options.ifname, request)?;
            link.pin(&pins.join(LINK))?;
            Ok((link, attached))
        })();
        match attached {
            Ok((link, attached)) => {
                let options = options.clone();
                Ok((Self { options, link, mode: attached.mode, sockets, counters }, attached))
            }
            Err(error) => {
                // The first error is reported. The next attempt tries again to remove the pins.
                let _ = forget_pins(pins);
                Err(error)
            }
        }
    }

    /// Puts a socket into the slot of a queue, unless another one is there. It need not be bound. Returns whether it is
    /// in.
    pub fn offer(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<bool, Error> {
        let value = socket.as_raw_fd().to_ne_bytes();
        match self.sockets.update(&queue.to_ne_bytes(), &value, MapFlags::NO_EXIST) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == libbpf_rs::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(Error::system(
                format!("putting a socket for {} queue {queue} into the XSKMAP", self.options.ifname),
                &error,
            )),
        }
    }

    /// Empties the slot of a queue.
    pub fn withdraw(&self, queue: u32) -> Result<(), Error> {
        match self.sockets.delete(&queue.to_ne_bytes()) {
            Err(error) if error.kind() != libbpf_rs::ErrorKind::NotFound => Err(Error::system(
                format!("emptying the slot of {} queue {queue} in the XSKMAP", self.options.ifname),
                &error,
            )),
            _ => Ok(()),
        }
    }

    /// Counters of each queue of the port, summed over CPUs, since the program was first attached.
    pub fn counters(&self) -> Result<Vec<QueueCounters>, Error> {
        QueueCounters::read(&self.counters, self.options.queues, &self.options.ifname)
    }

    /// Mode in force.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Path of the pinned XSKMAP. A slot's number is its queue's.
    pub fn map_path(&self) -> PathBuf {
        self.options.pins.join(SOCKETS)
    }

    /// Detaches the program and removes the pins.
    pub fn remove(self) -> Result<(), Error> {
        self.link.detach()?;
        forget_pins(&self.options.pins)
    }
}

fn check_queues(options: &GuestOptions) -> Result<(), Error> {
    if (1..=MAX_QUEUES).contains(&options.queues) {
        return Ok(());
    }
    Err(Error::Queues { ifname: options.ifname.clone(), queues: options.queues, max: MAX_QUEUES })
}

/// The program and its maps: those that are pinned, or new ones for so many queues.
fn load(ifname: &str, maps: &Maps<'_>) -> Result<(OwnedFd, MapHandle, MapHandle), Error> {
    let failed = |error: &libbpf_rs::Error| {
        let advice = match Path::new(KERNEL_TYPES).exists() {
            true => "",
            false => "; the kernel's type information (CONFIG_DEBUG_INFO_BTF) is needed for it",
        };
        Error::Load { ifname: ifname.to_owned(), why: explain_load_error(error) + advice }
    };
    let mut storage = MaybeUninit::uninit();
    let mut open = GuestSkelBuilder::default().open(&mut storage).map_err(|error| failed(&error))?;
    match maps {
        Maps::New(queues) => {
            open.maps.sockets.set_max_entries(*queues).map_err(|error| failed(&error))?;
            open.maps.counters.set_max_entries(*queues).map_err(|error| failed(&error))?;
        }
        Maps::Pinned { sockets, counters } => {
            open.maps.sockets.reuse_fd(sockets.as_fd()).map_err(|error| failed(&error))?;
            open.maps.counters.reuse_fd(counters.as_fd()).map_err(|error| failed(&error))?;
        }
    }
    let skeleton = open.load().map_err(|error| failed(&error))?;
    let maps = || -> libbpf_rs::Result<_> {
        Ok((MapHandle::try_from(&skeleton.maps.sockets)?, MapHandle::try_from(&skeleton.maps.counters)?))
    };
    let (sockets, counters) = maps().map_err(|error| failed(&error))?;
    let program = skeleton.progs.xswitch_guest.as_fd().try_clone_to_owned();
    let program = program.map_err(|error| Error::system("keeping the XDP program", &error))?;
    if let Ok(info) = query::info(&program) {
        *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = Some(info.tag);
    }
    Ok((program, sockets, counters))
}
