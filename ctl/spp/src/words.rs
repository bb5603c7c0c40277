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
//!               flow …                                               (see `flow::line`)
//! ```

use switch::model::VlanEdit;

use super::launch::{Launch, MAX_LCORE, kind_of, pairs};
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

/// A command with one blank between words, and a queue joined to its port: `phy:0 nq 1` becomes `phy:0nq1`.
pub fn joined(command: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in command.split_ascii_whitespace() {
        match words.as_slice() {
            [.., port, nq] if nq == "nq" && port.contains(':') => {
                let joined = format!("{port}nq{word}");
                words.truncate(words.len() - 2);
                words.push(joined);
            }
            _ => words.push(word.to_owned()),
        }
    }
    words.join(" ")
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
    let [first, second, options @ ..] = words else {
        return Err(wrong("launch vf|nfv|mirror|pcap N [DPDK's options] [-- the process's options]"));
    };
    // spp-ctl sends the number first. On the command line the name comes first.
    let digits = |text: &str| text.starts_with(|first: char| first.is_ascii_digit());
    let (id, name) = if digits(first) { (first, second) } else { (second, first) };
    let id = number("client id", id, MAX_CLIENT_ID)?;
    let (eal, app) = match options.iter().position(|word| *word == "--") {
        Some(at) => (&options[..at], &options[at + 1..]),
        None => (options, &[][..]),
    };
    let kind = kind_of(name).map_err(|why| invalid("launch", why))?;
    Launch::read(Proc { kind, id }, pairs(eal), pairs(app)).map_err(|why| invalid("launch", why))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KINDS: [ProcType; 5] = [ProcType::Primary, ProcType::Vf, ProcType::Nfv, ProcType::Mirror, ProcType::Pcap];

    fn at(text: &str) -> PortId {
        text.parse().unwrap()
    }

    fn change(kind: ProcType, line: &str) -> Change {
        match parse(kind, line) {
            Ok(Command::Change(change)) => change,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn every_process_knows_what_all_know() {
        for kind in KINDS {
            for (line, command) in [
                ("_get_client_id", Command::ClientId),
                ("process", Command::ClientId),
                ("status\0\0\0", Command::Status),
                (" exit ", Command::Exit),
                ("stop", Command::Change(Change::Run(false))),
                ("flush", Command::Flush),
                ("flush on", Command::FlushMode(true)),
                ("flush discard", Command::Discard),
            ] {
                assert_eq!(parse(kind, line), Ok(command), "{line}");
            }
        }
    }

    #[test]
    fn components_are_started_and_given_ports() {
        let vf = |line| change(ProcType::Vf, line);
        let (name, kind) = ("c1".to_owned(), ComponentType::Classifier);
        let start = Change::StartComponent { name: name.clone(), core: 3, kind };
        assert_eq!(vf("component start c1 3 classifier"), start);
        assert_eq!(vf("component start c1 3 classifier_mac"), start);
        assert_eq!(vf("component stop c1"), Change::StopComponent { name: name.clone() });
        let attach = |vlan| Change::Attach { name: name.clone(), dir: Dir::Tx, port: at("ring:0"), vlan };
        assert_eq!(vf("port add ring:0 tx c1"), attach(VlanEdit::None));
        assert_eq!(vf("port add ring:0 tx c1 del_vlantag"), attach(VlanEdit::Del));
        assert_eq!(vf("port add ring:0 tx c1 add_vlantag 100 5"), attach(VlanEdit::Add { vid: 100, pcp: 5 }));
        assert_eq!(vf("port del phy:0nq1 rx c1"), Change::Detach { name, dir: Dir::Rx, port: at("phy:0nq1") });
    }

    #[test]
    fn the_command_library_sets_a_core_in_one_word() {
        let Change::SetCore { core: 2, component: Some(component) } =
            change(ProcType::Vf, "component 2 merge rx ring:0 ring:1 tx phy:0")
        else {
            panic!("not a core");
        };
        let ports = |side: &[Attached]| side.iter().map(|attached| attached.port.to_string()).collect::<Vec<_>>();
        assert_eq!(
            (ports(&component.rx), ports(&component.tx)),
            (vec!["ring:0".into(), "ring:1".into()], vec!["phy:0".into()])
        );
        assert_eq!(change(ProcType::Vf, "component 2 idle"), Change::SetCore { core: 2, component: None });
    }

    #[test]
    fn entries_of_both_types_are_added_deleted_and_unused() {
        let mac = Some("fa:16:3e:7d:cc:35".parse().unwrap());
        let key = EntryKey { vlan: None, mac };
        let port = at("ring:0");
        let vf = |line| change(ProcType::Vf, line);
        let add = Change::AddEntry(Entry { key, port });
        assert_eq!(vf("classifier_table add mac FA:16:3E:7D:CC:35 ring:0"), add);
        assert_eq!(vf("classifier_table mac fa-16-3e-7d-cc-35 ring:0"), add);
        let free = Change::DelEntry { key, port: None };
        assert_eq!(vf("classifier_table mac FA:16:3E:7D:CC:35 unuse"), free);
        let delete = Change::DelEntry { key: EntryKey { vlan: Some(101), mac: None }, port: Some(port) };
        assert_eq!(vf("classifier_table del vlan 101 default ring:0"), delete);
        assert!(parse(ProcType::Mirror, "classifier_table add mac default ring:0").is_err());
    }

    #[test]
    fn ports_and_patches_of_nfv_and_primary() {
        for kind in [ProcType::Nfv, ProcType::Primary] {
            let add = Change::AddPort { port: at("ring:0"), rings: None };
            assert_eq!(change(kind, "add ring:0"), add);
            assert_eq!(change(kind, "add ring 0"), add);
            assert_eq!(change(kind, "del ring 0"), Change::DelPort(at("ring:0")));
            let patch = Change::AddPatch(Patch { src: at("phy:0"), dst: at("ring:0") });
            assert_eq!(change(kind, "patch phy:0 ring:0"), patch);
            assert_eq!(change(kind, "patch reset"), Change::ResetPatches);
        }
        let rings = Some((at("ring:0"), at("ring:1")));
        let pipe = Change::AddPort { port: at("pipe:0"), rings };
        assert_eq!(change(ProcType::Primary, "add pipe:0 ring:0 ring:1"), pipe);
    }

    #[test]
    fn the_primary_launches_in_either_order() {
        let sent = "launch 2 spp_vf -l 1,2-3 -m 512 --proc-type secondary -- --client-id 2 -s 127.0.0.1:6666";
        let typed = "launch vf 2 -l 1,2-3 --proc-type secondary -- --client-id 2";
        let launched = parse(ProcType::Primary, sent).unwrap();
        assert_eq!(parse(ProcType::Primary, typed), Ok(launched.clone()));
        let Command::Launch(launch) = launched else { panic!("not a launch") };
        assert_eq!((launch.proc.to_string(), launch.cores), ("vf 2".to_owned(), vec![1, 2, 3]));
        assert_eq!(parse(ProcType::Primary, "clear"), Ok(Command::Clear));
    }

    #[test]
    fn a_queue_may_be_words_of_its_own() {
        let sent = "launch 9 spp_pcap -l 1,2,3 --proc-type secondary -- --client-id 9 -c phy:0 nq 1 --fsize 2097152";
        let Ok(Command::Launch(launch)) = parse(ProcType::Primary, sent) else { panic!("not a launch") };
        assert_eq!((launch.port, launch.limit), (Some(at("phy:0nq1")), 2 << 20));
        assert_eq!(joined("port add phy:0 nq 1 rx  fwd1"), "port add phy:0nq1 rx fwd1");
        assert_eq!(joined("classifier_table add mac default phy:0 nq 1"), "classifier_table add mac default phy:0nq1");
        assert_eq!(joined("component start nq 1 forward"), "component start nq 1 forward");
    }

    #[test]
    fn errors_begin_with_spps_text() {
        for (kind, line, text) in [
            (ProcType::Vf, "", "Wrong message format"),
            (ProcType::Vf, "\0", "Wrong message format"),
            (ProcType::Vf, "status now", "Wrong message format"),
            (ProcType::Vf, "component", "Wrong message format"),
            (ProcType::Vf, "component start c1", "Wrong message format"),
            (ProcType::Vf, "component restart c1", "Invalid value (action)"),
            (ProcType::Vf, "component start c1 -1 forward", "Invalid value (core)"),
            (ProcType::Vf, "component start c1 2 bridge", "Invalid value (component type)"),
            (ProcType::Vf, "component 2 forward phy:0", "Wrong message format"),
            (ProcType::Vf, "port add phy:0 rx", "Wrong message format"),
            (ProcType::Vf, "port add phy rx c1", "Invalid value (port)"),
            (ProcType::Vf, "port add phy:0 up c1", "Invalid value (port rxtx)"),
            (ProcType::Vf, "port put phy:0 rx c1", "Invalid value (action)"),
            (ProcType::Vf, "port add phy:0 rx c1 vlan 1 2", "Invalid value (port vlan operation)"),
            (ProcType::Vf, "port add phy:0 rx c1 add_vlantag 70000 2", "Invalid value (port vid)"),
            (ProcType::Vf, "port add phy:0 rx c1 add_vlantag 1 x", "Invalid value (port pcp)"),
            (ProcType::Vf, "port add phy:0 rx c1 add_vlantag 1", "Wrong message format"),
            (ProcType::Vf, "port del phy:0 rx c1 del_vlantag", "Wrong message format"),
            (ProcType::Vf, "classifier_table add mac 1:2 ring:0", "Invalid value (mac address)"),
            (ProcType::Vf, "classifier_table add ip 1:2 ring:0", "Invalid value (type)"),
            (ProcType::Vf, "classifier_table set mac default ring:0", "Invalid value (action)"),
            (ProcType::Vf, "classifier_table add vlan x default ring:0", "Invalid value (vlan id)"),
            (ProcType::Vf, "classifier_table add", "Wrong message format"),
            (ProcType::Vf, "patch phy:0 phy:1", "Unknown command(patch)"),
            (ProcType::Nfv, "component stop c1", "Unknown command(component)"),
            (ProcType::Nfv, "add", "Wrong message format"),
            (ProcType::Nfv, "patch phy:0", "Wrong message format"),
            (ProcType::Nfv, "clear", "Unknown command(clear)"),
            (ProcType::Pcap, "add ring:0", "Unknown command(add)"),
            (ProcType::Primary, "launch 2", "Wrong message format"),
            (ProcType::Primary, "launch 2 spp_bridge", "Invalid value (launch)"),
            (ProcType::Vf, "flow list phy:0", "Unknown command(flow)"),
            (ProcType::Primary, "flush now", "Wrong message format"),
        ] {
            let why = parse(kind, line).unwrap_err();
            assert!(why.starts_with(text), "{line}: {why}");
        }
        assert!(parse(ProcType::Vf, &"x".repeat(MAX_LINE + 1)).unwrap_err().starts_with("Wrong message format"));
    }

    /// Known words in any order, and some unknown ones.
    fn words() -> impl Strategy<Value = String> {
        let known = prop::sample::select(
            "_get_client_id status exit flush on off discard forward start stop component port classifier_table add del mac \
             vlan default unuse idle merge mirror rx tx add_vlantag del_vlantag patch reset clear launch spp_vf spp_pcap -- -l -c \
             --fsize=1 1,2-3 0x1e phy:0 phy:0nq1 ring:1 ring 0 pipe:0 4096 99999999999 02:00:00:00:00:01"
                .split(' ')
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        );
        prop::collection::vec(prop_oneof![4 => known, 1 => "\\PC{0,8}"], 0..10).prop_map(|words| words.join(" "))
    }

    proptest! {
        #[test]
        fn any_words_are_read_or_refused(line in words()) {
            for kind in KINDS {
                let _ = parse(kind, &line);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(line in any::<String>()) {
            for kind in KINDS {
                let _ = parse(kind, &line);
            }
        }
    }
}
