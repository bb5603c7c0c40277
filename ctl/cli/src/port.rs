//! `port`: adds, changes, lists and deletes ports. Its options are those of `qemu run --create` as well.

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use ctl_client::{Client, encode, query};
use model::*;

use crate::print::Printer;
use crate::show;
use crate::values::word;

/// `port`.
#[derive(Debug, Subcommand)]
pub enum PortCommand {
    /// Add a port.
    Add(Box<PortArguments>),
    /// Delete ports.
    #[command(visible_alias = "delete")]
    Del {
        /// Names or numbers.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Change a port. Options that are not given keep their value.
    Set(PortSetArguments),
    /// List ports.
    List,
    /// Show all about a port.
    Show {
        /// Name or number.
        name: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum OnOff {
    On,
    Off,
}

impl From<OnOff> for bool {
    fn from(value: OnOff) -> bool {
        matches!(value, OnOff::On)
    }
}

/// Parses a VLAN mode: `access:10`, `trunk`, or `trunk:10,20-29`. A trunk may end with `,native=5` or `,native=none`.
pub fn vlan_mode(text: &str) -> Result<VlanMode, String> {
    let help = "access:VID, trunk, trunk:10,20-29 or trunk:…,native=VID|none is expected";
    let vid = |text: &str| {
        text.parse::<u16>().ok().filter(|vid| *vid <= 4094).ok_or_else(|| format!("`{text}` is not a VLAN (0 to 4094)"))
    };
    let (mode, rest) = text.split_once(':').unwrap_or((text, ""));
    match (mode, rest) {
        ("access", vlan) if !vlan.is_empty() => Ok(VlanMode::Access { vid: vid(vlan)? }),
        ("trunk", rest) => {
            let (native, sets): (Vec<&str>, Vec<&str>) =
                rest.split(',').filter(|part| !part.is_empty()).partition(|part| part.starts_with("native="));
            let native = match native.as_slice() {
                [] => Some(0),
                ["native=none"] => None,
                [one] => Some(vid(&one["native=".len()..])?),
                _ => return Err("native is given twice".to_owned()),
            };
            let tagged = if sets.is_empty() { VlanSet::all() } else { sets.join(",").parse()? };
            Ok(VlanMode::Trunk { native, tagged })
        }
        _ => Err(help.to_owned()),
    }
}

/// `port add`.
#[derive(Debug, Args)]
pub struct PortArguments {
    /// Name of the port.
    name: String,
    #[command(flatten)]
    options: PortOptions,
}

/// Properties of a port to add.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct PortOptions {
    /// Identity from the manager of the guests. Default: the name.
    #[arg(long)]
    uuid: Option<String>,
    /// Kind of the other end: guest (a veth pair), phy (a netdev), vhost (a vhost-user socket) or tap (for any VMM).
    /// Default: guest. `bond add` makes a bond.
    #[arg(long, value_parser = word::<PortKind>)]
    kind: Option<PortKind>,
    /// Port number. Default: the lowest free one.
    #[arg(long)]
    vport: Option<u16>,
    /// The switch's netdev.
    #[arg(long, value_name = "IF")]
    ifname: Option<String>,
    /// The guest's end of the veth pair, or the tap.
    #[arg(long, value_name = "IF")]
    guest_ifname: Option<String>,
    /// Named network namespace for the guest's end or the tap.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// MAC address of the guest.
    #[arg(long)]
    mac: Option<MacAddr>,
    /// Other ports may have the same MAC address, if they share it too.
    #[arg(long)]
    shared_mac: bool,
    /// Layer 3 MTU in bytes.
    #[arg(long)]
    mtu: Option<u32>,
    /// Number of queues.
    #[arg(long)]
    queues: Option<u32>,
    /// Descriptors per ring, a power of two.
    #[arg(long)]
    queue_depth: Option<u32>,
    /// XDP mode: auto, native or generic.
    #[arg(long, default_value = "auto", value_parser = word::<ModeRequest>)]
    mode: ModeRequest,
    /// Packets of a phy that go to the switch: all or shared.
    #[arg(long, default_value = "all", value_parser = word::<Steering>)]
    steering: Steering,
    /// Takes the netdev although the host has addresses or its default route there, which it loses.
    #[arg(long)]
    force: bool,
    /// Zero-copy: auto, on or off.
    #[arg(long, default_value = "auto", value_parser = word::<ZeroCopy>)]
    zero_copy: ZeroCopy,
    /// VLAN mode: access:VID, trunk, trunk:10,20-29[,native=VID|none].
    #[arg(long, value_parser = vlan_mode)]
    vlan: Option<VlanMode>,
    /// Exchange no frames with other isolated ports.
    #[arg(long)]
    isolated: bool,
    /// Drop frames from other sources than the port's MAC address.
    #[arg(long)]
    mac_check: Option<OnOff>,
    /// Limit of MAC addresses learned on the port.
    #[arg(long)]
    fdb_limit: Option<u32>,
    /// Open the guest's end for the guest's own AF_XDP sockets at once.
    #[arg(long)]
    guest_sockets: bool,
    #[command(flatten)]
    vhost: VhostOptions,
    /// Virtio feature bits that the guest of a vhost port may be offered, in decimal or as 0x… Default: all.
    #[arg(long, value_name = "BITS", value_parser = bits)]
    feature_list: Option<u64>,
    #[command(flatten)]
    tap: TapOptions,
    /// Name of the port in the Soft Patch Panel, such as phy:0. The port is then not part of the bridge.
    #[arg(long, value_name = "TYPE:N")]
    spp: Option<String>,
}

/// The socket of a vhost port.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct VhostOptions {
    /// Socket of a vhost port.
    #[arg(long, value_name = "PATH")]
    socket: Option<String>,
    /// The switch makes the socket, and the guest's front end connects. This is the default.
    #[arg(long, requires = "socket", conflicts_with = "client")]
    server: bool,
    /// The guest's front end makes the socket, and the switch connects.
    #[arg(long, requires = "socket")]
    client: bool,
    /// User that the socket belongs to.
    #[arg(long, value_name = "USER", requires = "socket")]
    socket_owner: Option<String>,
    /// Group that the socket belongs to.
    #[arg(long, value_name = "GROUP", requires = "socket")]
    socket_group: Option<String>,
    /// Permissions of the socket in octal. Default: 660.
    #[arg(long, value_name = "MODE", requires = "socket")]
    socket_mode: Option<String>,
}

impl VhostOptions {
    fn spec(self) -> Option<VhostSpec> {
        let role = if self.client { SocketRole::Client } else { SocketRole::Server };
        let (owner, group, mode) = (self.socket_owner, self.socket_group, self.socket_mode);
        Some(VhostSpec { role, owner, group, mode, ..VhostSpec::new(self.socket?) })
    }
}

/// Reads a number of 64 bits.
fn bits(text: &str) -> Result<u64, String> {
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let bits = hex.map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16));
    bits.map_err(|_| format!("`{text}` is no number of 64 bits, such as 0x100010001"))
}

