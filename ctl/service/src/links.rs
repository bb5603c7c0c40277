//! Optical ports: links, counters and MTU of the `phy` ports.
//!
//! The number of an optical port is its place among the configured `phy` ports, by their port numbers. One that is not
//! in operation keeps its place.

use ctl_types::LinkUpdate;
use switch::host::LinkStatus;
use switch::model::*;

use crate::error::Error;
use crate::{Service, busy};

/// A configured `phy` port.
struct OpticalPort {
    port_id: u32,
    spec: PortSpec,
    /// Why it is not in operation.
    error: Option<String>,
}

impl Service {
    /// All optical ports, by number.
    pub fn links(&self) -> Result<Vec<LinkInfo>, Error> {
        let places = self.places();
        let live = self.dataplane.links(None)?;
        Ok(places.into_iter().map(|place| link_info(place, &live)).collect())
    }

    /// One optical port, by the name or number of its port.
    pub fn link(&self, key: &str) -> Result<LinkInfo, Error> {
        let name = self.phy_name(key)?;
        let place = self.places().into_iter().find(|place| place.spec.name == name);
        let place = place.ok_or_else(|| Error::not_found(format!("there is no port `{key}` any more")))?;
        Ok(link_info(place, &self.dataplane.links(Some(&name))?))
    }

    /// Counters of optical ports in operation, by number: of all, or of one by the name or number of its port.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`: no such `phy` port; `Busy`: the one asked for is not in operation.
    pub fn link_stats(&self, key: Option<&str>) -> Result<Vec<LinkStats>, Error> {
        let name = key.map(|key| self.phy_name(key)).transpose()?;
        let places = self.places();
        let report = self.dataplane.stats();
        let mut stats = Vec::new();
        for (info, status) in self.dataplane.links(name.as_deref())? {
            let place = places.iter().find(|place| place.spec.name == info.spec.name);
            let port = report.ports.iter().find(|port| port.name == info.spec.name);
            if let Some((place, port)) = place.zip(port) {
                let netdev = status.map(|status| status.counters).unwrap_or_default();
                stats.push(LinkStats::of(place.port_id, port, netdev));
            }
        }
        match name {
            Some(name) if stats.is_empty() => {
                let why = places.into_iter().find(|place| place.spec.name == name).and_then(|place| place.error);
                Err(busy(format!("port `{name}` is not up: {}", why.unwrap_or_else(|| "it is gone".to_owned()))))
            }
            _ => Ok(stats),
        }
    }

    /// Changes an optical port.
    pub fn update_link(&self, key: &str, update: LinkUpdate) -> Result<LinkInfo, Error> {
        let name = self.phy_name(key)?;
        self.update_port(&name, PortUpdate { mtu: update.mtu, ..PortUpdate::default() })?;
        self.link(&name)
    }

    /// Name of the port that is the optical port of that number. `field` names the number in errors.
    pub fn optical_port(&self, field: &str, port_id: u32) -> Result<String, Error> {
        let places = self.places();
        let have = places.len();
        let found = places.into_iter().find(|place| place.port_id == port_id);
        found.map(|place| place.spec.name).ok_or_else(|| match have {
            0 => Error::not_found(format!("{field}: there is no `phy` port")),
            _ => Error::not_found(format!("{field}: {port_id} is none of the {have} `phy` ports, which begin at 0")),
        })
    }

    /// Name of a `phy` port, by name or number.
    fn phy_name(&self, key: &str) -> Result<String, Error> {
        let inner = self.lock();
        let spec = self.find(&inner, key)?;
        match spec.kind {
            PortKind::Phy => Ok(spec.name.clone()),
            PortKind::Bond => {
                let text = format!("port `{0}` is a bond: `xswitch bond show {0}` tells of its links", spec.name);
                Err(Error::invalid(text))
            }
            kind => {
                let text = format!("port `{}` is a `{}` port: only `phy` ports have links", spec.name, kind.name());
                Err(Error::invalid(text))
            }
        }
    }

    fn places(&self) -> Vec<OpticalPort> {
        let inner = self.lock();
        let mut specs: Vec<_> = inner.ports.iter().filter(|spec| spec.kind == PortKind::Phy).collect();
        // One that has never been up may have no number yet.
        specs.sort_by_key(|spec| (spec.vport.is_none(), spec.vport, spec.name.clone()));
        let error = |spec: &PortSpec| {
            let failed = inner.failed.iter().find(|port| port.name == spec.name);
            failed.map(|port| port.why.clone())
        };
        let place = |(port_id, spec): (u32, &PortSpec)| OpticalPort { port_id, spec: spec.clone(), error: error(spec) };
        (0..).zip(specs).map(place).collect()
    }
}

fn link_info(place: OpticalPort, live: &[(PortInfo, Option<LinkStatus>)]) -> LinkInfo {
    let OpticalPort { port_id, spec, error } = place;
    let found = live.iter().find(|(info, _)| info.spec.name == spec.name);
    let status = found.and_then(|(_, status)| status.as_ref());
    LinkInfo {
        port_id,
        vport: spec.vport.unwrap_or_default(),
        ifname: status.map(|status| status.link.name.clone()).or(spec.ifname).unwrap_or_default(),
        up: status.is_some_and(|status| status.link.carrier),
        mode: status.map(|status| status.mode).unwrap_or_default(),
        mtu: status.map_or(spec.mtu.unwrap_or_default(), |status| status.link.mtu),
        max_mtu: found.map_or(0, |(info, _)| info.max_mtu),
        mac: status.map(|status| status.link.mac),
        error: match (error, found, status) {
            (Some(error), None, _) => Some(error),
            (_, Some(_), None) => Some("its netdev is gone".to_owned()),
            (None, None, _) => Some("it is taken up again".to_owned()),
            (_, Some(_), Some(_)) => None,
        },
        name: spec.name,
    }
}
