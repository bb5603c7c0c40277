//! Rows of a configuration: what tells one from another, and how users and the state file name it.

use std::collections::BTreeMap;

use ctl_types::{ConfigSection, DiskSpec, MeterConfig};
use serde::Serialize;
use switch::model::*;

use crate::bridge::RunTime;
use crate::disks::DiskRows;
use crate::fdb::{self, StaticEntries};
use crate::meters::{MeterBindings, MeterRecord, Meters, binding_key, meter_key};
use crate::ports::Ports;
use crate::redirects::Redirects;
use crate::rules::Rules;
use crate::state::{Row, Table};

/// A row that a configuration can declare. Two rows of the same key are the same thing, perhaps changed.
pub(crate) trait Item: Clone + PartialEq + Serialize {
    /// What tells it from others of its section.
    type Key: Ord;
    /// Its section.
    const SECTION: ConfigSection;

    /// Its key.
    fn key(&self) -> Self::Key;

    /// Its key in words.
    fn label(&self) -> String;

    /// Writes it to the state file.
    fn put(&self) -> Row;

    /// Removes it from the state file.
    fn gone(&self) -> Row;

    /// Whether the switch has made it for a need of its own. Then no file makes it go.
    fn is_made(&self) -> bool {
        false
    }

    /// Its name among the rows of all sections.
    fn mark(&self) -> String {
        format!("{}/{}", Self::SECTION.name(), self.label())
    }
}

/// Rows by key. Of rows with the same key the last one counts.
pub(crate) fn by_key<T: Item>(rows: &[T]) -> BTreeMap<T::Key, &T> {
    rows.iter().map(|row| (row.key(), row)).collect()
}

impl Item for BridgeSettings {
    type Key = ();
    const SECTION: ConfigSection = ConfigSection::Bridge;

    fn key(&self) {}

    fn label(&self) -> String {
        String::new()
    }

    fn put(&self) -> Row {
        Row::put::<RunTime>(self)
    }

    fn gone(&self) -> Row {
        Row::remove::<RunTime>("")
    }
}

impl Item for PortSpec {
    type Key = String;
    const SECTION: ConfigSection = ConfigSection::Port;

    fn key(&self) -> String {
        self.name.clone()
    }

    fn label(&self) -> String {
        self.name.clone()
    }

    fn is_made(&self) -> bool {
        self.made_for_vhost().is_some()
    }

    fn put(&self) -> Row {
        Row::put::<Ports>(self)
    }

    fn gone(&self) -> Row {
        Row::remove::<Ports>(&self.name)
    }
}

impl Item for FdbSpec {
    type Key = (u16, MacAddr);
    const SECTION: ConfigSection = ConfigSection::Fdb;

    fn key(&self) -> (u16, MacAddr) {
        (self.vlan, self.mac)
    }

    fn label(&self) -> String {
        fdb::key(self.mac, self.vlan)
    }

    fn put(&self) -> Row {
        Row::put::<StaticEntries>(self)
    }

    fn gone(&self) -> Row {
        Row::remove::<StaticEntries>(&fdb::key(self.mac, self.vlan))
    }
}

impl Item for MeterConfig {
    type Key = u32;
    const SECTION: ConfigSection = ConfigSection::Meter;

    fn key(&self) -> u32 {
        self.spec.id
    }

    fn label(&self) -> String {
        self.spec.id.to_string()
    }

    fn put(&self) -> Row {
        Row::put::<Meters>(&MeterRecord { spec: self.spec.clone(), implicit: self.implicit })
    }

    fn gone(&self) -> Row {
        Row::remove::<Meters>(&meter_key(self.spec.id))
    }
}

impl Item for MeterBinding {
    type Key = (u16, MeterDirection);
    const SECTION: ConfigSection = ConfigSection::Binding;

    fn key(&self) -> (u16, MeterDirection) {
        (self.vport, self.direction)
    }

    fn label(&self) -> String {
        let direction = match self.direction {
            MeterDirection::From => "from",
            MeterDirection::To => "to",
        };
        format!("{}/{direction}", self.vport)
    }

    fn put(&self) -> Row {
        Row::put::<MeterBindings>(self)
    }

    fn gone(&self) -> Row {
        Row::remove::<MeterBindings>(&binding_key(self.vport, self.direction))
    }
}

impl Item for RuleSpec {
    type Key = u32;
    const SECTION: ConfigSection = ConfigSection::Rule;

    fn key(&self) -> u32 {
        self.key_index
    }

    fn label(&self) -> String {
        self.key_index.to_string()
    }

    fn put(&self) -> Row {
        Row::put::<Rules>(self)
    }

    fn gone(&self) -> Row {
        Row::remove::<Rules>(&Rules::key(self))
    }
}

impl Item for RedirectSpec {
    type Key = u16;
    const SECTION: ConfigSection = ConfigSection::Redirect;

    fn key(&self) -> u16 {
        self.src
    }

    fn label(&self) -> String {
        self.src.to_string()
    }

    fn put(&self) -> Row {
        Row::put::<Redirects>(self)
    }

    fn gone(&self) -> Row {
        Row::remove::<Redirects>(&Redirects::key(self))
    }
}

impl Item for DiskSpec {
    type Key = String;
    const SECTION: ConfigSection = ConfigSection::Disk;

    fn key(&self) -> String {
        self.name.clone()
    }

    fn label(&self) -> String {
        self.name.clone()
    }

    fn put(&self) -> Row {
        Row::put::<DiskRows>(self)
    }

    fn gone(&self) -> Row {
        Row::remove::<DiskRows>(&self.name)
    }
}
