//! What differs between two descriptions of a switch. Pure.

use ctl_types::{ConfigAction, ConfigChange, DiskSpec, FieldChange, MeterConfig, SwitchConfig};
use serde_json::{Map, Value};
use switch::model::*;

use super::item::{Item, by_key};
use super::marks::{Marks, Source};
use super::port;
use crate::state::Row;

/// A change of a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Edit<T> {
    Add(T),
    Change { from: T, to: T },
    Remove(T),
}

impl<T> Edit<T> {
    /// The row that there is.
    pub fn from(&self) -> Option<&T> {
        match self {
            Edit::Add(_) => None,
            Edit::Change { from, .. } | Edit::Remove(from) => Some(from),
        }
    }

    /// The row, if it comes.
    pub fn added(&self) -> Option<&T> {
        self.to().filter(|_| self.from().is_none())
    }

    /// The row, if it goes.
    pub fn gone(&self) -> Option<&T> {
        self.from().filter(|_| self.to().is_none())
    }

    /// Whether it is a change for which that holds.
    pub fn is_anew(&self, holds: impl Fn(&T, &T) -> bool) -> bool {
        matches!(self, Edit::Change { from, to } if holds(from, to))
    }

    /// The row that there will be.
    pub fn to(&self) -> Option<&T> {
        match self {
            Edit::Add(to) | Edit::Change { to, .. } => Some(to),
            Edit::Remove(_) => None,
        }
    }
}

/// Whether a meter has to be made anew.
pub(super) fn is_other_meter(from: &MeterConfig, to: &MeterConfig) -> bool {
    (from.spec.kind, from.spec.mode) != (to.spec.kind, to.spec.mode)
}

/// Changes of all sections, each in the order of its keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Changes {
    pub bridge: Vec<Edit<BridgeSettings>>,
    pub ports: Vec<Edit<PortSpec>>,
    pub fdb: Vec<Edit<FdbSpec>>,
    pub meters: Vec<Edit<MeterConfig>>,
    pub bindings: Vec<Edit<MeterBinding>>,
    pub rules: Vec<Edit<RuleSpec>>,
    pub redirects: Vec<Edit<RedirectSpec>>,
    pub disks: Vec<Edit<DiskSpec>>,
}

/// What makes `is` to `to`.
pub(super) fn diff(is: &SwitchConfig, to: &SwitchConfig) -> Changes {
    Changes {
        bridge: edits(is.bridge.as_slice(), to.bridge.as_slice()),
        ports: edits(&is.ports, &to.ports),
        fdb: edits(&is.fdb, &to.fdb),
        meters: edits(&is.meters, &to.meters),
        bindings: edits(&is.bindings, &to.bindings),
        rules: edits(&is.rules, &to.rules),
        redirects: edits(&is.redirects, &to.redirects),
        disks: edits(&is.disks, &to.disks),
    }
}

fn edits<T: Item>(is: &[T], to: &[T]) -> Vec<Edit<T>> {
    let mut before = by_key(is);
    let mut edits: Vec<(T::Key, Edit<T>)> = Vec::new();
    for (key, to) in by_key(to) {
        match before.remove(&key) {
            Some(from) if from == to => {}
            Some(from) => edits.push((key, Edit::Change { from: from.clone(), to: to.clone() })),
            None => edits.push((key, Edit::Add(to.clone()))),
        }
    }
    edits.extend(before.into_iter().map(|(key, from)| (key, Edit::Remove(from.clone()))));
    edits.sort_by(|(one, _), (other, _)| one.cmp(other));
    edits.into_iter().map(|(_, edit)| edit).collect()
}

