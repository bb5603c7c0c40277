//! Doing something in another network namespace.
//!
//! A namespace is a property of a thread. So each visit has a thread of its own that ends with it. The caller's
//! thread and the daemon's other threads stay where they are.
//!
//! A descriptor of a namespace keeps the namespace, with all netdevs in it. So none is held longer than a visit.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::host::{Named, Namespace, NamespaceId};
use crate::{Error, ErrorKind};

/// Where `ip netns` keeps them.
pub const NAMED: &str = "/run/netns";

/// Looks up the namespace of that name, as `ip netns` makes them.
pub fn look_up(name: &str) -> Result<Namespace, Error> {
    let plain = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
    if !plain {
        return Err(Error::new(ErrorKind::Invalid, format!("netns: `{name}` is not the name of a network namespace")));
    }
    let missing = |why: &dyn std::fmt::Display| {
        let advice = format!("make it with `ip netns add {name}`");
        let what = format!("netns: network namespace `{name}` can't be opened ({why}): {advice}");
        Error::new(ErrorKind::NotFound, what)
    };
    let file = File::open(Path::new(NAMED).join(name)).map_err(|error| missing(&error))?;
    if !is_namespace(&file) {
        return Err(missing(&"its name is there, and no namespace behind it"));
    }
    Ok(Namespace::named(name, inode(&file).map_err(|error| missing(&error))?))
}

/// Opens a namespace that was looked up, for a visit.
///
/// # Errors
/// `NotFound`: it is gone, or another one has its name.
pub fn open(named: &Named) -> Result<OwnedFd, Error> {
    let name = named.name();
    let gone = || Error::new(ErrorKind::NotFound, format!("network namespace `{name}` is gone"));
    let file = File::open(Path::new(NAMED).join(name)).map_err(|_| gone())?;
    match inode(&file) {
        Ok(inode) if inode == named.inode() && is_namespace(&file) => Ok(file.into()),
        _ => Err(gone()),
    }
}

fn inode(file: &File) -> std::io::Result<NamespaceId> {
    file.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Every namespace that has a name and can be opened.
pub fn all() -> Vec<Namespace> {
    let Ok(entries) = std::fs::read_dir(NAMED) else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| look_up(&name).ok())
        .collect()
}

/// The namespace of the calling thread.
pub fn current() -> std::io::Result<OwnedFd> {
    File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
}

/// Runs `work` in a namespace.
pub fn run<T: Send>(namespace: &Namespace, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    let Namespace::Named(named) = namespace else { return work() };
    let enter_and_work = || {
        let file = open(named)?;
        setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| {
            let name = named.name();
            Error::new(
                ErrorKind::System,
                format!("network namespace `{name}` can't be entered ({errno}): CAP_SYS_ADMIN is needed"),
            )
        })?;
        drop(file);
        work()
    };
    std::thread::scope(|scope| {
        let done = scope.spawn(enter_and_work).join();
        done.unwrap_or_else(|_| Err(Error::new(ErrorKind::System, "a helper thread panicked")))
    })
}

/// Whether a file stands for a namespace. The name of one that is being made, or was not taken away in full, is an
/// ordinary file.
fn is_namespace(file: &File) -> bool {
    fstatfs(file).is_ok_and(|stat| stat.filesystem_type() == NSFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_namespace_behind_it_is_none() {
        assert!(is_namespace(&File::open("/proc/self/ns/net").unwrap()));
        assert!(!is_namespace(&tempfile::tempfile().unwrap()));
    }
}
