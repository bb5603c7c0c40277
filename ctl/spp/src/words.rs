//! Command lines of the Soft Patch Panel's processes: `component start fwd 2 forward`, `patch phy:0 ring:0`.
//!
//! These are the commands that spp-ctl sends, in its forms of 2018 and 2020. SPP's command library adds `process`,
//! `flush`, `unuse` and `component CORE TYPE rx … tx …`.
//!
//! Reading a line is pure: it depends on the line and the type of the process alone.
//!
//! ```text
//! all           _get_client_id | process | status | exit | forward | start | stop | flush [on|off|discard]
//! vf, mirror    component start NAME CORE TYPE | component stop NAME
//!               component CORE idle | component CORE TYPE [rx PORT…] [tx PORT…]
//!               port add PORT rx|tx NAME [add_vlantag VID PCP | del_vlantag] | port del PORT rx|tx NAME
//! vf, mirror    add PORT | del PORT                         (components may also have ports that were not added)
//! vf            classifier_table [add] mac MAC|default PORT|unuse | classifier_table del mac MAC|default PORT|unuse
//!               classifier_table [add] vlan VID MAC|default PORT|unuse
//!               classifier_table del vlan VID MAC|default PORT|unuse
//! nfv, primary  add PORT | del PORT | patch SRC DST | patch reset      (a port may be two words: ring 0)
//! primary       clear | add pipe:N RING RING | launch ID NAME [DPDK's options] [-- the process's options]
//!               launch primary [DPDK's options]                      (when it was ended)
//!               flow …                                               (see `flow::line`)
//! ```

#[cfg(test)]
mod tests;

use switch::model::VlanEdit;

use super::launch::{Launch, MAX_LCORE, joined, kind_of, pairs};
use super::{
    Attached, Change, Component, ComponentType, Dir, Entry, EntryKey, MAX_CLIENT_ID, Patch, PortId, PortType, Proc,
    ProcType,
};

/// Largest VID of a tag or an entry.
const MAX_VID: u32 = 4094;

/// Longest line, in bytes: the size of SPP's buffer.
pub const MAX_LINE: usize = 2048;

/// A command, read from a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Tell the type and the number of the process.
    ClientId,
    /// Tell what it does.
    Status,
    /// End the process.
    Exit,
    /// Change what it does.
    Change(Change),
    /// Put held changes into force.
    Flush,
    /// Discard held changes.
    Discard,
    /// Hold changes until a flush, or no longer do so.
    FlushMode(bool),
    /// Primary: start the counters again from zero.
    Clear,
    /// Primary: launch an instance.
    Launch(Launch),
    /// Primary: a command about flow rules, as words. [`flow::line`](super::flow::line) reads them.
    Flow(Vec<String>),
}

/// Reads a line for a process of this type.
///
/// # Errors
/// SPP's text for the mistake, and what would be right. SPP's texts are `Wrong message format`, `Unknown command(…)`
/// and `Invalid value (…)`.
pub fn parse(kind: ProcType, line: &str) -> Result<Command, String> {
    use ProcType::{Mirror, Nfv, Pcap, Primary, Vf};
    if line.len() > MAX_LINE {
        return Err(format!("Wrong message format: more than {MAX_LINE} bytes"));
    }
    // Some of SPP's peers send their whole buffer, with zeros at the end.
    let line = joined(line.trim_end_matches('\0'));
    let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
    let Some((&verb, rest)) = words.split_first() else { return Err(wrong("a command")) };
    let alone = |command| if rest.is_empty() { Ok(command) } else { Err(wrong(verb)) };
    match (verb, kind) {
        ("_get_client_id" | "process", _) => alone(Command::ClientId),
        ("status", _) => alone(Command::Status),
        ("exit", _) => alone(Command::Exit),
        ("forward" | "start", _) => alone(Command::Change(Change::Run(true))),
        ("stop", _) => alone(Command::Change(Change::Run(false))),
        ("flush", _) => flush(rest),
        ("component", Vf | Mirror) => component(rest).map(Command::Change),
        ("port", Vf | Mirror) => port_of_component(rest).map(Command::Change),
        ("classifier_table", Vf) => table(rest).map(Command::Change),
        ("add" | "del", Vf | Mirror | Nfv | Primary) => own_port(kind, verb, rest).map(Command::Change),
        ("patch", Nfv | Primary) => patch(rest).map(Command::Change),
        ("clear", Primary) => alone(Command::Clear),
        ("launch", Primary) => launch(rest).map(Command::Launch),
        ("flow", Primary) => Ok(Command::Flow(rest.iter().map(|word| (*word).to_owned()).collect())),
        (_, Primary | Vf | Nfv | Mirror | Pcap) => {
            Err(format!("Unknown command({}): {} has {}", verb.escape_default(), kind.word(), known(kind)))
        }
    }
}

