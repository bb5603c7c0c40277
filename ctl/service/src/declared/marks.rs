//! Which rows a file has declared, and how. The state file remembers it, so that a row goes which its file declares no
//! more.

use std::collections::{BTreeMap, BTreeSet};

use ctl_types::SwitchConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::item::Item;
use crate::bridge::Configured;
use crate::state::{Row, State, Table};

/// Where a configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The daemon's own configuration file.
    Configuration,
    /// Another file, by its path.
    File(String),
    /// No file. Its rows are as if made at run time.
    Unnamed,
}

/// A row that a file has declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredRow {
    /// Section and key, such as `port/vm1`.
    pub name: String,
    /// Path of the file. Absent: the daemon's configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The row as it was declared.
    pub row: Value,
}

/// Rows of declared rows, by the key `declared/SECTION/KEY`.
#[derive(Debug)]
pub struct DeclaredRows;

impl Table for DeclaredRows {
    const NAME: &'static str = "declared";
    type Row = DeclaredRow;

    fn key(row: &DeclaredRow) -> String {
        row.name.clone()
    }
}

/// All declared rows, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Marks(BTreeMap<String, DeclaredRow>);

impl DeclaredRow {
    fn is_of(&self, source: &Source) -> bool {
        match source {
            Source::Configuration => self.file.is_none(),
            Source::File(path) => self.file.as_ref() == Some(path),
            Source::Unnamed => false,
        }
    }
}

impl Marks {
    /// The marks of a state file, and rows that bring the file to the present form.
    pub(crate) fn load(state: &mut State) -> (Self, Vec<Row>) {
        let rows = state.take::<DeclaredRows>();
        let mut marks = Self(rows.into_iter().map(|row| (row.name.clone(), row)).collect());
        let before = marks.clone();
        // The mark of the bridge before there were marks.
        let bridge = state.take::<Configured>();
        marks.add(&bridge, None);
        let mut rows = before.rows_to(&marks);
        rows.extend(bridge.first().map(|_| Row::remove::<Configured>("")));
        (marks, rows)
    }

    /// Whether a row was declared by that source.
    pub(super) fn is_of(&self, name: &str, source: &Source) -> bool {
        self.0.get(name).is_some_and(|row| row.is_of(source))
    }

    /// A row as that source declared it.
    pub(super) fn declared<T: DeserializeOwned>(&self, name: &str, source: &Source) -> Option<T> {
        let row = self.0.get(name).filter(|row| row.is_of(source))?;
        serde_json::from_value(row.row.clone()).ok()
    }

    /// The marks after a configuration. Those in `stays` keep their marks.
    pub(super) fn after(&self, config: &SwitchConfig, source: &Source, stays: &BTreeSet<&str>) -> Self {
        let kept = self.0.iter().filter(|(name, row)| !row.is_of(source) || stays.contains(name.as_str()));
        let mut marks = Self(kept.map(|(name, row)| (name.clone(), row.clone())).collect());
        let file = match source {
            Source::Configuration => None,
            Source::File(path) => Some(path.clone()),
            Source::Unnamed => return marks,
        };
        marks.add(config.bridge.as_slice(), file.as_ref());
        marks.add(&config.ports, file.as_ref());
        marks.add(&config.fdb, file.as_ref());
        marks.add(&config.meters, file.as_ref());
        marks.add(&config.bindings, file.as_ref());
        marks.add(&config.rules, file.as_ref());
        marks.add(&config.redirects, file.as_ref());
        marks.add(&config.disks, file.as_ref());
        marks
    }

    fn add<T: Item>(&mut self, rows: &[T], file: Option<&String>) {
        for item in rows {
            let row = serde_json::to_value(item).unwrap_or_default();
            let name = item.mark();
            self.0.insert(name.clone(), DeclaredRow { name, file: file.cloned(), row });
        }
    }

    /// The change of the state file from these marks to those.
    pub(super) fn rows_to(&self, after: &Self) -> Vec<Row> {
        let gone =
            self.0.keys().filter(|name| !after.0.contains_key(*name)).map(|name| Row::remove::<DeclaredRows>(name));
        let put = after.0.iter().filter(|(name, row)| self.0.get(*name) != Some(row));
        let put = put.map(|(_, row)| Row::put::<DeclaredRows>(row));
        gone.chain(put).collect()
    }
}
