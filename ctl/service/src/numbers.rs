//! Tables whose entries name ports by number, and the fate of these entries when a port is removed.

use crate::meters::MeterBindings;
use crate::redirects::Redirects;
use crate::state::Row;
use crate::{Error, Service, busy};

/// All such tables, in the order in which they restore their entries.
const TABLES: [&dyn NamesPorts; 2] = [&Redirects, &MeterBindings];

/// Restores the entries that were set aside. The argument tells whether the port was deleted.
pub(crate) type PutBack<'a> = Box<dyn FnOnce(bool) -> Result<(), switch::Error> + 'a>;

/// A table whose entries name ports by number.
pub(crate) trait NamesPorts: Sync {
    /// The reason if the number can't be given up.
    fn holds(&self, service: &Service, no: u16) -> Option<String>;

    /// Row changes that remove the entries of a deleted port.
    fn gone(&self, no: u16) -> Vec<Row>;

    /// The present rows of the entries that would go with the port.
    fn rows(&self, service: &Service, no: u16) -> Vec<Row>;

    /// Removes entries that would prevent the deletion of a port that was just brought up. They are restored
    /// afterwards, because a failed port of that number may have had them before.
    fn set_aside<'a>(&self, service: &'a Service, no: u16) -> PutBack<'a>;
}

impl Service {
    /// Checks that no entry keeps a number from being given up.
    pub(crate) fn check_unused(&self, no: u16) -> Result<(), Error> {
        TABLES.iter().find_map(|table| table.holds(self, no)).map_or(Ok(()), |why| Err(busy(why)))
    }

    /// [`NamesPorts::rows`] of all tables.
    pub(crate) fn rows_of(&self, no: u16) -> Vec<Row> {
        TABLES.iter().flat_map(|table| table.rows(self, no)).collect()
    }

    /// [`NamesPorts::set_aside`] of all tables.
    pub(crate) fn set_aside(&self, no: u16) -> Vec<PutBack<'_>> {
        TABLES.iter().map(|table| table.set_aside(self, no)).collect()
    }
}

/// [`NamesPorts::gone`] of all tables.
pub(crate) fn gone(no: u16) -> Vec<Row> {
    TABLES.iter().flat_map(|table| table.gone(no)).collect()
}
