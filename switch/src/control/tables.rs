//! Meters, rules and redirects of a running switch.
//!
//! Each method is one change: checked whole, made in [`Tables`], put in place as a view, and seen by every worker before the
//! method returns. Meters change their rates in place, without a new view.

use std::sync::Arc;

use super::{Control, State, Switch, guest_end};
use crate::Error;
use crate::engine::PortNo;
use crate::engine::rule::Rule;
use crate::engine::snapshot::Snapshot;
use crate::engine::tables::{KeptTables, RuleUndo, Tables};
use crate::model::*;
use crate::worker::view::View;

/// The tables to change, and the ports to check changes by.
fn split(control: &mut Control) -> (&mut Tables, impl Fn(PortNo) -> Option<u32> + use<'_>) {
    let Control { tables, ports, reserved, .. } = control;
    let queues = |no: PortNo| {
        let live = ports.get(&no).map(|port| port.shared.queues.len() as u32);
        live.or_else(|| reserved.get(&no).map(|(_, queues)| *queues))
    };
    (tables, queues)
}

/// The redirects of those tables in a snapshot.
pub(super) fn with_redirects(snapshot: Snapshot, tables: &Tables) -> Snapshot {
    snapshot.with_redirects(tables.redirects.iter().map(|(spec, end)| (spec.src, end)))
}

/// Puts the tables as they are now into a view with the same ports, and waits until all workers go by it.
fn publish(state: &State, control: &mut Control, change: impl FnOnce(&Tables, View) -> View) {
    control.epoch += 1;
    let old = state.shared.view.load_full();
    let snapshot = old.snapshot.with_rules(control.epoch, control.tables.rules.current().clone());
    let view = change(&control.tables, View { snapshot, ..View::clone(&old) });
    drop(old);
    state.put(control, view);
    state.shared.quiesce();
}

fn publish_meters(state: &State, control: &mut Control) {
    publish(state, control, |tables, view| View {
        meters: tables.meters.by_port(view.ports.len()).into(),
        metered: tables.meters.any(),
        ..view
    });
}

fn publish_redirects(state: &State, control: &mut Control) {
    publish(state, control, |tables, view| View { snapshot: with_redirects(view.snapshot, tables), ..view });
}

fn info(rule: &Arc<Rule>) -> RuleInfo {
    RuleInfo { spec: rule.spec(), matched: rule.matched() }
}

impl Switch {
    /// Keeps numbers, with their names and queues, for ports that are configured and could not be brought up: other ports
    /// don't get them, and rules, bindings and redirects may name them.
    pub fn reserve_ports(&self, ports: Vec<(u16, String, u32)>) {
        let mut control = self.state.lock();
        control.reserved.clear();
        for (no, name, queues) in ports {
            // Of two that name the same number the first one has it.
            control.reserved.entry(no).or_insert((name, queues));
        }
    }

    /// Forgets bindings and redirect of a number that was kept for a port; `Busy` if what would go elsewhere is redirected to
    /// it.
    pub fn forget_port(&self, no: u16) -> Result<(), Error> {
        let mut control = self.state.lock();
        control.tables.check_port_unused(no)?;
        control.tables.forget_port(no);
        control.reserved.remove(&no);
        guest_end::forget(&self.state, no);
        publish_meters(&self.state, &mut control);
        publish_redirects(&self.state, &mut control);
        Ok(())
    }

    /// Fills the tables with what was kept, before there are ports. Returns what does not fit, in words.
    pub fn restore_tables(&self, kept: KeptTables) -> Vec<String> {
        let mut control = self.state.lock();
        let refused = control.tables.restore(kept, self.state.shared.now_ns());
        publish_meters(&self.state, &mut control);
        publish_redirects(&self.state, &mut control);
        refused
    }

    /// Ports that there can be.
    pub fn port_slots(&self) -> u32 {
        self.state.settings.capacity.port_slots() as u32
    }

    /// Meters there can be.
    pub fn meter_usage(&self) -> Usage {
        self.state.lock().tables.meters.usage()
    }

    /// Adds a meter. `implicit`: whether it applies to what the vport of its number sends, as long as it is not bound.
    pub fn add_meter(&self, spec: MeterSpec, implicit: bool) -> Result<(), Error> {
        let mut control = self.state.lock();
        control.tables.meters.add(spec, implicit, self.state.shared.now_ns())?;
        publish_meters(&self.state, &mut control);
        Ok(())
    }

    /// Deletes a meter; `Busy` while a port or a rule uses it.
    pub fn del_meter(&self, id: u32) -> Result<(), Error> {
        let mut control = self.state.lock();
        control.tables.meters.delete(id)?;
        publish_meters(&self.state, &mut control);
        Ok(())
    }

    /// Changes a meter under the frames that pass it; returns its configuration before.
    pub fn update_meter(&self, id: u32, update: &MeterUpdate) -> Result<MeterSpec, Error> {
        self.state.lock().tables.meters.update(id, update, self.state.shared.now_ns())
    }

