//! Rows in the database.

use std::collections::BTreeMap;
use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Row, State, Tables, unusable};
use crate::error::Error;

/// Version of the rows' format. It is the only one that this program writes and reads.
const VERSION: &str = "1";
const TABLE: TableDefinition<'_, &str, &str> = TableDefinition::new("state");

/// The row with the version of the rows' format.
pub(super) fn version() -> Row {
    Row { key: "version".into(), value: Some(VERSION.into()) }
}

/// Writes and removes rows in one transaction, and syncs.
pub(super) fn write(database: &Database, rows: &[Row]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(TABLE)?;
        for Row { key, value } in rows {
            match (value, key.strip_suffix('*')) {
                (Some(value), _) => drop(table.insert(key.as_str(), value.as_str())?),
                (None, Some(prefix)) => {
                    // `retain` would copy a page per removed row, which is a gigabyte for a full table of rules.
                    let mut keys = Vec::new();
                    for row in table.range(prefix..)? {
                        let key = row?.0.value().to_owned();
                        if !key.starts_with(prefix) {
                            break;
                        }
                        keys.push(key);
                    }
                    for key in &keys {
                        table.remove(key.as_str())?;
                    }
                }
                (None, None) => drop(table.remove(key.as_str())?),
            }
        }
    }
    Ok(transaction.commit()?)
}

/// All rows as they are, by key.
pub(super) type Rows = BTreeMap<Box<str>, Box<str>>;

/// Reads all rows.
pub(super) fn read(path: &Path, database: &impl ReadableDatabase) -> Result<Rows, Error> {
    let rows = || -> Result<Rows, redb::Error> {
        let transaction = database.begin_read()?;
        let table = transaction.open_table(TABLE)?;
        let mut rows = Rows::new();
        for row in table.iter()? {
            let (key, value) = row?;
            rows.insert(key.value().into(), value.value().into());
        }
        Ok(rows)
    };
    rows().map_err(|error| unusable(path, format_args!("it is damaged: {error}")))
}

/// Does to rows in memory what [`write`] does to those in the file.
pub(super) fn apply(all: &mut Rows, rows: &[Row]) {
    for Row { key, value } in rows {
        match (value, key.strip_suffix('*')) {
            (Some(value), _) => drop(all.insert(key.as_str().into(), value.as_str().into())),
            (None, Some(prefix)) => all.retain(|key, _| !key.starts_with(prefix)),
            (None, None) => drop(all.remove(key.as_str())),
        }
    }
}

/// Checks all rows, and parses them.
pub(super) fn parse(path: &Path, rows: &Rows, tables: &Tables) -> Result<State, Error> {
    let version = version();
    let found = rows.get(version.key.as_str()).map(|found| &**found);
    if found != Some(VERSION) {
        let found = found.unwrap_or("none");
        return Err(unusable(path, format_args!("its format is version {found}, this xswitchd knows {VERSION}")));
    }
    let mut state = State::default();
    for (key, value) in rows.iter().filter(|(key, _)| ***key != version.key) {
        tables
            .read(&mut state, key, value)
            .map_err(|why| unusable(path, format_args!("row `{}` can't be understood: {why}", key.escape_default())))?;
    }
    Ok(state)
}
