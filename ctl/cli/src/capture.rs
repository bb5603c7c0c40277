//! `capture`: writes frames of ports to a file or a pipe, in pcapng format.

use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use ctl_client::{Client, query};
use ctl_stdio::output_has_reader;
use http_body_util::BodyExt;
use model::Direction;

use crate::print::ReaderGone;
use crate::values::{seconds, word};

/// Period of looking whether standard output is still read.
const LOOK: Duration = Duration::from_millis(250);

/// `capture`.
#[derive(Debug, Args)]
pub struct CaptureArguments {
    /// Ports. Default: all.
    pub ports: Vec<String>,
    /// File to write, or `-` for standard output.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub write: String,
    /// Only frames in this direction, as seen by the switch: rx or tx.
    #[arg(long, value_parser = word::<Direction>)]
    pub direction: Option<Direction>,
    /// Bytes to keep of each frame.
    #[arg(long)]
    pub snaplen: Option<u32>,
    /// Number of frames after which the capture ends.
    #[arg(long)]
    pub count: Option<u64>,
    /// Seconds after which the capture ends.
    #[arg(long, value_parser = seconds)]
    pub duration: Option<f64>,
}

pub(crate) async fn run(client: &Client, arguments: &CaptureArguments) -> anyhow::Result<()> {
    let to_stdout = arguments.write == "-";
    if to_stdout && std::io::stdout().is_terminal() {
        bail!("pcapng is not for terminals: write to a file (-w FILE) or into a pipe (`| tshark -r -`)");
    }
    let direction = arguments.direction.map(|direction| match direction {
        Direction::Rx => "rx".to_owned(),
        Direction::Tx => "tx".to_owned(),
    });
    let ports = (!arguments.ports.is_empty()).then(|| arguments.ports.join(","));
    let wanted = query(&[
        ("ports", ports),
        ("direction", direction),
        ("snaplen", arguments.snaplen.map(|snaplen| snaplen.to_string())),
        ("count", arguments.count.map(|count| count.to_string())),
        ("duration", arguments.duration.map(|duration| duration.to_string())),
    ]);
    let mut body = client.stream(&format!("capture{wanted}")).await?;
    let mut file: Box<dyn Write> = if to_stdout {
        Box::new(std::io::stdout())
    } else {
        // Packets of guests are for nobody else's eyes.
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&arguments.write);
        Box::new(file.with_context(|| format!("making {}", arguments.write))?)
    };
    let mut look = tokio::time::interval(LOOK);
    loop {
        // A received chunk is always written whole, so an interrupted file ends at the end of a block.
        let frame = tokio::select! {
            frame = body.frame() => frame,
            _ = tokio::signal::ctrl_c() => break,
            // Without traffic there is no write that would tell.
            _ = look.tick(), if to_stdout => {
                if output_has_reader() { continue } else { return Err(ReaderGone.into()) }
            }
        };
        let Some(frame) = frame else { break };
        let Ok(data) = frame?.into_data() else { continue };
        match file.write_all(&data).and_then(|()| file.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Err(ReaderGone.into()),
            result => result.with_context(|| format!("writing {}", arguments.write))?,
        }
    }
    Ok(())
}
