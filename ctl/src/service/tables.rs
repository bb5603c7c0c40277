//! Meters, traffic rules and redirects. Each change holds the mutex, changes the data plane, and is then saved or
//! undone.

use std::collections::BTreeSet;

use switch::model::*;

use super::{Page, RuleWrite, Service};
use crate::error::Error;
use crate::state::{MeterRecord, Row};

impl Service {
    fn meter_row(&self, id: u32) -> Result<Row, switch::Error> {
        let MeterInfo { spec, implicit, .. } = self.dataplane.meter(id)?;
        Ok(Row::meter(&MeterRecord { spec, implicit }))
    }

    /// Adds a meter.
    pub fn add_meter(&self, spec: MeterSpec) -> Result<MeterInfo, Error> {
        let _inner = self.lock();
        let id = spec.id;
        self.dataplane.add_meter(spec, true)?;
        self.keep(&[self.meter_row(id)?], || self.dataplane.del_meter(id))?;
        Ok(self.dataplane.meter(id)?)
    }

    /// Deletes a meter that neither a port nor a rule uses.
    pub fn del_meter(&self, id: u32) -> Result<(), Error> {
        let _inner = self.lock();
        let MeterInfo { spec, implicit, .. } = self.dataplane.meter(id)?;
        self.dataplane.del_meter(id)?;
        self.keep(&[Row::no_meter(id)], || self.dataplane.add_meter(spec, implicit))
    }

    /// Changes a meter while frames pass it.
    pub fn update_meter(&self, id: u32, update: &MeterUpdate) -> Result<MeterInfo, Error> {
        let _inner = self.lock();
        let before = self.dataplane.update_meter(id, update)?;
        self.keep(&[self.meter_row(id)?], || self.dataplane.configure_meter(before))?;
        Ok(self.dataplane.meter(id)?)
    }

    /// One meter.
    pub fn meter(&self, id: u32) -> Result<MeterInfo, Error> {
        Ok(self.dataplane.meter(id)?)
    }

    /// Meters, ordered by number.
    pub fn meters(&self, page: Page) -> Vec<MeterInfo> {
        self.dataplane.meters(page.from, page.count())
    }

    /// Explicit bindings of meters to ports.
    pub fn meter_bindings(&self) -> Vec<MeterBinding> {
        self.dataplane.meter_bindings()
    }

    /// Binds a meter to a direction of a port. Replaces the binding that is there.
    pub fn bind_meter(&self, binding: &MeterBinding) -> Result<(), Error> {
        let _inner = self.lock();
        let MeterBinding { vport, direction, meter } = *binding;
        let implicit = self.dataplane.meter(meter)?.implicit;
        let before = self.dataplane.bind_meter(binding)?;
        self.keep(&[Row::binding(binding), self.meter_row(meter)?], || {
            match before {
                Some(meter) => drop(self.dataplane.bind_meter(&MeterBinding { meter, ..*binding })?),
                None => drop(self.dataplane.unbind_meter(vport, direction)?),
            }
            self.dataplane.set_meter_implicit(meter, implicit);
            Ok(())
        })
    }

    /// Removes a binding. If `meter` is given, it must be the meter that is bound.
    pub fn unbind_meter(&self, vport: u16, direction: MeterDirection, meter: Option<u32>) -> Result<(), Error> {
        let _inner = self.lock();
        if let Some(meter) = meter {
            self.dataplane.meter(meter)?;
            let binding = MeterBinding { vport, direction, meter };
            if !self.dataplane.meter_bindings().contains(&binding) {
                return Err(Error::not_found(format!("id: meter {meter} is not bound to vport {vport} that way")));
            }
        }
        let meter = self.dataplane.unbind_meter(vport, direction)?;
        let binding = MeterBinding { vport, direction, meter };
        self.keep(&[Row::no_binding(vport, direction)], || self.dataplane.bind_meter(&binding).map(drop))
    }

    /// Writes a rule at its index, or at the lowest free one.
    pub fn write_rule(&self, rule: RuleWrite) -> Result<RuleInfo, Error> {
        let inner = self.lock();
        let RuleWrite { key_index, key, action } = rule;
        let key_index = key_index.map_or_else(|| self.dataplane.free_rule(), Ok)?;
        let spec = RuleSpec { key_index, key, action };
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
                RuleChange::Write(spec) => Row::rule(spec),
                RuleChange::Delete(index) => Row::no_rule(*index),
                RuleChange::Clear => Row::no_rules(),
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

    /// Redirects frames for `src` to `dest`. `src` itself as `dest` removes the redirect.
    pub fn redirect(&self, spec: RedirectSpec) -> Result<(), Error> {
        let _inner = self.lock();
        let before = self.dataplane.redirect(spec)?;
        self.keep(&[Row::redirect(&spec)], || {
            self.dataplane.restore_redirect(spec.src, before);
            Ok(())
        })
    }

    /// All redirects.
    pub fn redirects(&self) -> Vec<RedirectInfo> {
        self.dataplane.redirects()
    }
}
