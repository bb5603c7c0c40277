//! Reads a line of SPP's CLI. It is a common command, or an instance, `;` and a command for the instance.
//!
//! The instance's command stays a text here. [`words`](crate::words) reads it.

use ctl_spp_types::{BOM, is_comment};

use crate::ProcType;

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// An empty line, or a comment.
    Nothing,
    /// `status`.
    Status,
    /// `server list`.
    Servers,
    /// `topo term`.
    Topo,
    /// `bye sec` or `bye all`.
    Bye {
        /// Whether the primary ends too.
        all: bool,
    },
    /// `pri; …`, `vf 1; …`, `sec 1; …`.
    To {
        /// The instance.
        target: Target,
        /// The command, as it was written.
        command: String,
    },
}

/// The instance that a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The primary.
    Primary,
    /// The instance with this number.
    Secondary {
        /// Its type. `None`: any type.
        kind: Option<ProcType>,
        /// Its number.
        id: u32,
    },
}

/// Commands of SPP's CLI that are about that program itself. They are refused with a message of their own.
const SHELL: [&str; 19] = [
    "cat",
    "cd",
    "config",
    "env",
    "exit",
    "help",
    "history",
    "inspect",
    "less",
    "load_cmd",
    "ls",
    "mkdir",
    "pwd",
    "record",
    "redo",
    "topo_resize",
    "topo_subgraph",
    "?",
    "EOF",
];

/// Reads a line. The `;` may be missing.
///
/// # Errors
/// The mistake, and what would be right.
pub fn parse(line: &str) -> Result<Line, String> {
    if is_comment(line) {
        return Ok(Line::Nothing);
    }
    let line = line.trim_start_matches(BOM).trim();
    let (head, tail) = line.split_once(|c: char| c.is_whitespace() || c == ';').unwrap_or((line, ""));
    let words: Vec<_> = tail.split_whitespace().collect();
    match (head, words.as_slice()) {
        ("status", []) => Ok(Line::Status),
        ("server", [] | ["list"]) => Ok(Line::Servers),
        ("topo", ["term"]) => Ok(Line::Topo),
        ("topo", _) => {
            Err("`topo term` is what there is here; `xswitch spp topo -o FILE` writes the graph as text, dot or SVG"
                .into())
        }
        ("bye", ["sec"]) => Ok(Line::Bye { all: false }),
        ("bye", ["all"]) => Ok(Line::Bye { all: true }),
        ("bye", _) => Err("`bye sec` ends all instances but the primary, `bye all` that one too".into()),
        ("pri", _) => to(Target::Primary, tail, "pri"),
        ("vf" | "nfv" | "mirror" | "pcap" | "sec", _) => secondary(head, tail),
        ("playback", _) => Err("a recipe is played by `xswitch spp --file FILE`".into()),
        (word, _) if SHELL.contains(&word) => Err(format!("`{word}` is about SPP's own CLI: it has no meaning here")),
        ("status" | "server", _) => {
            Err(format!("`{head}` takes nothing more here{}", if head == "server" { " than `list`" } else { "" }))
        }
        (word, _) => Err(format!(
            "`{}` is no command: pri, vf, nfv, mirror, pcap, sec, status, server, topo, bye are",
            word.escape_default()
        )),
    }
}

fn secondary(head: &str, tail: &str) -> Result<Line, String> {
    let example = format!("such as `{head} 1; status`");
    let tail = tail.trim_start();
    let (id, command) = tail.split_at(tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len()));
    let id: u32 = id.parse().map_err(|_| format!("{head} needs the number of an instance, {example}"))?;
    if !command.is_empty() && !command.starts_with(|c: char| c == ';' || c.is_whitespace()) {
        return Err(format!("{head} needs the number of an instance, {example}"));
    }
    let kind = match head {
        "vf" => Some(ProcType::Vf),
        "nfv" => Some(ProcType::Nfv),
        "mirror" => Some(ProcType::Mirror),
        "pcap" => Some(ProcType::Pcap),
        _ => None,
    };
    to(Target::Secondary { kind, id }, command, &format!("{head} {id}"))
}

fn to(target: Target, tail: &str, who: &str) -> Result<Line, String> {
    let tail = tail.trim();
    let command = tail.strip_prefix(';').unwrap_or(tail).trim();
    if command.is_empty() {
        return Err(format!("{who} needs a command, such as `{who}; status`"));
    }
    Ok(Line::To { target, command: command.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> (Target, String) {
        match parse(line).unwrap() {
            Line::To { target, command } => (target, command),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn blanks_and_the_semicolon_may_be_anyhow() {
        let vf = Target::Secondary { kind: Some(ProcType::Vf), id: 1 };
        for line in ["vf 1; status", "vf 1;status", " vf  1 ;  status ", "vf 1 status", "vf\t1\t;status"] {
            assert_eq!(command(line), (vf, "status".to_owned()), "{line}");
        }
        for line in ["pri; status", "pri;status", "pri ; status", "pri status"] {
            assert_eq!(command(line), (Target::Primary, "status".to_owned()), "{line}");
        }
        assert_eq!(command("sec 2;patch phy:0 ring:0").0, Target::Secondary { kind: None, id: 2 });
    }

    #[test]
    fn comments_are_nothing() {
        for line in ["", "  ", "# vf 1; exit", "  # x", "// x", "\u{feff}# x", "\u{feff}"] {
            assert_eq!(parse(line), Ok(Line::Nothing), "{line}");
        }
    }

    #[test]
    fn common_commands_are_known() {
        assert_eq!(parse("status"), Ok(Line::Status));
        assert_eq!(parse("\u{feff}status\r"), Ok(Line::Status));
        assert_eq!(parse("server"), Ok(Line::Servers));
        assert_eq!(parse("server list"), Ok(Line::Servers));
        assert_eq!(parse("topo term"), Ok(Line::Topo));
        assert_eq!(parse("bye sec"), Ok(Line::Bye { all: false }));
        assert_eq!(parse("bye all"), Ok(Line::Bye { all: true }));
    }

    #[test]
    fn what_is_no_command_is_told_with_the_reason() {
        for (line, why) in [
            ("vf", "number"),
            ("vf x; status", "number"),
            ("vf 1x; status", "number"),
            ("vf -1; status", "number"),
            ("vf 99999999999; status", "number"),
            ("vf 1;", "command"),
            ("vf 1", "command"),
            ("pri;", "command"),
            ("hello", "is no command"),
            ("config prompt x", "own CLI"),
            ("bye", "bye sec"),
            ("bye now", "bye all"),
            ("topo net.dot", "xswitch spp topo"),
            ("playback x.rcp", "--file"),
            ("server 2", "list"),
            ("status now", "nothing more"),
        ] {
            let told = parse(line).unwrap_err();
            assert!(told.contains(why), "{line}: {told}");
        }
    }
}
