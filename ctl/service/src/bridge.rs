//! Settings of the bridge. Those made at run time hold until the configuration file is edited.

use ctl_types::BridgeUpdate;
use switch::model::BridgeSettings;

use crate::Service;
use crate::error::Error;
use crate::state::{Row, State, Store, Table};

/// The row of settings made at run time. Absent if there are none.
#[derive(Debug)]
pub struct RunTime;

impl Table for RunTime {
    const NAME: &'static str = "bridge";
    type Row = BridgeSettings;

    fn key(_: &BridgeSettings) -> String {
        String::new()
    }
}

/// The row of `[bridge]` in the configuration file, as last applied. Absent if it had none.
#[derive(Debug)]
pub struct Configured;

impl Table for Configured {
    const NAME: &'static str = "bridge-configured";
    type Row = BridgeSettings;

    fn key(_: &BridgeSettings) -> String {
        String::new()
    }
}

fn configured(bridge: Option<&BridgeSettings>) -> Row {
    bridge.map_or_else(|| Row::remove::<Configured>(""), Row::put::<Configured>)
}

/// The settings to start with: those made at run time, unless the file was edited since.
pub(super) fn restore(
    state: &mut State,
    store: &Store,
    declared: Option<&BridgeSettings>,
) -> Result<BridgeSettings, Error> {
    let mut bridge = state.take::<RunTime>().pop();
    if declared != state.take::<Configured>().first() {
        // The file was edited, so its settings are newer than those made at run time.
        bridge = None;
        store.write(&[Row::remove::<RunTime>(""), configured(declared)])?;
    }
    Ok(bridge.or_else(|| declared.cloned()).unwrap_or_default())
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
        };
        self.dataplane.set_bridge(bridge.clone())?;
        self.keep(&[Row::put::<RunTime>(&bridge)], || self.dataplane.set_bridge(before))?;
        Ok(bridge)
    }

    /// Applies the bridge settings of an edited configuration file. They replace those made at run time.
    pub fn configure_bridge(&self, bridge: Option<&BridgeSettings>) -> Result<(), Error> {
        let _inner = self.lock();
        let before = self.dataplane.bridge();
        self.dataplane.set_bridge(bridge.cloned().unwrap_or_default())?;
        self.keep(&[Row::remove::<RunTime>(""), configured(bridge)], || self.dataplane.set_bridge(before))
    }
}
