//! What control knows, and its way into the workers' view.
//!
//! All of it lies behind one lock, which no worker ever takes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::components::Live;
use super::core::Core;
use super::host_addresses::HostAddresses;
use super::ports::Ports;
use super::views::{Parts, Views, with_redirects};
use crate::capture::Tap;
use crate::engine::fdb::Fdb;
use crate::engine::tables::Tables;
use crate::model::*;
use crate::worker::view::View;

/// What control knows.
#[derive(Debug)]
pub(super) struct Control {
    pub core: Arc<Core>,
    pub ports: Ports,
    pub bridge: BridgeSettings,
    pub fdb: Arc<Fdb>,
    /// Addresses that stay the host's.
    pub host_addresses: HostAddresses,
    /// Meters, rules and redirects.
    pub tables: Tables,
    pub components: Live,
    /// Running captures.
    pub captures: Vec<Arc<Tap>>,
    /// Counters of ports that are gone.
    pub retired: PortStats,
    pub views: Views,
}

impl Control {
    /// Builds the view that this describes, and puts it in place.
    pub fn publish(&mut self) {
        let epoch = self.views.next_epoch();
        let Self { core, ports, bridge, fdb, host_addresses, tables, captures, views, .. } = self;
        let view = Parts { ports, bridge, fdb, host_addresses, tables, captures }.build(epoch);
        views.put(&core.shared, view);
    }

    /// Puts the tables as they are into a view with the same ports, and waits until all workers go by it.
    fn publish_tables(&mut self, change: impl FnOnce(&Tables, View) -> View) {
        let epoch = self.views.next_epoch();
        let Self { core, tables, views, .. } = self;
        let old = core.shared.view.load_full();
        let snapshot = old.snapshot.with_rules(epoch, tables.rules.current().clone());
        let view = change(tables, View { snapshot, ..View::clone(&old) });
        drop(old);
        views.put(&core.shared, view);
        core.shared.quiesce();
    }

    /// The same for meters and rules.
    pub fn publish_meters(&mut self) {
        self.publish_tables(|tables, view| View {
            meters: tables.meters.by_port(view.ports.len()).into(),
            metered: tables.meters.any(),
            ..view
        });
    }

    /// The same for redirects.
    pub fn publish_redirects(&mut self) {
        self.publish_tables(|tables, view| View { snapshot: with_redirects(view.snapshot, tables), ..view });
    }
}

/// Waits for the lock.
pub(super) fn lock(control: &Mutex<Control>) -> MutexGuard<'_, Control> {
    control.lock().unwrap_or_else(PoisonError::into_inner)
}
