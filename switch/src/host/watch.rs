//! Notifications of what changes on the machine.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::os::fd::BorrowedFd;

/// What was said to have changed. It is a hint where to look: the truth is asked for anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostChange {
    /// Indices of netdevs, of the switch's namespace or of another one.
    pub netdevs: BTreeSet<u32>,
    /// Anything may have changed: a namespace came or went, or notifications were lost.
    pub anything: bool,
}

impl HostChange {
    /// Whether a netdev of that index may have changed.
    pub fn touches(&self, index: u32) -> bool {
        self.anything || self.netdevs.contains(&index)
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.netdevs.is_empty() && !self.anything
    }
}

/// A subscription to notifications of netdevs, addresses and namespaces.
pub trait HostWatch: Debug + Send {
    /// The descriptor that is readable when something was said.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Takes what was said since the last call. Never waits.
    fn take(&mut self) -> HostChange;
}
