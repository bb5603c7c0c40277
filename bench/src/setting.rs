//! The machine and the command of a run.

use std::fs::read_to_string;

use anyhow::Context;
use tests::shell;

use crate::results::Setting;

/// Looks at the machine.
///
/// # Errors
/// `/proc` or `date` does not tell.
pub fn look(rounds: usize) -> anyhow::Result<Setting> {
    let field = |file: &str, name: &str| {
        let text = read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let memory = field("/proc/meminfo", "MemTotal").context("the size of memory")?;
    let kilobytes: f64 = memory.trim_end_matches("kB").trim().parse()?;
    let cpus = std::thread::available_parallelism()?;
    // Only the arguments, because a path could tell where somebody keeps things.
    let words: Vec<String> = std::env::args().skip(1).collect();
    Ok(Setting {
        date: shell::run(&mut shell::words("date +%Y-%m-%d")).trim().to_owned(),
        machine: format!("{model}, {cpus} CPUs, {:.0} GB of memory", kilobytes / 1e6),
        kernel: read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        versions: Vec::new(),
        commands: vec![["xswitch-bench".to_owned(), words.join(" ")].join(" ").trim().to_owned()],
        rounds,
    })
}