/// Who may open the tap of a tap port.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct TapOptions {
    /// User that may open the tap of a tap port. Default: the daemon's, unless a group is named.
    #[arg(long, value_name = "USER")]
    tap_owner: Option<String>,
    /// Group whose members may open the tap of a tap port.
    #[arg(long, value_name = "GROUP")]
    tap_group: Option<String>,
}

impl TapOptions {
    fn spec(self) -> Option<TapSpec> {
        let spec = TapSpec { owner: self.tap_owner, group: self.tap_group };
        Some(spec).filter(|spec| *spec != TapSpec::default())
    }
}

impl From<PortArguments> for PortSpec {
    fn from(arguments: PortArguments) -> Self {
        arguments.options.spec(arguments.name)
    }
}

impl PortOptions {
    /// Whether no option was given.
    pub fn is_default(&self) -> bool {
        let spec = self.clone().spec(String::new());
        spec == PortSpec::new("", PortKind::Guest)
    }

    /// The kind that was named.
    pub fn kind(&self) -> Option<PortKind> {
        self.kind
    }

    /// Whether a socket was named.
    pub fn has_socket(&self) -> bool {
        self.vhost.socket.is_some()
    }

    /// Turns the options into a port of that name.
    pub fn spec(self, name: String) -> PortSpec {
        let a = self;
        PortSpec {
            name,
            uuid: a.uuid,
            kind: a.kind.unwrap_or(PortKind::Guest),
            vport: a.vport,
            ifname: a.ifname,
            guest_ifname: a.guest_ifname,
            netns: a.netns,
            mac: a.mac,
            shared_mac: a.shared_mac,
            mtu: a.mtu,
            queues: a.queues,
            queue_depth: a.queue_depth,
            mode: a.mode,
            steering: a.steering,
            force: a.force,
            zero_copy: a.zero_copy,
            vlan: a.vlan,
            isolated: a.isolated,
            mac_check: a.mac_check.map(bool::from),
            fdb_limit: a.fdb_limit,
            guest_sockets: a.guest_sockets,
            vhost: a.vhost.spec(),
            feature_list: a.feature_list,
            tap: a.tap.spec(),
            bond: None,
            spp: a.spp,
        }
    }
}

