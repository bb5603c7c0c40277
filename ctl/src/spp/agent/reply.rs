//! What SPP's processes answer, in the forms that spp-ctl reads.
//!
//! vf, mirror and pcap answer `{"results": [{"result": "success"}], …}`; spp-ctl turns a result `error` into a 400 with its message.
//! nfv and the primary answer `{"result": "succeeded", "command": …}`, of which spp-ctl reads only JSON status and, since
//! 2020, `results`: so failures have both.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use switch::model::{EndInfo, EndPort, VlanEdit};

use crate::config::StatusFormat;
use crate::spp::change::{key_text, mac_text};
use crate::spp::run::{Outcome, Status};
use crate::spp::words::Command;
use crate::spp::{
    Attached, Change, Component, ComponentType, Dir, Entry, Instance, PortCounters, PortId, PortType, PrimaryStatus,
    Proc, ProcType, Setup,
};

/// How an nfv process says what it is: spp-ctl took a number until it took what the others answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdForm {
    /// `1`.
    Number,
    /// `{"results": …, "client_id": 1, "process_type": "nfv"}`.
    Json,
}

/// Forms that spp-ctl's versions differ in.
#[derive(Clone, Copy, Debug)]
pub struct Forms {
    /// Status.
    pub status: StatusFormat,
    /// Client id of an nfv process.
    pub id: IdForm,
}

/// The answer to a command; `None` for a line that is none.
pub fn reply(proc: Proc, command: Option<&Command>, result: &Result<Outcome, String>, forms: Forms) -> String {
    match result {
        Err(why) => refusal(proc, command, why).to_string(),
        Ok(Outcome::ClientId) if proc.kind == ProcType::Nfv && forms.id == IdForm::Number => proc.id.to_string(),
        Ok(Outcome::ClientId) => {
            json!({"results": success(), "client_id": proc.id, "process_type": proc.kind.word()}).to_string()
        }
        Ok(Outcome::Status(status)) => match &**status {
            Status::Primary(status) => primary(status).to_string(),
            Status::Secondary { instance, nics, files } => secondary(instance, nics, files, forms.status),
        },
        Ok(Outcome::Done | Outcome::Ended) if own_results(proc) => json!({"results": success()}).to_string(),
        Ok(Outcome::Done | Outcome::Ended) => Value::Object(echo(command, "succeeded")).to_string(),
    }
}

/// Whether the process answers `results`.
fn own_results(proc: Proc) -> bool {
    matches!(proc.kind, ProcType::Vf | ProcType::Mirror | ProcType::Pcap)
}

fn success() -> Value {
    json!([{"result": "success"}])
}

fn refusal(proc: Proc, command: Option<&Command>, why: &str) -> Value {
    let mut reply = if own_results(proc) { Map::new() } else { echo(command, "failed") };
    reply.insert("results".to_owned(), json!([{"result": "error", "error_details": {"message": why}}]));
    Value::Object(reply)
}

/// Command and its ports, as nfv and the primary repeat them.
fn echo(command: Option<&Command>, result: &str) -> Map<String, Value> {
    let mut reply = Map::new();
    let mut set = |key: &str, value: Value| {
        reply.insert(key.to_owned(), value);
    };
    set("result", result.into());
    let word = match command {
        Some(Command::Exit) => "exit",
        Some(Command::Flush | Command::Discard | Command::FlushMode(_)) => "flush",
        Some(Command::Clear) => "clear",
        Some(Command::Launch(_)) => "launch",
        Some(Command::ClientId) => "_get_client_id",
        Some(Command::Status) => "status",
        Some(Command::Change(Change::Run(true))) => "forward",
        Some(Command::Change(Change::Run(false))) => "stop",
        Some(Command::Change(Change::AddPort { port, .. })) => {
            set("port", port.to_string().into());
            "add"
        }
        Some(Command::Change(Change::DelPort(port))) => {
            set("port", port.to_string().into());
            "del"
        }
        Some(Command::Change(Change::AddPatch(patch))) => {
            set("ports", json!(patch));
            "patch"
        }
        Some(Command::Change(Change::ResetPatches)) => "patch",
        Some(Command::Change(_)) | None => return reply,
    };
    set("command", word.into());
    reply
}