/// The commands of a type of process, for messages.
const fn known(kind: ProcType) -> &'static str {
    match kind {
        ProcType::Primary => "status, add, del, patch, forward, stop, clear, launch, flow, flush, exit",
        ProcType::Vf => "status, component, port, classifier_table, add, del, forward, stop, flush, exit",
        ProcType::Nfv => "status, add, del, patch, forward, stop, flush, exit",
        ProcType::Mirror => "status, component, port, add, del, forward, stop, flush, exit",
        ProcType::Pcap => "status, start, stop, flush, exit",
    }
}

/// SPP's text for a command of the wrong form, with the right form.
fn wrong(right: &str) -> String {
    format!("Wrong message format: `{right}` is expected")
}

/// SPP's text for a wrong value of `what`.
fn invalid(what: &str, why: impl std::fmt::Display) -> String {
    format!("Invalid value ({what}): {why}")
}

fn port(text: &str) -> Result<PortId, String> {
    text.parse().map_err(|why: String| invalid("port", why))
}

/// A decimal number from 0 to `most`.
fn number<T: TryFrom<u32>>(what: &str, text: &str, most: u32) -> Result<T, String> {
    // `parse` would also take a sign, which SPP's numbers don't have.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let value = digits.then(|| text.parse::<u32>().ok()).flatten().filter(|value| *value <= most);
    let value = value.and_then(|value| T::try_from(value).ok());
    value.ok_or_else(|| invalid(what, format_args!("`{}`: 0 to {most} are possible", text.escape_default())))
}

fn core_no(text: &str) -> Result<u32, String> {
    number("core", text, MAX_LCORE)
}

fn side(text: &str) -> Result<Dir, String> {
    match text {
        "rx" => Ok(Dir::Rx),
        "tx" => Ok(Dir::Tx),
        _ => Err(invalid("port rxtx", format_args!("`{}`: rx or tx", text.escape_default()))),
    }
}

fn kind_of_component(text: &str) -> Result<ComponentType, String> {
    match text {
        "forward" => Ok(ComponentType::Forward),
        "merge" => Ok(ComponentType::Merge),
        "classifier" | "classifier_mac" => Ok(ComponentType::Classifier),
        "mirror" => Ok(ComponentType::Mirror),
        _ => Err(invalid(
            "component type",
            format_args!("`{}`: forward, merge, classifier or mirror", text.escape_default()),
        )),
    }
}

fn flush(words: &[&str]) -> Result<Command, String> {
    match words {
        [] => Ok(Command::Flush),
        ["on"] => Ok(Command::FlushMode(true)),
        ["off"] => Ok(Command::FlushMode(false)),
        ["discard"] => Ok(Command::Discard),
        _ => Err(wrong("flush [on|off|discard]")),
    }
}

/// `component`, in spp-ctl's form by name, and in the command library's form by core. The latter has no name, so the
/// component is called `coreN`.
fn component(words: &[&str]) -> Result<Change, String> {
    match words {
        ["start", name, core, kind] => Ok(Change::StartComponent {
            name: (*name).to_owned(),
            core: core_no(core)?,
            kind: kind_of_component(kind)?,
        }),
        // SPP's documents also have the form with core and type after the name.
        ["stop", name] | ["stop", name, _, "forward" | "merge" | "classifier" | "classifier_mac" | "mirror"] => {
            Ok(Change::StopComponent { name: (*name).to_owned() })
        }
        ["start" | "stop", ..] => Err(wrong("component start NAME CORE TYPE, or component stop NAME")),
        [core, "idle" | "none" | "unuse"] => Ok(Change::SetCore { core: core_no(core)?, component: None }),
        [core, kind, sides @ ..] if core.starts_with(|first: char| first.is_ascii_digit()) => {
            let core = core_no(core)?;
            let kind = kind_of_component(kind)?;
            let mut component = Component { name: format!("core{core}"), core, kind, rx: vec![], tx: vec![] };
            let mut dir = None;
            for word in sides {
                match (*word, dir) {
                    ("rx", _) => dir = Some(Dir::Rx),
                    ("tx", _) => dir = Some(Dir::Tx),
                    (_, None) => return Err(wrong("component CORE TYPE [rx PORT…] [tx PORT…]")),
                    (_, Some(dir)) => {
                        let attached = Attached { port: port(word)?, vlan: VlanEdit::None };
                        component.side_mut(dir).push(attached);
                    }
                }
            }
            Ok(Change::SetCore { core, component: Some(component) })
        }
        [action, ..] => Err(invalid("action", format_args!("`{}`: start or stop", action.escape_default()))),
        [] => Err(wrong("component start NAME CORE TYPE, or component stop NAME")),
    }
}

