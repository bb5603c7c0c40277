//! Kinds of rows in the state file. Each owner registers its kinds.

use std::any::Any;
use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A kind of rows, represented by a marker type of its owner.
pub trait Table: 'static {
    /// The first part of the keys, unique among all kinds.
    const NAME: &'static str;
    /// The contents of a row. Its JSON is the value in the file.
    type Row: Serialize + DeserializeOwned + Send + 'static;

    /// The part of the key after the name and a slash. It is empty if there is at most one row. Rows are loaded in the
    /// order of their keys, so numbers have leading zeros.
    fn key(row: &Self::Row) -> String;
}

/// A row to write or remove. A key that ends with `*` removes all rows with that prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub(super) key: String,
    pub(super) value: Option<String>,
}

impl Row {
    /// Writes a row, and replaces one with the same key.
    pub fn put<T: Table>(row: &T::Row) -> Self {
        // Plain data with text keys always serializes.
        let value = Some(serde_json::to_string(row).unwrap_or_default());
        Self { value, ..Self::remove::<T>(&T::key(row)) }
    }

    /// Removes the row with that key.
    pub fn remove<T: Table>(key: &str) -> Self {
        let name = T::NAME;
        Self { key: if key.is_empty() { name.to_owned() } else { format!("{name}/{key}") }, value: None }
    }

    /// Removes all rows of the kind.
    pub fn clear<T: Table>() -> Self {
        Self::remove::<T>("*")
    }
}

/// The loaded rows of one kind, as a `Vec` of their type.
type Rows = Box<dyn Any + Send>;

#[derive(Clone, Copy)]
struct Kind {
    empty: fn() -> Rows,
    read: fn(&mut Rows, &str) -> Result<(), String>,
}

fn read<T: Table>(rows: &mut Rows, value: &str) -> Result<(), String> {
    let row = serde_json::from_str(value).map_err(|error| error.to_string())?;
    if let Some(rows) = rows.downcast_mut::<Vec<T::Row>>() {
        rows.push(row);
    }
    Ok(())
}

/// The kinds of rows that a state file may have.
#[derive(Clone, Default)]
pub struct Tables(BTreeMap<&'static str, Kind>);

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Tables {
    /// Adds a kind.
    #[must_use]
    pub fn with<T: Table>(mut self) -> Self {
        self.0.insert(T::NAME, Kind { empty: || Box::new(Vec::<T::Row>::new()), read: read::<T> });
        self
    }

    /// Adds the kinds of another owner.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Parses a row into `state`. The error says what is wrong with it.
    pub(super) fn read(&self, state: &mut State, key: &str, value: &str) -> Result<(), String> {
        let name = key.split('/').next().unwrap_or_default();
        let (name, kind) = self.0.get_key_value(name).ok_or("nothing of that name is known")?;
        (kind.read)(state.0.entry(*name).or_insert_with(kind.empty), value)
    }
}

/// The contents of a state file.
#[derive(Debug, Default)]
pub struct State(BTreeMap<&'static str, Rows>);

impl State {
    /// Takes the rows of one kind, in the order of their keys. Later calls get none.
    pub fn take<T: Table>(&mut self) -> Vec<T::Row> {
        let rows = self.0.remove(T::NAME).and_then(|rows| rows.downcast::<Vec<T::Row>>().ok());
        rows.map_or_else(Vec::new, |rows| *rows)
    }

    /// Whether there are no rows of any kind.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
