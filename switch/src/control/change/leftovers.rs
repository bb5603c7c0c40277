//! What an earlier process of this switch has left on the machine.

use crate::control::attach::Mark;
use crate::control::state::Control;
use crate::host::Netdev;
use crate::model::PortSpec;

/// Removes pairs of ports that are not `kept`.
pub(in crate::control) fn clear_leftovers(control: &Control, kept: &[PortSpec]) {
    let host = &*control.core.host;
    let mark = Mark::of(host);
    let links = host.list().unwrap_or_else(|error| {
        tracing::warn!(%error, "leftovers of an earlier process can't be looked for");
        Vec::new()
    });
    for link in links {
        let port = mark.port_of(&link).or(mark.is_draft(&link).then_some("")).map(str::to_owned);
        let Some(port) = port else { continue };
        if kept.iter().any(|spec| spec.name == port) {
            continue;
        }
        match host.delete(&Netdev::here(&link)) {
            Ok(()) => tracing::info!(ifname = link.name, port, "a veth pair that no port has any more is removed"),
            Err(error) => tracing::warn!(ifname = link.name, port, %error, "a veth pair that no port has stays"),
        }
    }
}
