//! The Soft Patch Panel on a made-up host.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use ctl_service::Service;
use ctl_service::state::Store;
use ctl_spp::Spp;

use crate::{Config, FakeHost, machine_for, start};

/// A configuration with an instance of each type but the primary, and a port `phy:0`. The pcap instance captures it.
pub const ALL_TYPES: &str = r#"
    [[spp.process]]
    type = "vf"
    client_id = 1
    cores = [0, 1, 2]
    [[spp.process]]
    type = "nfv"
    client_id = 2
    cores = [0, 3]
    [[spp.process]]
    type = "mirror"
    client_id = 3
    cores = [0, 4]
    [[spp.process]]
    type = "pcap"
    client_id = 4
    cores = [0, 5, 6]
    port = "phy:0"
    [[port]]
    name = "east"
    kind = "phy"
    ifname = "eth7"
    spp = "phy:0"
"#;

/// A configuration whose NICs have that many queues.
pub fn with_queues(config: &str, queues: u32) -> String {
    config.replace("ifname =", &format!("queues = {queues}\n    ifname ="))
}

/// A configuration with a vf instance, an nfv instance, and a port `phy:0`.
pub const VF_AND_NFV: &str = r#"
    [[spp.process]]
    type = "vf"
    client_id = 1
    cores = [0, 1, 2]
    [[spp.process]]
    type = "nfv"
    client_id = 2
    [[port]]
    name = "east"
    kind = "phy"
    ifname = "eth7"
    spp = "phy:0"
"#;

/// A section for files in a directory of this process, so that captures made at random fill no other.
///
/// # Panics
/// If the directory can't be made.
pub fn own_directory() -> &'static str {
    static SECTION: LazyLock<String> = LazyLock::new(|| format!("[spp]\ndirectory = {:?}\n", directory()));
    &SECTION
}

/// A directory of this process, for files and sockets.
pub(crate) fn directory() -> &'static Path {
    static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| tempfile::tempdir().expect("a temporary directory").keep());
    &DIRECTORY
}

/// The service and the instances of a configuration, on a host that has its netdevs.
///
/// # Panics
/// If the configuration or the store is unusable.
pub fn panel(config: &str, store: Store) -> (FakeHost, Arc<Service>, Arc<Spp>) {
    let host = machine_for(&Config::parse(config).expect("a configuration").port);
    let (service, spp) = panel_on(&host, config, store);
    (host, service, spp)
}

/// The service and the instances of a configuration, on a host as it is.
///
/// # Panics
/// As [`panel`].
pub fn panel_on(host: &FakeHost, config: &str, store: Store) -> (Arc<Service>, Arc<Spp>) {
    let config = Config::parse(config).expect("a configuration");
    let service = Service::start(start(host), store, &config.declared()).expect("a service");
    let spp = Spp::start(Arc::clone(&service), &config.spp);
    (service, spp)
}

/// The instances of a configuration.
///
/// # Panics
/// As [`panel`].
pub fn spp_of(config: &str, store: Store) -> Arc<Spp> {
    panel(config, store).2
}
