//! Checks whether an instance can exist beside others: its number, its cores, and its capture.

use std::collections::{BTreeMap, BTreeSet};

use crate::change::refuse_memif;
use crate::launch::MAX_LCORE;
use crate::{CaptureOptions, Instance, MAX_CLIENT_ID, Proc, ProcType, SppError};

/// Smallest limit of a capture file, in bytes.
pub const MIN_CAPTURE_LIMIT: u64 = 1 << 20;

/// Checks whether an instance can exist beside the others.
///
/// # Errors
/// `Refused`: the number or a core is taken, or something does not fit.
pub(crate) fn check_launch(others: &BTreeMap<Proc, Instance>, new: &Instance) -> Result<(), SppError> {
    let refused = |why: String| Err(SppError::Refused(why));
    let Proc { kind, id } = new.proc;
    match kind {
        ProcType::Primary if id != 0 => return refused("the primary has no client id".into()),
        ProcType::Primary if others.contains_key(&new.proc) => return refused("there is a primary already".into()),
        ProcType::Primary => {}
        _ if id == 0 || id > MAX_CLIENT_ID => {
            return refused(format!("client id {id}: 1 to {MAX_CLIENT_ID} are possible"));
        }
        _ => {
            if let Some(other) = others.keys().find(|other| other.kind != ProcType::Primary && other.id == id) {
                return refused(format!("client id {id} belongs to {other}"));
            }
        }
    }
    let mut seen = BTreeSet::new();
    if let Some(core) = new.cores.iter().find(|core| !seen.insert(**core)) {
        return refused(format!("core {core} is named twice"));
    }
    if let Some(core) = new.cores.iter().find(|core| **core > MAX_LCORE) {
        return refused(format!("core {core}: 0 to {MAX_LCORE} are possible"));
    }
    // A master core runs nothing, so instances may share it.
    let slaves = |instance: &Instance| instance.cores.iter().skip(1).copied().collect::<BTreeSet<_>>();
    for other in others.values() {
        if let Some(core) = slaves(new).intersection(&slaves(other)).next() {
            return refused(format!("core {core} is busy: it belongs to {}", other.proc));
        }
    }
    match (kind, &new.capture) {
        (ProcType::Pcap, None) => refused("a pcap instance needs the port that it captures".into()),
        (ProcType::Pcap, Some(capture)) if capture.limit < MIN_CAPTURE_LIMIT => {
            refused(format!("a capture file of {} bytes: {MIN_CAPTURE_LIMIT} are the least", capture.limit))
        }
        (ProcType::Pcap, Some(CaptureOptions { port, .. })) => refuse_memif(*port),
        (_, None) => Ok(()),
        (_, Some(_)) => refused("only a pcap instance captures".into()),
    }
}
