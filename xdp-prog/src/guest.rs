//! The program on the guest's end of a port: attached by a pinned link, its sockets in a pinned map.
//!
//! What is pinned is in a directory of the port's own: `link`, `sockets` (an XSKMAP, a slot a queue) and `counters`. A daemon
//! that starts again finds it there, puts its own version of the program into the link, and the guest's sockets, which are in
//! the map, get their packets all the while.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::attach::{Attached, Mode, ModeRequest, XdpLink, attach};
use crate::counters::QueueCounters;
use crate::error::Error;
use crate::guest_skeleton::GuestSkelBuilder;
use crate::program::{MAX_QUEUES, explain_load_error};
use crate::query::{self, attached_programs};

const LINK: &str = "link";
const SOCKETS: &str = "sockets";
const COUNTERS: &str = "counters";
/// How long another daemon may take to mount a BPF file system.
const MOUNTING: Duration = Duration::from_secs(2);
/// Where the kernel's type information is, if it has some.
const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";

/// What a guest's program is for, and where it is pinned.
#[derive(Clone, Debug)]
pub struct GuestOptions {
    /// Netdev, for messages.
    pub ifname: String,
    /// Its index in the caller's namespace.
    pub ifindex: u32,
    /// Queues of the port, 1 to [`MAX_QUEUES`].
    pub queues: u32,
    /// Directory of the port's own on a BPF file system. Its name and those above it must have no dot.
    pub pins: PathBuf,
}

/// A program on a guest's end. Dropping it leaves it there; [`GuestProgram::remove`] takes it off.
#[derive(Debug)]
pub struct GuestProgram {
    options: GuestOptions,
    link: XdpLink,
    mode: Mode,
    sockets: MapHandle,
    counters: MapHandle,
}

/// Tag of this version's program, once it was loaded: loading takes the verifier's time, and a daemon that starts again finds
/// its own program at every guest but the first.
static CURRENT: Mutex<Option<[u8; 8]>> = Mutex::new(None);

/// Whether the program with that id is this version's.
fn is_current(id: u32) -> bool {
    let current = *CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    let tag = || query::info(&query::by_id(id)?).ok().map(|info| info.tag);
    current.is_some() && tag() == current
}

/// Maps that a program of another version left.
struct Pinned<'a> {
    sockets: &'a MapHandle,
    counters: &'a MapHandle,
}

/// A program that was taken up.
#[derive(Debug)]
pub struct Resumed {
    /// The program.
    pub program: GuestProgram,
    /// Why this version's could not take the place of the one that was there, which then goes on.
    pub replace_failed: Option<Error>,
}

impl GuestProgram {
    /// Takes up what is pinned for that netdev, and puts this version's program into its link. `None` if nothing is pinned, or
    /// what is pinned is on another netdev or on none, or is not all there (then it is removed).
    ///
    /// # Errors
    /// [`Error::Queues`] or [`Error::System`], and what is pinned goes on as it is.
    pub fn resume(options: &GuestOptions) -> Result<Option<Resumed>, Error> {
        check_queues(options)?;
        let Some(link) = XdpLink::pinned(&options.pins.join(LINK))? else {
            forget_pins(&options.pins)?;
            return Ok(None);
        };
        // Program ids are unique in the whole system, netdev indices in a namespace only.
        let id = link.program_id()?;
        let Some(mode) = attached_programs(options.ifindex)?.iter().find(|on| on.id == id).map(|on| on.mode) else {
            forget_pins(&options.pins)?;
            return Ok(None);
        };
        if [SOCKETS, COUNTERS].iter().any(|name| !options.pins.join(name).exists()) {
            // Somebody has removed some of it: nothing can be made of the rest.
            forget_pins(&options.pins)?;
            return Ok(None);
        }
        let map = |name: &str| {
            let path = options.pins.join(name);
            MapHandle::from_pinned_path(&path)
                .map_err(|error| Error::system(format!("opening the pinned map {}", path.display()), &error))
        };
        let (sockets, counters) = (map(SOCKETS)?, map(COUNTERS)?);
        let mut replace_failed = None;
        if !is_current(id) {
            let pinned = Pinned { sockets: &sockets, counters: &counters };
            let replaced = load(&options.ifname, Some(&pinned)).and_then(|loaded| link.replace(loaded.0.as_fd()));
            replace_failed = replaced.err();
        }
        let program = Self { options: options.clone(), link, mode, sockets, counters };
        Ok(Some(Resumed { program, replace_failed }))
    }

    /// Loads the program, pins its maps, attaches it and pins the link.
    ///
    /// # Errors
    /// Those of loading and attaching; nothing is left pinned.
    pub fn attach(options: &GuestOptions, request: ModeRequest) -> Result<(Self, Attached), Error> {
        check_queues(options)?;
        let (program, mut sockets, mut counters) = load(&options.ifname, None)?;
        let pins = &options.pins;
        // What is there is of a port that is gone, or of a start that was cut off.
        forget_pins(pins)?;
        make_dirs(pins).map_err(|error| pins_error("making", pins, &error))?;
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
                // What went wrong first is what is told; the next attempt tries again to remove them.
                let _ = forget_pins(pins);
                Err(error)
            }
        }
    }

    /// Puts a socket, which need not be bound, into the slot of a queue unless another one is there; says whether it is in.
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

    /// Takes the socket out of the slot of a queue, if there is one.
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

    /// Path of the pinned XSKMAP; the slot of a queue has the queue's number.
    pub fn map_path(&self) -> PathBuf {
        self.options.pins.join(SOCKETS)
    }

    /// Takes it off its netdev and removes what is pinned.
    pub fn remove(self) -> Result<(), Error> {
        self.link.detach()?;
        forget_pins(&self.options.pins)
    }
}

