//! The mark of pairs that the switch makes (`IFLA_IFALIAS`): which switch, and for which port.
//!
//! By it a pair is found again after a restart, whatever it is called by then, and removed if no port has it.

use crate::host::{Host, Link};

/// What marks begin with. Earlier versions had nothing behind it.
const BEGIN: &str = "xswitch";
/// Longest name of an instance that is written out, in bytes; an alias has 255.
const MAX_INSTANCE: usize = 120;

/// The marks of a switch.
#[derive(Debug)]
pub struct Mark {
    begin: String,
}

impl Mark {
    /// Those of the switch on this host.
    pub fn of(host: &dyn Host) -> Self {
        let instance = host.instance();
        // Of a long name the end tells more than the beginning, and its length is told too.
        let from = instance.len().saturating_sub(MAX_INSTANCE);
        let end = instance.get(from..).unwrap_or_default();
        Self { begin: format!("{BEGIN} {end}#{} ", instance.len()) }
    }

    /// The mark of a port's pair.
    pub fn for_port(&self, port: &str) -> String {
        format!("{}{port}", self.begin)
    }

    /// The port that this switch made a netdev for, if it did.
    pub fn port_of<'a>(&self, link: &'a Link) -> Option<&'a str> {
        link.alias.as_deref()?.strip_prefix(self.begin.as_str()).filter(|_| link.is_veth)
    }

    /// Whether a switch made a netdev, whichever. A mark of an earlier version does not say which.
    pub fn is_on(link: &Link) -> bool {
        link.is_veth && link.alias.as_deref().is_some_and(|alias| alias == BEGIN || Self::names_one(alias))
    }

    /// Whether another switch made a netdev.
    pub fn is_anothers(host: &dyn Host, link: &Link) -> bool {
        let alias = link.alias.as_deref().filter(|_| link.is_veth);
        alias.is_some_and(|alias| Self::names_one(alias) && !alias.starts_with(&Self::of(host).begin))
    }

    fn names_one(alias: &str) -> bool {
        alias.strip_prefix(BEGIN).is_some_and(|rest| rest.starts_with(' ') && rest.contains('#'))
    }
}
