//! Views: built from what control knows, put in place, and let go of.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::host_addresses::HostAddresses;
use super::ports::{LivePort, Ports};
use crate::capture::Tap;
use crate::engine::fdb::Fdb;
use crate::engine::snapshot::{BridgePolicy, PortPolicy, Snapshot};
use crate::engine::tables::Tables;
use crate::model::*;
use crate::worker::shared::Shared;
use crate::worker::view::View;

/// Epoch of the first view.
pub(super) const FIRST_EPOCH: u64 = 1;

/// What a view is built from.
pub(super) struct Parts<'a> {
    pub ports: &'a Ports,
    pub bridge: &'a BridgeSettings,
    pub fdb: &'a Arc<Fdb>,
    pub host_addresses: &'a HostAddresses,
    pub tables: &'a Tables,
    pub captures: &'a [Arc<Tap>],
}

impl Parts<'_> {
    /// The view that they make.
    pub fn build(&self, epoch: u64) -> View {
        let Self { ports, bridge, fdb, host_addresses, tables, captures } = *self;
        let bridge = BridgePolicy { forward_reserved: bridge.forward_reserved };
        let policies = ports.bridged().map(|port| (port.shared.no, policy(&port.spec))).collect();
        let slots = ports.iter().next_back().map_or(0, |last| usize::from(last.shared.no) + 1);
        let mut shared = vec![None; slots];
        let mut taps = if captures.is_empty() { Vec::new() } else { vec![Vec::new(); slots] };
        for port in ports.iter() {
            let slot = usize::from(port.shared.no);
            shared[slot] = Some(Arc::clone(&port.shared));
            if let Some(taps) = taps.get_mut(slot) {
                *taps = taps_on(port, captures);
            }
        }
        let snapshot = Snapshot::build(epoch, &bridge, policies).with_host_addresses(host_addresses.iter());
        View {
            snapshot: with_redirects(snapshot, tables).with_rules(epoch, tables.rules.current().clone()),
            ports_epoch: epoch,
            fdb: Arc::clone(fdb),
            ports: shared.into(),
            meters: tables.meters.by_port(slots).into(),
            metered: tables.meters.any(),
            taps: taps.into(),
        }
    }
}

fn policy(spec: &PortSpec) -> PortPolicy {
    PortPolicy {
        mac: spec.mac,
        mac_check: spec.mac_check.unwrap_or(false),
        isolated: spec.isolated,
        vlan: spec.vlan.clone().unwrap_or(VlanMode::Access { vid: 0 }),
        mtu: spec.mtu.unwrap_or(DEFAULT_MTU),
        fdb_limit: spec.fdb_limit.unwrap_or(u32::MAX),
    }
}

fn taps_on(port: &LivePort, captures: &[Arc<Tap>]) -> Vec<Arc<Tap>> {
    captures.iter().filter(|tap| tap.covers(&port.spec.name)).cloned().collect()
}

/// The redirects of those tables in a snapshot.
pub(super) fn with_redirects(snapshot: Snapshot, tables: &Tables) -> Snapshot {
    snapshot.with_redirects(tables.redirects.iter().map(|(spec, end)| (spec.src, end)))
}

/// Views that were put in place.
#[derive(Debug)]
pub(super) struct Views {
    epoch: u64,
    /// Those that a worker may still have.
    old: Vec<Arc<View>>,
}

impl Default for Views {
    fn default() -> Self {
        Self { epoch: FIRST_EPOCH, old: Vec::new() }
    }
}

impl Views {
    /// The epoch of the next view.
    pub fn next_epoch(&mut self) -> u64 {
        self.epoch += 1;
        self.epoch
    }

    /// Puts a view in place. No packet goes on in the kernel by an older one when this returns.
    ///
    /// Lets go of old views that no worker has any more. The workers must not be the last to have one: they would spend
    /// their time on freeing it.
    pub fn put(&mut self, shared: &Shared, view: View) {
        let offload = shared.offload.get();
        if let Some(offload) = offload {
            offload.carry_over(&view, shared.now.load(Ordering::Relaxed));
        }
        self.old.push(shared.publish(view));
        if let Some(offload) = offload {
            offload.begin_epoch(&shared.view.load());
        }
        self.forget(shared);
    }

    /// Lets go of old views that no worker has any more.
    pub fn forget(&mut self, shared: &Shared) {
        let oldest = shared.oldest_epoch();
        self.old.retain(|view| view.snapshot.epoch >= oldest);
    }
}
