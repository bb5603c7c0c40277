//! `link`: optical ports.

use clap::Subcommand;
use ctl_client::{Client, encode};
use ctl_types::LinkUpdate;
use ctl_types::table::Table;
use model::{Duplex, LinkInfo, LinkStats};
use serde_json::to_value;

use crate::print::Printer;

/// `link`.
#[derive(Debug, Subcommand)]
pub enum LinkCommand {
    /// List the links of `phy` ports.
    List,
    /// Show the link of a port.
    Show {
        /// Name or number of the port.
        port: String,
    },
    /// Counters of all links, or of one with its queues.
    Stats {
        /// Name or number of the port.
        port: Option<String>,
    },
    /// Change a link. Options that are not given keep their value.
    Set {
        /// Name or number of the port.
        port: String,
        /// MTU in bytes.
        #[arg(long, required = true)]
        mtu: Option<u32>,
    },
}

pub(crate) async fn run(client: &Client, printer: &Printer, command: LinkCommand) -> anyhow::Result<()> {
    match command {
        LinkCommand::List => printer.show(&client.get("links").await?, |links: Vec<LinkInfo>| list(&links)),
        LinkCommand::Show { port } => {
            let answer = client.get(&format!("links/{}", encode(&port))).await?;
            printer.show(&answer, |link: LinkInfo| list(&[link]))
        }
        LinkCommand::Stats { port: None } => {
            printer.show(&client.get("link-stats").await?, |links: Vec<LinkStats>| totals(&links))
        }
        LinkCommand::Stats { port: Some(port) } => {
            let answer = client.get(&format!("link-stats/{}", encode(&port))).await?;
            printer.show(&answer, |links: Vec<LinkStats>| links.iter().map(one).collect::<String>())
        }
        LinkCommand::Set { port, mtu } => {
            let update = to_value(LinkUpdate { mtu })?;
            let answer = client.patch(&format!("links/{}", encode(&port)), &update).await?;
            printer.show(&answer, |link: LinkInfo| list(&[link]))
        }
    }
}

fn list(links: &[LinkInfo]) -> String {
    let mut table =
        Table::new(&["ID", "VPORT", "PORT", "NETDEV", "LINK", "SPEED", "DUPLEX", "AUTONEG", "MTU", "MAX MTU", "MAC"]);
    let unknown = || "unknown".to_owned();
    for link in links {
        table.row([
            link.port_id.to_string(),
            link.vport.to_string(),
            link.name.clone(),
            link.ifname.clone(),
            if link.up { "up" } else { "down" }.to_owned(),
            link.mode.speed.map_or_else(unknown, speed),
            link.mode.duplex.map_or_else(unknown, |duplex: Duplex| duplex.word().to_owned()),
            link.mode.autoneg.map_or_else(unknown, |on| if on { "on" } else { "off" }.to_owned()),
            link.mtu.to_string(),
            link.max_mtu.to_string(),
            link.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        ]);
    }
    let mut text = table.render();
    for link in links {
        text += &link.error.as_ref().map(|error| format!("{}: {error}\n", link.name)).unwrap_or_default();
    }
    text
}

/// Megabits a second, as NICs are named.
pub(crate) fn speed(mbps: u32) -> String {
    if mbps >= 1000 && mbps.is_multiple_of(100) {
        let (whole, tenths) = (mbps / 1000, mbps % 1000 / 100);
        if tenths == 0 { format!("{whole}G") } else { format!("{whole}.{tenths}G") }
    } else {
        format!("{mbps}M")
    }
}

fn totals(links: &[LinkStats]) -> String {
    let mut table = Table::new(&[
        "ID",
        "PORT",
        "IPACKETS",
        "IBYTES",
        "OPACKETS",
        "OBYTES",
        "IMISSED",
        "IERRORS",
        "OERRORS",
        "RX NOMBUF",
    ]);
    for link in links {
        let counters = [
            link.ipackets,
            link.ibytes,
            link.opackets,
            link.obytes,
            link.imissed,
            link.ierrors,
            link.oerrors,
            link.rx_nombuf,
        ];
        let counters = counters.into_iter().map(|counter| counter.to_string());
        table.row([link.port_id.to_string(), link.name.clone()].into_iter().chain(counters));
    }
    table.render()
}

/// One link: totals, queues, and the kernel's counters.
fn one(link: &LinkStats) -> String {
    let mut queues = Table::new(&["QUEUE", "IPACKETS", "IBYTES", "OPACKETS", "OBYTES", "ERRORS"]);
    for queue in &link.queues {
        let counters = [queue.ipackets, queue.ibytes, queue.opackets, queue.obytes, queue.errors];
        queues.row([u64::from(queue.queue)].into_iter().chain(counters).map(|counter| counter.to_string()));
    }
    let mut kernel = Table::new(&["NETDEV", "PACKETS", "BYTES", "ERRORS", "DROPPED", "MISSED"]);
    let n = &link.netdev;
    let row = |name: &str, counters: [u64; 5]| {
        [name.to_owned()].into_iter().chain(counters.map(|counter| counter.to_string())).collect::<Vec<_>>()
    };
    kernel.row(row("rx", [n.rx_packets, n.rx_bytes, n.rx_errors, n.rx_dropped, n.rx_missed]));
    kernel.row(row("tx", [n.tx_packets, n.tx_bytes, n.tx_errors, n.tx_dropped, 0]));
    format!("{}\n{}\n{}", totals(std::slice::from_ref(link)), queues.render(), kernel.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_named_as_on_the_box() {
        let named: Vec<_> = [10, 100, 1000, 2500, 10_000, 25_000, 400_000, 1234].into_iter().map(speed).collect();
        assert_eq!(named, ["10M", "100M", "1G", "2.5G", "10G", "25G", "400G", "1234M"]);
    }

    #[test]
    fn what_a_driver_does_not_know_is_shown_as_unknown() {
        let link = serde_json::json!({ "port_id": 0, "vport": 3, "name": "up", "ifname": "eth1", "up": false, "mtu": 1500,
            "max_mtu": 0, "error": "its netdev is gone" });
        let text = list(&[serde_json::from_value(link).unwrap()]);
        let words: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words, ["0", "3", "up", "eth1", "down", "unknown", "unknown", "unknown", "1500", "0"]);
        assert_eq!(text.lines().nth(2), Some("up: its netdev is gone"));
    }
}
