//! Any lines in SPP's words over a data plane of maps: never a panic, and a line that is refused changes nothing.
#![no_main]

use ctl::fake::{VF_AND_NFV, panel};
use ctl::spp::SppError;
use ctl::spp::shell::execute;
use ctl::spp::shell::save::save;
use ctl::spp::shell::state::SppState;
use ctl::spp::shell::topo::{Graph, dot, text};
use ctl::state::Store;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (_, spp) = panel(VF_AND_NFV, Store::in_memory());
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
    save(&state);
});
