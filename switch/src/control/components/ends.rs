//! Rings and outside ends: added, removed, and ended with all that uses them.

use std::sync::Arc;

use super::handles;
use super::live::{Live, missing};
use crate::control::core::Core;
use crate::model::*;
use crate::worker::ends::Ring;
use crate::{Error, ErrorKind};

/// Outside ends at a time: each has threads, descriptors, and up to 4,096 frames that wait for what is outside.
const MAX_OUTSIDE: usize = 128;
/// Frames that a ring can hold.
const RING_DEPTHS: std::ops::RangeInclusive<u32> = 2..=32_768;

impl Live {
    /// Adds a ring.
    pub fn add_ring(&mut self, no: u32, depth: u32) -> Result<(), Error> {
        check_no("ring", no)?;
        if !depth.is_power_of_two() || !RING_DEPTHS.contains(&depth) {
            return Err(Error::invalid(format!(
                "ring {no}: depth {depth} is not a power of two from {} to {}",
                RING_DEPTHS.start(),
                RING_DEPTHS.end()
            )));
        }
        if self.rings.contains_key(&no) {
            return Err(Error::new(ErrorKind::Exists, format!("there is a ring {no} already")));
        }
        self.rings.insert(no, Arc::new(Ring::new(no, depth)));
        Ok(())
    }

    /// Removes a ring; what is in it is dropped.
    pub fn del_ring(&mut self, core: &Core, no: u32) -> Result<(), Error> {
        let end = EndPort::Ring(no);
        self.check_unused(&end)?;
        let ring = self.rings.remove(&no).ok_or_else(|| missing(&end))?;
        self.empty(core, &ring, true);
        Ok(())
    }

    /// Adds an outside end, and starts its threads.
    pub fn add_outside(&mut self, core: &Core, no: u32, spec: OutsideSpec) -> Result<(), Error> {
        check_no("outside end", no)?;
        if self.outside.contains_key(&no) {
            return Err(Error::new(ErrorKind::Exists, format!("there is an outside end {no} already")));
        }
        if self.outside.len() >= MAX_OUTSIDE {
            let text = format!("outside end {no}: there are {MAX_OUTSIDE} taps, files and captures, and can't be more");
            return Err(Error::new(ErrorKind::Full, text));
        }
        self.outside.insert(no, handles::open(core, no, spec)?);
        Ok(())
    }

    /// Removes an outside end: what components sent is written first.
    pub fn del_outside(&mut self, core: &Core, no: u32) -> Result<(), Error> {
        let end = EndPort::Outside(no);
        self.check_unused(&end)?;
        let outside = self.outside.remove(&no).ok_or_else(|| missing(&end))?;
        self.close(core, outside);
        Ok(())
    }

    /// Ends all components and outside ends, and drops what is between them.
    pub fn end(&mut self, core: &Core) {
        self.running.clear();
        core.shared.publish_components(Arc::default());
        self.flow_rules.clear();
        for flows in std::mem::take(&mut self.flows).iter().flatten() {
            flows.rings().for_each(|ring| self.empty(core, ring, true));
        }
        while let Some((_, outside)) = self.outside.pop_first() {
            self.close(core, outside);
        }
        while let Some((_, ring)) = self.rings.pop_first() {
            self.empty(core, &ring, true);
        }
    }

    fn check_unused(&self, end: &EndPort) -> Result<(), Error> {
        match self.user_of(|other| other == end) {
            Some(user) => {
                Err(Error::new(ErrorKind::Busy, format!("{end} is an end of component `{user}`: detach it first")))
            }
            None => Ok(()),
        }
    }
}

fn check_no(what: &str, no: u32) -> Result<(), Error> {
    if no <= MAX_END_NO {
        return Ok(());
    }
    Err(Error::invalid(format!("{what}: {no} is out of range, 0 to {MAX_END_NO} are possible")))
}
