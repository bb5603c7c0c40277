//! A worker that runs components between their ports.

use std::sync::Arc;

use switch::engine::snapshot::{BridgePolicy, Snapshot};
use switch::engine::tables::Tables;
use switch::model::Capacity;
use switch::worker::Worker;
use switch::worker::component::{Link, Set};
use switch::worker::view::{PortShared, View};

use super::{Bed, Traffic, port, set_up, umem};
use crate::micro::fixtures::mac_table;

/// A worker with so many ports for components, and the components that `set` makes of them. In each turn a burst of
/// `packets` comes in by each of the first `sources` ports.
pub fn components(
    ports: u16,
    sources: usize,
    packets: Vec<Vec<u8>>,
    set: impl FnOnce(&[Arc<PortShared>], &[Link]) -> Set,
) -> Bed<Worker> {
    let ports: Vec<_> = (0..ports).map(|no| port(no, false)).collect();
    let links: Vec<_> = ports.iter().map(|port| Link::Port(Arc::clone(port), None)).collect();
    let (device, wires) = set_up(&umem(), view(&ports), set(&ports, &links));
    Bed { sources, traffic: Some(Traffic::new(packets)), ..Bed::new(device, wires) }
}

fn view(ports: &[Arc<PortShared>]) -> View {
    let tables = Tables::new(Capacity::default(), 1);
    View {
        snapshot: Snapshot::build(1, &BridgePolicy::default(), Vec::new()),
        ports_epoch: 1,
        fdb: Arc::new(mac_table(0)),
        ports: Arc::new(ports.iter().cloned().map(Some).collect()),
        meters: Arc::new(tables.meters.by_port(ports.len())),
        metered: false,
        taps: Arc::default(),
    }
}
