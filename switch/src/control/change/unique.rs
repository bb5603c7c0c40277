//! Addresses that ports must not have: the host's own, and those of other ports.

use crate::control::host_addresses::HostAddresses;
use crate::control::resolve::{check_unique_mac, same_station};
use crate::control::state::Control;
use crate::host::Netdev;
use crate::model::{MacAddr, PortSpec, Steering};
use crate::{Error, ErrorKind};

/// Checks the address of a port against those of others. Ports that share one are told in the log.
///
/// # Errors
/// As [`check_unique_mac`].
pub(super) fn check_mac<'a>(spec: &PortSpec, others: impl Iterator<Item = &'a PortSpec> + Clone) -> Result<(), Error> {
    check_unique_mac(spec, others.clone())?;
    if let Some((mac, other)) = spec.mac.zip(others.into_iter().find(|port| same_station(spec, port))) {
        tracing::warn!(port = spec.name, other = other.name, %mac, "two ports share an address");
    }
    Ok(())
}

/// What is known of addresses while ports are added: those of live ports, and of ports that come in before.
pub(super) struct Known<'a> {
    control: &'a Control,
    host: HostAddresses,
    coming: Vec<PortSpec>,
}

impl<'a> Known<'a> {
    /// What is known before the first of them.
    pub fn of(control: &'a Control) -> Self {
        Self { control, host: control.host_addresses.clone(), coming: Vec::new() }
    }

    /// Addresses of the host on the NICs that are shared, those of ports to come included.
    pub fn into_host_addresses(self) -> HostAddresses {
        self.host
    }

    /// Takes up a port whose netdev was found.
    ///
    /// # Errors
    /// `Exists`: its address is the host's or another port's, or the host's address on its NIC is that of a port or of
    /// a static entry.
    pub fn admit(&mut self, spec: &PortSpec) -> Result<(), Error> {
        let host = match spec.steering {
            Steering::Shared => self.host.and(self.own_addresses(spec)?),
            Steering::All => self.host.clone(),
        };
        spec.mac.map_or(Ok(()), |mac| host.check(mac))?;
        check_mac(spec, self.ports())?;
        self.host = host;
        self.coming.push(spec.clone());
        Ok(())
    }

    fn ports(&self) -> impl Iterator<Item = &PortSpec> + Clone {
        self.control.ports.iter().map(|port| &port.spec).chain(&self.coming)
    }

    /// The host's addresses on the NIC of a port that is to share it.
    fn own_addresses(&self, spec: &PortSpec) -> Result<HostAddresses, Error> {
        let core = &self.control.core;
        let ifname = spec.ifname.as_deref().unwrap_or_default();
        let nic = core.host.find(ifname)?.map(|link| Netdev::here(&link));
        let found = HostAddresses::on(core, &nic, &HostAddresses::default());
        let taken = |mac: MacAddr, by: &str| {
            let text = format!(
                "ifname: {mac}, the host's own address on {ifname}, is that of {by}: give that another one first"
            );
            Err(Error::new(ErrorKind::Exists, text))
        };
        let with_it = |port: &'_ PortSpec| port.mac.filter(|mac| found.contains(*mac));
        if let Some((mac, port)) = self.ports().find_map(|port| Some((with_it(port)?, port))) {
            return taken(mac, &format!("port `{}`", port.name));
        }
        let rows = self.control.fdb.entries(core.now());
        match rows.into_iter().find(|row| row.is_static && found.contains(row.mac)) {
            Some(row) => taken(row.mac, &format!("a static entry of the MAC table, in VLAN {}", row.vid)),
            None => Ok(found),
        }
    }
}
