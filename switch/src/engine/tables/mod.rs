//! Meters, rules and redirects as control has them: what may be changed to what, and what workers get of it.
//!
//! A change is checked whole before any of it is made, so it is made or not made. Nothing here knows of the kernel.
//! Which ports there are is handed in ([`Ports`]).
//!
//! | table | workers get |
//! | --- | --- |
//! | [`Meters`] | a [`PortMeters`], and the meters that rules name |
//! | [`TrafficRules`] | a version of the classifier, [`Rules`](super::rule::Rules) |
//! | [`Redirects`] | where each port's frames end, in the [`Snapshot`](super::snapshot::Snapshot) |
//!
//! Meters and rules bring their counters along. A new kind of table is a module here, a field of [`Tables`], and a line
//! each in [`Tables::restore`] and [`Tables::forget_port`].

mod meters;
mod ports;
mod redirects;
mod rules;
#[cfg(test)]
mod tests;

pub use meters::{Meters, PortMeters};
pub use ports::Ports;
pub use redirects::Redirects;
pub use rules::{RuleUndo, TrafficRules};

use super::PortNo;
use crate::model::{
    Capacity, MAX_PORTS, MAX_TABLE_SIZE, MeterBinding, MeterSpec, RedirectSpec, RuleChange, RuleSpec, Usage,
};
use crate::{Error, ErrorKind};

/// Distinct masks of rules that there can be at most.
const MAX_RULE_MASKS: u32 = 65_536;

/// The tables.
#[derive(Debug)]
pub struct Tables {
    /// Meters.
    pub meters: Meters,
    /// Traffic rules.
    pub rules: TrafficRules,
    /// Redirects.
    pub redirects: Redirects,
}

/// What tables are filled with at start.
#[derive(Clone, Debug, Default)]
pub struct KeptTables {
    /// Meters, and whether they were never bound.
    pub meters: Vec<(MeterSpec, bool)>,
    /// Bindings.
    pub bindings: Vec<MeterBinding>,
    /// Rules.
    pub rules: Vec<RuleSpec>,
    /// Redirects.
    pub redirects: Vec<RedirectSpec>,
}

impl Tables {
    /// Empty tables of that size, for that many workers.
    pub fn new(capacity: Capacity, workers: usize) -> Self {
        Self {
            meters: Meters::new(capacity.meters, workers),
            rules: TrafficRules::new(capacity.rules, capacity.rule_masks, workers),
            redirects: Redirects::default(),
        }
    }

    /// Carries out a batch of changes of rules, or none of them. What it returns puts things back
    /// ([`Tables::undo_rules`]).
    ///
    /// # Errors
    /// Of the first change that can't be made, with its place in the batch if there are several.
    pub fn change_rules(&mut self, changes: Vec<RuleChange>, ports: &dyn Ports) -> Result<RuleUndo, Error> {
        self.rules.change(changes, ports, &mut self.meters)
    }

    /// Puts back what a batch has changed, counters included.
    pub fn undo_rules(&mut self, undo: RuleUndo) {
        self.rules.undo(undo, &mut self.meters);
    }

    /// Fills empty tables with what was kept. Ports are not asked for, because they come up later. Returns what does
    /// not fit, in words.
    pub fn restore(&mut self, kept: KeptTables, now: u64) -> Vec<String> {
        let KeptTables { meters, bindings, rules, redirects } = kept;
        let mut refused = self.meters.restore(meters, bindings, now);
        refused.extend(self.rules.restore(rules, &mut self.meters));
        refused.extend(self.redirects.restore(redirects));
        refused
    }

    /// Whether a port can go: nothing may be redirected to it.
    ///
    /// # Errors
    /// `Busy` if something is.
    pub fn check_port_unused(&self, no: PortNo) -> Result<(), Error> {
        self.redirects.check_port_unused(no)
    }

    /// A port is gone. Its bindings and its own redirect go with it. Rules stay: they name numbers, not ports.
    pub fn forget_port(&mut self, no: PortNo) {
        self.redirects.forget_port(no);
        self.meters.forget_port(no);
    }
}

/// Checks the sizes of the tables.
///
/// # Errors
/// The field, its range.
pub fn check_capacity(capacity: &Capacity) -> Result<(), Error> {
    let max_ports = u32::try_from(MAX_PORTS).unwrap_or(u32::MAX);
    for (name, value, max) in [
        ("ports", capacity.ports, max_ports),
        ("meters", capacity.meters, MAX_TABLE_SIZE),
        ("rules", capacity.rules, MAX_TABLE_SIZE),
        ("rule_masks", capacity.rule_masks, MAX_RULE_MASKS),
    ] {
        if !(1..=max).contains(&value) {
            return Err(Error::invalid(format!("{name}: {value} is out of range, 1 to {max} are possible")));
        }
    }
    Ok(())
}

fn not_found(message: String) -> Error {
    Error::new(ErrorKind::NotFound, message)
}

fn usage(total: u32, used: u32) -> Usage {
    Usage { total, free: total.saturating_sub(used) }
}
