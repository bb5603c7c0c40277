//! Grammar of the command line. Doc comments of arguments and commands are the texts of `--help`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::bond::BondCommand;
use crate::bridge::BridgeCommand;
use crate::capture::CaptureArguments;
use crate::config::ConfigCommand;
use crate::disk::DiskCommand;
use crate::fdb::FdbCommand;
use crate::link::LinkCommand;
use crate::meter::MeterCommand;
use crate::port::PortCommand;
use crate::qemu::QemuCommand;
use crate::redirect::RedirectCommand;
use crate::rule::RuleCommand;
use crate::spp::SppArguments;
use crate::trace::TraceArguments;
use crate::values::seconds;

/// Manages a running xswitchd.
#[derive(Debug, Parser)]
#[command(name = "xswitch", version)]
pub struct Arguments {
    /// Directory of the daemon's sockets.
    #[arg(long, value_name = "DIR", default_value = "/run/xswitch", global = true)]
    pub run_dir: PathBuf,
    /// Print the API's JSON instead of tables.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Ports: add, delete, change, list, show.
    #[command(subcommand)]
    Port(PortCommand),
    /// Counters of all ports, or of one with its queues and drop reasons.
    Stats {
        /// Port, by name or number.
        port: Option<String>,
    },
    /// Optical ports: link, counters and MTU of `phy` ports.
    #[command(subcommand)]
    Link(LinkCommand),
    /// Bonds: several netdevs that are one port. Add, change, list, show, delete.
    #[command(subcommand)]
    Bond(BondCommand),
    /// List FDB entries.
    #[command(subcommand)]
    Fdb(FdbCommand),
    /// Meters: token buckets for ports and rules.
    #[command(subcommand)]
    Meter(MeterCommand),
    /// Traffic rules: of all rules that match a frame, the one with the lowest index applies.
    #[command(subcommand)]
    Rule(RuleCommand),
    /// Redirects: frames for one port go to another.
    #[command(subcommand)]
    Redirect(RedirectCommand),
    /// Disks: create, delete, grow, pause, resume, list, show, limit, snapshot.
    #[command(subcommand)]
    Disk(DiskCommand),
    /// Limits for ports, meters, rules and disks, and how many are free.
    Capability,
    /// Settings of the bridge.
    #[command(subcommand)]
    Bridge(BridgeCommand),
    /// The configuration of ports, tables and disks: check, compare, apply, export.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show step by step what would happen to a packet.
    Trace(TraceArguments),
    /// Capture frames of ports in pcapng format.
    Capture(CaptureArguments),
    /// Live packet and bit rates.
    Top {
        /// Seconds between samples.
        #[arg(long, default_value_t = 1.0, value_parser = seconds)]
        interval: f64,
        /// Number of samples. Default: no limit.
        #[arg(long)]
        count: Option<u64>,
    },
    /// Check kernel, privileges, memory and netdevs, and give advice.
    Doctor {
        /// Netdev to check as well. May be repeated.
        #[arg(long, value_name = "IF")]
        ifname: Vec<String>,
        /// Check a QEMU as well. Default: the one for this architecture in PATH.
        #[arg(long, value_name = "FILE", num_args = 0..=1)]
        qemu: Option<Option<PathBuf>>,
    },
    /// Cards of guests in QEMU: run, attach, detach, print options, release.
    #[command(subcommand)]
    Qemu(QemuCommand),
    /// The Soft Patch Panel: run its command lines, one or a recipe of them, or draw its graph.
    Spp(SppArguments),
    /// Count the frames of packet memory by their owners.
    Audit,
    /// Show the flow table in XDP, and the flows in it.
    Flows(FlowsArgs),
    /// List the worker threads.
    Workers,
    /// Show the versions of this program and of the daemon.
    Version,
}

/// Which flows to show.
#[derive(Debug, Args)]
pub struct FlowsArgs {
    /// Only flows that come in from this port, or go out of it
    #[arg(long)]
    pub port: Option<String>,
    /// Flows to show at most
    #[arg(long, default_value_t = 100)]
    pub limit: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_that_exclude_each_other_are_refused() {
        for bad in [
            "xswitch trace --in a --hex 00 --src 02:00:00:00:00:01",
            "xswitch trace --in a --pcp 3",
            "xswitch port del",
            "xswitch top --interval 0",
            "xswitch rule add x --to drop",
            "xswitch rule add 1",
            "xswitch rule add 1 --to vm1",
            "xswitch rule add 1 --to drop --dip 10.0.0.0/33",
            "xswitch meter add 1",
            "xswitch meter add 1 -5",
            "xswitch meter bind 1 2 sideways",
            "xswitch link show",
            "xswitch link set up0",
            "xswitch link set up0 --mtu x",
            "xswitch disk create",
            "xswitch disk create a --size 1.5G",
            "xswitch disk create a --read-ops x",
            "xswitch disk grow a",
            "xswitch disk grow a 10X",
            "xswitch disk delete",
            "xswitch disk limits a --write-bytes 1G:2:3",
            "xswitch disk snapshot a",
        ] {
            assert!(Arguments::try_parse_from(bad.split(' ')).is_err(), "{bad}");
        }
    }
}