/// Makes a directory and those above it, though others may remove those that are empty meanwhile.
fn make_dirs(dir: &Path) -> io::Result<()> {
    let mut tries = 0..10;
    loop {
        match fs::create_dir_all(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries.next().is_some() => {}
            result => return result,
        }
    }
}

fn check_queues(options: &GuestOptions) -> Result<(), Error> {
    if (1..=MAX_QUEUES).contains(&options.queues) {
        return Ok(());
    }
    Err(Error::Queues { ifname: options.ifname.clone(), queues: options.queues, max: MAX_QUEUES })
}

fn load(ifname: &str, pinned: Option<&Pinned<'_>>) -> Result<(OwnedFd, MapHandle, MapHandle), Error> {
    let failed = |error: &libbpf_rs::Error| {
        let advice = match Path::new(KERNEL_TYPES).exists() {
            true => "",
            false => "; the kernel's type information (CONFIG_DEBUG_INFO_BTF) is needed for it",
        };
        Error::Load { ifname: ifname.to_owned(), why: explain_load_error(error) + advice }
    };
    let mut storage = MaybeUninit::uninit();
    let mut open = GuestSkelBuilder::default().open(&mut storage).map_err(|error| failed(&error))?;
    if let Some(Pinned { sockets, counters }) = pinned {
        open.maps.sockets.reuse_fd(sockets.as_fd()).map_err(|error| failed(&error))?;
        open.maps.counters.reuse_fd(counters.as_fd()).map_err(|error| failed(&error))?;
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

fn pins_error(doing: &str, path: &Path, error: &io::Error) -> Error {
    Error::system(format!("{doing} {}, where links and maps of guests are pinned", path.display()), error)
}

/// Removes a port's directory of pins, if it is there, and those above it that are empty then, two at most: what is pinned there lives on only where somebody has it open.
pub fn forget_pins(pins: &Path) -> Result<(), Error> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(pins_error("removing", pins, &error)),
        _ => Ok(()),
    };
    for name in [LINK, SOCKETS, COUNTERS] {
        gone(fs::remove_file(pins.join(name)))?;
    }
    gone(fs::remove_dir(pins))?;
    // Those above were made for it, and go with the last that was in them: the switch's own, and that of all switches.
    let above = pins.ancestors().skip(1).take(2);
    above.take_while(|dir| fs::remove_dir(dir).is_ok()).for_each(drop);
    Ok(())
}

/// Sees to it that `path` is (on) a BPF file system: mounts one if it is an empty directory of another kind, as it is at
/// `/sys/fs/bpf` where no service manager has done so.
///
/// # Errors
/// If it is neither, or can't be mounted.
pub fn bpffs_at(path: &Path) -> Result<(), Error> {
    let is_bpffs = || statfs(path).map(|stat| stat.filesystem_type() == BPF_FS_MAGIC);
    let failed = |what: &str, errno: Errno| {
        let advice = match errno {
            Errno::ENOENT => ": the kernel has no BPF file system, or sysfs is not mounted",
            Errno::EPERM | Errno::EACCES => ": CAP_SYS_ADMIN is needed, or somebody who mounts it before",
            _ => "",
        };
        Error::system(
            format!("{what} {}, where links and maps of guests are pinned", path.display()),
            &format!("{errno}{advice}"),
        )
    };
    if is_bpffs().map_err(|errno| failed("looking at", errno))? {
        return Ok(());
    }
    // Two daemons that start at a time must not mount one over the other's.
    let mut dir = fs::File::open(path).map_err(|error| pins_error("opening", path, &error))?;
    let deadline = Instant::now() + MOUNTING;
    let _turn = loop {
        match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
            Ok(turn) => break turn,
            // Anybody could hold it.
            Err((_, errno)) if errno != Errno::EWOULDBLOCK || Instant::now() >= deadline => {
                return Err(failed("locking", errno));
            }
            Err((unlocked, _)) => dir = unlocked,
        }
        std::thread::sleep(Duration::from_millis(10));
        if is_bpffs().map_err(|errno| failed("looking at", errno))? {
            return Ok(());
        }
    };
    if is_bpffs().map_err(|errno| failed("looking at", errno))? {
        return Ok(());
    }
    let is_empty = fs::read_dir(path).map_err(|error| pins_error("opening", path, &error))?.next().is_none();
    if !is_empty {
        return Err(failed("mounting a BPF file system at", Errno::ENOTEMPTY));
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), path, Some("bpf"), flags, Some("mode=0700"))
        .map_err(|errno| failed("mounting a BPF file system at", errno))
}
