//! Addresses that the host has on NICs which it shares with the switch. They stay the host's.
//!
//! Packets for them are never steered to the switch. No port and no static entry may have one. What comes in from one
//! of them is dropped, and not learned: a guest forges it, or the host's own frame came back by another NIC.

use std::collections::BTreeMap;

use super::core::Core;
use crate::host::{Link, Netdev};
use crate::model::MacAddr;
use crate::{Error, ErrorKind};

/// The addresses, each with the name of its netdev.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HostAddresses(BTreeMap<MacAddr, String>);

impl HostAddresses {
    /// Those on the given NICs as they are now. Of a NIC that can't be looked at they are those that were `known`.
    pub fn on<'a>(core: &Core, nics: impl IntoIterator<Item = &'a Netdev>, known: &Self) -> Self {
        let mut nics = nics.into_iter().peekable();
        if nics.peek().is_none() {
            return Self::default();
        }
        let Ok(links) = core.host.list() else { return known.clone() };
        let mut addresses = BTreeMap::new();
        for nic in nics {
            for link in links.iter().filter(|link| link.index == nic.index || is_on(link, nic)) {
                addresses.entry(link.mac).or_insert_with(|| link.name.clone());
            }
        }
        addresses.remove(&MacAddr::ZERO);
        Self(addresses)
    }

    /// These and others.
    pub fn and(&self, others: Self) -> Self {
        let mut all = others.0;
        all.extend(self.0.iter().map(|(mac, name)| (*mac, name.clone())));
        Self(all)
    }

    /// The addresses, ascending.
    pub fn iter(&self) -> impl Iterator<Item = MacAddr> {
        self.0.keys().copied()
    }

    /// Whether it is one of them.
    pub fn contains(&self, mac: MacAddr) -> bool {
        self.0.contains_key(&mac)
    }

    /// Checks that a port or an entry of the MAC table may have an address.
    ///
    /// # Errors
    /// `Exists`: it is the host's.
    pub fn check(&self, mac: MacAddr) -> Result<(), Error> {
        let Some(ifname) = self.0.get(&mac) else { return Ok(()) };
        Err(Error::new(
            ErrorKind::Exists,
            format!(
                "mac: {mac} is the host's own address on {ifname}, a NIC that it shares with the switch: name another one"
            ),
        ))
    }
}

/// Whether a netdev is on top of a NIC: a VLAN or a macvlan, for example.
fn is_on(link: &Link, nic: &Netdev) -> bool {
    !link.is_veth && link.peer_nsid.is_none() && link.peer == Some(nic.index)
}