/// `port set`.
#[derive(Debug, Args)]
pub struct PortSetArguments {
    /// Name or number.
    pub name: String,
    /// Layer 3 MTU in bytes.
    #[arg(long)]
    mtu: Option<u32>,
    /// MAC address of the guest.
    #[arg(long)]
    mac: Option<MacAddr>,
    /// Take the port's MAC address away. The guest may have any then.
    #[arg(long, conflicts_with = "mac")]
    no_mac: bool,
    /// Other ports may have the same MAC address, if they share it too.
    #[arg(long)]
    shared_mac: Option<OnOff>,
    /// VLAN mode.
    #[arg(long, value_parser = vlan_mode)]
    vlan: Option<VlanMode>,
    /// Exchange no frames with other isolated ports.
    #[arg(long)]
    isolated: Option<OnOff>,
    /// Drop frames from other sources than the port's MAC address.
    #[arg(long)]
    mac_check: Option<OnOff>,
    /// Limit of MAC addresses learned on the port.
    #[arg(long)]
    fdb_limit: Option<u32>,
    /// Descriptors per ring, a power of two. The port's queues are reopened.
    #[arg(long)]
    queue_depth: Option<u32>,
    /// Open the guest's end for the guest's own AF_XDP sockets, or return it to the kernel's stack there.
    #[arg(long)]
    guest_sockets: Option<OnOff>,
    /// User and group of a tap port's tap. Who names one of both names all of them.
    #[command(flatten)]
    tap: TapOptions,
}

impl PortSetArguments {
    /// The options as a change of the API.
    pub fn update(&self) -> PortUpdate {
        PortUpdate {
            mtu: self.mtu,
            mac: self.mac,
            no_mac: self.no_mac,
            shared_mac: self.shared_mac.map(bool::from),
            vlan: self.vlan.clone(),
            isolated: self.isolated.map(bool::from),
            mac_check: self.mac_check.map(bool::from),
            fdb_limit: self.fdb_limit,
            queue_depth: self.queue_depth,
            guest_sockets: self.guest_sockets.map(bool::from),
            tap: self.tap.clone().spec(),
            bond: None,
            queues: None,
        }
    }
}

pub(crate) async fn run(client: &Client, printer: &Printer, command: PortCommand) -> anyhow::Result<()> {
    match command {
        PortCommand::Add(arguments) => {
            let answer = client.post("ports", &PortSpec::from(*arguments)).await?;
            printer.show(&answer, |port| show::port(&port))
        }
        PortCommand::Del { names } => {
            for name in names {
                client.delete(&format!("ports/{}", encode(&name))).await.with_context(|| format!("port {name}"))?;
            }
            Ok(())
        }
        PortCommand::Set(arguments) => {
            let answer = client.patch(&format!("ports/{}", encode(&arguments.name)), &arguments.update()).await?;
            printer.show(&answer, |port| show::port(&port))
        }
        PortCommand::List => {
            let answer = client.get("ports").await?;
            printer.show(&answer, |ports: Vec<_>| show::ports(&ports))
        }
        PortCommand::Show { name } => {
            let answer = client.get(&format!("ports/{}", encode(&name))).await?;
            // What components of the Soft Patch Panel do with the frame, for people.
            let mut panel = String::new();
            if !printer.json && answer["spec"]["spp"].is_string() {
                let stats = client.get(&format!("stats{}", query(&[("port", Some(name))]))).await?;
                panel = show::panel(&serde_json::from_value(stats)?);
            }
            printer.show(&answer, |port| show::port(&port) + &panel)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Command};

    #[test]
    fn a_port_is_described_in_full() {
        let line = "xswitch port add up --kind phy --ifname eth1 --vlan trunk:10,20-29,native=none --steering shared --mac-check off";
        let Command::Port(PortCommand::Add(arguments)) = Arguments::try_parse_from(line.split(' ')).unwrap().command
        else {
            panic!()
        };
        let spec = PortSpec::from(*arguments);
        assert_eq!((spec.kind, spec.steering, spec.mac_check), (PortKind::Phy, Steering::Shared, Some(false)));
        let tagged = "10,20-29".parse().unwrap();
        assert_eq!(spec.vlan, Some(VlanMode::Trunk { native: None, tagged }));
    }

    #[test]
    fn a_tap_has_an_owner_and_a_group_if_it_is_asked_for() {
        let spec = |line: &str| {
            let line = format!("xswitch port add vm1 --kind tap{line}");
            match Arguments::try_parse_from(line.split(' ')).unwrap().command {
                Command::Port(PortCommand::Add(arguments)) => PortSpec::from(*arguments),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(spec(""), PortSpec::new("vm1", PortKind::Tap));
        let tap = TapSpec { owner: Some("fc".to_owned()), group: Some("7".to_owned()) };
        assert_eq!(spec(" --tap-owner fc --tap-group 7 --queues 2").tap, Some(tap));
    }

    #[test]
    fn vlan_modes_are_read_and_refused() {
        assert_eq!(vlan_mode("access:7"), Ok(VlanMode::Access { vid: 7 }));
        assert_eq!(vlan_mode("trunk"), Ok(VlanMode::Trunk { native: Some(0), tagged: VlanSet::all() }));
        assert_eq!(vlan_mode("trunk:all,native=9"), Ok(VlanMode::Trunk { native: Some(9), tagged: VlanSet::all() }));
        for bad in
            ["", "access", "access:x", "access:4095", "trunk:0", "trunk:native=1,native=2", "hybrid:1", "trunk:20-10"]
        {
            assert!(vlan_mode(bad).is_err(), "{bad}");
        }
    }
}
