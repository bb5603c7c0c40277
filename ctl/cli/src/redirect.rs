//! `redirect`: sends frames for one port to another.

use clap::Subcommand;
use ctl_client::Client;
use ctl_types::table::Table;
use model::RedirectInfo;
use serde_json::json;

use crate::print::Printer;

/// `redirect`.
#[derive(Debug, Subcommand)]
pub enum RedirectCommand {
    /// Send frames for port SRC to port DEST.
    Set {
        /// Number of the port that the frames are for.
        src: u16,
        /// Number of the port that gets them. SRC itself removes the redirect.
        dest: u16,
    },
    /// Remove a redirect.
    #[command(visible_alias = "delete")]
    Del {
        /// Number of the port that the frames are for.
        src: u16,
    },
    /// List redirects.
    List,
}

pub(crate) async fn run(client: &Client, printer: &Printer, command: RedirectCommand) -> anyhow::Result<()> {
    match command {
        RedirectCommand::Set { src, dest } => {
            client.put(&format!("redirects/{src}"), &json!({ "dest": dest })).await?;
            Ok(())
        }
        RedirectCommand::Del { src } => {
            client.delete(&format!("redirects/{src}")).await?;
            Ok(())
        }
        RedirectCommand::List => {
            let answer = client.get("redirects").await?;
            printer.show(&answer, |redirects: Vec<RedirectInfo>| {
                let mut table = Table::new(&["SRC", "DEST", "ENDS AT", "PACKETS", "BYTES"]);
                for RedirectInfo { spec, ends_at, redirected } in redirects {
                    let numbers = [u64::from(spec.src), u64::from(spec.dest), u64::from(ends_at)];
                    let counts = [redirected.packets, redirected.bytes];
                    table.row(numbers.into_iter().chain(counts).map(|number| number.to_string()));
                }
                table.render()
            })
        }
    }
}
