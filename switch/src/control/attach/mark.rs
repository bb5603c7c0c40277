//! The mark of pairs and taps that the switch makes (`IFLA_IFALIAS`): which switch, and for which port.
//!
//! By it they are found again after a restart, whatever they are called by then, and removed if no port has them.

use crate::host::{Host, Link};
use crate::model::PortNo;

/// What marks begin with. Earlier versions had nothing behind it.
const BEGIN: &str = "xswitch";
/// Longest name of an instance that is written out, in bytes; an alias has 255.
const MAX_INSTANCE: usize = 120;

/// FNV-1a with 32 bits (RFC 9923).
const FNV_BASIS: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

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

    /// The port that this switch made a tap for, if it did.
    pub fn tap_port_of<'a>(&self, link: &'a Link) -> Option<&'a str> {
        link.alias.as_deref()?.strip_prefix(self.begin.as_str()).filter(|_| link.tap.is_some())
    }

    /// The name of a port's pair that has no mark yet.
    pub fn draft_name(&self, port: PortNo) -> String {
        format!("{}{port:x}", self.draft_begin("xs"))
    }

    /// The name of a port's tap that has no mark yet.
    pub fn draft_tap_name(&self, port: PortNo) -> String {
        format!("{}{port:x}", self.draft_begin("xt"))
    }

    fn draft_begin(&self, what: &str) -> String {
        let hash = self.begin.bytes().fold(FNV_BASIS, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(FNV_PRIME));
        format!("{what}~{hash:08x}")
    }

    /// Whether this switch was killed before it marked a pair.
    pub fn is_draft(&self, link: &Link) -> bool {
        link.is_veth && link.alias.is_none() && link.name.starts_with(&self.draft_begin("xs"))
    }

    /// Whether this switch was killed before it marked a tap.
    pub fn is_draft_tap(&self, link: &Link) -> bool {
        link.tap.is_some() && link.alias.is_none() && link.name.starts_with(&self.draft_begin("xt"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{MAX_IFNAME, TapState};
    use crate::model::MacAddr;

    fn link(name: &str, alias: Option<&str>) -> Link {
        let alias = alias.map(str::to_owned);
        Link {
            index: 1,
            name: name.to_owned(),
            mtu: 1500,
            max_mtu: 0,
            mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
            up: false,
            carrier: false,
            is_veth: true,
            peer: None,
            peer_nsid: None,
            alias,
            rx_queues: 1,
            tap: None,
            tx_dropped: 0,
        }
    }

    #[test]
    fn what_has_no_mark_is_known_by_its_draft_name() {
        let [one, other] = ["one", "other"].map(|begin| Mark { begin: begin.to_owned() });
        let name = one.draft_name(1023);
        assert!(name.len() <= MAX_IFNAME);
        assert!(one.is_draft(&link(&name, None)));
        assert!(!other.is_draft(&link(&name, None)));
        assert!(!one.is_draft(&link(&name, Some("mine"))));
        assert!(!one.is_draft(&Link { is_veth: false, ..link(&name, None) }));
        let name = one.draft_tap_name(1023);
        assert!(name.len() <= MAX_IFNAME);
        let tap = |name: &str, alias| Link { is_veth: false, tap: Some(TapState::default()), ..link(name, alias) };
        assert!(one.is_draft_tap(&tap(&name, None)) && !one.is_draft(&tap(&name, None)));
        assert!(!other.is_draft_tap(&tap(&name, None)) && !one.is_draft_tap(&link(&name, None)));
        assert!(!one.is_draft_tap(&tap(&name, Some("mine"))));
    }
}
