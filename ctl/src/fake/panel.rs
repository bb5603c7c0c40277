//! The Soft Patch Panel on the fake data plane.

use std::sync::Arc;

use super::FakeDataplane;
use crate::config::Config;
use crate::service::Service;
use crate::spp::Spp;
use crate::state::Store;

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
    let service = Service::start(Box::new(FakeDataplane::default()), store, &config).expect("a service");
    let spp = Spp::start(Arc::clone(&service), &config.spp);
    (service, spp)
}
