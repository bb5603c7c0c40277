//! Which packets of a shared NIC are for the switch.

use std::collections::BTreeSet;

use crate::control::state::Control;
use crate::engine::vlan;
use crate::host::SteerKey;
use crate::model::{MacAddr, PortNo, Steering, VlanMode};

/// A station behind the switch: its address, its port, and its VLAN if it is bound to one (else any that the port
/// carries).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Station {
    /// Address.
    pub mac: MacAddr,
    /// Port that it is behind.
    pub port: PortNo,
    /// VLAN, 0 for the untagged segment.
    pub vlan: Option<u16>,
}

/// The steering set of the NIC at port `nic`: what is addressed to stations behind other ports, with the tag that
/// it has on that NIC's wire. A station in a VLAN that the NIC does not carry is not reached from there.
pub fn keys(nic: PortNo, mode: &VlanMode, stations: &[Station]) -> BTreeSet<SteerKey> {
    let others = stations.iter().filter(|station| station.port != nic);
    others
        .filter_map(|station| {
            let Some(vid) = station.vlan else { return Some(SteerKey { mac: station.mac.octets(), vid: None }) };
            match vlan::egress(mode, vid, None)? {
                vlan::TagEdit::Push { .. } => Some(SteerKey { mac: station.mac.octets(), vid: Some(vid) }),
                _ => Some(SteerKey { mac: station.mac.octets(), vid: Some(0) }),
            }
        })
        .collect()
}

/// All stations that are known behind ports: configured addresses, and what the MAC table has.
pub fn stations(control: &Control) -> Vec<Station> {
    let configured = control.ports.bridged().filter_map(|port| {
        let vlan = match &port.spec.vlan {
            Some(VlanMode::Access { vid }) => Some(*vid),
            _ => None,
        };
        Some(Station { mac: port.spec.mac?, port: port.shared.no, vlan })
    });
    let seen = control.fdb.entries(control.core.now()).into_iter();
    configured.chain(seen.map(|row| Station { mac: row.mac, port: row.port, vlan: Some(row.vid) })).collect()
}

/// Brings the steering set of every shared NIC up to date.
pub(in crate::control) fn steer(control: &Control) {
    let mut shared = control.ports.iter().filter(|port| port.spec.steering == Steering::Shared).peekable();
    if shared.peek().is_none() {
        return;
    }
    let stations = stations(control);
    for port in shared {
        let Some(mode) = &port.spec.vlan else { continue };
        if let Err(error) = port.attachment.set_steering(&keys(port.shared.no, mode, &stations)) {
            tracing::warn!(port = port.spec.name, %error, "the steering set is not up to date");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::VlanSet;

    #[test]
    fn each_station_is_steered_by_the_tag_that_its_vlan_has_on_the_nic() {
        let mac = |n| MacAddr::new([2, 0, 0, 0, 0, n]);
        let stations = [
            Station { mac: mac(1), port: 1, vlan: Some(10) },
            Station { mac: mac(2), port: 2, vlan: Some(20) },
            Station { mac: mac(3), port: 3, vlan: Some(30) },
            Station { mac: mac(4), port: 4, vlan: None },
            Station { mac: mac(9), port: 0, vlan: Some(10) },
        ];
        let mode = VlanMode::Trunk { native: Some(10), tagged: "20".parse::<VlanSet>().unwrap() };
        let key = |n, vid| SteerKey { mac: mac(n).octets(), vid };
        assert_eq!(keys(0, &mode, &stations), BTreeSet::from([key(1, Some(0)), key(2, Some(20)), key(4, None)]));
    }
}
