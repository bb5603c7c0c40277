//! SPP's command lines. [`execute`] carries out one line, and answers as SPP's CLI does and as JSON for programs.
//!
//! `xswitch spp` sends lines to the daemon, which calls [`execute`]. A recipe is a file of such lines.
//! [`ctl_spp_types::save()`] writes the present state as a recipe, and [`topo`] draws it.

mod flow;
pub mod line;
mod status;

use ctl_spp_types::{Answer, topo};
use serde_json::{Value, json};

use self::line::{Line, Target};
use super::launch::Launch;
use super::run::Outcome;
use super::status::Process;
use super::words::{self, Command};
use super::{Change, Instance, Patch, Proc, ProcType, Spp, SppError};

/// Carries out a line.
///
/// # Errors
/// `Refused` with the mistake in the line, or why it can't be done; `NotFound`: no such instance; `System`. Nothing has
/// changed then. `bye` is the exception: it may have ended some instances before it failed.
pub fn execute(spp: &Spp, line: &str) -> Result<Answer, SppError> {
    let told = |text: String, value: Value| Ok(Answer { text, value });
    match line::parse(line).map_err(SppError::Refused)? {
        Line::Nothing => told(String::new(), Value::Null),
        Line::Status => {
            let procs = spp.processes();
            let listen = &spp.config().listen;
            told(
                status::all(listen, &procs),
                json!({ "listen": listen, "processes": procs.iter().map(name).collect::<Vec<_>>() }),
            )
        }
        Line::Servers => {
            let listen = &spp.config().listen;
            told(format!("  1: {} *\n", status::address(listen)), json!([listen]))
        }
        Line::Topo => told(topo::text(&topo::Graph::of(&spp.state())), Value::Null),
        Line::Bye { all } => bye(spp, all),
        Line::To { target, command } => {
            let proc = match starts_primary(target, &command) {
                true => Proc::PRIMARY,
                false => find(spp, target)?,
            };
            let command = words::parse(proc.kind, &command).map_err(SppError::Refused)?;
            run(spp, proc, &command)
        }
    }
}

/// Whether a line launches the primary, which then does not exist yet.
fn starts_primary(target: Target, command: &str) -> bool {
    let launch = (target == Target::Primary).then(|| words::parse(ProcType::Primary, command));
    matches!(launch, Some(Ok(Command::Launch(Launch { proc: Proc::PRIMARY, .. }))))
}

/// An instance's name, as spp-ctl gives it.
fn name(proc: &Proc) -> Value {
    json!(Process::from(proc))
}

/// The instance that a line is for. It must exist.
fn find(spp: &Spp, target: Target) -> Result<Proc, SppError> {
    let proc = match target {
        Target::Primary => Proc::PRIMARY,
        Target::Secondary { kind: Some(kind), id } => Proc { kind, id },
        Target::Secondary { kind: None, id } => {
            let of = |proc: &Proc| proc.kind != ProcType::Primary && proc.id == id;
            spp.processes().into_iter().find(of).unwrap_or(Proc { kind: ProcType::Nfv, id })
        }
    };
    spp.instance(proc).map(|instance| instance.proc).map_err(|error| match error {
        SppError::NotFound(why) => SppError::NotFound(format!("{why} {}", there_are(&spp.processes()))),
        error => error,
    })
}

/// The instances that exist, for the message about one that does not.
fn there_are(procs: &[Proc]) -> String {
    match procs.iter().map(Proc::to_string).collect::<Vec<_>>().as_slice() {
        [] => "There are no instances.".to_owned(),
        [one] => format!("There is {one}."),
        [all @ .., last] => format!("There are {} and {last}.", all.join(", ")),
    }
}

/// Ends all instances but the primary, and with `all` the primary last.
fn bye(spp: &Spp, all: bool) -> Result<Answer, SppError> {
    let mut answer = Answer { text: "Closing secondary ...\n".to_owned(), value: json!([]) };
    let mut ended = Vec::new();
    let (primary, secondaries): (Vec<_>, Vec<_>) = spp.processes().into_iter().partition(|proc| *proc == Proc::PRIMARY);
    for proc in secondaries {
        spp.end(proc)?;
        answer.text += &format!("Exit {proc}.\n");
        ended.push(name(&proc));
    }
    if let Some(proc) = primary.into_iter().next().filter(|_| all) {
        spp.end(proc)?;
        answer.text += "Closing primary ...\nExit primary\n";
        ended.push(name(&proc));
    }
    answer.value = Value::Array(ended);
    Ok(answer)
}

