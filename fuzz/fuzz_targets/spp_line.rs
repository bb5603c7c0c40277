//! Any lines in SPP's words over a data plane of maps: never a panic, and a line that is refused changes nothing.
#![no_main]

use std::sync::Arc;

use ctl::config::Config;
use ctl::fake::FakeDataplane;
use ctl::service::Service;
use ctl::spp::shell::execute;
use ctl::spp::shell::save::save;
use ctl::spp::shell::state::SppState;
use ctl::spp::shell::topo::{Graph, dot, text};
use ctl::spp::{Spp, SppError};
use ctl::state::Store;
use libfuzzer_sys::fuzz_target;

const CONFIG: &str = r#"
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

fuzz_target!(|data: &[u8]| {
    let config = Config::parse(CONFIG).expect("a configuration");
    let service = Service::start(Box::new(FakeDataplane::default()), Store::in_memory(), &config).expect("a service");
    let spp = Spp::start(Arc::clone(&service), &config.spp);
    for line in String::from_utf8_lossy(data).lines().take(64) {
        let before = SppState::of(&spp);
        match execute(&spp, line) {
            Ok(answer) => assert!(answer.text.is_empty() || answer.text.ends_with('\n'), "{line}: {answer:?}"),
            Err(error) => {
                assert!(!matches!(error, SppError::System(_)), "{line}: {error}");
                assert_eq!(SppState::of(&spp), before, "{line}: {error}");
            }
        }
    }
    let state = SppState::of(&spp);
    let graph = Graph::of(&state);
    text(&graph);
    dot(&graph);
    save(&state.instances);
});
