//! Components as their manager sees them.

mod counters;
mod flows;
mod handles;
mod live;
mod swap;
#[cfg(test)]
mod tests;

pub(super) use flows::forget as forget_flows;
pub(super) use live::Live;

use std::sync::Arc;

use super::{Control, State, Switch};
use crate::model::*;
use crate::worker::component;
use crate::worker::ends::Ring;
use crate::worker::view::PortShared;
use crate::{Error, ErrorKind};

/// Outside ends at a time: each has threads, descriptors, and up to 4,096 frames that wait for what is outside.
const MAX_OUTSIDE: usize = 128;
/// Frames that a ring can hold.
const RING_DEPTHS: std::ops::RangeInclusive<u32> = 2..=32_768;

impl Switch {
    /// Puts a set of components in the place of the one before, as a whole: no frame is treated by some of the old and some of the new
    /// ones. Only components that change pause, and those for a moment: until what is between them is through, which may take
    /// 200 ms at most. On an error nothing is changed.
    ///
    /// # Errors
    /// `Invalid`: a worker, end or table that does not fit; `NotFound`: a port, ring or outside end that is not there; `Busy`: an
    /// end that two components have the same way, or a port of the bridge.
    pub fn set_components(&self, components: Vec<ComponentSpec>) -> Result<(), Error> {
        swap::set(&self.state, &self.threads, &mut self.state.lock(), components)
    }

    /// The components that run, with their counters since they were made under that name. Drops at a port's way out (`tx_ring_full`,
    /// `egress_mtu`, …) are counted at the port.
    pub fn components(&self) -> Vec<ComponentInfo> {
        self.state.lock().components.infos()
    }

    /// Adds a ring of that many frames, a power of two from 2 to 32,768; `Exists` if there is one of that number.
    pub fn add_ring(&self, no: u32, depth: u32) -> Result<(), Error> {
        let mut control = self.state.lock();
        check_no("ring", no)?;
        if !depth.is_power_of_two() || !RING_DEPTHS.contains(&depth) {
            return Err(Error::invalid(format!(
                "ring {no}: depth {depth} is not a power of two from {} to {}",
                RING_DEPTHS.start(),
                RING_DEPTHS.end()
            )));
        }
        let rings = &mut control.components.rings;
        if rings.contains_key(&no) {
            return Err(Error::new(ErrorKind::Exists, format!("there is a ring {no} already")));
        }
        rings.insert(no, Arc::new(Ring::new(no, depth)));
        Ok(())
    }

    /// Removes a ring; what is in it is dropped. `Busy` while a component has it.
    pub fn del_ring(&self, no: u32) -> Result<(), Error> {
        let mut control = self.state.lock();
        let end = EndPort::Ring(no);
        check_unused(&control, &end)?;
        let ring = control.components.rings.remove(&no).ok_or_else(|| missing(&end))?;
        control.components.empty(&self.state, &ring, true);
        Ok(())
    }

    /// Adds an outside end, and starts the thread that joins it to what is outside; `Exists` if there is one of that number.
    /// `Full`: there are 128. Other errors are those of what is outside: a file, a device.
    pub fn add_outside(&self, no: u32, spec: OutsideSpec) -> Result<(), Error> {
        let mut control = self.state.lock();
        check_no("outside end", no)?;
        if control.components.outside.contains_key(&no) {
            return Err(Error::new(ErrorKind::Exists, format!("there is an outside end {no} already")));
        }
        if control.components.outside.len() >= MAX_OUTSIDE {
            let text = format!("outside end {no}: there are {MAX_OUTSIDE} taps, files and captures, and can't be more");
            return Err(Error::new(ErrorKind::Full, text));
        }
        let outside = handles::open(&self.state, no, spec)?;
        control.components.outside.insert(no, outside);
        Ok(())
    }

    /// Removes an outside end: what components sent is written first. `Busy` while a component has it.
    pub fn del_outside(&self, no: u32) -> Result<(), Error> {
        let mut control = self.state.lock();
        let end = EndPort::Outside(no);
        check_unused(&control, &end)?;
        let outside = control.components.outside.remove(&no).ok_or_else(|| missing(&end))?;
        control.components.close(&self.state, outside);
        Ok(())
    }

