//! Settings of the bridge.

use ctl_types::BridgeUpdate;
use switch::model::BridgeSettings;

use crate::Service;
use crate::error::Error;
use crate::state::{Row, Table};

/// The row of the settings in force. Absent if they are the defaults.
#[derive(Debug)]
pub struct RunTime;

impl Table for RunTime {
    const NAME: &'static str = "bridge";
    type Row = BridgeSettings;

    fn key(_: &BridgeSettings) -> String {
        String::new()
    }
}

/// The row of `[bridge]` as earlier daemons kept it. [`DeclaredRows`](crate::DeclaredRows) have it now.
#[derive(Debug)]
pub struct Configured;

impl Table for Configured {
    const NAME: &'static str = "bridge-configured";
    type Row = BridgeSettings;

    fn key(_: &BridgeSettings) -> String {
        String::new()
    }
}

impl Service {
    /// Changes the bridge settings.
    pub fn update_bridge(&self, update: &BridgeUpdate) -> Result<BridgeSettings, Error> {
        let _inner = self.lock();
        let before = self.dataplane.bridge();
        let bridge = BridgeSettings {
            fdb_limit: update.fdb_limit.unwrap_or(before.fdb_limit),
            fdb_ageing_seconds: update.fdb_ageing_seconds.unwrap_or(before.fdb_ageing_seconds),
            forward_reserved: update.forward_reserved.unwrap_or(before.forward_reserved),
            flap_limit: update.flap_limit.unwrap_or(before.flap_limit),
            storm_control: update.storm_control.unwrap_or(before.storm_control),
        };
        self.dataplane.set_bridge(bridge.clone())?;
        self.keep(&[Row::put::<RunTime>(&bridge)], || self.dataplane.set_bridge(before))?;
        Ok(bridge)
    }
}
