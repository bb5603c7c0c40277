//! `fdb`: lists, adds, deletes and flushes FDB entries.

use clap::Subcommand;
use ctl_client::{Client, query};
use model::{FdbEntry, FdbSpec, MacAddr};
use serde_json::json;

use crate::print::Printer;
use crate::show;

/// `fdb`.
#[derive(Debug, Subcommand)]
pub enum FdbCommand {
    /// List entries.
    List {
        /// Only entries of this port.
        #[arg(long)]
        port: Option<String>,
        /// Only entries of this VLAN.
        #[arg(long)]
        vlan: Option<u16>,
        /// Only entries of this address.
        #[arg(long)]
        mac: Option<MacAddr>,
    },
    /// Add a static entry.
    Add {
        /// MAC address.
        mac: MacAddr,
        /// Port, by name or number.
        port: String,
        /// VID. 0 is the untagged segment.
        #[arg(long, default_value_t = 0)]
        vlan: u16,
    },
    /// Delete an entry.
    #[command(visible_alias = "delete")]
    Del {
        /// MAC address.
        mac: MacAddr,
        /// VID. 0 is the untagged segment.
        #[arg(long, default_value_t = 0)]
        vlan: u16,
    },
    /// Forget learned entries.
    Flush {
        /// Only those of this port.
        #[arg(long)]
        port: Option<String>,
    },
}

pub(crate) async fn run(client: &Client, printer: &Printer, command: FdbCommand) -> anyhow::Result<()> {
    match command {
        FdbCommand::List { port, vlan, mac } => {
            let wanted = query(&[
                ("port", port),
                ("vlan", vlan.map(|vlan| vlan.to_string())),
                ("mac", mac.map(|mac| mac.to_string())),
            ]);
            let answer = client.get(&format!("fdb{wanted}")).await?;
            printer.show(&answer, |rows: Vec<FdbEntry>| show::fdb(&rows))
        }
        FdbCommand::Add { mac, port, vlan } => {
            let answer = client.post("fdb", &FdbSpec { mac, vlan, port }).await?;
            printer.done(&answer, &format!("{mac} is static in VLAN {vlan}"))
        }
        FdbCommand::Del { mac, vlan } => {
            client.delete(&format!("fdb/{mac}?vlan={vlan}")).await?;
            Ok(())
        }
        FdbCommand::Flush { port } => {
            let answer = client.post("fdb/flush", &json!({ "port": port })).await?;
            let text = format!("{} learned addresses forgotten", answer["flushed"]);
            printer.done(&answer, &text)
        }
    }
}