impl Changes {
    /// The same as rows of the state file.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        add_rows(&self.bridge, &mut rows);
        add_rows(&self.ports, &mut rows);
        add_rows(&self.fdb, &mut rows);
        add_rows(&self.meters, &mut rows);
        add_rows(&self.bindings, &mut rows);
        add_rows(&self.rules, &mut rows);
        add_rows(&self.redirects, &mut rows);
        add_rows(&self.disks, &mut rows);
        rows
    }

    /// The same for users. `declared` is what `source` declares, and `marks` what it had declared before.
    pub fn describe(&self, declared: &SwitchConfig, marks: &Marks, source: &Source) -> Vec<ConfigChange> {
        let mut told = Vec::new();
        let context = (marks, source);
        tell(&self.bridge, declared.bridge.as_slice(), context, &mut told);
        tell(&self.ports, &declared.ports, context, &mut told);
        tell(&self.fdb, &declared.fdb, context, &mut told);
        tell(&self.meters, &declared.meters, context, &mut told);
        tell(&self.bindings, &declared.bindings, context, &mut told);
        tell(&self.rules, &declared.rules, context, &mut told);
        tell(&self.redirects, &declared.redirects, context, &mut told);
        tell(&self.disks, &declared.disks, context, &mut told);
        let ports = self.ports.iter().map(|edit| edit.is_anew(|from, to| port::update(from, to).is_none()));
        let meters = self.meters.iter().map(|edit| edit.is_anew(is_other_meter));
        let first = self.bridge.len();
        for (is_anew, change) in ports.zip(told.iter_mut().skip(first)) {
            change.action = if is_anew { ConfigAction::Replace } else { change.action };
        }
        let first = first + self.ports.len() + self.fdb.len();
        for (is_anew, change) in meters.zip(told.iter_mut().skip(first)) {
            change.action = if is_anew { ConfigAction::Replace } else { change.action };
        }
        // Disks come last.
        let first = told.len() - self.disks.len();
        let disks = self.disks.iter().map(|edit| edit.is_anew(|from, to| !ctl_disks::is_live_change(from, to)));
        for (is_anew, change) in disks.zip(told.iter_mut().skip(first)) {
            change.action = if is_anew { ConfigAction::Replace } else { change.action };
        }
        told
    }
}

fn add_rows<T: Item>(edits: &[Edit<T>], rows: &mut Vec<Row>) {
    rows.extend(edits.iter().map(|edit| match edit {
        Edit::Add(row) | Edit::Change { to: row, .. } => row.put(),
        Edit::Remove(row) => row.gone(),
    }));
}

fn tell<T: Item + serde::de::DeserializeOwned>(
    edits: &[Edit<T>],
    declared: &[T],
    (marks, source): (&Marks, &Source),
    told: &mut Vec<ConfigChange>,
) {
    let declared = by_key(declared);
    for edit in edits {
        let (action, row) = match edit {
            Edit::Add(row) => (ConfigAction::Add, row),
            Edit::Change { to, .. } => (ConfigAction::Change, to),
            Edit::Remove(row) => (ConfigAction::Remove, row),
        };
        let same = |wish: &&T| marks.declared::<T>(&row.mark(), source).is_some_and(|before| before == **wish);
        let run_time = declared.get(&row.key()).is_some_and(same);
        let fields = fields(edit.from(), edit.to());
        told.push(ConfigChange { section: T::SECTION, key: row.label(), action, fields, run_time });
    }
}

/// Fields that differ, by name.
fn fields<T: Item>(from: Option<&T>, to: Option<&T>) -> Vec<FieldChange> {
    let object = |row: Option<&T>| match row.map(serde_json::to_value) {
        Some(Ok(Value::Object(fields))) => fields,
        _ => Map::new(),
    };
    let (mut from, to) = (object(from), object(to));
    let mut fields = Vec::new();
    for (field, to) in to {
        let from = from.remove(&field);
        if from.as_ref() != Some(&to) {
            fields.push(FieldChange { field, from, to: Some(to) });
        }
    }
    fields.extend(from.into_iter().map(|(field, from)| FieldChange { field, from: Some(from), to: None }));
    fields.sort_by(|one, other| one.field.cmp(&other.field));
    fields
}
