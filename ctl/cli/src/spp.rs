//! `spp`: runs command lines of the Soft Patch Panel, single ones or recipes, and draws its graph.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ctl_client::{Client, ClientError};
use ctl_spp_types::{Answer, SppState, is_comment, save, topo};
use ctl_stdio::complain;
use serde_json::{Value, json};

use crate::print::{Printer, print};

/// `spp`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = WORDS)]
pub struct SppArguments {
    #[command(subcommand)]
    command: Option<SppCommand>,
    /// Run a recipe: a file of such lines, or `-` for standard input. It ends at the first line that fails.
    #[arg(long, value_name = "FILE", conflicts_with = "line")]
    file: Option<PathBuf>,
    /// Continue the recipe after a line that failed.
    #[arg(long, conflicts_with = "line")]
    keep_going: bool,
    /// A line in SPP's command words, such as 'vf 1; component start fwd1 2 forward'. Its words may be separate
    /// arguments.
    #[arg(value_name = "LINE", allow_hyphen_values = true, trailing_var_arg = true, required_unless_present = "file")]
    line: Vec<String>,
}

const WORDS: &str = "\
Lines:
  status | server list | topo term | bye sec|all
  pri; status | clear | forward | stop | patch SRC DST | patch reset
       add PORT | add pipe:N RXRING TXRING | del PORT | launch vf|nfv|mirror|pcap N OPTIONS
       flow validate|create PORT ATTRIBUTES pattern … / end actions … / end
       flow destroy PORT N|ALL | flow list PORT | flow status PORT N
  vf N; status | component start NAME CORE forward|merge|classifier | component stop NAME
       port add PORT rx|tx NAME [add_vlantag VID PCP | del_vlantag]
       port del PORT rx|tx NAME
       classifier_table add|del mac MAC|default PORT
       classifier_table add|del vlan VID MAC|default PORT
  mirror N; as vf, with components of type mirror and no table
  nfv N; status | add|del PORT | patch SRC DST | patch reset | forward | stop
  pcap N; status | start | stop
  each of them; flush [on|off|discard] | exit
  sec N; what the instance of that number takes
A blank stands for the `;` too, which shells take for their own. Options come before the line.";

