//! The running data plane as its manager sees it: [`Switch`], in parts by subject.

mod capture;
mod components;
mod fdb;
mod guests;
mod ports;
mod state;
mod tables;

use std::sync::{Arc, Mutex, MutexGuard};

pub use self::capture::{CaptureRequest, CaptureStream};
pub use self::state::NetdevFinding;
use super::change;
use super::clock::Clock;
use super::core::Core;
use super::host_addresses::HostAddresses;
use super::ports::Ports;
use super::resolve;
use super::settings::{check_bridge, check_settings};
use super::state::{Control, lock};
use super::views::{FIRST_EPOCH, Parts};
use super::watcher::Watcher;
use crate::engine::fdb::Fdb;
use crate::engine::tables::Tables;
use crate::host::Host;
use crate::host::kernel::{KernelHost, Places};
use crate::model::*;
use crate::{Error, ErrorKind};

/// A running data plane. All methods may be called from any thread; they block for milliseconds at most, but for
/// [`Switch::add_ports`] and [`Switch::del_port`], which wait for the kernel. None of them disturbs the packets of
/// other ports.
#[derive(Debug)]
pub struct Switch {
    pub(super) core: Arc<Core>,
    pub(super) control: Arc<Mutex<Control>>,
    /// These two end before the rest.
    clock: Option<Clock>,
    watcher: Option<Watcher>,
}

impl Switch {
    /// Says whether it could be started with these settings, as far as that does not depend on the machine.
    pub fn check(settings: &DataplaneSettings, bridge: &BridgeSettings) -> Result<(), Error> {
        check_settings(settings)?;
        check_bridge(bridge)
    }

    /// Says whether these ports could be added together, as far as that depends neither on netdevs nor on live
    /// ports. The error names the port.
    pub fn check_ports(settings: &DataplaneSettings, ports: &[PortSpec]) -> Result<(), Error> {
        resolve::check_ports(ports, settings.capacity.port_slots())
    }

    /// Makes UMEM and starts the workers, on this machine.
    pub fn start(settings: &DataplaneSettings, bridge: BridgeSettings, places: Places) -> Result<Self, Error> {
        Self::start_on(Arc::new(KernelHost::new(places)), settings, bridge)
    }

    /// Makes UMEM and starts the workers, for ports on that host.
    pub fn start_on(host: Arc<dyn Host>, settings: &DataplaneSettings, bridge: BridgeSettings) -> Result<Self, Error> {
        Self::check(settings, &bridge)?;
        let fdb = Arc::new(Fdb::new(bridge.fdb_limit, bridge.fdb_ageing_seconds, random_seed()?));
        fdb.set_flap_limit(bridge.flap_limit);
        let tables = Tables::new(settings.capacity, settings.workers + 1);
        let ports = Ports::default();
        let host_addresses = HostAddresses::default();
        let parts = Parts {
            ports: &ports,
            bridge: &bridge,
            fdb: &fdb,
            host_addresses: &host_addresses,
            tables: &tables,
            captures: &[],
        };
        let core = Arc::new(Core::start(settings, host, parts.build(FIRST_EPOCH))?);
        let control = Control {
            core: Arc::clone(&core),
            ports,
            bridge,
            fdb,
            host_addresses,
            tables,
            components: Default::default(),
            captures: Vec::new(),
            retired: PortStats { name: "retired".to_owned(), ..PortStats::default() },
            views: Default::default(),
        };
        let control = Arc::new(Mutex::new(control));
        let clock = Clock::start(&core, &control)?;
        let watcher = Watcher::start(&core, &control)?;
        Ok(Self { core, control, clock: Some(clock), watcher: Some(watcher) })
    }

    fn lock(&self) -> MutexGuard<'_, Control> {
        lock(&self.control)
    }

    /// Settings it was started with.
    pub fn settings(&self) -> &DataplaneSettings {
        &self.core.settings
    }

    /// Detaches all ports, brings their frames back and stops the workers. Netdevs stay, and so does what is on
    /// guests' ends. Dropping a `Switch` does the same.
    pub fn shutdown(self) {}
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.watcher = None;
        let mut control = self.lock();
        let Control { core, components, ports, .. } = &mut *control;
        components.end(core);
        let numbers = ports.numbers();
        change::remove_ports(&mut control, &numbers);
        drop(control);
        self.clock = None;
        self.core.workers.stop();
    }
}

/// A number that nobody outside can guess, so that nobody can choose addresses that collide in the MAC table.
fn random_seed() -> Result<u64, Error> {
    use std::io::Read as _;
    let mut seed = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut seed))
        .map_err(|error| Error::new(ErrorKind::System, format!("reading /dev/urandom: {error}")))?;
    Ok(u64::from_ne_bytes(seed))
}

/// A `Switch` is used from many threads.
const _: fn() = || {
    fn shareable<T: Send + Sync>() {}
    shareable::<Switch>();
};
