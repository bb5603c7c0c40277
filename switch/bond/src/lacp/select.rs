//! Selection: which aggregator a port joins, and which aggregator carries the bond's traffic.
//!
//! Ports join an aggregator if they have the same key, and their partners have the same system, priority and key
//! (IEEE 802.1AX-2008, 5.4.14). Others have one each. Which one is active is not in the standard. It is decided as in
//! the Linux bonding driver (`ad_select`).

use std::cmp::Ordering;
use std::collections::BTreeMap;

use model::MacAddr;

use super::Lacp;
use super::port::Port;
use crate::MemberId;
use crate::options::AdSelect;

/// What ports of one aggregator have in common: own key, and the partner's system, priority and key.
type LinkGroup = (u16, MacAddr, u16, u16);

fn link_group(port: &Port) -> Option<LinkGroup> {
    let partner = &port.partner;
    port.aggregatable().then_some((port.actor.key, partner.system, partner.system_priority, partner.key))
}

/// What aggregators are ranked by.
#[derive(Clone, Copy, Debug, Default)]
struct Rank {
    /// A partner has answered. So has none that it could be aggregated with, if this is off.
    has_partner: bool,
    /// Its ports may be aggregated.
    aggregatable: bool,
    /// Ports whose link is up.
    ports: u32,
    /// Mbit/s of those together.
    bandwidth: u64,
}

impl Rank {
    fn compare(self, other: Self, by: AdSelect) -> Ordering {
        let key = |rank: Self| {
            let ports = if by == AdSelect::Count { rank.ports } else { 0 };
            (rank.aggregatable, rank.has_partner, ports, rank.bandwidth)
        };
        key(self).cmp(&key(other))
    }
}

impl Lacp {
    /// Gives each port an aggregator that has none, and makes one the active one.
    pub(super) fn select(&mut self) {
        for id in self.ids() {
            if self.ports.get(&id).is_some_and(|port| !port.selected && port.leaving.is_none()) {
                let aggregator = self.find_aggregator(id);
                if let Some(port) = self.ports.get_mut(&id) {
                    port.detach();
                    port.aggregator = aggregator;
                    port.selected = true;
                }
            }
        }
        self.active = self.find_active();
    }

    /// The aggregator of ports that this one goes with, or one that nobody has.
    fn find_aggregator(&self, id: MemberId) -> u16 {
        let group = self.ports.get(&id).and_then(link_group);
        let others = || self.ports.iter().filter(|(other, port)| **other != id && port.selected);
        let mates = others().filter(|(_, port)| group.is_some() && link_group(port) == group);
        if let Some(aggregator) = mates.map(|(_, port)| port.aggregator).min() {
            return aggregator;
        }
        let free = |aggregator: u16| others().all(|(_, port)| port.aggregator != aggregator);
        let current = self.ports.get(&id).map_or(id.0, |port| port.aggregator);
        // There are more numbers than ports.
        [current, id.0].into_iter().chain(1..=u16::MAX).find(|&aggregator| free(aggregator)).unwrap_or(id.0)
    }

    fn find_active(&self) -> Option<u16> {
        let mut ranks: BTreeMap<u16, Rank> = BTreeMap::new();
        for port in self.ports.values().filter(|port| port.enabled() && port.selected && port.leaving.is_none()) {
            let rank = ranks.entry(port.aggregator).or_default();
            rank.has_partner |= port.has_partner();
            rank.aggregatable |= port.aggregatable();
            rank.ports += 1;
            rank.bandwidth += u64::from(port.link.speed.unwrap_or(0));
        }
        let by = self.config.select;
        let current = self.active.and_then(|id| Some((id, *ranks.get(&id)?)));
        // Only a better one takes the place of the active one, and then the first.
        let best = ranks.into_iter().fold(current, |best, (id, rank)| match best {
            Some((_, than)) if rank.compare(than, by) != Ordering::Greater => best,
            _ => Some((id, rank)),
        });
        match (current, best) {
            (Some((id, rank)), Some((_, best)))
                if by == AdSelect::Stable && (rank.has_partner || !best.has_partner) =>
            {
                Some(id)
            }
            _ => best.map(|(id, _)| id),
        }
    }
}