fn secondary(instance: &Instance, nics: &[PortId], files: &[PathBuf], form: StatusFormat) -> String {
    let info = match instance.proc.kind {
        ProcType::Nfv if form == StatusFormat::Text => return nfv_text(instance),
        ProcType::Nfv | ProcType::Primary => return nfv(instance).to_string(),
        ProcType::Vf | ProcType::Mirror => components(instance, nics, form),
        ProcType::Pcap => capture(instance, files),
    };
    json!({"results": success(), "info": info}).to_string()
}

fn components(instance: &Instance, nics: &[PortId], form: StatusFormat) -> Value {
    let setup = &instance.running;
    let mut ports: BTreeSet<PortId> = nics.iter().copied().collect();
    let attached = setup.components.iter().flat_map(|component| component.rx.iter().chain(&component.tx));
    ports.extend(attached.map(|attached| attached.port.whole()));
    let numbers = |kind| ports.iter().filter(|port| port.kind == kind).map(|port| port.no).collect::<Vec<_>>();
    let mut info = json!({
        "client-id": instance.proc.id,
        "phy": numbers(PortType::Phy),
        "vhost": numbers(PortType::Vhost),
        "ring": numbers(PortType::Ring),
        "master-lcore": instance.master(),
        "core": cores(instance, setup, form),
    });
    let table = |setup: &Setup| setup.table.iter().map(entry).collect::<Value>();
    if instance.proc.kind == ProcType::Vf {
        info["classifier_table"] = table(setup);
    }
    if let Some(staged) = &instance.staged {
        info["staged"] = json!({"core": cores(instance, staged, form)});
        if instance.proc.kind == ProcType::Vf {
            info["staged"]["classifier_table"] = table(staged);
        }
    }
    info
}

/// Components core by core, and the cores that have none.
fn cores(instance: &Instance, setup: &Setup, form: StatusFormat) -> Value {
    let mut cores: BTreeMap<u32, Vec<Value>> = instance.cores.iter().skip(1).map(|core| (*core, vec![])).collect();
    for component in &setup.components {
        cores.entry(component.core).or_default().push(of_component(component, form));
    }
    let of_core = |(core, components): (u32, Vec<Value>)| match components.is_empty() {
        true => vec![json!({"core": core, "type": "unuse"})],
        false => components,
    };
    cores.into_iter().flat_map(of_core).collect()
}

fn of_component(component: &Component, form: StatusFormat) -> Value {
    let kind = match component.kind {
        // Its name until 2018.
        ComponentType::Classifier if form == StatusFormat::Text => "classifier_mac",
        kind => kind.word(),
    };
    let side = |dir| component.side(dir).iter().map(of_port).collect::<Value>();
    json!({
        "core": component.core,
        "name": component.name,
        "type": kind,
        "rx_port": side(Dir::Rx),
        "tx_port": side(Dir::Tx),
    })
}

fn of_port(attached: &Attached) -> Value {
    let (operation, vid, pcp) = match attached.vlan {
        VlanEdit::None => ("none", 0, 0),
        VlanEdit::Add { vid, pcp } => ("add", vid, pcp),
        VlanEdit::Del => ("del", 0, 0),
    };
    json!({"port": attached.port, "vlan": {"operation": operation, "id": vid, "pcp": pcp}})
}

fn entry(entry: &Entry) -> Value {
    let kind = if entry.key.vlan.is_some() { "vlan" } else { "mac" };
    json!({"type": kind, "value": key_text(&entry.key), "port": entry.port})
}

fn capture(instance: &Instance, files: &[PathBuf]) -> Value {
    let mut others = instance.cores.iter().skip(1).copied();
    let receive = others.next().unwrap_or(instance.master());
    let port = instance.capture.as_ref().map(|capture| json!({"port": capture.port}));
    let file = files.last().map_or_else(String::new, |file| file.display().to_string());
    let write = |core| json!({"core": core, "role": "write", "filename": file});
    let mut cores = vec![json!({"core": receive, "role": "receive", "rx_port": port.as_slice()})];
    cores.extend(others.map(write));
    if cores.len() == 1 {
        cores.push(write(receive));
    }
    let status = if instance.running.running { "running" } else { "idle" };
    json!({"client-id": instance.proc.id, "status": status, "master-lcore": instance.master(), "core": cores})
}

