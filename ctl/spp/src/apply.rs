//! Brings the data plane to what the instances say.
//!
//! A change is refused if an outside end that it asks for can't be made. An end that was asked for before is different:
//! its directory, file or device may be gone since. Such an end is left out, as a missing port is, and tried again
//! from time to time. It must not hold up the others, above all after a restart.

use std::collections::{BTreeMap, BTreeSet};

use switch::model::*;

use super::compile::{self, Plan, Surroundings};
use super::{Inner, Spp, SppError};

impl Spp {
    /// Brings the data plane from the plan in force to the plan of the instances.
    ///
    /// The order is: add ends, set all components at once, remove ends that nothing needs. `inner.applied` always says
    /// what the data plane has, even after an error.
    pub(super) fn apply(&self, inner: &mut Inner) -> Result<(), SppError> {
        // A port that was lost has taken its components along, also if it has come back since.
        inner.applied.components = self.service.dataplane().component_specs();
        let mut plan = self.plan(inner, &BTreeMap::new());
        // An end that exists stays as it is, even if a file to be played has come since.
        for (no, spec) in &mut plan.outside {
            if let Some(old) = inner.applied.outside.get(no) {
                spec.clone_from(old);
            }
        }
        if plan == inner.applied {
            inner.asked = plan.outside;
            inner.broken.clear();
            return Ok(());
        }
        // `make` takes broken ends out of the plan, but the instances go on asking for them.
        let asked = plan.outside.clone();
        let mut has = Plan { components: Vec::new(), ..inner.applied.clone() };
        let mut broken = BTreeMap::new();
        let made = self.make(inner, &mut plan, &mut has, &mut broken);
        has.components = if made.is_ok() { plan.components } else { inner.applied.components.clone() };
        // Remove what nothing needs any more. After an error that is what was added for the change.
        let needed = if made.is_ok() {
            (plan.rings, plan.outside)
        } else {
            (inner.applied.rings.clone(), inner.applied.outside.clone())
        };
        self.clear_away(inner, &mut has, &needed.0, &needed.1);
        inner.applied = has;
        if made.is_ok() {
            for (no, error) in broken.iter().filter(|(no, error)| inner.broken.get(no) != Some(error)) {
                tracing::warn!(outside = no, error, "an end can't be made; its components wait for it");
            }
            (inner.asked, inner.broken) = (asked, broken);
        }
        made
    }

    /// The plan of the instances, without the ends in `broken`.
    fn plan(&self, inner: &Inner, broken: &BTreeMap<u32, String>) -> Plan {
        let (ports, cores) = (self.ports(), self.config.cores());
        let (started, config) = (&inner.started, &self.config);
        let around = Surroundings { ports: &ports, cores: &cores, workers: self.workers, config, started, broken };
        compile::compile(&inner.instances, &around)
    }

    /// Adds the plan's ends that the data plane lacks, and puts its components into force. `has` notes what was added.
    /// An outside end that can't be made moves from the plan to `broken` if it was asked for before.
    fn make(
        &self,
        inner: &Inner,
        plan: &mut Plan,
        has: &mut Plan,
        broken: &mut BTreeMap<u32, String>,
    ) -> Result<(), SppError> {
        let dataplane = self.service.dataplane();
        for &no in plan.rings.difference(&inner.applied.rings) {
            dataplane.add_ring(no, DEFAULT_RING_DEPTH)?;
            has.rings.insert(no);
        }
        for (&no, spec) in plan.outside.iter().filter(|(no, _)| !inner.applied.outside.contains_key(no)) {
            match dataplane.add_outside(no, spec.clone()) {
                Ok(()) => drop(has.outside.insert(no, spec.clone())),
                Err(error) if inner.asked.contains_key(&no) => drop(broken.insert(no, error.to_string())),
                Err(error) => return Err(error.into()),
            }
        }
        if !broken.is_empty() {
            plan.components = self.plan(inner, broken).components;
            plan.outside.retain(|no, _| !broken.contains_key(no));
        }
        Ok(dataplane.set_components(plan.components.clone())?)
    }

    /// Removes the ends in `has` that are not needed.
    fn clear_away(
        &self,
        inner: &mut Inner,
        has: &mut Plan,
        rings: &BTreeSet<u32>,
        outside: &BTreeMap<u32, OutsideSpec>,
    ) {
        let dataplane = self.service.dataplane();
        for no in &has.rings.clone() - rings {
            if log(dataplane.del_ring(no)) {
                has.rings.remove(&no);
                inner.cleared.forget_ring(no);
            }
        }
        let gone: Vec<_> = has.outside.keys().filter(|no| !outside.contains_key(no)).copied().collect();
        for no in gone {
            if log(dataplane.del_outside(no)) {
                has.outside.remove(&no);
            }
        }
    }

    /// Tries again what could not be done before, such as components of a port that has come since. The daemon calls it
    /// every few seconds.
    pub fn retry(&self) {
        let mut inner = self.lock();
        // All of this was accepted once, so an end that fails must not stop the rest.
        inner.asked = self.plan(&inner, &BTreeMap::new()).outside;
        if let Err(error) = self.apply(&mut inner) {
            tracing::warn!(%error, "not all components can run");
        }
        if let Err(error) = self.apply_flow_rules(&inner) {
            tracing::warn!(%error, "not all flow rules are in force");
        }
    }
}

/// Whether an end was removed. A failure is logged.
fn log(result: Result<(), switch::Error>) -> bool {
    if let Err(error) = &result {
        tracing::warn!(%error, "taking an end of components away");
    }
    result.is_ok()
}
