//! Ports of the switch that are made for `vhost:N`, with SPP's sockets.
//!
//! The first instance that names such a port has it made, unless the switch has a port of that SPP name. It goes when
//! no instance names it. It is a port like others: with counters, meters, and a row of its own in the state file. Its
//! uuid tells it from ports that users have added.

use std::collections::BTreeMap;

use ctl_spp_types::{PortId, PortType};
use switch::model::{MAX_VHOST_PAIRS, PortKind, PortSpec, VhostSpec, vhost_names};

use crate::compile::Ports;
use crate::{Spp, SppError, VhostConfig};

/// Largest number of a `vhost` port that is made. So requests without authentication leave room for other ports.
pub const MAX_MADE: u32 = 127;

/// Checks that a port can be made for this name.
///
/// # Errors
/// `Refused`: the number or the queue is too large.
pub(crate) fn check(port: PortId) -> Result<(), SppError> {
    if port.no > MAX_MADE {
        return Err(SppError::refused(format!(
            "{port} is not there, and only vhost:0 to vhost:{MAX_MADE} are made; `xswitch port add NAME --kind vhost --socket PATH --spp {}` adds it",
            port.whole()
        )));
    }
    if port.queue.is_some_and(|queue| queue >= MAX_VHOST_PAIRS) {
        return Err(SppError::refused(format!("{port}: the largest queue is {}", MAX_VHOST_PAIRS - 1)));
    }
    Ok(())
}

impl Spp {
    /// The ports that were made for `vhost:N`, by number: their queue pairs, or `None` if the port is not up.
    pub(crate) fn made_vhosts(&self) -> BTreeMap<u32, Option<u32>> {
        let up = self.service.dataplane().ports_in_brief();
        let pairs = |name: &str| {
            let info = up.iter().find(|info| info.spec.name == name)?;
            u32::try_from(info.queues.len()).ok()
        };
        let made = |spec: PortSpec| Some((spec.made_for_vhost()?, pairs(&spec.name)));
        self.service.port_specs().into_iter().filter_map(made).collect()
    }

    /// All other ports that have SPP names.
    pub(crate) fn given_ports(&self) -> Ports {
        let up = self.service.dataplane().ports_in_brief();
        let named = |spec: PortSpec| {
            let is_up = up.iter().any(|info| info.spec.name == spec.name);
            Some((spec.spp.as_deref()?.parse().ok()?, is_up.then_some(spec.name)))
        };
        self.service.port_specs().into_iter().filter(|spec| spec.made_for_vhost().is_none()).filter_map(named).collect()
    }

    /// The port for `vhost:no`.
    fn spec_of(&self, no: u32, pairs: u32) -> PortSpec {
        let VhostConfig { owner, group, mode, .. } = self.config.vhost.clone();
        let socket = self.config.vhost.socket(no).display().to_string();
        let (name, uuid) = vhost_names(no);
        PortSpec {
            uuid: Some(uuid),
            queues: Some(pairs),
            vhost: Some(VhostSpec { owner, group, mode, ..VhostSpec::new(socket) }),
            spp: Some(PortId { kind: PortType::Vhost, no, queue: None }.to_string()),
            ..PortSpec::new(name, PortKind::Vhost)
        }
    }

    /// Takes away ports that were made by another configuration: with other sockets. They are made anew.
    pub(crate) fn drop_stale_vhosts(&self) {
        for spec in self.service.port_specs() {
            let place = |spec: &PortSpec| {
                let VhostSpec { socket, owner, group, mode, .. } = spec.vhost.clone()?;
                Some((socket, owner, group, mode))
            };
            let stale = spec.made_for_vhost().is_some_and(|no| place(&self.spec_of(no, 1)) != place(&spec));
            if stale && let Err(error) = self.service.del_port(&spec.name) {
                tracing::warn!(port = spec.name, %error, "a port keeps the socket of an earlier configuration");
            }
        }
    }

    /// Why ports can't be made for `vhost:N` at present, by number.
    pub(crate) fn broken_vhosts(&self) -> BTreeMap<u32, String> {
        self.lock().broken.vhosts.clone()
    }

    /// Makes the port for `vhost:no`.
    pub(crate) fn make_vhost(&self, no: u32, pairs: u32) -> Result<(), SppError> {
        Ok(self.service.add_port(self.spec_of(no, pairs)).map(drop)?)
    }

    /// Takes the port for `vhost:no` away. No component has it.
    pub(crate) fn remove_vhost(&self, no: u32) -> Result<(), SppError> {
        Ok(self.service.del_port(&vhost_names(no).0)?)
    }
}
