//! The daemon.
#![forbid(unsafe_code)]

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ctl_service::doctor::local_checks;
use ctl_stdio::{Log, complain};
use switch::model::DataplaneSettings;
use tracing_subscriber::EnvFilter;
use xswitchd::Options;

/// Number of tokio threads. The cores are for the workers.
const CONTROL_THREADS: usize = 2;

/// Time for the last lines of the log to be written.
const LAST_LINES: Duration = Duration::from_millis(500);

/// AF_XDP switch for virtual machines.
#[derive(Debug, Parser)]
#[command(name = "xswitchd", version)]
struct Arguments {
    /// Configuration file (TOML). Default: /etc/xswitch/xswitch.toml, if it exists.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the sockets.
    #[arg(long, value_name = "DIR", default_value = "/run/xswitch")]
    run_dir: PathBuf,
    /// Directory of the state file.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/xswitch")]
    state_dir: PathBuf,
    /// Only check whether configuration and state are usable.
    #[arg(long)]
    check: bool,
    /// Only check this configuration file.
    #[arg(long, hide = true, value_name = "FILE", conflicts_with = "config")]
    check_config: Option<PathBuf>,
    /// Check the machine and these netdevs, print the findings as JSON, and exit.
    #[arg(long, hide = true, value_name = "IFNAME", num_args = 0..)]
    doctor: Option<Vec<String>>,
}

fn main() -> ExitCode {
    let Arguments { config, run_dir, state_dir, check, check_config, doctor } = Arguments::parse();
    let log = match Log::to_stderr() {
        Ok(log) => log,
        Err(error) => {
            complain(format_args!("xswitchd: starting the log: {error}"));
            return ExitCode::FAILURE;
        }
    };
    report_panics(&log);
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer({
            let log = log.clone();
            move || log.clone()
        })
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    if let Some(ifnames) = doctor {
        return print_checks(&ifnames);
    }
    let options = Options { config, run_dir, state_dir };
    let result = if check_config.is_some() {
        xswitchd::check_config(check_config.as_deref())
    } else if check {
        xswitchd::check(&options)
    } else {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(CONTROL_THREADS)
            .enable_all()
            .build()
            .map_err(anyhow::Error::from)
            .and_then(|runtime| runtime.block_on(xswitchd::run(options)))
    };
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log.add(format!("xswitchd: {error}\n").as_bytes());
            ExitCode::FAILURE
        }
    };
    log.flush(LAST_LINES);
    code
}

/// Sends panics to the log. The default hook would wait for a reader of standard error.
fn report_panics(log: &Log) {
    let log = log.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let backtrace = match Backtrace::capture() {
            trace if trace.status() == BacktraceStatus::Captured => format!("{trace}\n"),
            _ => String::new(),
        };
        let entry = format!("xswitchd: thread {}: {panic}\n{backtrace}", thread.name().unwrap_or("without a name"));
        log.add(entry.as_bytes());
        // The process may be aborted next.
        log.flush(LAST_LINES);
    }));
}

/// Prints the checks that `xswitch doctor` shows while no daemon runs.
fn print_checks(ifnames: &[String]) -> ExitCode {
    let checks = local_checks(&DataplaneSettings::default(), ifnames, 0);
    match serde_json::to_writer(std::io::stdout().lock(), &checks) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.io_error_kind() == Some(std::io::ErrorKind::BrokenPipe) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("xswitchd: {error}"));
            ExitCode::FAILURE
        }
    }
}
