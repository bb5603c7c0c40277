//! The Link Aggregation Control Protocol (IEEE 802.1AX-2008), with the Linux bonding driver's selection of aggregators.
//!
//! Two systems tell each other, on each link, who they are and whether they want to use it. Links of the same pair of
//! systems with the same keys become one aggregator. One aggregator of the bond is active: its ports carry the traffic,
//! as soon as both ends are in sync. The others are held out of sync, so that their partners send nothing.
//!
//! [`Lacp`] has a port a link. It is given links ([`Lacp::set_link`]), frames ([`Lacp::receive`]) and the time
//! ([`Lacp::run`]), and gives back frames to send. Nothing grows with what a partner sends. Whatever it sends, a port
//! sends at most three LACPDUs and five marker responses in any second.
//!
//! If nobody answers for three seconds, the active aggregator is a single link, which is used without a partner. So a
//! bond works with a switch that is not configured yet, as with Linux.

mod churn;
pub mod pdu;
mod port;
mod rate;
mod select;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use model::MacAddr;

pub use churn::ChurnState;
pub use port::{Counters, MuxState, ReceiveState};
pub use state::PortState;

use crate::options::{AdSelect, LacpRate};
use crate::{Link, MemberId, Time, earliest};
use pdu::{Pdu, PduError, PortInfo};
use port::Port;

/// What all ports of a system have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LacpConfig {
    /// Address of the system.
    pub system: MacAddr,
    /// Its priority.
    pub system_priority: u16,
    /// Upper 10 bits of the keys.
    pub user_key: u16,
    /// What partners are asked for.
    pub rate: LacpRate,
    /// Whether ports send LACPDUs before the partner does.
    pub active: bool,
    /// Which aggregator is active.
    pub select: AdSelect,
}

impl LacpConfig {
    fn port_state(&self) -> PortState {
        let mut state = PortState::AGGREGATION;
        state.set(PortState::ACTIVITY, self.active);
        state.set(PortState::TIMEOUT, self.rate == LacpRate::Fast);
        state
    }
}

/// A port as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortStatus {
    /// About itself, as its partner is told.
    pub actor: PortInfo,
    /// About its partner, as it was told last.
    pub partner: PortInfo,
    /// Number of its aggregator.
    pub aggregator: u16,
    /// State of the receive machine.
    pub receive: ReceiveState,
    /// State of the mux machine.
    pub mux: MuxState,
    /// Whether the port itself gets into sync, and how often it did not within 60 s.
    pub actor_churn: (ChurnState, u64),
    /// The same of its partner.
    pub partner_churn: (ChurnState, u64),
    /// PDUs.
    pub counters: Counters,
}

/// The active aggregator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveAggregator {
    /// Its number.
    pub id: u16,
    /// Ports whose link is up.
    pub ports: usize,
    /// Key of this system's ports.
    pub actor_key: u16,
    /// Key of the partner's ports.
    pub partner_key: u16,
    /// Address of the partner's system. All zero: nobody has answered.
    pub partner: MacAddr,
}

/// All ports of a bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacp {
    config: LacpConfig,
    ports: BTreeMap<MemberId, Port>,
    active: Option<u16>,
    /// Frames to send, in order. At most a few a port between two calls of [`Lacp::take_frames`].
    out: Vec<(MemberId, Pdu)>,
}

impl Lacp {
    /// A system without ports.
    pub fn new(config: LacpConfig) -> Self {
        Self { config, ports: BTreeMap::new(), active: None, out: Vec::new() }
    }

    /// Its configuration.
    pub fn config(&self) -> &LacpConfig {
        &self.config
    }

    /// Changes the configuration. All ports start over, with their links as they are.
    pub fn set_config(&mut self, now: Time, config: LacpConfig) {
        self.config = config;
        self.active = None;
        for (&id, port) in &mut self.ports {
            let new = Port::new(id, config.system, config.system_priority, config.port_state());
            port.restart(now, new, config.user_key);
        }
        self.run(now);
    }

    /// Adds a port with its link down. A port of that number starts over.
    pub fn add(&mut self, id: MemberId) {
        let LacpConfig { system, system_priority, .. } = self.config;
        self.ports.insert(id, Port::new(id, system, system_priority, self.config.port_state()));
    }

    /// The link of a port changed. A link of half duplex can't be aggregated and is as one that is down.
    pub fn set_link(&mut self, now: Time, id: MemberId, link: Link) {
        let user_key = self.config.user_key;
        if let Some(port) = self.ports.get_mut(&id) {
            port.set_link(now, link, user_key);
        }
        self.run(now);
    }

    /// A port is to be removed: its partner is told to send nothing more. Call [`Lacp::remove`] once it
    /// [has left](Lacp::has_left).
    pub fn leave(&mut self, now: Time, id: MemberId) {
        if let Some(port) = self.ports.get_mut(&id) {
            port.leave(now);
        }
        self.run(now);
    }

    /// Whether the partner of a port that leaves has stopped, or has had its time to.
    pub fn has_left(&self, now: Time, id: MemberId) -> bool {
        self.ports.get(&id).is_none_or(|port| port.has_left(now))
    }

