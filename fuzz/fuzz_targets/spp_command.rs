//! Fuzzes SPP's process commands: arbitrary lines for arbitrary processes, over a switch on a made-up host. Each is
//! answered in a form that spp-ctl reads.
#![no_main]

use ctl_service::state::Store;
use ctl_spp::StatusFormat;
use ctl_spp::run::run;
use ctl_spp::words::{Command, parse};
use ctl_spp::{Proc, ProcType};
use ctl_spp_agent::reply::{Forms, IdForm, reply};
use kit::{own_directory, panel, tables};
use libfuzzer_sys::fuzz_target;

const CONFIG: &str = r#"
    [[spp.process]]
    type = "vf"
    client_id = 1
    cores = [0, 1, 2]
    [[spp.process]]
    type = "nfv"
    client_id = 2
    [[spp.process]]
    type = "mirror"
    client_id = 3
    [[spp.process]]
    type = "pcap"
    client_id = 4
    port = "ring:1"
    [[port]]
    name = "east"
    kind = "phy"
    ifname = "eth7"
    spp = "phy:0"
"#;

const PROCS: [Proc; 5] = [
    Proc::PRIMARY,
    Proc { kind: ProcType::Vf, id: 1 },
    Proc { kind: ProcType::Nfv, id: 2 },
    Proc { kind: ProcType::Mirror, id: 3 },
    Proc { kind: ProcType::Pcap, id: 4 },
];

fuzz_target!(|data: &[u8]| {
    let (_, _, spp) = panel(&format!("{CONFIG}{}", own_directory()), Store::in_memory(tables()));
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let Some((&first, line)) = line.split_first() else { continue };
        let Ok(line) = std::str::from_utf8(line) else { continue };
        let proc = PROCS[usize::from(first) % PROCS.len()];
        let status = if first & 0x80 == 0 { StatusFormat::Json } else { StatusFormat::Text };
        let id = if first & 0x40 == 0 { IdForm::Json } else { IdForm::Number };
        let before = spp.instances();
        let command = parse(proc.kind, line);
        let result = match &command {
            Ok(command) => run(&spp, proc, command).map_err(|error| error.to_string()),
            Err(why) => Err(why.clone()),
        };
        if result.is_err() {
            assert_eq!(spp.instances(), before, "what is refused changes nothing");
        }
        let answer = reply(proc, command.as_ref().ok(), &result, Forms { status, id });
        let by_lines = status == StatusFormat::Text && proc.kind == ProcType::Nfv && command == Ok(Command::Status);
        let json = serde_json::from_str::<serde_json::Value>(&answer);
        assert!(json.is_ok() || (by_lines && result.is_ok()), "{answer}");
    }
});