/// Commands other than SPP's lines.
#[derive(Debug, Subcommand)]
enum SppCommand {
    /// Draw the graph of ports, components and patches.
    Topo {
        /// text, dot (Graphviz) or svg. Default: by the extension of the file, otherwise text.
        #[arg(long, value_enum)]
        format: Option<Format>,
        /// File to write. Default: standard output.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// `term` for standard output, or a file, as in SPP's CLI.
        #[arg(value_name = "DEST", conflicts_with = "output")]
        dest: Option<PathBuf>,
    },
    /// Write a recipe that restores the present state.
    Save {
        /// File to write. Default: standard output.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// Forms of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table.
    Text,
    /// The language of Graphviz.
    Dot,
    /// An image.
    Svg,
}

/// A command that clap took for a line, because a global option came before it.
#[derive(Debug, Parser)]
#[command(name = "xswitch spp")]
struct Behind {
    #[command(subcommand)]
    command: SppCommand,
}

impl SppArguments {
    /// The command that is not one of SPP's lines, if it is one.
    fn command(&mut self) -> Option<SppCommand> {
        match self.line.first().map(String::as_str) {
            Some("topo" | "save") => {
                let words = std::iter::once("xswitch spp".to_owned()).chain(self.line.drain(..));
                Some(Behind::parse_from(words).command)
            }
            _ => self.command.take(),
        }
    }
}

/// Executes the command or the lines.
pub(crate) async fn run(client: &Client, printer: &Printer, mut arguments: SppArguments) -> anyhow::Result<()> {
    match (arguments.command(), arguments.file) {
        (Some(SppCommand::Topo { format: Some(_), .. }), _) if printer.json => {
            bail!("--json and --format: one of them")
        }
        (Some(SppCommand::Topo { output, dest, .. }), _) if printer.json => {
            let output = output.or(dest).filter(|file| file != Path::new("term"));
            write_json(output.as_deref(), &client.get("spp").await?)
        }
        (Some(SppCommand::Topo { format, output, dest }), _) => {
            let output = output.or(dest).filter(|file| file != Path::new("term"));
            let format = match (format, output.as_deref().and_then(Path::extension)) {
                (Some(format), _) => format,
                (None, Some(end)) if end == "dot" || end == "gv" => Format::Dot,
                (None, Some(end)) if end == "svg" => Format::Svg,
                (None, None) => Format::Text,
                (None, Some(end)) if end == "txt" => Format::Text,
                (None, Some(_)) => {
                    bail!("the file's name says no format that there is: name one, --format text, dot or svg")
                }
            };
            let graph = topo::Graph::of(&state(client).await?);
            let text = match format {
                Format::Text => topo::text(&graph),
                Format::Dot => topo::dot(&graph),
                Format::Svg => topo::svg(&graph),
            };
            write(output.as_deref(), &text)
        }
        (Some(SppCommand::Save { output }), _) => {
            let lines = save(&state(client).await?);
            if printer.json {
                return write_json(output.as_deref(), &json!(lines));
            }
            write(output.as_deref(), &lines.into_iter().map(|line| line + "\n").collect::<String>())
        }
        (None, Some(file)) => play(client, printer, &file, arguments.keep_going).await,
        (None, None) => {
            let answer = send(client, &arguments.line.join(" ")).await?;
            printer.show(&answer["value"], |_: Value| answer["text"].as_str().unwrap_or_default().to_owned())
        }
    }
}

async fn state(client: &Client) -> anyhow::Result<SppState> {
    let state = client.get("spp").await?;
    serde_json::from_value(state).context("the daemon's answer is not as expected: are both of one version?")
}

async fn send(client: &Client, line: &str) -> Result<Value, ClientError> {
    client.post("spp/commands", &json!({ "line": line })).await
}

fn write_json(file: Option<&Path>, value: &Value) -> anyhow::Result<()> {
    write(file, &(serde_json::to_string_pretty(value)? + "\n"))
}

fn write(file: Option<&Path>, text: &str) -> anyhow::Result<()> {
    match file {
        Some(file) if file != Path::new("-") => {
            std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
        }
        _ => print(text),
    }
}

/// Sends the lines of a recipe one by one. With `--json` each answer is printed on one line.
async fn play(client: &Client, printer: &Printer, file: &Path, keep_going: bool) -> anyhow::Result<()> {
    let name = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.with_context(|| format!("reading {name}"))?;
    let (mut failed, mut tried) = (0, 0);
    for (line, no) in text.lines().zip(1..).filter(|(line, _)| !is_comment(line)) {
        tried += 1;
        match send(client, line).await {
            Ok(answer) if printer.json => {
                print(&format!("{}\n", json!({ "line": no, "command": line.trim(), "value": answer["value"] })))?;
            }
            Ok(answer) => print(&serde_json::from_value::<Answer>(answer)?.text)?,
            Err(ClientError::Refused(body)) if keep_going => {
                complain(format_args!("xswitch: {name}:{no}: {}", body.error));
                failed += 1;
            }
            Err(error) => return Err(error).with_context(|| format!("{name}:{no}")),
        }
    }
    if failed > 0 {
        bail!("{failed} of the {tried} lines of {name} failed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Arguments, Command};

    fn parse(words: &[&str]) -> Result<(SppArguments, bool), clap::Error> {
        let arguments = Arguments::try_parse_from(["xswitch"].iter().chain(words))?;
        let json = arguments.json;
        match arguments.command {
            Command::Spp(arguments) => Ok((arguments, json)),
            other => panic!("{other:?}"),
        }
    }

    fn line(words: &[&str]) -> String {
        parse(words).unwrap().0.line.join(" ")
    }

    #[test]
    fn a_line_may_be_one_argument_or_many() {
        assert_eq!(line(&["spp", "vf 1; status"]), "vf 1; status");
        assert_eq!(line(&["spp", "vf", "1;", "component", "stop", "topo"]), "vf 1; component stop topo");
        assert_eq!(line(&["spp", "bye", "sec"]), "bye sec");
        let launch = ["spp", "pri", "launch", "vf", "1", "-l", "0,1", "--", "--client-id", "1"];
        assert_eq!(line(&launch), launch[1..].join(" "));
    }

    #[test]
    fn options_come_before_the_line() {
        let (arguments, json) = parse(&["spp", "--json", "vf 1; status"]).unwrap();
        assert_eq!((arguments.line.len(), json), (1, true));
        assert!(parse(&["spp", "--file", "x.rcp", "--keep-going"]).unwrap().0.keep_going);
        assert!(parse(&["spp", "topo", "--format", "svg", "-o", "x"]).is_ok());
        assert!(parse(&["spp", "save", "-o", "x"]).is_ok());
        for bad in [
            vec!["spp"],
            vec!["spp", "--keep-going", "status"],
            vec!["spp", "--file", "x", "status"],
            vec!["spp", "topo", "--format", "png"],
            vec!["spp", "topo", "x.dot", "-o", "y.dot"],
        ] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
    }
}
