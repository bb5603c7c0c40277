//! The primary's status: counters of ports and rings since the last clear, and flow rules.

use serde::Serialize;
use switch::model::{EndInfo, EndPort, MacAddr, PortInfo};

use crate::cleared::Cleared;
use crate::flow::PortRules;
use crate::{Instance, PortId, PortType, Proc, Spp, SppError};

/// The primary's status, with counters since the last clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PrimaryStatus {
    /// The primary.
    pub instance: Instance,
    /// Ports of the switch that have SPP names (`phy` and `vhost`), in the order of these names.
    pub ports: Vec<PortCounters>,
    /// Rings, by number.
    pub rings: Vec<EndInfo>,
    /// Flow rules of the ports that have any.
    pub flow: Vec<PortRules>,
}

impl PrimaryStatus {
    /// Names of the `phy` ports. A NIC with several queues is there queue by queue.
    pub fn nics(&self) -> Vec<PortId> {
        let nics = self.ports.iter().filter(|port| port.port.kind == PortType::Phy);
        nics.flat_map(|nic| queues(nic.port, nic.queues)).collect()
    }
}

/// Counters of a port that has an SPP name, in frames since the last clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortCounters {
    /// Name.
    pub port: PortId,
    /// The address of the port's station. The netdev's address if none is configured.
    pub mac: Option<MacAddr>,
    /// Frames that the switch received from the port.
    pub rx: u64,
    /// Frames that the switch sent to the port.
    pub tx: u64,
    /// Frames that the switch could not send to the port.
    pub tx_dropped: u64,
    /// Number of queues.
    pub queues: u32,
}

/// The names by which a NIC is offered: its own if it has one queue, else those of its queues.
fn queues(nic: PortId, count: u32) -> Vec<PortId> {
    match count {
        0 | 1 => vec![nic],
        _ => (0..count).map(|queue| PortId { queue: Some(queue), ..nic }).collect(),
    }
}

impl Spp {
    /// Names of the switch's `phy` ports. A NIC with several queues is there queue by queue, as in SPP.
    pub fn nics(&self) -> Vec<PortId> {
        let nic = |info: &PortInfo| {
            let port: PortId = info.spec.spp.as_deref()?.parse().ok()?;
            (port.kind == PortType::Phy).then_some((port, u32::try_from(info.queues.len()).ok()?))
        };
        let mut nics: Vec<_> = self.service.dataplane().ports_in_brief().iter().filter_map(nic).collect();
        nics.sort_unstable();
        nics.into_iter().flat_map(|(nic, count)| queues(nic, count)).collect()
    }

    /// The primary's status. Its counters start at the last clear.
    ///
    /// # Errors
    /// `NotFound`: there is no primary.
    pub fn primary_status(&self) -> Result<PrimaryStatus, SppError> {
        let instance = self.instance(Proc::PRIMARY)?;
        let (ports, rings) = (self.port_counters(), self.ring_counters());
        let inner = self.lock();
        let ports = ports.into_iter().map(|now| inner.cleared.port(now)).collect();
        let rings = rings.into_iter().map(|now| inner.cleared.ring(now)).collect();
        let rules = inner.flow_rules.iter().filter(|(_, rules)| !rules.is_empty());
        let flow = rules.map(|(&port, rules)| PortRules { port, rules: rules.clone() }).collect();
        Ok(PrimaryStatus { instance, ports, rings, flow })
    }

    fn ring_counters(&self) -> Vec<EndInfo> {
        self.ends().into_iter().filter(|end| matches!(end.end, EndPort::Ring(_))).collect()
    }

    fn port_counters(&self) -> Vec<PortCounters> {
        let dataplane = self.service.dataplane();
        let stats = dataplane.stats();
        let counters = |info: PortInfo| {
            let port = info.spec.spp.as_deref()?.parse().ok()?;
            let of = stats.ports.iter().find(|port| port.name == info.spec.name)?;
            let (rx, tx, tx_dropped) = (of.rx.packets, of.tx.packets, of.nic.rx_drop);
            let (mac, queues) = (info.spec.mac.or(info.mac), u32::try_from(info.queues.len()).ok()?);
            Some(PortCounters { port, mac, rx, tx, tx_dropped, queues })
        };
        let mut counters: Vec<_> = dataplane.ports_in_brief().into_iter().filter_map(counters).collect();
        counters.sort_by_key(|counters| counters.port);
        counters
    }

    /// Makes the counters of the primary's status start again from zero.
    ///
    /// # Errors
    /// `NotFound`: there is no primary.
    pub fn clear_status(&self) -> Result<(), SppError> {
        self.instance(Proc::PRIMARY)?;
        let cleared = Cleared::now(self.port_counters(), self.ring_counters());
        self.lock().cleared = cleared;
        Ok(())
    }
}
