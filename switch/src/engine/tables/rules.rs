//! Traffic rules: checks of a rule, and batches of changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::meters::Meters;
use super::ports::{Ports, expect_port};
use super::{not_found, usage};
use crate::engine::rule::{Rule, RuleTable, Rules};
use crate::model::{RuleAction, RuleChange, RuleSpec, RuleTarget, Usage};
use crate::{Error, ErrorKind};

/// Rules that a batch took away or replaced, to put them back.
#[derive(Debug)]
pub struct RuleUndo(Vec<(u32, Option<Arc<Rule>>)>);

/// A change that has been checked.
enum Prepared {
    Write(Arc<Rule>),
    Delete(u32),
    Clear,
}

/// All traffic rules. Rules name meters, so changes are made by [`Tables`](super::Tables), which has both.
#[derive(Debug)]
pub struct TrafficRules {
    capacity: u32,
    /// Distinct masks that there can be.
    mask_capacity: u32,
    workers: usize,
    table: RuleTable,
}

impl TrafficRules {
    pub(super) fn new(capacity: u32, mask_capacity: u32, workers: usize) -> Self {
        Self { capacity, mask_capacity, workers, table: RuleTable::default() }
    }

    /// Rules there can be, and rules that could still be written.
    pub fn usage(&self) -> Usage {
        usage(self.capacity, self.table.rules().len())
    }

    /// Their current version, as workers get it.
    pub fn current(&self) -> &Rules {
        self.table.rules()
    }

    /// Lowest index without a rule.
    ///
    /// # Errors
    /// `Full` if there is none.
    pub fn first_free(&self) -> Result<u32, Error> {
        Some(self.table.first_free()).filter(|index| *index < self.capacity).ok_or_else(|| {
            Error::new(
                ErrorKind::Full,
                format!("key_index: all {} places are taken: delete a rule first", self.capacity),
            )
        })
    }

    /// As [`Tables::change_rules`](super::Tables::change_rules).
    pub(super) fn change(
        &mut self,
        changes: Vec<RuleChange>,
        ports: &dyn Ports,
        meters: &mut Meters,
    ) -> Result<RuleUndo, Error> {
        let most = 4 * self.capacity as usize;
        if changes.len() > most {
            return Err(Error::invalid(format!(
                "changes: {} are too many, {most} are possible at once",
                changes.len()
            )));
        }
        let prepared = self.prepare(changes, ports, meters)?;
        // What a later change clears away need not be done.
        let last_clear = prepared.iter().rposition(|change| matches!(change, Prepared::Clear)).unwrap_or(0);
        let mut undo = Vec::with_capacity(prepared.len());
        for change in prepared.into_iter().skip(last_clear) {
            match change {
                Prepared::Write(rule) => undo.push((rule.index, self.put(rule, meters))),
                Prepared::Delete(index) => undo.push((index, self.take(index, meters))),
                Prepared::Clear => {
                    let all: Vec<_> = self.table.rules().iter_from(0).map(|rule| rule.index).collect();
                    undo.extend(all.into_iter().map(|index| (index, self.take(index, meters))));
                }
            }
        }
        self.table.commit();
        let (masks, most) = (self.table.rules().masks(), self.mask_capacity as usize);
        if masks > most {
            self.undo(RuleUndo(undo), meters);
            return Err(Error::new(
                ErrorKind::Full,
                format!(
                    "key: the rules would have {masks} distinct masks, {most} are possible: mask alike what is alike"
                ),
            ));
        }
        Ok(RuleUndo(undo))
    }

    /// As [`Tables::undo_rules`](super::Tables::undo_rules).
    pub(super) fn undo(&mut self, undo: RuleUndo, meters: &mut Meters) {
        for (index, rule) in undo.0.into_iter().rev() {
            match rule {
                Some(rule) => drop(self.put(rule, meters)),
                None => drop(self.take(index, meters)),
            }
        }
        self.table.commit();
    }

