//! What SPP's command library reads in a status besides what spp-ctl reads: how many ports of each type there are, and
//! the state of each core.

use std::collections::BTreeSet;

use ctl_spp::compile::patch_core;
use ctl_spp::run::Status;
use ctl_spp::status::{patchable, ports};
use ctl_spp::{Instance, PortId, PortType, ProcType, Spp};
use serde_json::{Value, json};

use super::reply;

/// A status with counts and states. `counts` has the ports that the process can use, NICs among them. `core` has each
/// core with `status`: `running` or `idling`.
pub(super) fn info(spp: &Spp, status: &Status) -> Value {
    let mut info = reply::info(status);
    match status {
        Status::Primary(primary) => info["counts"] = counts(&patchable(&primary.instance.running, &primary.nics())),
        Status::Secondary { instance, nics, .. } => {
            let working = spp.working_of(instance.proc);
            info["counts"] = counts(&usable(instance, nics));
            if instance.proc.kind == ProcType::Nfv {
                info["core"] = json!([forwarding(instance)]);
            }
            for core in info["core"].as_array_mut().into_iter().flatten() {
                let runs = match instance.proc.kind {
                    ProcType::Vf | ProcType::Mirror => core["name"].as_str().is_some_and(|name| working.contains(name)),
                    ProcType::Primary | ProcType::Nfv | ProcType::Pcap => !working.is_empty(),
                };
                core["status"] = if runs { "running" } else { "idling" }.into();
            }
        }
    }
    info
}

/// The ports that a process can use.
fn usable(instance: &Instance, nics: &[PortId]) -> Vec<PortId> {
    match instance.proc.kind {
        ProcType::Nfv | ProcType::Primary => patchable(&instance.running, nics),
        ProcType::Vf | ProcType::Mirror => ports(&instance.running, nics),
        ProcType::Pcap => instance.capture.iter().map(|capture| capture.port).collect(),
    }
}

/// Numbers of ports by type. Queues of a port are one.
fn counts(ports: &[PortId]) -> Value {
    let count = |kind: PortType| {
        let of = ports.iter().filter(|port| port.kind == kind).map(|port| port.no);
        of.collect::<BTreeSet<_>>().len()
    };
    let kinds = PortType::ALL.into_iter().filter(|kind| {
        matches!(kind, PortType::Phy | PortType::Vhost | PortType::Ring) || ports.iter().any(|port| port.kind == *kind)
    });
    kinds.map(|kind| (kind.word().to_owned(), json!(count(kind)))).collect::<serde_json::Map<_, _>>().into()
}

/// The core that an nfv's patches run on. To the command library it is a forwarder.
fn forwarding(instance: &Instance) -> Value {
    let patches = &instance.running.patches;
    let side = |of: fn(&ctl_spp::Patch) -> PortId| -> Vec<Value> {
        patches.iter().map(|patch| json!({"port": of(patch).shown()})).collect()
    };
    let r#type = if patches.is_empty() { "unuse" } else { "forward" };
    json!({
        "core": patch_core(instance),
        "type": r#type,
        "rx_port": side(|patch| patch.src),
        "tx_port": side(|patch| patch.dst),
    })
}
