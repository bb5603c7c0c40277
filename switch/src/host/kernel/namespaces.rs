//! Doing something in another network namespace.
//!
//! A namespace is a property of a thread. So each visit has a thread of its own that ends with it. The caller's
//! thread and the daemon's other threads stay where they are.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::host::Namespace;
use crate::{Error, ErrorKind};

/// Where `ip netns` keeps them.
const NAMED: &str = "/run/netns";

/// Opens the namespace of that name, as `ip netns` makes them.
pub fn open(name: &str) -> Result<Namespace, Error> {
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
    Ok(Namespace::named(name, file.into()))
}

/// Every namespace that has a name and can be opened.
pub fn all() -> Vec<Namespace> {
    let Ok(entries) = std::fs::read_dir(NAMED) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).filter_map(|name| open(&name).ok()).collect()
}

/// The namespace of the calling thread.
pub fn current() -> std::io::Result<OwnedFd> {
    File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
}

/// Runs `work` in a namespace.
pub fn run<T: Send>(namespace: &Namespace, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    let Some(file) = namespace.file() else { return work() };
    let enter_and_work = || {
        setns(file, CloneFlags::CLONE_NEWNET).map_err(|errno| {
            let name = namespace.name().unwrap_or_default();
            Error::new(
                ErrorKind::System,
                format!("network namespace `{name}` can't be entered ({errno}): CAP_SYS_ADMIN is needed"),
            )
        })?;
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
