//! Answers of SPP's processes, in the forms that spp-ctl reads.
//!
//! vf, mirror and pcap answer `{"results": [{"result": "success"}], …}`. spp-ctl turns a result `error` into a 400
//! with its message.
//!
//! nfv and the primary answer `{"result": "succeeded", "command": …}`, and for flow rules
//! `{"result": "success", "message": …}`. Of these answers spp-ctl reads only the status, and since 2020 `results`. So
//! failures have both `result` and `results`. The exception is a request for what is not there: it is answered as SPP
//! does, and spp-ctl takes that for a success.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use ctl_spp::flow::line::Told;
use ctl_spp::run::{Outcome, Status};
use ctl_spp::status::{Answer, Flush, Shape, TableEntry, Work, Worker, WorkerComponent, patchable};
use ctl_spp::words::Command;
use ctl_spp::{Change, Instance, PortId, PortType, Proc, ProcType, SppError, StatusFormat};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Forms of an nfv's client id. Older versions of spp-ctl take a number, newer ones what the other types answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdForm {
    /// `1`.
    Number,
    /// `{"results": …, "client_id": 1, "process_type": "nfv"}`.
    Json,
}

/// The forms in which versions of spp-ctl differ.
#[derive(Clone, Copy, Debug)]
pub struct Forms {
    /// Form of the status.
    pub status: StatusFormat,
    /// Form of an nfv's client id.
    pub id: IdForm,
}

/// The answer to a command. `command` is `None` if the line could not be read.
pub fn reply(proc: Proc, command: Option<&Command>, result: &Result<Outcome, SppError>, forms: Forms) -> String {
    match result {
        Err(why) => match command {
            Some(Command::Flow(words)) => {
                json!(Told::error(words.first().map_or("", String::as_str), &why.to_string())).to_string()
            }
            _ => refusal(proc, command, why).to_string(),
        },
        Ok(Outcome::ClientId) if proc.kind == ProcType::Nfv && forms.id == IdForm::Number => proc.id.to_string(),
        Ok(Outcome::ClientId) => {
            json!({"results": success(), "client_id": proc.id, "process_type": proc.kind.word()}).to_string()
        }
        Ok(Outcome::Status(status)) => match &**status {
            Status::Secondary { instance, nics, .. } if instance.proc.kind == ProcType::Nfv => match forms.status {
                StatusFormat::Text => nfv_text(instance, nics),
                StatusFormat::Pairs => nfv_pairs(instance, nics),
                form @ (StatusFormat::Json | StatusFormat::JsonNumber) => of_status(status, form).to_string(),
            },
            status => of_status(status, forms.status).to_string(),
        },
        Ok(Outcome::Flow(told)) => json!(told).to_string(),
        Ok(Outcome::Done | Outcome::Ended) if own_results(proc) => json!({"results": success()}).to_string(),
        Ok(Outcome::Done | Outcome::Ended) => Value::Object(echo(command, "succeeded")).to_string(),
    }
}

/// Whether the process answers with `results`.
fn own_results(proc: Proc) -> bool {
    matches!(proc.kind, ProcType::Vf | ProcType::Mirror | ProcType::Pcap)
}

fn success() -> Value {
    json!([{"result": "success"}])
}

/// The result of a failed command.
pub fn error(why: &str) -> Value {
    json!({"result": "error", "error_details": {"message": why}})
}

fn refusal(proc: Proc, command: Option<&Command>, why: &SppError) -> Value {
    let mut reply = if own_results(proc) { Map::new() } else { echo(command, "failed") };
    if own_results(proc) || !matches!(why, SppError::Absent(_)) {
        reply.insert("results".to_owned(), json!([error(&why.to_string())]));
    }
    Value::Object(reply)
}

/// The command and its ports. nfv and the primary repeat them in their answers.
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
        Some(Command::Flow(_)) => "flow",
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

