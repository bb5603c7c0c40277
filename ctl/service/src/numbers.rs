//! Tables whose entries name ports by their numbers: what becomes of these entries when a port goes.

use crate::meters::MeterBindings;
use crate::redirects::Redirects;
use crate::state::Row;
use crate::{Error, Service, busy};

/// Such tables. One that puts its entries back first comes first.
const TABLES: [&dyn NamesPorts; 2] = [&Redirects, &MeterBindings];

/// Puts back what was set aside. It is told whether the port was deleted.
pub(crate) type PutBack<'a> = Box<dyn FnOnce(bool) -> Result<(), switch::Error> + 'a>;

/// A table whose entries name ports.
pub(crate) trait NamesPorts: Sync {
    /// Why a number can't be given up, if it can't.
    fn holds(&self, service: &Service, no: u16) -> Option<String>;

    /// Rows that go with a port of that number.
    fn gone(&self, no: u16) -> Vec<Row>;

    /// Rows of the entries that go with a port of that number, as they are.
    fn rows(&self, service: &Service, no: u16) -> Vec<Row>;

    /// Takes out of the data plane what would hold a port that was just brought up and is to go again. What hung on its
    /// number before stays: it may have failed before.
    fn set_aside<'a>(&self, service: &'a Service, no: u16) -> PutBack<'a>;
}

impl Service {
    /// Whether a number can be given up.
    pub(crate) fn check_unused(&self, no: u16) -> Result<(), Error> {
        TABLES.iter().find_map(|table| table.holds(self, no)).map_or(Ok(()), |why| Err(busy(why)))
    }

    /// As [`NamesPorts::rows`], of all tables.
    pub(crate) fn rows_of(&self, no: u16) -> Vec<Row> {
        TABLES.iter().flat_map(|table| table.rows(self, no)).collect()
    }

    /// As [`NamesPorts::set_aside`], of all tables.
    pub(crate) fn set_aside(&self, no: u16) -> Vec<PutBack<'_>> {
        TABLES.iter().map(|table| table.set_aside(self, no)).collect()
    }
}

/// As [`NamesPorts::gone`], of all tables.
pub(crate) fn gone(no: u16) -> Vec<Row> {
    TABLES.iter().flat_map(|table| table.gone(no)).collect()
}
