//! Brings the data plane to what the instances say.
//!
//! A change is refused if an outside end that it asks for can't be made. An end that was asked for before is different:
//! its directory, file or device may be gone since. Such an end is left out, as a missing port is, and tried again
//! from time to time. It must not hold up the others, above all after a restart.

use std::collections::BTreeMap;

use switch::model::*;

use super::compile::{self, Broken, Plan, Surroundings};
use super::{Inner, Spp, SppError};

impl Spp {
    /// Brings the data plane from the plan in force to the plan of the instances.
    ///
    /// The order is: add ends, set all components at once, remove ends that nothing needs. `inner.applied` always says
    /// what the data plane has, even after an error.
    pub(super) fn apply(&self, inner: &mut Inner) -> Result<(), SppError> {
        // A port that was lost has taken its components along, also if it has come back since.
        inner.applied.components = self.service.dataplane().component_specs();
        let there = self.made_vhosts();
        inner.applied.vhosts = there.iter().filter_map(|(&no, pairs)| Some((no, (*pairs)?))).collect();
        let mut plan = self.plan(inner, &Broken::default());
        // A port for `vhost:N` does not lose queues while it is there.
        for (no, pairs) in &mut plan.vhosts {
            *pairs = (*pairs).max(inner.applied.vhosts.get(no).copied().unwrap_or(0));
        }
        // An end that exists stays as it is, even if a file to be played has come since.
        for (no, spec) in &mut plan.outside {
            if let Some(old) = inner.applied.outside.get(no) {
                spec.clone_from(old);
            }
        }
        // `make` takes broken ends out of the plan, but the instances go on asking for them.
        let asked = (plan.outside.clone(), plan.vhosts.clone());
        if plan == inner.applied && there.len() == plan.vhosts.len() {
            (inner.asked, inner.asked_vhosts) = asked;
            inner.broken = Broken::default();
            return Ok(());
        }
        let mut has = Plan { components: Vec::new(), ..inner.applied.clone() };
        let mut broken = Broken::default();
        let made = self.make(inner, &mut plan, &mut has, &mut broken);
        has.components = if made.is_ok() { plan.components.clone() } else { inner.applied.components.clone() };
        // Remove what nothing needs any more. After an error that is what was added for the change.
        let needed = if made.is_ok() { &plan } else { &inner.applied.clone() };
        self.clear_away(inner, &mut has, needed);
        // Those that are not up too.
        let asks = |no: &u32| if made.is_ok() { asked.1.contains_key(no) } else { there.contains_key(no) };
        self.made_vhosts().into_keys().filter(|no| !asks(no)).for_each(|no| {
            log(self.remove_vhost(no));
        });
        inner.applied = has;
        if made.is_ok() {
            for (no, error) in broken.outside.iter().filter(|(no, error)| inner.broken.outside.get(no) != Some(error)) {
                tracing::warn!(outside = no, error, "an end can't be made; its components wait for it");
            }
            for (no, error) in broken.vhosts.iter().filter(|(no, error)| inner.broken.vhosts.get(no) != Some(error)) {
                tracing::warn!(vhost = no, error, "a port can't be made; its components wait for it");
            }
            (inner.asked, inner.asked_vhosts) = asked;
            inner.broken = broken;
        }
        made
    }

    /// The plan of the instances, without the ends in `broken`.
    fn plan(&self, inner: &Inner, broken: &Broken) -> Plan {
        let (ports, cores) = (self.given_ports(), self.config.cores());
        let (started, config) = (&inner.started, &self.config);
        let around = Surroundings { ports: &ports, cores: &cores, workers: self.workers, config, started, broken };
        compile::compile(&inner.instances, &around)
    }

    /// Adds the plan's ends that the data plane lacks, and puts its components into force. `has` notes what was added.
    /// An end that can't be made moves from the plan to `broken` if it was asked for before.
    fn make(&self, inner: &Inner, plan: &mut Plan, has: &mut Plan, broken: &mut Broken) -> Result<(), SppError> {
        let dataplane = self.service.dataplane();
        for &no in plan.rings.difference(&inner.applied.rings) {
            dataplane.add_ring(no, DEFAULT_RING_DEPTH)?;
            has.rings.insert(no);
        }
        for (&no, spec) in plan.outside.iter().filter(|(no, _)| !inner.applied.outside.contains_key(no)) {
            match dataplane.add_outside(no, spec.clone()) {
                Ok(()) => drop(has.outside.insert(no, spec.clone())),
                Err(error) if inner.asked.contains_key(&no) => drop(broken.outside.insert(no, error.to_string())),
                Err(error) => return Err(error.into()),
            }
        }
        for (&no, &pairs) in &plan.vhosts {
            let known = inner.asked_vhosts.get(&no).is_some_and(|asked| *asked >= pairs);
            match self.provide_vhost(inner, &plan.vhosts, has, broken, no) {
                Ok(()) => {}
                Err(error) if known => drop(broken.vhosts.insert(no, error.to_string())),
                Err(error) => return Err(error),
            }
        }
        if !broken.is_empty() {
            plan.components = self.plan(inner, broken).components;
            plan.outside.retain(|no, _| !broken.outside.contains_key(no));
            plan.vhosts.retain(|no, _| !broken.vhosts.contains_key(no));
        }
        Ok(dataplane.set_components(plan.components.clone())?)
    }

    /// Makes the port for `vhost:no`. One with fewer queue pairs is made anew, and its guest connects again.
    fn provide_vhost(
        &self,
        inner: &Inner,
        wanted: &BTreeMap<u32, u32>,
        has: &mut Plan,
        broken: &Broken,
        no: u32,
    ) -> Result<(), SppError> {
        let pairs = wanted.get(&no).copied().unwrap_or(1);
        match has.vhosts.get(&no) {
            Some(before) if *before >= pairs => return Ok(()),
            Some(_) => {
                // Components go on without it, and without those that are still to come.
                has.vhosts.remove(&no);
                let mut without = broken.clone();
                let missing = wanted.keys().filter(|no| !has.vhosts.contains_key(no));
                without.vhosts.extend(missing.map(|no| (*no, String::new())));
                self.service.dataplane().set_components(self.plan(inner, &without).components)?;
                self.remove_vhost(no)?;
            }
            None => {}
        }
        self.make_vhost(no, pairs)?;
        has.vhosts.insert(no, pairs);
        Ok(())
    }

    /// Removes the ends in `has` that are not needed. The data plane's components have none of them.
    fn clear_away(&self, inner: &mut Inner, has: &mut Plan, needed: &Plan) {
        let dataplane = self.service.dataplane();
        for no in &has.rings.clone() - &needed.rings {
            if log(dataplane.del_ring(no)) {
                has.rings.remove(&no);
                inner.cleared.forget_ring(no);
            }
        }
        has.vhosts.retain(|no, _| needed.vhosts.contains_key(no));
        let gone: Vec<_> = has.outside.keys().filter(|no| !needed.outside.contains_key(no)).copied().collect();
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
        let plan = self.plan(&inner, &Broken::default());
        (inner.asked, inner.asked_vhosts) = (plan.outside, plan.vhosts);
        if let Err(error) = self.apply(&mut inner) {
            tracing::warn!(%error, "not all components can run");
        }
        if let Err(error) = self.apply_flow_rules(&inner) {
            tracing::warn!(%error, "not all flow rules are in force");
        }
    }
}

/// Whether an end was removed. A failure is logged.
fn log<E: std::fmt::Display>(result: Result<(), E>) -> bool {
    if let Err(error) = &result {
        tracing::warn!(%error, "taking an end of components away");
    }
    result.is_ok()
}
