//! `bridge`: shows and changes the settings of the bridge.

use clap::Subcommand;
use ctl_client::Client;
use ctl_types::BridgeUpdate;
use model::BridgeSettings;

use crate::print::Printer;
use crate::show;

/// `bridge`.
#[derive(Debug, Subcommand)]
pub enum BridgeCommand {
    /// Show the settings.
    Show,
    /// Change settings. Options that are not given keep their value.
    Set {
        /// Limit of MAC addresses in all.
        #[arg(long)]
        fdb_limit: Option<u32>,
        /// Age in seconds at which a learned address is forgotten.
        #[arg(long)]
        fdb_ageing_seconds: Option<u32>,
        /// Forward frames to 01:80:c2:00:00:00-0f.
        #[arg(long)]
        forward_reserved: Option<bool>,
        /// Moves of an address between ports within a second that are honest. 0: any number.
        #[arg(long)]
        flap_limit: Option<u32>,
        /// Copies a second that floods of one port may cost; 0: as many as it likes.
        #[arg(long)]
        storm_control: Option<u32>,
    },
}

pub(crate) async fn run(client: &Client, printer: &Printer, command: BridgeCommand) -> anyhow::Result<()> {
    let answer = match command {
        BridgeCommand::Show => client.get("bridge").await?,
        BridgeCommand::Set { fdb_limit, fdb_ageing_seconds, forward_reserved, flap_limit, storm_control } => {
            let update = BridgeUpdate { fdb_limit, fdb_ageing_seconds, forward_reserved, flap_limit, storm_control };
            client.patch("bridge", &update).await?
        }
    };
    printer.show(&answer, |bridge: BridgeSettings| show::bridge(&bridge))
}
