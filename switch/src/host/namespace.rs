//! Network namespaces: the switch's own, and named ones for guests.
//!
//! A named namespace is not held open. It ends when its owner deletes it, and takes its netdevs with it. So it is
//! told by its inode, and opened for each visit.

use std::fmt;
use std::sync::Arc;

/// A network namespace.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Namespace {
    /// That of the calling thread, which is the switch's.
    #[default]
    Here,
    /// One that has a name (`ip netns`). It stays the same if the name is given to another.
    Named(Arc<Named>),
}

/// A named namespace.
#[derive(PartialEq, Eq)]
pub struct Named {
    name: String,
    inode: NamespaceId,
}

/// Device and inode of the file that stands for a namespace (`stat(2)`). No two namespaces that exist have the same.
pub type NamespaceId = (u64, u64);

impl Namespace {
    /// The namespace of that name, with the identity that it had when the name was looked up.
    pub fn named(name: impl Into<String>, inode: NamespaceId) -> Self {
        Self::Named(Arc::new(Named { name: name.into(), inode }))
    }

    /// Its name, if it is not the switch's own.
    pub fn name(&self) -> Option<&str> {
        match self {
            Namespace::Here => None,
            Namespace::Named(named) => Some(&named.name),
        }
    }
}

impl Named {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What tells it from others of its name.
    pub fn inode(&self) -> NamespaceId {
        self.inode
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
