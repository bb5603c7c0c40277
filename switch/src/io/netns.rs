//! Work in another network namespace.
//!
//! A namespace is a property of a thread. So each visit has a thread of its own. All other threads stay where they are.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::{Error, ErrorKind};

/// A named network namespace, as `ip netns` makes them.
#[derive(Debug)]
pub struct NetNs {
    name: String,
    file: File,
}

impl NetNs {
    /// Opens the namespace of that name.
    pub fn open(name: &str) -> Result<Self, Error> {
        let plain = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
        if !plain {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("netns: `{name}` is not the name of a network namespace"),
            ));
        }
        let missing = |why: &dyn std::fmt::Display| {
            let advice = format!("make it with `ip netns add {name}`");
            let what = format!("netns: network namespace `{name}` can't be opened ({why}): {advice}");
            Error::new(ErrorKind::NotFound, what)
        };
        let file = File::open(Path::new("/run/netns").join(name)).map_err(|error| missing(&error))?;
        if !is_namespace(&file) {
            return Err(missing(&"its name is there, and no namespace behind it"));
        }
        Ok(Self { name: name.to_owned(), file })
    }

    /// Every namespace that has a name and can be opened.
    pub fn all() -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir("/run/netns") else { return Vec::new() };
        entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|name| Self::open(&name).ok())
            .collect()
    }

    /// The name of the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The open file that stands for the namespace.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Runs `work` on a new thread inside the namespace, and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        let enter_and_work = || {
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| {
                Error::new(
                    ErrorKind::System,
                    format!("network namespace `{}` can't be entered ({errno}): CAP_SYS_ADMIN is needed", self.name),
                )
            })?;
            work()
        };
        std::thread::scope(|scope| {
            let done = scope.spawn(enter_and_work).join();
            done.unwrap_or_else(|_| Err(Error::new(ErrorKind::System, "a helper thread panicked")))
        })
    }
}

/// Whether a file stands for a namespace. While a namespace is being made or removed, its name is an ordinary file.
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