fn port_of_component(words: &[&str]) -> Result<Change, String> {
    const RIGHT: &str = "port add|del PORT rx|tx NAME [add_vlantag VID PCP | del_vlantag]";
    let [action, at, dir, name, edit @ ..] = words else { return Err(wrong(RIGHT)) };
    let (port, dir, name) = (port(at)?, side(dir)?, (*name).to_owned());
    match (*action, edit) {
        ("add", []) => Ok(Change::Attach { name, dir, port, vlan: VlanEdit::None }),
        ("add", ["del_vlantag"]) => Ok(Change::Attach { name, dir, port, vlan: VlanEdit::Del }),
        ("add", ["add_vlantag", vid, pcp]) => {
            let vlan = VlanEdit::Add { vid: number("port vid", vid, MAX_VID)?, pcp: number("port pcp", pcp, 7)? };
            Ok(Change::Attach { name, dir, port, vlan })
        }
        ("add", [edit, ..]) if !matches!(*edit, "add_vlantag" | "del_vlantag") => {
            Err(invalid("port vlan operation", format_args!("`{}`: add_vlantag or del_vlantag", edit.escape_default())))
        }
        ("del", []) => Ok(Change::Detach { name, dir, port }),
        ("add" | "del", _) => Err(wrong(RIGHT)),
        (action, _) => Err(invalid("action", format_args!("`{}`: add or del", action.escape_default()))),
    }
}

/// `classifier_table`. Deletion by `unuse` goes by the key alone, deletion by `del` by key and port.
fn table(words: &[&str]) -> Result<Change, String> {
    const RIGHT: &str = "classifier_table add|del mac MAC PORT, or classifier_table add|del vlan VID MAC PORT";
    let (add, words) = match words {
        ["add", rest @ ..] => (true, rest),
        ["del", rest @ ..] => (false, rest),
        // The command library leaves the action out. Its port `unuse` deletes the entry.
        ["mac" | "vlan", ..] => (true, words),
        [action, ..] => {
            return Err(invalid("action", format_args!("`{}`: add or del", action.escape_default())));
        }
        [] => return Err(wrong(RIGHT)),
    };
    let (vlan, mac, at) = match words {
        ["mac", mac, at] => (None, *mac, *at),
        ["vlan", vid, mac, at] => (Some(number("vlan id", vid, MAX_VID)?), *mac, *at),
        ["mac" | "vlan", ..] | [] => return Err(wrong(RIGHT)),
        [kind, ..] => return Err(invalid("type", format_args!("`{}`: mac or vlan", kind.escape_default()))),
    };
    let mac = match mac {
        "default" => None,
        mac => Some(mac.parse().map_err(|why: String| invalid("mac address", why))?),
    };
    let key = EntryKey { vlan, mac };
    Ok(match (add, at) {
        (_, "unuse") => Change::DelEntry { key, port: None },
        (true, at) => Change::AddEntry(Entry { key, port: port(at)? }),
        (false, at) => Change::DelEntry { key, port: Some(port(at)?) },
    })
}

/// `add` and `del` of an instance's own ports. Rings are for a pipe, which only the primary makes.
fn own_port(kind: ProcType, verb: &str, words: &[&str]) -> Result<Change, String> {
    let (at, rings) = match words {
        [at] => (port(at)?, None),
        // The form of 2018: type and number are two words.
        [word, no] if PortType::ALL.iter().any(|known| known.word() == *word) => (port(&format!("{word}:{no}"))?, None),
        [at, rx, tx] if verb == "add" => (port(at)?, Some((port(rx)?, port(tx)?))),
        _ if verb == "add" && kind == ProcType::Primary => return Err(wrong("add PORT, or add pipe:N RXRING TXRING")),
        _ => return Err(wrong(&format!("{verb} PORT"))),
    };
    Ok(if verb == "add" { Change::AddPort { port: at, rings } } else { Change::DelPort(at) })
}

fn patch(words: &[&str]) -> Result<Change, String> {
    match words {
        ["reset"] => Ok(Change::ResetPatches),
        [src, dst] => Ok(Change::AddPatch(Patch { src: port(src)?, dst: port(dst)? })),
        _ => Err(wrong("patch SRC DST, or patch reset")),
    }
}

fn launch(words: &[&str]) -> Result<Launch, String> {
    const RIGHT: &str =
        "launch vf|nfv|mirror|pcap N [DPDK's options] [-- the process's options], or launch primary [DPDK's options]";
    let digits = |text: &&str| text.starts_with(|first: char| first.is_ascii_digit());
    // spp-ctl sends the number first. On the command line the name comes first. The primary has no number.
    let (id, name, options) = match words {
        [id, name, options @ ..] if digits(id) => (*id, *name, options),
        [name, id, options @ ..] if digits(id) => (*id, *name, options),
        [name @ ("primary" | "spp_primary"), options @ ..] => ("0", *name, options),
        // What is no number is told.
        [name, id, options @ ..] => (*id, *name, options),
        _ => return Err(wrong(RIGHT)),
    };
    let id = number("client id", id, MAX_CLIENT_ID)?;
    let (eal, app) = match options.iter().position(|word| *word == "--") {
        Some(at) => (&options[..at], &options[at + 1..]),
        None => (options, &[][..]),
    };
    let kind = kind_of(name).map_err(|why| invalid("launch", why))?;
    Launch::read(Proc { kind, id }, pairs(eal), pairs(app)).map_err(|why| invalid("launch", why))
}
