//! The program `xswitch`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use ctl_stdio::complain;
use xswitch::args::Arguments;
use xswitch::{ReaderGone, run};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run(arguments))) {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.is::<ReaderGone>() => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("xswitch: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
