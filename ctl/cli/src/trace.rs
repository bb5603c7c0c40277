//! `trace`: shows what would happen to a packet.

use std::io::Read;
use std::net::IpAddr;

use anyhow::Context;
use clap::Args;
use ctl_client::Client;
use ctl_types::{PacketSpec, TraceRequest};
use model::{MacAddr, TraceReport};

use crate::print::Printer;
use crate::show;

/// `trace`.
#[derive(Debug, Args)]
pub struct TraceArguments {
    /// Ingress port.
    #[arg(long = "in", value_name = "PORT")]
    pub port: String,
    /// Queue of that port. It matters only for ports of Soft Patch Panel components.
    #[arg(long, default_value_t = 0)]
    pub queue: u32,
    /// The frame in hex digits. `-` reads them from standard input.
    #[arg(long, conflicts_with_all = ["src", "dst", "vlan", "ethertype", "ip_src", "ip_dst", "proto", "sport", "dport", "len"])]
    pub hex: Option<String>,
    /// Source MAC address.
    #[arg(long)]
    src: Option<MacAddr>,
    /// Destination MAC address.
    #[arg(long)]
    dst: Option<MacAddr>,
    /// VLAN of the outer tag.
    #[arg(long)]
    vlan: Option<u16>,
    /// Priority in that tag.
    #[arg(long, requires = "vlan")]
    pcp: Option<u8>,
    /// VLAN of an inner tag.
    #[arg(long, requires = "vlan")]
    inner_vlan: Option<u16>,
    /// `arp` or a number.
    #[arg(long)]
    ethertype: Option<String>,
    /// Source IP address.
    #[arg(long)]
    ip_src: Option<IpAddr>,
    /// Destination IP address.
    #[arg(long)]
    ip_dst: Option<IpAddr>,
    /// tcp, udp, icmp, icmpv6 or a number.
    #[arg(long)]
    proto: Option<String>,
    /// Source port.
    #[arg(long)]
    sport: Option<u16>,
    /// Destination port.
    #[arg(long)]
    dport: Option<u16>,
    /// Length of the frame in bytes.
    #[arg(long)]
    len: Option<u32>,
    /// Index of a traffic rule to explain, whether or not it applies.
    #[arg(long, value_name = "INDEX")]
    pub rule: Option<u32>,
}

impl TraceArguments {
    /// The packet described by the options.
    pub fn packet(&self) -> PacketSpec {
        PacketSpec {
            src: self.src,
            dst: self.dst,
            vlan: self.vlan,
            pcp: self.pcp,
            inner_vlan: self.inner_vlan,
            ethertype: self.ethertype.clone(),
            ip_src: self.ip_src,
            ip_dst: self.ip_dst,
            proto: self.proto.clone(),
            sport: self.sport,
            dport: self.dport,
            len: self.len,
        }
    }
}

pub(crate) async fn run(client: &Client, printer: &Printer, arguments: &TraceArguments) -> anyhow::Result<()> {
    let (port, queue, rule) = (arguments.port.clone(), arguments.queue, arguments.rule);
    let mut request = TraceRequest { port, queue, rule, ..TraceRequest::default() };
    match arguments.hex.as_deref() {
        Some("-") => {
            let mut hex = String::new();
            std::io::stdin().read_to_string(&mut hex).context("reading hex digits from standard input")?;
            request.hex = Some(hex);
        }
        Some(hex) => request.hex = Some(hex.to_owned()),
        None => request.packet = Some(arguments.packet()),
    }
    let answer = client.post("trace", &request).await?;
    printer.show(&answer, |report: TraceReport| show::trace(&report))
}
