//! Ports of guests that speak vhost-user.
//!
//! A port has a thread for its socket. It takes a front end, and carries out what that asks for ([`device`]). The
//! packets go by the workers, over the [`VhostPair`]s that both share. A front end that goes, or does something wrong,
//! costs its port the rings; the port stays, and takes the next one.

mod device;
mod endpoint;
mod place;
mod positions;

use std::sync::Arc;

use vhost_user::socket::Place;

use self::device::Device;
use self::endpoint::Endpoint;
use self::place::place_of;
use self::positions::Positions;
use super::{AttachmentInfo, Followed, OutsideCounters, Plan};
use crate::control::core::Core;
use crate::control::feature_list;
use crate::io::backend::Backend;
use crate::io::vhost::{VhostPair, VhostQueue};
use crate::model::*;
use crate::{Error, ErrorKind};

/// What a vhost-user port needs outside: the place of its socket.
#[derive(Debug)]
pub struct FoundVhost {
    place: Place,
    max_mtu: u32,
    feature_list: Option<u64>,
}

impl FoundVhost {
    /// Checks the place of the socket, and completes `spec`.
    ///
    /// # Errors
    /// `Invalid`: no such user or group; the MTU is out of range. `NotFound`: the directory is not there. `Exists`:
    /// somebody listens there, or a file is in the way.
    pub fn find(spec: &mut PortSpec, frame_size: u32) -> Result<Self, Error> {
        let max_mtu = super::mtu::frame_mtu(frame_size);
        crate::control::fields::check_mtu(
            *spec.mtu.get_or_insert(DEFAULT_MTU),
            max_mtu,
            "packet memory's `frame_size`",
        )?;
        let vhost = spec.vhost.as_ref().ok_or_else(|| Error::invalid("vhost: such a port needs a socket"))?;
        Ok(Self { place: place_of(vhost)?, max_mtu, feature_list: spec.feature_list })
    }

    /// Makes the socket, and starts the port's thread.
    pub fn open(self, core: &Arc<Core>, plan: &Plan) -> Result<(VhostPort, Vec<Backend>), Error> {
        let Self { place, max_mtu, feature_list } = self;
        let no_memory = |errno| Error::new(ErrorKind::System, format!("vhost: room for long packets: {errno}"));
        core.umem().add_tails().map_err(no_memory)?;
        let queues = plan.shared.queues.len();
        let features = feature_list::offered(feature_list, u16::try_from(queues).unwrap_or(u16::MAX));
        let positions = Arc::new(Positions::open(core, &plan.shared.name, queues));
        let device = Device::new(queues, max_mtu, features, Arc::clone(&positions))?;
        let pairs = device.pairs().to_vec();
        let endpoint = Endpoint::start(&plan.shared.name, place, device)?;
        let name = plan.shared.name.clone();
        let endpoint = Some(endpoint);
        let port = VhostPort { core: Arc::clone(core), name, pairs, positions, endpoint, max_mtu };
        let queues = port.queues(plan.rings.memory.fill());
        Ok((port, queues))
    }
}

/// A live vhost-user port.
#[derive(Debug)]
pub struct VhostPort {
    core: Arc<Core>,
    name: String,
    pairs: Vec<Arc<VhostPair>>,
    positions: Arc<Positions>,
    /// `None` once the port is detached.
    endpoint: Option<Endpoint>,
    max_mtu: u32,
}

impl VhostPort {
    /// What users see of it.
    pub fn info(&self) -> AttachmentInfo {
        AttachmentInfo {
            mode: None,
            mode_reason: None,
            max_mtu: self.max_mtu,
            zero_copy: (0..).zip(vec![false; self.pairs.len()]).collect(),
            guest_end: None,
            vhost: self.endpoint.as_ref().map(Endpoint::info),
            tap: None,
            bond: None,
        }
    }

    /// The largest MTU that it can be set to, and what sets it.
    pub fn max_mtu(&self) -> (u32, &'static str) {
        (self.max_mtu, "packet memory's `frame_size`")
    }

    /// Goes by the front end: whether there is a guest.
    pub fn follow(&self) -> Followed {
        Followed { carrier: Some(self.endpoint.as_ref().is_some_and(Endpoint::is_up)), ..Followed::default() }
    }

    /// Makes what outlives the process again, if it is gone. Returns whether it did.
    pub fn look_after_files(&self) -> Result<bool, Error> {
        self.positions.look_after(&self.core, &self.pairs)
    }

    /// Nothing outside counts for it.
    pub fn counters(&self) -> OutsideCounters {
        OutsideCounters { program: Vec::new(), sockets: Vec::new() }
    }

    /// Opens all queues again. The guest's rings stay as they are.
    pub fn queues(&self, fill: u32) -> Vec<Backend> {
        let queue = |number| Backend::Vhost(VhostQueue::new(&self.pairs, number, self.core.umem(), fill));
        (0..self.pairs.len()).map(queue).collect()
    }

    /// Takes the socket away, and the guest's rings. If the guest may come back, where they stand is kept.
    pub fn detach(&mut self) {
        if let Some(endpoint) = self.endpoint.take()
            && !endpoint.end()
        {
            self.core.host.remove_journal(&self.name);
        }
    }
}
