//! Answers to `status`, as SPP's CLI prints them.

use ctl_spp_types::key_text;
use serde_json::json;
use switch::model::EndPort;

use super::{Answer, topo};
use crate::run::Status;
use crate::status::patchable;
use crate::{Dir, Instance, PortCounters, PortId, PortType, PrimaryStatus, Proc, ProcType, Setup};

/// `status` without an instance: where the API is, and which instances exist.
pub(super) fn all(listen: &str, procs: &[Proc]) -> String {
    let primary = if procs.contains(&Proc::PRIMARY) { "running" } else { "not running" };
    let mut text = format!(
        "- spp-ctl:\n  - address: {}\n- primary:\n  - status: {primary}\n- secondary:\n  - processes:\n",
        address(listen)
    );
    let mut n = 0;
    for kind in [ProcType::Nfv, ProcType::Vf, ProcType::Mirror, ProcType::Pcap] {
        for proc in procs.iter().filter(|proc| proc.kind == kind) {
            n += 1;
            text += &format!("    {n}: {}:{}\n", kind.word(), proc.id);
        }
    }
    text
}

/// Where the REST API listens, or `none`.
pub(super) fn address(listen: &str) -> &str {
    if listen.is_empty() { "none" } else { listen }
}

/// `status` of an instance.
pub(super) fn of(status: &Status) -> Answer {
    let (instance, nics, files) = match status {
        Status::Primary(status) => return Answer { text: primary(status), value: json!(status) },
        Status::Secondary { instance, nics, files } => (instance, nics, files),
    };
    let text = match instance.proc.kind {
        ProcType::Pcap => pcap(instance, files.last().map(|file| file.display().to_string())),
        ProcType::Nfv => nfv(instance, nics),
        _ => vf(instance, nics),
    };
    let mut value = json!(instance);
    if instance.proc.kind == ProcType::Pcap {
        value["files"] = json!(files);
    }
    Answer { text: text + &held(instance, nics), value }
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    format!("[{}]", items.join(", "))
}

/// The lcores, indented by `indent` blanks.
fn cores(instance: &Instance, indent: usize) -> String {
    let pad = " ".repeat(indent);
    let mut text = format!("{pad}- lcore_ids:\n{pad}  - master: {}\n", instance.master());
    match instance.cores.get(1..) {
        None | Some([]) => {}
        Some([one]) => text += &format!("{pad}  - slave: {one}\n"),
        Some(more) => text += &format!("{pad}  - slaves: {}\n", list(more)),
    }
    text
}

fn word(running: bool) -> &'static str {
    if running { "running" } else { "idling" }
}

/// What changes with the next flush, or that flush mode is on.
fn held(instance: &Instance, nics: &[PortId]) -> String {
    match &instance.staged {
        Some(staged) => format!("From the next flush on:\n{}", setup(instance, staged, nics)),
        None if instance.flush_mode => "Changes are held until flush.\n".to_owned(),
        None => String::new(),
    }
}

/// The part of the status that a flush changes.
fn setup(instance: &Instance, setup: &Setup, nics: &[PortId]) -> String {
    match instance.proc.kind {
        ProcType::Nfv | ProcType::Primary => ports(setup, nics, 2),
        ProcType::Pcap => String::new(),
        _ => table_and_components(instance, setup),
    }
}

/// Ports with their patches, indented by `indent` blanks.
fn ports(setup: &Setup, nics: &[PortId], indent: usize) -> String {
    let pad = " ".repeat(indent);
    let mut text = String::new();
    for port in patchable(setup, nics) {
        let patch = setup.patches.iter().find(|patch| patch.src == port);
        let to = patch.map_or_else(String::new, |patch| format!(" -> {}", patch.dst.shown()));
        text += &format!("{pad}- {}{to}\n", port.shown());
    }
    text
}

fn nfv(instance: &Instance, nics: &[PortId]) -> String {
    let running = &instance.running;
    format!("- status: {}\n{}- ports:\n{}", word(running.running), cores(instance, 0), ports(running, nics, 2))
}

