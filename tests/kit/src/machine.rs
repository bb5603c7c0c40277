//! A machine for the management: a made-up host, and a running switch on it.

use std::sync::Arc;

use kit_host::{FakeHost, small_settings, wait};
use switch::Switch;
use switch::model::{Capacity, DataplaneSettings, MacAddr, PortKind, PortSpec};

/// A netdev that [`machine_for`] leaves out, until [`FakeHost::set_missing`] brings it.
pub const MISSING_NETDEV: &str = "missing0";

/// A host that has the netdevs of these ports, with as many queues as they ask for. Any other NIC that is asked for is
/// there too, with one queue, except [`MISSING_NETDEV`].
pub fn machine_for(ports: &[PortSpec]) -> FakeHost {
    let host = FakeHost::with_everything();
    host.set_missing(MISSING_NETDEV, true);
    for port in ports.iter().filter(|port| port.kind == PortKind::Phy) {
        if let (Some(ifname), Some(queues)) = (&port.ifname, port.queues) {
            host.set_queues(ifname, queues);
        }
    }
    host
}

/// A running switch on a host.
///
/// # Panics
/// If it can't be started.
pub fn start(host: &FakeHost) -> Arc<Switch> {
    start_sized(host, Capacity::default())
}

/// A running switch on a host, with tables of that size.
///
/// # Panics
/// If it can't be started.
pub fn start_sized(host: &FakeHost, capacity: Capacity) -> Arc<Switch> {
    Arc::new(host.start_with(&DataplaneSettings { capacity, ..small_settings() }))
}

/// Lets frames of 60 bytes come in by the first queue of a netdev, as fast as the switch takes them.
///
/// # Panics
/// If the switch does not take them.
pub fn receive(host: &FakeHost, netdev: &str, from: MacAddr, count: usize) {
    let mut frame = [MacAddr::BROADCAST.octets(), from.octets()].concat();
    frame.extend([0x88, 0xb5]);
    frame.resize(60, 0);
    for _ in 0..count {
        wait("a frame comes in", || host.receive(netdev, 0, &frame));
    }
}