    /// Gives a port its flow rules, in place of those that it had, as a whole: each worker goes by all of them or by none. They go
    /// with the port. What rules that are gone have sent to a queue's end is still taken there, within 200 ms at most.
    ///
    /// # Errors
    /// `NotFound`: there is no such port; `Invalid`: it is the bridge's, a rule names a queue that it has not, says what is not
    /// possible, or there are more than [`MAX_FLOW_RULES`], or rules that can give a frame more than [`MAX_FLOW_PUSHES`] tags.
    pub fn set_flow_rules(&self, port: &str, rules: Vec<FlowRule>) -> Result<(), Error> {
        flows::set(&self.state, &mut self.state.lock(), port, rules)
    }

    /// The flow rules of a port.
    ///
    /// # Errors
    /// `NotFound`: there is no such port.
    pub fn flow_rules(&self, port: &str) -> Result<Vec<FlowRule>, Error> {
        let control = self.state.lock();
        let no = control.number(port)?;
        Ok(control.components.flow_rules.get(&no).cloned().unwrap_or_default())
    }

    /// What the flow rules of all ports counted, by port and in the order in which they were given.
    pub fn flow_counts(&self) -> Vec<FlowCount> {
        let control = self.state.lock();
        control.components.flow_counts(|port| control.name_of(port))
    }

    /// The outside ends.
    pub fn outside(&self) -> Vec<OutsideInfo> {
        self.state.lock().components.outside_infos()
    }

    /// Counters of rings, null ends and outside ends.
    pub fn ends(&self) -> Vec<EndInfo> {
        self.state.lock().components.ends()
    }
}

/// Tells what would happen to a frame that came in by a queue of a port of components.
pub(super) fn trace(state: &State, control: &Control, port: &Arc<PortShared>, queue: u32, frame: &[u8]) -> TraceReport {
    let outside = |no: u32| match control.components.outside.get(&no).map(|outside| &outside.spec) {
        Some(OutsideSpec::Tap { ifname }) => format!("tap {ifname}"),
        Some(OutsideSpec::Pcap { tx: Some(file), .. }) => format!("file {}", file.display()),
        Some(OutsideSpec::Pcap { tx: None, .. }) => "no file".to_owned(),
        Some(OutsideSpec::Capture(files)) => format!("capture {}", files.directory.join(&files.stem).display()),
        None => format!("outside end {no}"),
    };
    let (set, view) = (state.shared.components.in_force(), state.shared.view.load_full());
    let context = component::TraceContext { set: &set, view: &view, now_ns: state.shared.now_ns(), outside: &outside };
    component::trace(&context, port, queue, frame)
}

/// Ends all components and outside ends, and drops what is between them.
pub(super) fn end(state: &State, control: &mut Control) {
    let live = &mut control.components;
    live.running.clear();
    state.shared.publish_components(Arc::default());
    live.flow_rules.clear();
    for flows in std::mem::take(&mut live.flows).iter().flatten() {
        flows.rings().for_each(|ring| live.empty(state, ring, true));
    }
    while let Some((_, outside)) = live.outside.pop_first() {
        live.close(state, outside);
    }
    while let Some((_, ring)) = live.rings.pop_first() {
        live.empty(state, &ring, true);
    }
}

fn check_no(what: &str, no: u32) -> Result<(), Error> {
    if no <= MAX_END_NO {
        return Ok(());
    }
    Err(Error::invalid(format!("{what}: {no} is out of range, 0 to {MAX_END_NO} are possible")))
}

fn check_unused(control: &Control, end: &EndPort) -> Result<(), Error> {
    match control.components.user_of(|other| other == end) {
        Some(user) => {
            Err(Error::new(ErrorKind::Busy, format!("{end} is an end of component `{user}`: detach it first")))
        }
        None => Ok(()),
    }
}

fn missing(end: &EndPort) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no {end}"))
}