    /// Gives a meter a whole configuration, of the same type and mode.
    pub fn configure_meter(&self, spec: MeterSpec) -> Result<(), Error> {
        self.state.lock().tables.meters.configure(spec, self.state.shared.now_ns())
    }

    /// One meter.
    pub fn meter(&self, id: u32) -> Result<MeterInfo, Error> {
        let mut control = self.state.lock();
        let (tables, ports) = split(&mut control);
        tables.meters.info(id, &ports)
    }

    /// Meters from number `from` on, at most `limit`.
    pub fn meters(&self, from: u32, limit: usize) -> Vec<MeterInfo> {
        let mut control = self.state.lock();
        let (tables, ports) = split(&mut control);
        tables.meters.list(from, limit, &ports)
    }

    /// Says again of a meter whether it was never bound.
    pub fn set_meter_implicit(&self, id: u32, implicit: bool) {
        let mut control = self.state.lock();
        control.tables.meters.set_implicit(id, implicit);
        publish_meters(&self.state, &mut control);
    }

    /// Binds a meter to a direction of a port; returns the one that was bound there.
    pub fn bind_meter(&self, binding: &MeterBinding) -> Result<Option<u32>, Error> {
        let mut control = self.state.lock();
        let before = {
            let (tables, ports) = split(&mut control);
            tables.meters.bind(binding, &ports)?
        };
        publish_meters(&self.state, &mut control);
        Ok(before)
    }

    /// Undoes a binding; returns the meter.
    pub fn unbind_meter(&self, vport: u16, direction: MeterDirection) -> Result<u32, Error> {
        let mut control = self.state.lock();
        let meter = control.tables.meters.unbind(vport, direction)?;
        publish_meters(&self.state, &mut control);
        Ok(meter)
    }

    /// All bindings, the implicit ones not among them.
    pub fn meter_bindings(&self) -> Vec<MeterBinding> {
        self.state.lock().tables.meters.bindings()
    }

    /// Rules there can be.
    pub fn rule_usage(&self) -> Usage {
        self.state.lock().tables.rules.usage()
    }

    /// Lowest place without a rule; `Full` if there is none.
    pub fn free_rule(&self) -> Result<u32, Error> {
        self.state.lock().tables.rules.first_free()
    }

    /// Carries out a batch of changes of rules, or none of them. Each packet meets the rules before it or after it.
    pub fn change_rules(&self, changes: Vec<RuleChange>) -> Result<RuleUndo, Error> {
        let mut control = self.state.lock();
        let undo = {
            let (tables, ports) = split(&mut control);
            tables.change_rules(changes, &ports)?
        };
        // A meter that a rule names applies to its vport no more.
        publish_meters(&self.state, &mut control);
        Ok(undo)
    }

    /// Puts back what a batch has changed.
    pub fn undo_rules(&self, undo: RuleUndo) {
        let mut control = self.state.lock();
        control.tables.undo_rules(undo);
        publish_meters(&self.state, &mut control);
    }

    /// One rule.
    pub fn rule(&self, index: u32) -> Option<RuleInfo> {
        self.state.lock().tables.rules.current().get(index).map(info)
    }

    /// Rules from place `from` on, at most `limit`.
    pub fn rules(&self, from: u32, limit: usize) -> Vec<RuleInfo> {
        let rules = self.state.lock().tables.rules.current().clone();
        rules.iter_from(from).take(limit).map(info).collect()
    }

    /// Places of the rules that were applied, and to how much.
    pub fn rules_applied(&self) -> Vec<(u32, Count)> {
        let rules = self.state.lock().tables.rules.current().clone();
        let counted = rules.iter_from(0).map(|rule| (rule.index, rule.matched()));
        counted.filter(|(_, matched)| matched.packets > 0).collect()
    }

    /// Number of distinct masks of the rules.
    pub fn rule_masks(&self) -> usize {
        self.state.lock().tables.rules.current().masks()
    }

    /// Sends what would go to `src` to `dest` from now on; `src` itself as `dest` undoes it. Returns where it went before.
    pub fn redirect(&self, spec: RedirectSpec) -> Result<Option<u16>, Error> {
        let mut control = self.state.lock();
        let before = {
            let (tables, ports) = split(&mut control);
            tables.redirects.set(spec, &ports)?
        };
        publish_redirects(&self.state, &mut control);
        Ok(before)
    }

    /// Sets or undoes a redirect as it was before.
    pub fn restore_redirect(&self, src: u16, dest: Option<u16>) {
        let mut control = self.state.lock();
        control.tables.redirects.put(src, dest);
        publish_redirects(&self.state, &mut control);
    }

    /// All redirects, by source.
    pub fn redirects(&self) -> Vec<RedirectInfo> {
        let control = self.state.lock();
        let info = |(spec, ends_at): (RedirectSpec, PortNo)| {
            let mut stats = PortStats::default();
            if let Some(port) = control.ports.get(&spec.src) {
                super::audit::add_port(&mut stats, &port.shared);
            }
            RedirectInfo { spec, ends_at, redirected: stats.redirected }
        };
        control.tables.redirects.iter().map(info).collect()
    }
}
