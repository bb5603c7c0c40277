//! Meters, rules and redirects.
//!
//! Each method is one change: checked whole, made in [`Tables`], put in place as a view, and seen by every worker
//! before the method returns. Meters change their rates in place, without a new view.

use std::sync::{Arc, MutexGuard};

use super::Switch;
use crate::Error;
use crate::control::state::Control;
use crate::control::sums::add_port;
use crate::engine::rule::Rule;
use crate::engine::tables::{KeptTables, RuleUndo, Tables};
use crate::model::*;

/// The tables to change, and the ports to check changes by.
fn split(control: &mut Control) -> (&mut Tables, impl Fn(PortNo) -> Option<u32> + use<'_>) {
    let Control { tables, ports, .. } = control;
    (tables, |no| ports.queues_of(no))
}

fn info(rule: &Arc<Rule>) -> RuleInfo {
    RuleInfo { spec: rule.spec(), matched: rule.matched() }
}

impl Switch {
    /// Control, when what the kernel has done up to now is counted.
    fn settled(&self) -> MutexGuard<'_, Control> {
        let control = self.lock();
        control.core.settle_flows();
        control
    }

    /// Fills the tables with what was kept, before there are ports. Returns what does not fit, in words.
    pub fn restore_tables(&self, kept: KeptTables) -> Vec<String> {
        let mut control = self.lock();
        let refused = control.tables.restore(kept, self.core.shared.now_ns());
        control.publish_meters();
        control.publish_redirects();
        refused
    }

    /// Says which of these rows could not be in the tables together, in words. Ports are not asked for.
    pub fn check_tables(settings: &DataplaneSettings, tables: KeptTables) -> Vec<String> {
        Tables::new(settings.capacity, 1).restore(tables, 0)
    }

    /// Meters there can be.
    pub fn meter_usage(&self) -> Usage {
        self.lock().tables.meters.usage()
    }

    /// Adds a meter. `implicit`: whether it applies to what the vport of its number sends, as long as it is not bound.
    pub fn add_meter(&self, spec: MeterSpec, implicit: bool) -> Result<(), Error> {
        let mut control = self.lock();
        control.tables.meters.add(spec, implicit, self.core.shared.now_ns())?;
        control.publish_meters();
        Ok(())
    }

    /// Deletes a meter; `Busy` while a port or a rule uses it.
    pub fn del_meter(&self, id: u32) -> Result<(), Error> {
        let mut control = self.lock();
        control.tables.meters.delete(id)?;
        control.publish_meters();
        Ok(())
    }

    /// Changes a meter under the frames that pass it; returns its configuration before.
    pub fn update_meter(&self, id: u32, update: &MeterUpdate) -> Result<MeterSpec, Error> {
        self.lock().tables.meters.update(id, update, self.core.shared.now_ns())
    }

    /// Gives a meter a whole configuration, of the same type and mode.
    pub fn configure_meter(&self, spec: MeterSpec) -> Result<(), Error> {
        self.lock().tables.meters.configure(spec, self.core.shared.now_ns())
    }

    /// One meter.
    pub fn meter(&self, id: u32) -> Result<MeterInfo, Error> {
        let mut control = self.lock();
        let (tables, ports) = split(&mut control);
        tables.meters.info(id, &ports)
    }

    /// Meters from number `from` on, at most `limit`.
    pub fn meters(&self, from: u32, limit: usize) -> Vec<MeterInfo> {
        let mut control = self.lock();
        let (tables, ports) = split(&mut control);
        tables.meters.list(from, limit, &ports)
    }

    /// Says again of a meter whether it was never bound.
    pub fn set_meter_implicit(&self, id: u32, implicit: bool) {
        let mut control = self.lock();
        control.tables.meters.set_implicit(id, implicit);
        control.publish_meters();
    }

    /// Binds a meter to a direction of a port; returns the one that was bound there.
    pub fn bind_meter(&self, binding: &MeterBinding) -> Result<Option<u32>, Error> {
        let mut control = self.lock();
        let before = {
            let (tables, ports) = split(&mut control);
            tables.meters.bind(binding, &ports)?
        };
        control.publish_meters();
        Ok(before)
    }

    /// Undoes a binding; returns the meter.
    pub fn unbind_meter(&self, vport: u16, direction: MeterDirection) -> Result<u32, Error> {
        let mut control = self.lock();
        let meter = control.tables.meters.unbind(vport, direction)?;
        control.publish_meters();
        Ok(meter)
    }

    /// All bindings, the implicit ones not among them.
    pub fn meter_bindings(&self) -> Vec<MeterBinding> {
        self.lock().tables.meters.bindings()
    }

    /// Rules there can be.
    pub fn rule_usage(&self) -> Usage {
        self.lock().tables.rules.usage()
    }

    /// Lowest place without a rule; `Full` if there is none.
    pub fn free_rule(&self) -> Result<u32, Error> {
        self.lock().tables.rules.first_free()
    }

    /// Carries out a batch of changes of rules, or none of them. Each packet meets the rules before it or after it.
    pub fn change_rules(&self, changes: Vec<RuleChange>) -> Result<RuleUndo, Error> {
        let mut control = self.lock();
        let undo = {
            let (tables, ports) = split(&mut control);
            tables.change_rules(changes, &ports)?
        };
        // A meter that a rule names applies to its vport no more.
        control.publish_meters();
        Ok(undo)
    }

    /// Puts back what a batch has changed.
    pub fn undo_rules(&self, undo: RuleUndo) {
        let mut control = self.lock();
        control.tables.undo_rules(undo);
        control.publish_meters();
    }

    /// One rule.
    pub fn rule(&self, index: u32) -> Option<RuleInfo> {
        self.settled().tables.rules.current().get(index).map(info)
    }

    /// Rules from place `from` on, at most `limit`.
    pub fn rules(&self, from: u32, limit: usize) -> Vec<RuleInfo> {
        let rules = self.settled().tables.rules.current().clone();
        rules.iter_from(from).take(limit).map(info).collect()
    }

    /// Places of the rules that were applied, and to how much.
    pub fn rules_applied(&self) -> Vec<(u32, Count)> {
        let rules = self.settled().tables.rules.current().clone();
        let counted = rules.iter_from(0).map(|rule| (rule.index, rule.matched()));
        counted.filter(|(_, matched)| matched.packets > 0).collect()
    }

    /// Number of distinct masks of the rules.
    pub fn rule_masks(&self) -> usize {
        self.lock().tables.rules.current().masks()
    }

    /// Sends what would go to `src` to `dest` from now on. With `src` itself as `dest` that ends. Returns where it
    /// went before.
    pub fn redirect(&self, spec: RedirectSpec) -> Result<Option<u16>, Error> {
        let mut control = self.lock();
        let before = {
            let (tables, ports) = split(&mut control);
            tables.redirects.set(spec, &ports)?
        };
        control.publish_redirects();
        Ok(before)
    }

    /// Sets or undoes a redirect as it was before.
    pub fn restore_redirect(&self, src: u16, dest: Option<u16>) {
        let mut control = self.lock();
        control.tables.redirects.put(src, dest);
        control.publish_redirects();
    }

    /// All redirects, by source.
    pub fn redirects(&self) -> Vec<RedirectInfo> {
        let control = self.settled();
        let info = |(spec, ends_at): (RedirectSpec, PortNo)| {
            let mut stats = PortStats::default();
            if let Some(port) = control.ports.get(spec.src) {
                add_port(&mut stats, &port.shared);
            }
            RedirectInfo { spec, ends_at, redirected: stats.redirected }
        };
        control.tables.redirects.iter().map(info).collect()
    }
}