/// A status with its envelope, if the type of process has one.
fn of_status(status: &Status, form: StatusFormat) -> Value {
    let shape = Shape { all_vlans: true, classifier_mac: form != StatusFormat::Json };
    let info = match Answer::of(status, shape) {
        Answer::Worker(worker) => json!(Info::from(worker)),
        Answer::Pcap(pcap) => json!(pcap),
        own @ (Answer::Nfv(_) | Answer::Primary(_)) => return json!(own),
    };
    json!({"results": success(), "info": info})
}

/// A status without its envelope.
pub fn info(status: &Status) -> Value {
    let mut value = of_status(status, StatusFormat::Json);
    value.get_mut("info").map(Value::take).unwrap_or(value)
}

/// `info` of vf and mirror. Ports are listed by type, and components are called `core`.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Info {
    client_id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    phy: Vec<Index>,
    vhost: Vec<Index>,
    ring: Vec<Index>,
    master_lcore: u32,
    core: Vec<WorkerComponent>,
    #[serde(rename = "classifier_table", skip_serializing_if = "Option::is_none")]
    classifier_table: Option<Vec<TableEntry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flush: Option<Flush<Work>>,
}

/// A port among those of its type. spp-ctl puts the type before it.
#[derive(Serialize)]
#[serde(untagged)]
enum Index {
    /// The port.
    Whole(u32),
    /// One of its queues: `0 nq 1`.
    Queue(String),
}

impl From<&PortId> for Index {
    fn from(port: &PortId) -> Self {
        match port.queue {
            None => Self::Whole(port.no),
            Some(queue) => Self::Queue(format!("{} nq {queue}", port.no)),
        }
    }
}

impl From<Worker> for Info {
    fn from(worker: Worker) -> Self {
        let Worker { client_id, status, ports, master_lcore, components, classifier_table, flush } = worker;
        let of = |kind| ports.iter().filter(|port| port.kind == kind).map(Index::from).collect();
        let (phy, vhost, ring) = (of(PortType::Phy), of(PortType::Vhost), of(PortType::Ring));
        Self { client_id, status, phy, vhost, ring, master_lcore, core: components, classifier_table, flush }
    }
}

/// The ports of an nfv as versions know them that have no names for queues.
fn ports_without_queues(instance: &Instance, nics: &[PortId]) -> Vec<PortId> {
    let whole: BTreeSet<_> = nics.iter().map(|nic| nic.whole()).collect();
    patchable(&instance.running, &whole.into_iter().collect::<Vec<_>>())
}

/// The status of an nfv in the form of spp-ctl as first merged: the state, and each port with what it is patched to.
fn nfv_pairs(instance: &Instance, nics: &[PortId]) -> String {
    let setup = &instance.running;
    let pair = |port: PortId| {
        let patch = setup.patches.iter().find(|patch| patch.src == port);
        format!("{port}-{}", patch.map_or_else(|| "null".to_owned(), |patch| patch.dst.to_string()))
    };
    let pairs: Vec<_> = ports_without_queues(instance, nics).into_iter().map(pair).collect();
    format!("status: {}\nports: '{}'", if setup.running { "running" } else { "idling" }, pairs.join(","))
}

/// The status of an nfv in the form of September 2018: a line for each port. A NIC has its own number there. Other
/// ports get numbers after those.
fn nfv_text(instance: &Instance, nics: &[PortId]) -> String {
    let setup = &instance.running;
    let ports = ports_without_queues(instance, nics);
    let nic = |port: &PortId| port.kind == PortType::Phy && port.queue.is_none();
    let mut next = ports.iter().filter(|port| nic(port)).map(|port| port.no + 1).max().unwrap_or(0);
    let mut ids = BTreeMap::new();
    for port in &ports {
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
            // spp-ctl takes other names as they are.
            kind => format!("{}({})", kind.word(), port.to_string().rsplit(':').next().unwrap_or_default()),
        };
        let to = setup.patches.iter().find(|patch| patch.src == *port).and_then(|patch| ids.get(&patch.dst));
        let to = to.map_or_else(|| "none".to_owned(), u32::to_string);
        let _ = writeln!(text, "port_id:{id},on,{name},outport:{to}");
    }
    // spp-ctl expects at least three lines.
    let _ = write!(text, "patches:{}", setup.patches.len());
    text
}
