//! Grammar of the command line. Doc comments of arguments and commands are the texts of `--help`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use model::*;

use super::qemu::QemuCommand;
use super::spp::SppArguments;
use ctl_types::PacketSpec;
use ctl_types::RuleWrite;

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
    /// The MAC table.
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
    /// Limits for ports, meters and rules, and how many are free.
    Capability,
    /// Settings of the bridge.
    #[command(subcommand)]
    Bridge(BridgeCommand),
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
    /// List the worker threads.
    Workers,
    /// Show the versions of this program and of the daemon.
    Version,
}

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

/// Parses a value by its spelling in the API.
fn word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|error| error.to_string())
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|seconds| (0.05..=86_400.0).contains(seconds))
        .ok_or_else(|| "0.05 to 86400 seconds are possible".to_owned())
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
    /// Kind of the other end: guest (a veth pair) or phy (a netdev).
    #[arg(long, default_value = "guest", value_parser = word::<PortKind>)]
    kind: PortKind,
    /// Port number. Default: the lowest free one.
    #[arg(long)]
    vport: Option<u16>,
    /// The switch's netdev.
    #[arg(long, value_name = "IF")]
    ifname: Option<String>,
    /// The guest's end of the veth pair.
    #[arg(long, value_name = "IF")]
    guest_ifname: Option<String>,
    /// Named network namespace for the guest's end.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// MAC address of the guest.
    #[arg(long)]
    mac: Option<MacAddr>,
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
    /// Name of the port in the Soft Patch Panel, such as phy:0. The port is then not part of the bridge.
    #[arg(long, value_name = "TYPE:N")]
    spp: Option<String>,
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

    /// Turns the options into a port of that name.
    pub fn spec(self, name: String) -> PortSpec {
        let a = self;
        PortSpec {
            name,
            uuid: a.uuid,
            kind: a.kind,
            vport: a.vport,
            ifname: a.ifname,
            guest_ifname: a.guest_ifname,
            netns: a.netns,
            mac: a.mac,
            mtu: a.mtu,
            queues: a.queues,
            queue_depth: a.queue_depth,
            mode: a.mode,
            steering: a.steering,
            zero_copy: a.zero_copy,
            vlan: a.vlan,
            isolated: a.isolated,
            mac_check: a.mac_check.map(bool::from),
            fdb_limit: a.fdb_limit,
            guest_sockets: a.guest_sockets,
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
}

impl PortSetArguments {
    /// The options as a change of the API.
    pub fn update(&self) -> PortUpdate {
        PortUpdate {
            mtu: self.mtu,
            mac: self.mac,
            vlan: self.vlan.clone(),
            isolated: self.isolated.map(bool::from),
            mac_check: self.mac_check.map(bool::from),
            fdb_limit: self.fdb_limit,
            queue_depth: self.queue_depth,
            guest_sockets: self.guest_sockets.map(bool::from),
            queues: None,
        }
    }
}

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

/// A range of a long list.
#[derive(Clone, Copy, Debug, Args)]
pub struct PageArguments {
    /// First number of the range.
    #[arg(long)]
    pub from: Option<u32>,
    /// Maximum number of rows.
    #[arg(long)]
    pub limit: Option<u32>,
}

/// `meter`.
#[derive(Debug, Subcommand)]
pub enum MeterCommand {
    /// Add a meter. Until it is first bound or named by a rule, it applies to frames from the vport of its number.
    Add(MeterArguments),
    /// Delete meters.
    #[command(visible_alias = "delete")]
    Del {
        /// Numbers.
        #[arg(required = true)]
        ids: Vec<u32>,
    },
    /// Change a meter while frames pass it. Options that are not given keep their value.
    Set {
        /// Number.
        id: u32,
        /// Rate in kbit/s, or frames/s.
        #[arg(long)]
        rate: Option<u32>,
        /// Burst in kbit, or frames.
        #[arg(long)]
        burst: Option<u32>,
        /// Peak or excess rate.
        #[arg(long)]
        peak_rate: Option<u32>,
        /// Peak or excess burst.
        #[arg(long)]
        peak_burst: Option<u32>,
        /// Start from the colour that earlier meters gave the frame.
        #[arg(long)]
        color_aware: Option<bool>,
        /// DSCP for yellow packets, 0-63.
        #[arg(long)]
        yellow_dscp: Option<u8>,
    },
    /// Show a meter, its bindings and counters.
    Show {
        /// Number.
        id: u32,
    },
    /// List meters.
    List(PageArguments),
    /// Bind a meter to the frames from a port or to it. Replaces the binding that is there.
    Bind {
        /// Number of the meter.
        id: u32,
        /// Number of the port.
        vport: u16,
        /// Direction: from or to.
        #[arg(value_parser = word::<MeterDirection>)]
        direction: MeterDirection,
    },
    /// Remove a binding.
    Unbind {
        /// Number of the port.
        vport: u16,
        /// Direction: from or to.
        #[arg(value_parser = word::<MeterDirection>)]
        direction: MeterDirection,
    },
}

/// `meter add`.
#[derive(Debug, Args)]
pub struct MeterArguments {
    /// Number.
    id: u32,
    /// Rate (committed rate of two-rate modes) in kbit/s, or frames/s with --type pps.
    rate: u32,
    /// Unit of the rate: kbps or pps.
    #[arg(long = "type", default_value = "kbps", value_parser = word::<MeterType>)]
    kind: MeterType,
    /// Burst (committed burst of two-rate modes) in kbit or frames. Default: 100 ms of the rate, at least ten full
    /// frames.
    #[arg(long)]
    burst: Option<u32>,
    /// Marking: single, rfc2698 or rfc4115.
    #[arg(long, default_value = "single", value_parser = word::<MeterMode>)]
    mode: MeterMode,
    /// Two-rate modes: peak or excess rate.
    #[arg(long)]
    peak_rate: Option<u32>,
    /// Two-rate modes: peak or excess burst.
    #[arg(long)]
    peak_burst: Option<u32>,
    /// Two-rate modes: start from the colour that earlier meters gave the frame.
    #[arg(long)]
    color_aware: bool,
    /// Two-rate modes: DSCP for yellow packets, 0-63.
    #[arg(long)]
    yellow_dscp: Option<u8>,
}

impl From<MeterArguments> for MeterSpec {
    fn from(a: MeterArguments) -> Self {
        MeterSpec {
            id: a.id,
            rate: a.rate,
            kind: a.kind,
            burst: a.burst,
            mode: a.mode,
            peak_rate: a.peak_rate,
            peak_burst: a.peak_burst,
            color_aware: a.color_aware,
            yellow_dscp: a.yellow_dscp,
        }
    }
}

/// `rule`.
#[derive(Debug, Subcommand)]
pub enum RuleCommand {
    /// Write a rule. Replaces the rule at its index.
    Add(Box<RuleArguments>),
    /// Delete rules, either all of those named or none.
    #[command(visible_alias = "delete")]
    Del {
        /// Indices.
        #[arg(required = true)]
        indices: Vec<u32>,
    },
    /// Show a rule and its counters.
    Show {
        /// Index.
        index: u32,
    },
    /// List rules.
    List(PageArguments),
    /// Apply a batch of changes from a file at once: a JSON array of {"write": RULE}, {"delete": INDEX} and "clear".
    Load {
        /// File, or `-` for standard input.
        file: String,
    },
    /// Delete all rules.
    Clear,
}

/// `rule add`. Values may have a mask: 80/0xfff0, 10.0.0.0/8, 02:00:00:00:00:00/ff:ff:ff:00:00:00.
#[derive(Debug, Args)]
pub struct RuleArguments {
    /// Index, or `auto` for the lowest free one.
    #[arg(value_parser = place)]
    index: Place,
    /// Target of the frames: a vport, `drop`, or `normal` (forwarding by the MAC table).
    #[arg(long)]
    to: RuleTarget,
    /// Queue of the target port. Default: by flow hash.
    #[arg(long)]
    queue: Option<u32>,
    /// Meter that frames have to pass.
    #[arg(long)]
    meter: Option<u32>,
    /// Port that gets a copy of each frame.
    #[arg(long, value_name = "VPORT")]
    mirror: Option<u16>,
    /// Ingress port, by its vport number.
    #[arg(long)]
    vid: Option<Masked<16>>,
    /// Destination MAC address.
    #[arg(long)]
    dmac: Option<MaskedMac>,
    /// Source MAC address.
    #[arg(long)]
    smac: Option<MaskedMac>,
    /// VID of the outer tag. 0 is untagged.
    #[arg(long)]
    vlan: Option<Masked<12>>,
    /// ipv4 or ipv6.
    #[arg(long, value_parser = word::<IpType>)]
    ip_type: Option<IpType>,
    /// IP protocol.
    #[arg(long)]
    ipprotocol: Option<Masked<8>>,
    /// Destination IP address.
    #[arg(long)]
    dip: Option<MaskedIp>,
    /// Source IP address.
    #[arg(long)]
    sip: Option<MaskedIp>,
    /// Destination port of TCP or UDP.
    #[arg(long)]
    dl4port: Option<Masked<16>>,
    /// Source port of TCP or UDP.
    #[arg(long)]
    sl4port: Option<Masked<16>>,
}

/// Index of a rule. `None` is the lowest free one.
type Place = Option<u32>;

fn place(text: &str) -> Result<Place, String> {
    match text {
        "auto" => Ok(None),
        text => text.parse().map(Some).map_err(|_| format!("`{text}` is neither a number nor `auto`")),
    }
}

impl From<RuleArguments> for RuleWrite {
    fn from(a: RuleArguments) -> Self {
        RuleWrite {
            key_index: a.index,
            key: RuleKey {
                ingress_port: a.vid,
                dmac: a.dmac,
                smac: a.smac,
                vlan: a.vlan,
                ip_type: a.ip_type,
                ipprotocol: a.ipprotocol,
                dip: a.dip,
                sip: a.sip,
                dl4port: a.dl4port,
                sl4port: a.sl4port,
            },
            action: RuleAction { target: a.to, queue: a.queue, meter: a.meter, mirror: a.mirror },
        }
    }
}

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
    },
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Arguments {
        Arguments::try_parse_from(line.split(' ')).unwrap()
    }

    #[test]
    fn the_grammar_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_port_is_described_in_full() {
        let line = "xswitch port add up --kind phy --ifname eth1 --vlan trunk:10,20-29,native=none --steering shared --mac-check off";
        let Command::Port(PortCommand::Add(arguments)) = parse(line).command else { panic!() };
        let spec = PortSpec::from(*arguments);
        assert_eq!((spec.kind, spec.steering, spec.mac_check), (PortKind::Phy, Steering::Shared, Some(false)));
        let tagged = "10,20-29".parse().unwrap();
        assert_eq!(spec.vlan, Some(VlanMode::Trunk { native: None, tagged }));
    }

    #[test]
    fn a_rule_is_described_in_full() {
        let line = "xswitch rule add auto --to 5 --queue 1 --meter 7 --mirror 9 --vid 3/0x3 --dmac 02:00:00:00:00:01 \
                    --vlan 10 --ip-type ipv4 --ipprotocol 6 --dip 10.0.0.0/8 --dl4port 80/0xfff0";
        let Command::Rule(RuleCommand::Add(arguments)) = parse(line).command else { panic!() };
        let expected = r#"{"key":{"vid":"3/0x3","dmac":"02:00:00:00:00:01","vlan":10,"ip_type":"ipv4","ipprotocol":6,
            "dip":"10.0.0.0/8","dl4port":"80/0xfff0"},"action":{"vid":5,"qid":1,"meter":7,"mirror":9}}"#;
        assert_eq!(RuleWrite::from(*arguments), serde_json::from_str(expected).unwrap());
        let Command::Rule(RuleCommand::Add(arguments)) = parse("xswitch rule add 3 --to drop").command else {
            panic!()
        };
        assert_eq!(RuleWrite::from(*arguments).key_index, Some(3));
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
        ] {
            assert!(Arguments::try_parse_from(bad.split(' ')).is_err(), "{bad}");
        }
    }
}
