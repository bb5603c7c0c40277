//! Traffic rules. Each change holds the mutex, changes the data plane, and is then saved or undone.

use std::collections::BTreeSet;

use ctl_types::{Page, RuleWrite};
use switch::model::*;

use crate::Service;
use crate::error::Error;
use crate::state::{Row, Table};

/// Rows of rules, by the key `rule/INDEX`.
#[derive(Debug)]
pub struct Rules;

impl Table for Rules {
    const NAME: &'static str = "rule";
    type Row = RuleSpec;

    fn key(row: &RuleSpec) -> String {
        key(row.key_index)
    }
}

fn key(index: u32) -> String {
    format!("{index:010}")
}

impl Service {
    /// Writes a rule at its index, or at the lowest free one.
    pub fn write_rule(&self, rule: RuleWrite) -> Result<RuleInfo, Error> {
        let inner = self.lock();
        let key_index = rule.key_index.map_or_else(|| self.dataplane.free_rule(), Ok)?;
        let spec = RuleSpec { key_index, key: rule.key, action: rule.action };
        self.change(vec![RuleChange::Write(spec)])?;
        drop(inner);
        self.rule(key_index)
    }

    /// Deletes a rule.
    pub fn del_rule(&self, index: u32) -> Result<(), Error> {
        self.change_rules(vec![RuleChange::Delete(index)])
    }

    /// Applies a batch of rule changes in order, all of them or none.
    pub fn change_rules(&self, changes: Vec<RuleChange>) -> Result<(), Error> {
        let _inner = self.lock();
        self.change(changes)
    }

    fn change(&self, changes: Vec<RuleChange>) -> Result<(), Error> {
        // Changes before the last clear leave no rows.
        let last_clear = changes.iter().rposition(|change| *change == RuleChange::Clear).unwrap_or(0);
        let mut rows: Vec<_> = changes
            .iter()
            .skip(last_clear)
            .map(|change| match change {
                RuleChange::Write(spec) => Row::put::<Rules>(spec),
                RuleChange::Delete(index) => Row::remove::<Rules>(&key(*index)),
                RuleChange::Clear => Row::clear::<Rules>(),
            })
            .collect();
        let meters: BTreeSet<u32> = changes
            .iter()
            .filter_map(|change| match change {
                RuleChange::Write(spec) => spec.action.meter,
                _ => None,
            })
            .collect();
        // A meter that a rule names is not implicit any more, and its row says so. The data plane refuses unknown
        // meters.
        let implied: Vec<u32> =
            meters.iter().copied().filter(|id| self.dataplane.meter(*id).is_ok_and(|meter| meter.implicit)).collect();
        let undo = self.dataplane.change_rules(changes)?;
        for id in &implied {
            rows.extend(self.meter_row(*id));
        }
        self.keep(&rows, || {
            self.dataplane.undo_rules(undo);
            implied.iter().for_each(|id| self.dataplane.set_meter_implicit(*id, true));
            Ok(())
        })
    }

    /// One rule.
    pub fn rule(&self, index: u32) -> Result<RuleInfo, Error> {
        self.dataplane.rule(index).ok_or_else(|| Error::not_found(format!("key_index: there is no rule {index}")))
    }

    /// Rules, ordered by index.
    pub fn rules(&self, page: Page) -> Vec<RuleInfo> {
        self.dataplane.rules(page.from, page.count())
    }
}
