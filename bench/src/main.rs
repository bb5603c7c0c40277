//! `xswitch-bench`: runs the bench. Needs root, and two CPUs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use bench::experiments::What;
use bench::measure::Times;
use bench::peers::Peers;
use bench::results::Results;
use bench::run::{Plan, RESULTS, Run};
use bench::{cpu, report, setting, stop};
use clap::{Parser, Subcommand, ValueEnum};

/// Measures xswitch beside the limits of the path and its peers, on the same veths, and writes a report.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Rounds of rates under overload and of round trips. Figures are medians of these
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Rounds of each point of cost curves
    #[arg(long, default_value_t = 10)]
    curve_rounds: usize,
    /// Rounds of given offered rates
    #[arg(long, default_value_t = 2)]
    rate_rounds: usize,
    /// Rounds of each case of disks
    #[arg(long, default_value_t = 5)]
    disk_rounds: usize,
    /// Directory of results.json and the report
    #[arg(long, default_value = "bench/results/last")]
    out: PathBuf,
    /// Experiments, separated by commas [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<What>,
    /// Kinds of devices, with commas: xswitch, components, floor, devmap, bridge, ovs, testpmd, qsd [default: all]
    #[arg(long, value_delimiter = ',')]
    devices: Vec<String>,
    /// Measure briefly, to see whether it works and not how fast
    #[arg(long)]
    quick: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Writes the report of a directory's results.json again
    Report {
        /// The directory
        dir: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    match args.command {
        Some(Command::Report { dir }) => return report::write(&Results::load(&dir.join(RESULTS))?, &dir),
        None => {}
    }
    ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root");
    let cpus = std::thread::available_parallelism()?.get();
    ensure!(cpus > cpu::DEVICE, "two CPUs are needed, one for the generator and one for the device");
    stop::listen();
    let ms = Duration::from_millis;
    let times = if args.quick {
        Times { warm: ms(20), measure: ms(100), idle: ms(200) }
    } else {
        Times { warm: ms(300), measure: ms(1000), idle: ms(5000) }
    };
    let results = Results { setting: setting::look(args.rounds)?, ..Results::default() };
    let Args { rounds, curve_rounds, rate_rounds, disk_rounds, devices, out, .. } = args;
    let plan = Plan { rounds, curve_rounds, rate_rounds, disk_rounds, times, devices, out };
    let mut run = Run { plan, results };
    let peers = unpack_peers(&mut run);
    let wanted = if args.only.is_empty() { What::value_variants() } else { &args.only };
    wanted.iter().try_for_each(|what| what.measure(&mut run, peers.as_ref()))
}

/// Unpacks the peers if they are wanted. If that fails, a note says that they take no part.
fn unpack_peers(run: &mut Run) -> Option<Arc<Peers>> {
    if !["ovs", "testpmd"].into_iter().any(|kind| run.plan.wants(kind)) {
        return None;
    }
    match Peers::unpack() {
        Ok(peers) => Some(Arc::new(peers)),
        Err(error) => {
            run.skip("Open vSwitch and testpmd", &error);
            None
        }
    }
}