/// A vf or mirror.
fn vf(instance: &Instance, nics: &[PortId]) -> String {
    let ports = crate::status::ports(&instance.running, nics).into_iter().map(PortId::shown);
    format!(
        "Basic Information:\n  - client-id: {}\n{}  - ports: {}\n{}{}",
        instance.proc.id,
        if instance.running.running { "" } else { "  - status: idling\n" },
        list(ports),
        cores(instance, 2),
        table_and_components(instance, &instance.running)
    )
}

fn table_and_components(instance: &Instance, setup: &Setup) -> String {
    let mut text = String::new();
    if instance.proc.kind == ProcType::Vf {
        text += "Classifier Table:\n";
        if setup.table.is_empty() {
            text += "  No entries.\n";
        }
        for entry in &setup.table {
            text += &format!("  - {}, {}\n", key_text(&entry.key), entry.port.shown());
        }
    }
    text += "Components:\n";
    for component in &setup.components {
        text += &format!("  - core:{} '{}' (type: {})\n", component.core, component.name, component.kind.word());
        for dir in [Dir::Rx, Dir::Tx] {
            for attached in component.side(dir) {
                let edit = topo::vlan_text(attached.vlan);
                let edit = if edit.is_empty() { edit } else { format!(" ({edit})") };
                text += &format!("    - {}: {}{edit}\n", dir.word(), attached.port.shown());
            }
        }
    }
    for core in instance.cores.iter().skip(1) {
        if setup.components.iter().all(|component| component.core != *core) {
            text += &format!("  - core:{core} '' (type: unuse)\n");
        }
    }
    text
}

fn pcap(instance: &Instance, file: Option<String>) -> String {
    let mut text = format!("- client-id: {}\n- status: {}\n", instance.proc.id, word(instance.running.running));
    let core = |n: usize| instance.cores.get(n).map_or_else(String::new, |core| format!(":{core}"));
    if let Some(capture) = &instance.capture {
        text += &format!("- core{} receive\n  - rx: {}\n", core(1), capture.port.shown());
    }
    text + &format!("- core{} write\n  - filename: {}\n", core(2), file.unwrap_or_default())
}

fn primary(status: &PrimaryStatus) -> String {
    let running = &status.instance.running;
    let nics = status.nics();
    let mut text = cores(&status.instance, 0);
    text += &format!("- forwarder:\n  - status: {}\n  - ports:\n{}", word(running.running), ports(running, &nics, 4));
    text += "- pipes:\n";
    for pipe in &running.pipes {
        text += &format!("  - {} {} {}\n", pipe.port, pipe.rx, pipe.tx);
    }
    text += "- stats\n";
    for (kind, title) in [(PortType::Phy, "physical"), (PortType::Vhost, "vhost")] {
        let of: Vec<_> = status.ports.iter().filter(|port| port.port.kind == kind).collect();
        if kind == PortType::Vhost && of.is_empty() {
            continue;
        }
        text += &format!("  - {title} ports:\n      ID          rx          tx     tx_drop  rxq  txq mac_addr\n");
        for PortCounters { port, mac, rx, tx, tx_dropped, queues } in of {
            let mac = mac.map_or_else(String::new, |mac| mac.to_string());
            text += format!("      {:2}  {rx:10}  {tx:10}  {tx_dropped:10} {queues:4} {queues:4} {mac}", port.no)
                .trim_end();
            text += "\n";
        }
    }
    text += "  - ring ports:\n      ID          rx          tx     rx_drop     tx_drop\n";
    for ring in &status.rings {
        let EndPort::Ring(no) = ring.end else { continue };
        let (rx, tx) = (ring.rx.packets, ring.tx.packets);
        let (rx_drop, tx_drop) = (ring.rx_dropped.packets, ring.tx_dropped.packets);
        text += &format!("      {no:2}  {rx:10}  {tx:10}  {rx_drop:10}  {tx_drop:10}\n");
    }
    text + &held(&status.instance, &nics)
}