    /// Removes a port. Its last LACPDU says that it is no longer one to aggregate.
    pub fn remove(&mut self, now: Time, id: MemberId) {
        if let Some(mut port) = self.ports.remove(&id)
            && let Some(farewell) = port.farewell(now)
        {
            self.out.push((id, Pdu::Lacp(farewell)));
        }
        self.run(now);
    }

    /// A frame of the Slow Protocols came in at a port.
    ///
    /// # Errors
    /// If it is badly formed. It is counted, and nothing else happens.
    pub fn receive(&mut self, now: Time, id: MemberId, frame: &[u8]) -> Result<(), PduError> {
        let Some(port) = self.ports.get_mut(&id) else { return Ok(()) };
        let pdu = Pdu::parse(frame).inspect_err(|_| port.counters.illegal += 1)?;
        match pdu {
            Pdu::Lacp(pdu) if pdu.actor.system == port.actor.system => port.counters.loopbacks += 1,
            Pdu::Lacp(pdu) => {
                port.counters.lacpdus_in += 1;
                port.receive(now, &pdu);
                self.forget_moved(id, &pdu.actor);
            }
            Pdu::Marker(marker) => {
                port.counters.markers_in += 1;
                if port.markers.take(now) {
                    port.counters.marker_responses_out += 1;
                    self.out.push((id, Pdu::MarkerResponse(marker)));
                } else {
                    port.counters.markers_ignored += 1;
                }
            }
            Pdu::MarkerResponse(_) => port.counters.markers_ignored += 1,
            Pdu::Other { .. } => port.counters.illegal += 1,
        }
        self.run(now);
        Ok(())
    }

    /// A partner that is heard at another port has moved there (`port_moved`): a port whose link is down forgets it.
    fn forget_moved(&mut self, heard_at: MemberId, partner: &PortInfo) {
        let ports = self.ports.iter_mut().filter(|(id, port)| **id != heard_at && !port.enabled());
        for (_, port) in ports {
            if port.partner.system == partner.system && port.partner.port == partner.port {
                port.forget_partner();
            }
        }
    }

    /// Does all that is due.
    pub fn run(&mut self, now: Time) {
        self.ports.values_mut().for_each(|port| port.run_receive(now));
        self.select();
        for id in self.ids() {
            let Some(port) = self.ports.get(&id) else { continue };
            let aggregator = port.aggregator;
            let ready = self.ports.values().all(|port| port.aggregator != aggregator || port.ready(now));
            let active = self.active == Some(aggregator);
            if let Some(port) = self.ports.get_mut(&id) {
                port.run_mux(now, active, ready);
            }
        }
        for (&id, port) in &mut self.ports {
            port.run_periodic(now);
            port.run_churn(now);
            if let Some(pdu) = port.transmit(now) {
                self.out.push((id, Pdu::Lacp(pdu)));
            }
        }
    }

    /// Frames to send, in order.
    pub fn take_frames(&mut self) -> Vec<(MemberId, Pdu)> {
        std::mem::take(&mut self.out)
    }

    /// When [`Lacp::run`] has something to do next.
    pub fn deadline(&self, now: Time) -> Option<Time> {
        self.ports.values().map(|port| port.deadline(now)).fold(None, earliest)
    }

    /// Whether frames that come in at a port belong to the bond.
    pub fn collects(&self, id: MemberId) -> bool {
        self.ports.get(&id).is_some_and(|port| {
            port.enabled() && (port.actor.state.has(PortState::COLLECTING) || self.without_partner(port))
        })
    }

    /// Whether the bond's frames may go out at a port.
    pub fn distributes(&self, id: MemberId) -> bool {
        self.ports.get(&id).is_some_and(|port| {
            port.enabled() && (port.actor.state.has(PortState::DISTRIBUTING) || self.without_partner(port))
        })
    }

    /// Whether the port is used although nobody has answered.
    fn without_partner(&self, port: &Port) -> bool {
        self.active == Some(port.aggregator)
            && port.selected
            && port.leaving.is_none()
            && port.receive == ReceiveState::Defaulted
    }

    fn ids(&self) -> Vec<MemberId> {
        self.ports.keys().copied().collect()
    }

    /// A port as it is.
    pub fn port(&self, id: MemberId) -> Option<PortStatus> {
        self.ports.get(&id).map(|port| PortStatus {
            actor: port.actor,
            partner: port.partner,
            aggregator: port.aggregator,
            receive: port.receive,
            mux: port.mux,
            actor_churn: (port.actor_churn.state, port.actor_churn.count),
            partner_churn: (port.partner_churn.state, port.partner_churn.count),
            counters: port.counters,
        })
    }

    /// The active aggregator, if a link is up.
    pub fn active(&self) -> Option<ActiveAggregator> {
        let id = self.active?;
        let ports: Vec<_> = self.ports.values().filter(|port| port.aggregator == id && port.enabled()).collect();
        let first = ports.first()?;
        let (actor_key, partner_key, partner) = (first.actor.key, first.partner.key, first.partner.system);
        Some(ActiveAggregator { id, ports: ports.len(), actor_key, partner_key, partner })
    }
}
