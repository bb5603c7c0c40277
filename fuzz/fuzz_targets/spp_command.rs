//! Fuzzes SPP's process commands: arbitrary lines for arbitrary processes, over a switch on a made-up host. Each is
//! answered in a form that spp-ctl reads.
#![no_main]

use ctl_service::state::Store;
use ctl_spp::StatusFormat;
use ctl_spp::run::run;
use ctl_spp::words::{Command, parse};
use ctl_spp::{Proc, ProcType, SppError};
use ctl_spp_agent::reply::{Forms, IdForm, reply};
use kit::{ALL_TYPES, own_directory, panel, tables};
use libfuzzer_sys::fuzz_target;

const PROCS: [Proc; 5] = [
    Proc::PRIMARY,
    Proc { kind: ProcType::Vf, id: 1 },
    Proc { kind: ProcType::Nfv, id: 2 },
    Proc { kind: ProcType::Mirror, id: 3 },
    Proc { kind: ProcType::Pcap, id: 4 },
];

const FORMATS: [StatusFormat; 4] =
    [StatusFormat::Json, StatusFormat::JsonNumber, StatusFormat::Pairs, StatusFormat::Text];

fuzz_target!(|data: &[u8]| {
    let (_, _, spp) = panel(&format!("{ALL_TYPES}{}", own_directory()), Store::in_memory(tables()));
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let Some((&first, line)) = line.split_first() else { continue };
        let Ok(line) = std::str::from_utf8(line) else { continue };
        let proc = PROCS[usize::from(first) % PROCS.len()];
        let status = FORMATS[usize::from(first >> 6)];
        let id = if status == StatusFormat::Json { IdForm::Json } else { IdForm::Number };
        let before = spp.instances();
        let command = parse(proc.kind, line);
        let result = match &command {
            Ok(command) => run(&spp, proc, command),
            Err(why) => Err(SppError::refused(why)),
        };
        if result.is_err() {
            assert_eq!(spp.instances(), before, "what is refused changes nothing");
        }
        let answer = reply(proc, command.as_ref().ok(), &result, Forms { status, id });
        let lines = matches!(status, StatusFormat::Text | StatusFormat::Pairs);
        let by_lines = lines && proc.kind == ProcType::Nfv && command == Ok(Command::Status);
        let json = serde_json::from_str::<serde_json::Value>(&answer);
        assert!(json.is_ok() || (by_lines && result.is_ok()), "{answer}");
    }
});
