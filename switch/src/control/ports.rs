//! Live ports, and numbers that are kept for others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::attach::{Attachment, GuestSide, RingOptions, no_guest_end};
use crate::counters::as_count;
use crate::model::*;
use crate::worker::view::PortShared;
use crate::{Error, ErrorKind};

/// A port as control has it.
#[derive(Debug)]
pub(super) struct LivePort {
    /// With every default filled in.
    pub spec: PortSpec,
    /// What the workers share.
    pub shared: Arc<PortShared>,
    /// Rings of each of its queues.
    pub rings: RingOptions,
    /// What it has outside.
    pub attachment: Attachment,
    /// How its netdevs are.
    pub condition: Condition,
}

/// How the netdevs of a port are, as far as that is not for the port to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Condition {
    /// Whether the switch's netdev has carrier.
    pub carrier: bool,
    /// What of its netdevs keeps the port from its work, in words.
    pub netdev_problems: Vec<String>,
    /// Why its program is not on its netdev.
    pub program_problem: Option<String>,
}

impl Condition {
    /// All that keeps the port from its work.
    pub fn problems(&self) -> impl Iterator<Item = &String> {
        self.netdev_problems.iter().chain(&self.program_problem)
    }
}

impl LivePort {
    /// Number of queues.
    pub fn queues(&self) -> u32 {
        let open = self.attachment.queue_numbers();
        as_count(open.map_or(self.shared.queues.len(), |numbers| numbers.len()))
    }

    /// Tells workers whether somebody takes what is sent, where the link tells that.
    pub fn tell_workers(&self) {
        let is_deserted = self.attachment.has_guest_link() && !self.condition.carrier;
        self.shared.is_deserted.store(is_deserted, Ordering::Relaxed);
    }

    /// Its guest's side.
    ///
    /// # Errors
    /// `Unsupported`: such an attachment can't have one.
    pub fn guest_side(&self) -> Result<&GuestSide, Error> {
        self.attachment.guest_side().ok_or_else(|| no_guest_end(&self.spec.name, self.spec.kind))
    }

    /// Whether a guest can ask for sockets.
    pub fn is_open_to_guests(&self) -> bool {
        self.attachment.guest_side().is_some_and(GuestSide::is_open)
    }

    /// Opens the guest's end, if it is not open yet.
    pub fn open_guest_end(&mut self) -> Result<GuestEndInfo, Error> {
        let Self { spec, attachment, .. } = self;
        attachment.guest_side_mut().ok_or_else(|| no_guest_end(&spec.name, spec.kind))?.open(spec)
    }

    /// Closes the guest's end, if there is one.
    pub fn close_guest_end(&mut self) {
        if let Some(side) = self.attachment.guest_side_mut() {
            side.close();
        }
    }
}

/// A number that is kept for a port that is configured and not up.
#[derive(Clone, Debug)]
struct Reserved {
    name: String,
    queues: u32,
}

/// All ports, by number.
#[derive(Debug, Default)]
pub(super) struct Ports {
    live: BTreeMap<PortNo, LivePort>,
    reserved: BTreeMap<PortNo, Reserved>,
    generation: u32,
}

/// The error for a port that is not there.
pub(super) fn no_port(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no port `{name}`"))
}

impl Ports {
    /// The live port of that name.
    pub fn find(&self, name: &str) -> Result<&LivePort, Error> {
        self.get_named(name).ok_or_else(|| no_port(name))
    }

    /// The same, to change it.
    pub fn find_mut(&mut self, name: &str) -> Result<&mut LivePort, Error> {
        self.live.values_mut().find(|port| port.spec.name == name).ok_or_else(|| no_port(name))
    }

    /// The live port of that name, if there is one.
    pub fn get_named(&self, name: &str) -> Option<&LivePort> {
        self.live.values().find(|port| port.spec.name == name)
    }

    /// The live port of that number, if there is one.
    pub fn get(&self, no: PortNo) -> Option<&LivePort> {
        self.live.get(&no)
    }

    /// Live ports, by number.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &LivePort> + Clone {
        self.live.values()
    }

    /// Numbers of live ports, in order.
    pub fn numbers(&self) -> Vec<PortNo> {
        self.live.keys().copied().collect()
    }

    /// Live ports of the bridge.
    pub fn bridged(&self) -> impl Iterator<Item = &LivePort> {
        self.iter().filter(|port| port.shared.bridged)
    }

    /// The number of a port that the bridge has.
    pub fn bridged_number(&self, name: &str) -> Result<PortNo, Error> {
        let port = self.find(name)?;
        match &port.spec.spp {
            None => Ok(port.shared.no),
            Some(spp) => Err(Error::invalid(format!(
                "port `{name}` is {spp}, which is for components: the bridge neither gets its frames nor sends to it"
            ))),
        }
    }

    /// The name of a port, also of one that is gone.
    pub fn name_of(&self, no: PortNo) -> String {
        self.get(no).map_or_else(|| format!("vport {no}"), |port| port.spec.name.clone())
    }

    /// Queues of a port that is live, or that a number is kept for.
    pub fn queues_of(&self, no: PortNo) -> Option<u32> {
        // Members of a bond come and go, and the numbers that rules name stay.
        let live = self.get(no).map(|port| as_count(port.shared.queues.len()));
        live.or_else(|| self.reserved.get(&no).map(|reserved| reserved.queues))
    }

    /// Whether the number is that of a live port, or is kept for a port of another name.
    pub fn is_taken(&self, no: PortNo, name: &str) -> bool {
        self.live.contains_key(&no) || self.reserved.get(&no).is_some_and(|reserved| reserved.name != name)
    }

    /// Whether the number is kept for a port.
    pub fn is_reserved(&self, no: PortNo) -> bool {
        self.reserved.contains_key(&no)
    }

    /// Keeps numbers, with names and queues, instead of those kept so far. Of two of the same number the first one
    /// has it.
    pub fn reserve(&mut self, ports: Vec<(PortNo, String, u32)>) {
        self.reserved.clear();
        for (no, name, queues) in ports {
            self.reserved.entry(no).or_insert(Reserved { name, queues });
        }
    }

    /// Keeps the number of a port beside those that are kept.
    pub fn keep(&mut self, no: PortNo, name: String, queues: u32) {
        self.reserved.insert(no, Reserved { name, queues });
    }

    /// Live ports, by number, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut LivePort> {
        self.live.values_mut()
    }

    /// Keeps a number no more.
    pub fn free(&mut self, no: PortNo) {
        self.reserved.remove(&no);
    }

    /// Tells a port from all before it.
    pub fn next_generation(&mut self) -> u32 {
        self.generation += 1;
        self.generation
    }

    /// Brings a port in under its number.
    pub fn insert(&mut self, port: LivePort) {
        let no = port.shared.no;
        self.live.insert(no, port);
        self.free(no);
    }

    /// Takes a port out.
    pub fn remove(&mut self, no: PortNo) -> Option<LivePort> {
        self.live.remove(&no)
    }
}
