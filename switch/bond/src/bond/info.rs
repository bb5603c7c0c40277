//! What `bond show` tells: as much as `/proc/net/bonding/BOND` does.

use model::MacAddr;

use super::{Bond, Collect};
use crate::MemberId;
use crate::lacp::{ActiveAggregator, PortStatus};
use crate::link::{Link, LinkState};

/// A member as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its number.
    pub id: MemberId,
    /// Name of its netdev.
    pub name: String,
    /// The netdev's own address.
    pub mac: MacAddr,
    /// Its link, as the kernel reports it.
    pub link: Link,
    /// Whether that counts as up.
    pub state: LinkState,
    /// How often it went down.
    pub failures: u64,
    /// It is being removed.
    pub leaving: bool,
    /// Which frames are taken from it.
    pub collect: Collect,
    /// Whether frames may go out by it.
    pub distributes: bool,
    /// Buckets whose frames go out by it now.
    pub buckets: usize,
    /// Mode `802.3ad` only: its port.
    pub lacp: Option<PortStatus>,
}

impl Bond {
    /// All members in the order of their numbers.
    pub fn members(&self) -> Vec<MemberInfo> {
        let senders = self.senders();
        let slots = self.buckets.slots();
        let info = |(&id, member): (&MemberId, &super::Member)| MemberInfo {
            id,
            name: member.name.clone(),
            mac: member.mac,
            link: member.link,
            state: member.state,
            failures: member.failures,
            leaving: member.leaving.is_some(),
            collect: self.collect(id),
            distributes: self.carrier && senders.contains(&id),
            buckets: slots.iter().filter(|slot| **slot == crate::buckets::Slot::Member(id)).count(),
            lacp: self.lacp.port(id),
        };
        self.members.iter().map(info).collect()
    }

    /// Whether the bond is up.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Mode `active-backup` only: the active member.
    pub fn active(&self) -> Option<MemberId> {
        self.active
    }

    /// Mode `802.3ad` only: the aggregator that is in use, if a link is up.
    pub fn aggregator(&self) -> Option<ActiveAggregator> {
        self.lacp.active()
    }

    /// Mode `802.3ad` only: address and priority of this system, as partners see it.
    pub fn system(&self) -> (MacAddr, u16) {
        let config = self.lacp.config();
        (config.system, config.system_priority)
    }
}
