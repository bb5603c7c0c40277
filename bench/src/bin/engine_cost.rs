//! Cost of the engine alone: packets a second of one core with everything on, and time, instructions and allocations of
//! each step per item.
//!
//! `engine-cost [--json FILE]` measures what the report of a run shows. `engine-cost GROUP…` measures the steps of
//! these groups only. Instructions need valgrind.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use anyhow::{bail, ensure};
use bench::micro::allocations::{self, CountingAllocator};
use bench::micro::bed::{Bed, Device, FLOWS, RULES, pass_through, worker};
use bench::micro::callgrind;
use bench::micro::steps::{COMPONENTS, Case, WHOLE_TURN, cases};
use bench::results::{Engine, Spread, spread};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Argument of the program when it runs under callgrind.
const COUNTED: &str = "--counted";
const ROUNDS: usize = 9;
/// Turns of a round: some 100 ms.
const TURNS: u64 = 30_000;
/// Shortest time that a step is measured for in a round, in seconds.
const STEP_SECONDS: f64 = 0.003;

/// Median, least and greatest of the values.
fn spread_of(values: Vec<f64>) -> Spread {
    spread(values).expect("there are rounds")
}

/// Packets a second, in millions, of one round.
fn rate<D: Device>(bed: &mut Bed<D>) -> f64 {
    let before = bed.forwarded();
    let start = Instant::now();
    bed.turn(TURNS);
    (bed.forwarded() - before) as f64 / start.elapsed().as_secs_f64() / 1e6
}

/// Nanoseconds and allocations of a step, per item.
fn time_and_allocations(case: &Case) -> (f64, f64) {
    let mut step = case.make();
    let (mut rounds, mut allocated, mut items) = (Vec::with_capacity(ROUNDS), 0, 0);
    for round in 0..=ROUNDS {
        let (mut seconds, mut runs) = (0.0, 0);
        while seconds < STEP_SECONDS {
            step.prepare();
            let before = allocations::count();
            let start = Instant::now();
            step.run();
            seconds += start.elapsed().as_secs_f64();
            runs += 1;
            // The first round warms up.
            if round > 0 {
                allocated += allocations::count() - before;
                items += case.items;
            }
        }
        if round > 0 {
            rounds.push(seconds * 1e9 / (runs * case.items) as f64);
        }
    }
    (spread_of(rounds).0, allocated as f64 / items as f64)
}

/// Packets a second of the worker alone, in millions, and a table of the rounds.
fn rates() -> (f64, String) {
    let (mut worker, mut pass_through) = (worker(), pass_through());
    let (mut with_worker, mut with_pass_through) = (Vec::new(), Vec::new());
    rate(&mut worker);
    for _ in 0..ROUNDS {
        with_worker.push(rate(&mut worker));
        with_pass_through.push(rate(&mut pass_through));
    }
    let (all, double) = (spread_of(with_worker), spread_of(with_pass_through));
    let alone = |all: f64, double: f64| 1.0 / (1.0 / all - 1.0 / double);
    let mut table = format!(
        "One core, {FLOWS} flows of 64-byte UDP packets from one port to another: learning, check of the sender's address, \
         {RULES} rules, a meter on each port both ways, counters. Median of {ROUNDS} rounds, least to most.\n\n\
         | what | million packets/s | ns a packet |\n| --- | --- | --- |\n"
    );
    let mut row = |what: &str, rate: &Spread| {
        let (median, min, max) = rate;
        let _ = writeln!(table, "| {what} | {median:.1} ({min:.1}–{max:.1}) | {:.1} |", 1e3 / median);
    };
    row("worker and the kernel's double", &all);
    row("no worker: descriptors passed on, and the kernel's double", &double);
    let difference = (alone(all.0, double.0), alone(all.1, double.0), alone(all.2, double.0));
    row("worker alone: the difference", &difference);
    (difference.0, table)
}

/// Instructions and allocations of a worker's turn per packet, and tables of all steps and of all ways through
/// components.
fn steps(cases: &[Case], instructions: &[f64]) -> (f64, f64, String) {
    let mut turn = (f64::NAN, f64::NAN);
    let mut steps = "| step | ns | instructions | allocations |\n| --- | --- | --- | --- |\n".to_owned();
    let mut paths = format!(
        "### Components\n\n\
         A worker's whole turn, per packet that comes in: {FLOWS} flows of 64-byte UDP packets in turn, or all that the table knows; no kernel \
         and no double of it in the figures. The bridge with everything on is measured the same way.\n\n\
         | path | million packets/s | instructions | allocations |\n| --- | --- | --- | --- |\n"
    );
    for (case, instructions) in cases.iter().zip(instructions) {
        let (time, allocations) = time_and_allocations(case);
        let Case { group, name, .. } = case;
        if name == WHOLE_TURN {
            turn = (*instructions, allocations);
        }
        if *group == COMPONENTS || name == WHOLE_TURN {
            let name = if name == WHOLE_TURN { "bridge" } else { name };
            let _ = writeln!(paths, "| {name} | {:.1} | {instructions:.1} | {allocations} |", 1e3 / time);
        }
        if *group != COMPONENTS {
            let _ = writeln!(steps, "| {group}: {name} | {time:.1} | {instructions:.1} | {allocations} |");
        }
    }
    (turn.0, turn.1, format!("{paths}\n{steps}"))
}

/// The cases of these groups, or of all groups if none is named.
fn cases_of(groups: &[&str]) -> Vec<Case> {
    cases().into_iter().filter(|case| groups.is_empty() || groups.contains(&case.group)).collect()
}

/// Instructions, allocations and tables of these groups.
fn measured(groups: &[&str]) -> anyhow::Result<(f64, f64, String)> {
    let cases = cases_of(groups);
    ensure!(!cases.is_empty(), "no step is in the groups {groups:?}");
    let arguments: Vec<_> = [COUNTED].iter().chain(groups).copied().collect();
    Ok(steps(&cases, &callgrind::instructions(&cases, &arguments)?))
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let file = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => None,
        [COUNTED, ref groups @ ..] => {
            callgrind::run_cases(black_box(&cases_of(groups)));
            return Ok(());
        }
        ["--json", file] => Some(file),
        ref groups if groups.iter().all(|group| !group.starts_with('-')) => {
            print!("{}", measured(groups)?.2);
            return Ok(());
        }
        _ => bail!("engine-cost [--json FILE | GROUP…]"),
    };
    let (millions, rates) = rates();
    println!("{rates}");
    let (instructions, allocations, steps) = measured(&[])?;
    print!("{steps}");
    if let Some(file) = file {
        let engine = Engine { pps: millions * 1e6, instructions, allocations, tables: format!("{rates}\n{steps}") };
        std::fs::write(file, serde_json::to_string(&engine)?)?;
    }
    Ok(())
}