/// Carries out a command. A change is answered with the instance as it is afterwards.
fn run(spp: &Spp, proc: Proc, command: &Command) -> Result<Answer, SppError> {
    if let Command::Launch(launch) = command {
        let launched = launch_instance(spp, launch)?;
        return Ok(Answer { text: format!("Launched {}.\n", launched.proc), value: json!(launched) });
    }
    if let Command::Flow(words) = command {
        return flow::run(spp, &words.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let text = match super::run::run(spp, proc, command)? {
        Outcome::ClientId => return Ok(Answer { text: format!("{proc}\n"), value: name(&proc) }),
        Outcome::Status(status) => return Ok(status::of(&status)),
        Outcome::Ended => return Ok(Answer { text: format!("Exit {proc}.\n"), value: Value::Null }),
        Outcome::Flow(told) => told.message,
        Outcome::Done => done(proc, command),
    };
    // The instance may have ended since. Then there is no value.
    let instance = spp.instance(proc).ok();
    let held = matches!(command, Command::Change(change) if !matches!(change, Change::Run(_)));
    let held = held && instance.as_ref().is_some_and(|instance| instance.flush_mode);
    let text = if held { format!("{}; it is held until flush.", text.trim_end_matches('.')) } else { text };
    Ok(Answer { text: text + "\n", value: json!(instance) })
}

/// Launches an instance. If it exists with the same options and does nothing yet, that is a success: configured
/// instances exist before a recipe is played.
fn launch_instance(spp: &Spp, launch: &Launch) -> Result<Instance, SppError> {
    let mut new = spp.instance_of(launch);
    let sorted = |instance: &Instance| {
        let mut slaves: Vec<_> = instance.cores.iter().skip(1).copied().collect();
        slaves.sort_unstable();
        slaves
    };
    let old = spp.instance(new.proc);
    if let (Some(new), Ok(Some(old))) = (&mut new.capture, old.as_ref().map(|old| &old.capture)) {
        // It does not matter who asked for the capture.
        new.confined = old.confined;
    }
    if let Ok(old) = old
        && old == Instance::new(old.proc, old.cores.clone(), new.capture.clone())
        && (old.cores.first(), sorted(&old)) == (new.cores.first(), sorted(&new))
    {
        return Ok(old);
    }
    spp.launch(new.clone())?;
    Ok(new)
}

/// What SPP's CLI prints after a command.
fn done(proc: Proc, command: &Command) -> String {
    let text = match command {
        Command::Change(change) => return changed(proc, change),
        Command::Flush => "Flushed.",
        Command::Discard => "Discarded.",
        Command::FlushMode(true) => "Changes are held until flush.",
        Command::FlushMode(false) => "Changes come into force at once.",
        Command::Clear => "Clear port statistics.",
        Command::ClientId | Command::Status | Command::Exit | Command::Launch(_) | Command::Flow(_) => "",
    };
    text.to_owned()
}

fn changed(proc: Proc, change: &Change) -> String {
    match change {
        Change::StartComponent { name, core, .. } => format!("Succeeded to start component '{name}' on core:{core}"),
        Change::StopComponent { name } => format!("Succeeded to delete component '{name}'"),
        Change::Attach { .. } => "Succeeded to add port".to_owned(),
        Change::Detach { .. } => "Succeeded to del port".to_owned(),
        Change::SetCore { core, component: Some(_) } => format!("Succeeded to set core:{core}"),
        Change::SetCore { core, component: None } => format!("Succeeded to make core:{core} idle"),
        Change::AddEntry(_) => "Succeeded to add".to_owned(),
        Change::DelEntry { .. } => "Succeeded to del".to_owned(),
        Change::AddPort { port, .. } => format!("Add {port}."),
        Change::DelPort(port) => format!("Delete {port}."),
        Change::AddPatch(Patch { src, dst }) => format!("Patch ports ({src} -> {dst})."),
        Change::ResetPatches => "Clear all of patches.".to_owned(),
        Change::Run(run) => {
            let what = if proc.kind == ProcType::Pcap { "packet capture" } else { "forwarding" };
            format!("{} {what}.", if *run { "Start" } else { "Stop" })
        }
    }
}
