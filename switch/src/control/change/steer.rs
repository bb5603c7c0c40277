//! Which packets of a shared NIC are for the switch.

use std::collections::BTreeSet;

use crate::control::host_addresses::HostAddresses;
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
///
/// What is for the host on any NIC that it shares stays with the host, whatever is known about that address.
pub fn keys(nic: PortNo, mode: &VlanMode, stations: &[Station], host: &HostAddresses) -> BTreeSet<SteerKey> {
    let others = stations.iter().filter(|station| station.port != nic && !host.contains(station.mac));
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

/// Looks up the addresses that the host has on shared NICs. Says whether they are others than before. They hold from
/// the next view on.
pub(super) fn look_up_host(control: &mut Control) -> bool {
    let shared = control.ports.iter().filter(|port| port.spec.steering == Steering::Shared);
    let found =
        HostAddresses::on(&control.core, shared.filter_map(|port| port.attachment.netdev()), &control.host_addresses);
    let is_new = found != control.host_addresses;
    control.host_addresses = found;
    is_new
}

/// Removes what was learned about the host's addresses before they were known. Workers that go by the view in place
/// learn nothing about them.
pub(super) fn forget_host(control: &Control) {
    if control.host_addresses.iter().next().is_none() {
        return;
    }
    control.core.shared.quiesce();
    let rows = control.fdb.entries(control.core.now()).into_iter();
    for row in rows.filter(|row| !row.is_static && control.host_addresses.contains(row.mac)) {
        control.fdb.remove(row.mac, row.vid);
    }
}

/// Follows changes of the addresses that the host has on shared NICs. To be called when a netdev may have another
/// address, and before [`steer`].
pub(super) fn follow_host(control: &mut Control) {
    if look_up_host(control) {
        control.publish();
        forget_host(control);
    }
}

/// Brings the steering set of every shared NIC up to date.
pub(in crate::control) fn steer(control: &Control) {
    let mut shared = control.ports.iter().filter(|port| port.spec.steering == Steering::Shared).peekable();
    if shared.peek().is_none() {
        return;
    }
    let stations = stations(control);
    let host = &control.host_addresses;
    for port in shared {
        let Some(mode) = &port.spec.vlan else { continue };
        if let Err(error) = port.attachment.set_steering(&keys(port.shared.no, mode, &stations, host)) {
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
        let host = HostAddresses::default();
        assert_eq!(keys(0, &mode, &stations, &host), BTreeSet::from([key(1, Some(0)), key(2, Some(20)), key(4, None)]));
    }
}
