//! The Soft Patch Panel on the fake data plane.

use std::sync::Arc;

use ctl_service::Service;
use ctl_service::state::Store;
use ctl_spp::Spp;

use crate::{Config, FakeDataplane};

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

/// The service and the instances of a configuration.
///
/// # Panics
/// If the configuration or the store is unusable.
pub fn panel(config: &str, store: Store) -> (Arc<Service>, Arc<Spp>) {
    let config = Config::parse(config).expect("a configuration");
    let service = Service::start(Box::new(FakeDataplane::default()), store, &config.declared()).expect("a service");
    let spp = Spp::start(Arc::clone(&service), &config.spp);
    (service, spp)
}

/// The instances of a configuration.
///
/// # Panics
/// As [`panel`].
pub fn spp_of(config: &str, store: Store) -> Arc<Spp> {
    panel(config, store).1
}
