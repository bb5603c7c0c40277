//! Network namespaces: the switch's own, and named ones for guests.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// A network namespace.
#[derive(Clone, Default)]
pub enum Namespace {
    /// That of the calling thread, which is the switch's.
    #[default]
    Here,
    /// One that has a name (`ip netns`), held open. So it stays the same if the name is given to another.
    Named(Arc<Named>),
}

/// A named namespace that is open.
pub struct Named {
    name: String,
    file: OwnedFd,
}

impl Namespace {
    /// The namespace of that name, which `file` stands for.
    pub fn named(name: impl Into<String>, file: OwnedFd) -> Self {
        Self::Named(Arc::new(Named { name: name.into(), file }))
    }

    /// Its name, if it is not the switch's own.
    pub fn name(&self) -> Option<&str> {
        match self {
            Namespace::Here => None,
            Namespace::Named(named) => Some(&named.name),
        }
    }

    /// The descriptor that stands for it, if it is not the switch's own.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Namespace::Here => None,
            Namespace::Named(named) => Some(named.file.as_fd()),
        }
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().unwrap_or("(here)"))
    }
}

impl fmt::Debug for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