    /// Fills an empty table with what was kept. Ports are not asked for, because they come up later. Returns what
    /// does not fit, in words.
    pub(super) fn restore(&mut self, kept: Vec<RuleSpec>, meters: &mut Meters) -> Vec<String> {
        let mut refused = Vec::new();
        for spec in kept {
            let index = spec.key_index;
            match self.check(spec, &|_| Some(u32::MAX), meters) {
                Ok(rule) => drop(self.put(Arc::new(rule), meters)),
                Err(error) => refused.push(format!("rule {index}: {error}")),
            }
        }
        self.table.commit();
        refused
    }

    /// Checks all changes of a batch, each as if those before it were made.
    fn prepare(&self, changes: Vec<RuleChange>, ports: &dyn Ports, meters: &Meters) -> Result<Vec<Prepared>, Error> {
        let many = changes.len() > 1;
        let place = |at: usize, error: Error| {
            if many { Error::new(error.kind(), format!("change {at}: {error}")) } else { error }
        };
        // Whether there is a rule after the changes so far. An index that is not in `taken` is as the table says, or
        // empty if the table was cleared.
        let mut cleared = false;
        let mut taken: BTreeMap<u32, bool> = BTreeMap::new();
        let mut prepared = Vec::with_capacity(changes.len());
        for (at, change) in changes.into_iter().enumerate() {
            prepared.push(match change {
                RuleChange::Write(spec) => {
                    taken.insert(spec.key_index, true);
                    let rule = self.check(spec, ports, meters).map_err(|error| place(at, error))?;
                    Prepared::Write(Arc::new(rule))
                }
                RuleChange::Delete(index) => {
                    let there = || !cleared && self.table.rules().get(index).is_some();
                    if !taken.insert(index, false).unwrap_or_else(there) {
                        return Err(place(at, not_found(format!("key_index: there is no rule {index}"))));
                    }
                    Prepared::Delete(index)
                }
                RuleChange::Clear => {
                    (cleared, taken) = (true, BTreeMap::new());
                    Prepared::Clear
                }
            });
        }
        Ok(prepared)
    }

    /// Checks one rule against the ports, their queues, and the meters. Field names in errors are those of the DPU
    /// interface.
    fn check(&self, spec: RuleSpec, ports: &dyn Ports, meters: &Meters) -> Result<Rule, Error> {
        if spec.key_index >= self.capacity {
            return Err(Error::invalid(format!(
                "key_index: {} is out of range, 0 to {} are possible",
                spec.key_index,
                self.capacity - 1
            )));
        }
        let RuleAction { target, queue, meter, mirror } = &spec.action;
        match (target, queue) {
            (RuleTarget::Port(no), queue) => {
                let queues = expect_port("action.vid", *no, ports)?;
                if let Some(queue) = queue.filter(|queue| *queue >= queues) {
                    return Err(Error::invalid(format!(
                        "qid: {queue} is out of range, vport {no} has queues 0 to {} (none, or -1: by flow hash)",
                        queues - 1
                    )));
                }
            }
            (target, Some(_)) => {
                return Err(Error::invalid(format!("qid: a rule to `{target}` has no queue: leave it out")));
            }
            _ => {}
        }
        if let Some(mirror) = mirror {
            expect_port("mirror", *mirror, ports)?;
        }
        let meter = match meter {
            None => None,
            Some(id) => Some(meters.get(*id).ok_or_else(|| not_found(format!("meter: there is no meter {id}")))?),
        };
        Rule::new(spec, meter, self.workers).map_err(Error::invalid)
    }

    fn put(&mut self, rule: Arc<Rule>, meters: &mut Meters) -> Option<Arc<Rule>> {
        if let Some(id) = rule.action.meter {
            meters.hold(id);
        }
        let before = self.table.insert(rule);
        release(before.as_deref(), meters);
        before
    }

    fn take(&mut self, index: u32, meters: &mut Meters) -> Option<Arc<Rule>> {
        let before = self.table.remove(index);
        release(before.as_deref(), meters);
        before
    }
}

/// A rule is no longer in force, and no longer holds its meter.
fn release(rule: Option<&Rule>, meters: &mut Meters) {
    if let Some(id) = rule.and_then(|rule| rule.action.meter) {
        meters.release(id);
    }
}
