//! The report of a run: Markdown for engineers who compare xswitch with its peers, with plots beside it.

mod curves;
mod disk;
mod footprint;
mod goals;
mod overload;
mod rates;
mod round_trips;
mod select;
mod storm;
pub(crate) mod text;
mod vhost;

#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;

use anyhow::Context;

use crate::results::{Results, Setting};
use text::table;

/// A part of the report: its Markdown, and the plots that it shows.
#[derive(Debug, Default)]
struct Section {
    text: String,
    plots: Vec<(String, String)>,
}

impl Section {
    /// Shows a plot here, if there is one. `file` is its name without `.svg`.
    fn plot(&mut self, file: &str, alt: &str, svg: Option<String>) {
        let Some(svg) = svg else { return };
        let file = format!("{file}.svg");
        self.text += &format!("![{alt}]({file})\n\n");
        self.plots.push((file, svg));
    }
}

/// Writes `README.md` and its plots into `dir`, and makes `dir` if need be.
///
/// The same results give the same files. Missing measurements are left out.
pub fn write(results: &Results, dir: &Path) -> anyhow::Result<()> {
    let sections = [
        overload::section(results)?,
        rates::section(results)?,
        round_trips::section(results),
        curves::section(results)?,
        storm::section(results),
        vhost::section(results),
        disk::section(results),
        footprint::section(results),
    ];
    let mut text = head(&results.setting) + &goals::section(results);
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let put = |file: &str, content: &str| {
        let path = dir.join(file);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))
    };
    for section in sections {
        text += &section.text;
        for (file, svg) in section.plots {
            put(&file, &svg)?;
        }
    }
    if let Some(engine) = &results.engine {
        text += &format!("## Engine alone\n\n{}\n", engine.tables);
    }
    text += &list("## Not measured", &results.skipped);
    text += &commands(&results.setting.commands);
    put("README.md", &(text.trim_end().to_owned() + "\n"))
}

/// Where and how it was measured, and how to read it.
fn head(setting: &Setting) -> String {
    let row = |what: &str, value: &str| vec![what.to_owned(), if value.is_empty() { "–" } else { value }.to_owned()];
    let mut rows = vec![
        row("date", &setting.date),
        row("machine", &setting.machine),
        row("kernel", &setting.kernel),
        row("rounds", &setting.rounds.to_string()),
    ];
    rows.extend(setting.versions.iter().map(|(program, version)| row(program, version)));
    format!("# Beside its peers on the same veths\n\n{}{HOW_TO_READ}\n\n", table(&["", ""], &rows))
}

const HOW_TO_READ: &str = "\
- Machines differ and drift, so only ratios of one run mean something.
- All devices are set up at once, each between two guests of its own with the same generator and sink. In each round they
  take turns of a quarter of a second, in which the others are stopped. For offered rates one device is set up at a time.
- A figure is the median of the rounds, with the least and the greatest in brackets. A ratio is the median of the rounds'
  ratios.
- The generator (BPF live frames, redirected into the veth) is pinned to one CPU, the device under test to another. The
  sink is an XDP program that counts and drops.
- The kernel does softirq work wherever the sender runs. What forwards within it (inline bridge, XDP devmap redirect)
  works on the generator's CPU and slows the generator to its own pace.
- A device in user space (xswitch, bare forwarder, Open vSwitch, testpmd) gets its packets copied into its ring on the
  generator's CPU, and loses what doesn't fit. Its own CPU pays for its own code, for the send calls (system), and for the
  receiving end of each packet that it sends (softirq).
- CPU figures are of a whole CPU, from `/proc/stat`. A device that polls takes all of its CPU under any load.";

/// A heading and a bulleted list. Nothing if the list is empty.
fn list(heading: &str, items: &[String]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let items: String = items.iter().map(|item| format!("- {}\n", item.replace('\n', " "))).collect();
    format!("{heading}\n\n{items}\n")
}

/// The commands of the run. Nothing if they are unknown.
fn commands(commands: &[String]) -> String {
    if commands.is_empty() {
        return String::new();
    }
    format!("## Commands\n\n```sh\n{}\n```\n", commands.join("\n"))
}
