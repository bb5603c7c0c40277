//! Fuzzes SPP's command line: arbitrary lines in SPP's words, over a switch on a made-up host. No line panics, and a
//! refused line changes nothing.
#![no_main]

use ctl_service::state::Store;
use ctl_spp::SppError;
use ctl_spp::shell::execute;
use ctl_spp_types::save;
use ctl_spp_types::topo::{Graph, dot, text};
use kit::{VF_AND_NFV, own_directory, panel, tables};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (_, _, spp) = panel(&format!("{VF_AND_NFV}{}", own_directory()), Store::in_memory(tables()));
    for line in String::from_utf8_lossy(data).lines().take(64) {
        let before = spp.state();
        match execute(&spp, line) {
            Ok(answer) => assert!(answer.text.is_empty() || answer.text.ends_with('\n'), "{line}: {answer:?}"),
            Err(error) => {
                assert!(!matches!(error, SppError::System(_)), "{line}: {error}");
                assert_eq!(spp.state(), before, "{line}: {error}");
            }
        }
    }
    let state = spp.state();
    let graph = Graph::of(&state);
    text(&graph);
    dot(&graph);
    save(&state);
});
