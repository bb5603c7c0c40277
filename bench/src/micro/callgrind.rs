//! Instructions of each step, counted by callgrind. The program runs itself under it. Callgrind counts between entry
//! and exit of one function.
#![allow(unsafe_code, reason = "callgrind finds functions by their exported names")]

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use super::steps::{Case, Step};

/// Runs of a step before it is counted.
const WARM_UP: usize = 4;
/// Runs that are counted.
const RUNS: u64 = 8;
/// Name of [`measured`] for the linker.
const MEASURED: &str = "xswitch_bench_measured";
/// Name of [`end_of_case`].
const END_OF_CASE: &str = "xswitch_bench_end_of_case";

/// What callgrind counts.
#[inline(never)]
#[unsafe(export_name = "xswitch_bench_measured")]
fn measured(step: &mut dyn Step) {
    step.run();
}

/// Callgrind writes the count down after each call of this.
#[inline(never)]
#[unsafe(export_name = "xswitch_bench_end_of_case")]
fn end_of_case() {
    std::hint::black_box(());
}

/// What the program does under callgrind.
pub fn run_cases(cases: &[Case]) {
    for case in cases {
        let mut step = case.make();
        for _ in 0..WARM_UP {
            step.prepare();
            step.run();
        }
        for _ in 0..RUNS {
            step.prepare();
            measured(&mut *step);
        }
        end_of_case();
    }
}

/// Instructions per item of each case, in order. This program, given `arguments`, must call [`run_cases`] with the same
/// cases.
///
/// # Errors
/// There is no valgrind, or its counts are not those of the cases.
pub fn instructions(cases: &[Case], arguments: &[&str]) -> anyhow::Result<Vec<f64>> {
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("counts");
    let status = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={MEASURED}"))
        .arg(format!("--dump-after={END_OF_CASE}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(arguments)
        .stdout(Stdio::null())
        .status()
        .context("valgrind does not start: is it installed?")?;
    ensure!(status.success(), "valgrind: {status}");
    let per_item = |(case, part): (&Case, usize)| {
        let total = total(&out.with_extension(part.to_string()))?;
        ensure!(total > 0, "{case:?}: callgrind counted nothing");
        Ok(total as f64 / (RUNS * case.items as u64) as f64)
    };
    cases.iter().zip(1..).map(per_item).collect()
}

/// The instructions that a dump of callgrind is about.
fn total(dump: &Path) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(dump).with_context(|| format!("callgrind wrote no {}", dump.display()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("summary: "));
    line.and_then(|count| count.trim().parse().ok()).with_context(|| format!("{} has no sum", dump.display()))
}
