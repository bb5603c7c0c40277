//! The components that run, and the ends that they may have.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::control::core::Core;
use crate::control::ports::Ports;
use crate::engine::component::{Known, KnownPort, check};
use crate::model::*;
use crate::outside::OutsideThread;
use crate::worker::component::{Component, Flows, Link};
use crate::worker::ends::{NullEnd, OutsideEnd, Ring, drain};
use crate::{Error, ErrorKind};

/// An outside end with its thread.
#[derive(Debug)]
pub struct LiveOutside {
    pub spec: OutsideSpec,
    pub end: Arc<OutsideEnd>,
    pub thread: OutsideThread,
}

/// Components and ends.
#[derive(Debug, Default)]
pub struct Live {
    /// In the order of the set that was given.
    pub running: Vec<Arc<Component>>,
    pub rings: BTreeMap<u32, Arc<Ring>>,
    /// Those that components ever had.
    pub nulls: BTreeMap<u32, Arc<NullEnd>>,
    pub outside: BTreeMap<u32, LiveOutside>,
    /// Flow rules of ports in force, and as they were given.
    pub flows: Flows,
    pub flow_rules: BTreeMap<PortNo, Vec<FlowRule>>,
    /// What components that are gone had counted.
    pub retired: PortStats,
}

/// A set of components that was checked, with its ends.
pub fn compile(
    live: &mut Live,
    ports: &Ports,
    workers: usize,
    specs: Vec<ComponentSpec>,
) -> Result<Vec<Arc<Component>>, Error> {
    let known_port = |name: &str| {
        let port = ports.get_named(name)?;
        Some(match port.shared.bridged {
            true => KnownPort::Bridged(port.spec.kind),
            false => KnownPort::Free { queues: port.queues() },
        })
    };
    let known = Known {
        workers,
        port: &known_port,
        ring: &|no| live.rings.contains_key(&no),
        outside: &|no| live.outside.contains_key(&no),
    };
    check(&specs, &known)?;
    let before: HashMap<_, _> =
        live.running.iter().map(|component| (component.spec.name.clone(), Arc::clone(component))).collect();
    let mut one = |spec: ComponentSpec| {
        let old = before.get(&spec.name);
        if let Some(old) = old.filter(|old| old.spec == spec) {
            return Ok(Arc::clone(old));
        }
        let links = |live: &mut Live, ends: &[End]| ends.iter().map(|end| live.find(ports, &end.port)).collect();
        let (rx, tx) = (links(live, &spec.rx), links(live, &spec.tx));
        let (rx, tx): (Result<_, Error>, Result<_, Error>) = (rx, tx);
        let counters = old.map(|old| Arc::clone(&old.counters)).unwrap_or_default();
        Ok(Arc::new(Component::new(spec, rx?, tx?, counters)))
    };
    specs.into_iter().map(&mut one).collect()
}

impl Live {
    /// The end of that name.
    fn find(&mut self, ports: &Ports, end: &EndPort) -> Result<Link, Error> {
        let link = match end {
            EndPort::Port { name, queue } => {
                ports.get_named(name).map(|port| Link::Port(Arc::clone(&port.shared), *queue))
            }
            EndPort::Ring(no) => self.rings.get(no).map(|ring| Link::Ring(Arc::clone(ring))),
            EndPort::Outside(no) => self.outside.get(no).map(|outside| Link::Outside(Arc::clone(&outside.end))),
            EndPort::Null(no) => Some(Link::Null(Arc::clone(self.nulls.entry(*no).or_default()))),
        };
        link.ok_or_else(|| missing(end))
    }

    /// The component that has such an end, if one has.
    pub fn user_of(&self, is_it: impl Fn(&EndPort) -> bool) -> Option<&str> {
        let has = |component: &&Arc<Component>| {
            let spec = &component.spec;
            spec.rx.iter().chain(&spec.tx).any(|end| is_it(&end.port))
        };
        self.running.iter().find(has).map(|component| component.spec.name.as_str())
    }

    /// Says that a port can't go while a component has it.
    pub fn check_port_unused(&self, name: &str) -> Result<(), Error> {
        match self.user_of(|end| end.is_of_port(name)) {
            Some(user) => Err(Error::new(
                ErrorKind::Busy,
                format!("port `{name}` is an end of component `{user}`: detach it first"),
            )),
            None => Ok(()),
        }
    }

    /// Rings between components, those that frames come in by from outside, and those by which flow rules send them.
    pub fn all_rings(&self) -> impl Iterator<Item = &Arc<Ring>> {
        self.rings.values().chain(self.outside.values().map(|outside| &outside.end.input)).chain(self.flow_rings())
    }

    /// Rings by which flow rules send frames to the components that have their ends.
    pub fn flow_rings(&self) -> impl Iterator<Item = &Arc<Ring>> {
        self.flows.iter().flatten().flat_map(|flows| flows.rings())
    }

    /// Drops what is in a ring that no component takes frames from; counted if it was in the switch already.
    pub fn empty(&mut self, core: &Core, ring: &Ring, counted: bool) {
        let mut cache = core.frame_cache();
        for frame in drain(ring) {
            if counted {
                let count = Count { packets: 1, bytes: frame.len() as u64 };
                self.retired.drops.entry(DropReason::RingGone.label().to_owned()).or_default().add(count);
            }
            cache.put(frame);
        }
        core.recycle(cache);
    }

    /// Ends an outside end: what waits to go out goes, what waits to come in is dropped, which was not counted in yet.
    pub fn close(&mut self, core: &Core, outside: LiveOutside) {
        let LiveOutside { end, thread, .. } = outside;
        let (no, input) = (end.no, Arc::clone(&end.input));
        // The last sender of the queue to the outside.
        drop(end);
        if let Some(error) = thread.stop() {
            tracing::warn!(outside = no, error, "an outside end");
        }
        self.empty(core, &input, false);
    }
}

/// The error for an end that is not there.
pub fn missing(end: &EndPort) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no {end}"))
}