/// Status, ports and patches of nfv and of the primary as a forwarder.
fn forwarder(setup: &Setup) -> Value {
    let status = if setup.running { "running" } else { "idling" };
    json!({"status": status, "ports": setup.ports, "patches": setup.patches})
}

fn nfv(instance: &Instance) -> Value {
    let mut status = forwarder(&instance.running);
    status["client-id"] = instance.proc.id.into();
    status["master-lcore"] = instance.master().into();
    status["lcores"] = json!(instance.cores);
    status
}

/// The form of 2018: a line for each port, whose number is that of the NIC, or else one that no NIC has.
fn nfv_text(instance: &Instance) -> String {
    let setup = &instance.running;
    let nic = |port: &PortId| port.kind == PortType::Phy && port.queue.is_none();
    let mut next = setup.ports.iter().filter(|port| nic(port)).map(|port| port.no + 1).max().unwrap_or(0);
    let mut ids = BTreeMap::new();
    for port in &setup.ports {
        let id = if nic(port) { port.no } else { next };
        next += u32::from(!nic(port));
        ids.insert(*port, id);
    }
    let state = if setup.running { "Running" } else { "Idling" };
    let lcores: Vec<_> = instance.cores.iter().map(u32::to_string).collect();
    let mut text = format!("Client ID {} {state}\nlcores:{}\n", instance.proc.id, lcores.join(" "));
    for (port, id) in &ids {
        let name = match port.kind {
            PortType::Phy if port.queue.is_none() => "PHY".to_owned(),
            PortType::Ring => format!("RING({})", port.no),
            PortType::Vhost if port.queue.is_none() => format!("VHOST({})", port.no),
            // Other names are taken as they are.
            kind => format!("{}({})", kind.word(), port.to_string().rsplit(':').next().unwrap_or_default()),
        };
        let to = setup.patches.iter().find(|patch| patch.src == *port).and_then(|patch| ids.get(&patch.dst));
        let to = to.map_or_else(|| "none".to_owned(), u32::to_string);
        let _ = writeln!(text, "port_id:{id},on,{name},outport:{to}");
    }
    // spp-ctl wants a third line.
    let _ = write!(text, "patches:{}", setup.patches.len());
    text
}

fn primary(status: &PrimaryStatus) -> Value {
    let setup = &status.instance.running;
    let nic = |of: &&PortCounters| of.port.kind == PortType::Phy;
    let of_nic = |of: &PortCounters| {
        let eth = of.mac.map_or_else(|| "00:00:00:00:00:00".to_owned(), |mac| mac_text(mac).to_lowercase());
        json!({"id": of.port.no, "rx": of.rx, "tx": of.tx, "tx_drop": of.tx_dropped, "eth": eth})
    };
    let of_ring = |of: &EndInfo| {
        let EndPort::Ring(no) = of.end else { return None };
        let (rx, tx) = (of.rx.packets, of.tx.packets);
        let (rx_drop, tx_drop) = (of.rx_dropped.packets, of.tx_dropped.packets);
        Some(json!({"id": no, "rx": rx, "rx_drop": rx_drop, "tx": tx, "tx_drop": tx_drop}))
    };
    // spp-ctl takes the first lcore for the master.
    let master = status.instance.master();
    let lcores = if status.instance.cores.is_empty() { vec![master] } else { status.instance.cores.clone() };
    json!({
        "master-lcore": master,
        "lcores": lcores,
        "forwarder": forwarder(setup),
        "phy_ports": status.ports.iter().filter(nic).map(of_nic).collect::<Value>(),
        "ring_ports": status.rings.iter().filter_map(of_ring).collect::<Value>(),
        "pipes": setup.pipes.iter().map(|p| json!({"id": p.port.no, "rx": p.rx.no, "tx": p.tx.no})).collect::<Value>(),
    })
}
