//! `bond`: makes, changes, shows and deletes bonds.

mod show;

use std::collections::BTreeMap;

use anyhow::Context;
use clap::{ArgGroup, Args, Subcommand};
use ctl_client::{Client, encode};
use ctl_types::{BondEntry, NewBond};
use model::{BondUpdate, ModeRequest, Steering, VlanMode, ZeroCopy};
use serde_json::Value;

use crate::port::vlan_mode;
use crate::print::Printer;
use crate::values::word;

/// `bond`.
#[derive(Debug, Subcommand)]
pub enum BondCommand {
    /// Make a bond of netdevs. It is a port: `port set` changes its VLAN, MTU and the like.
    Add(Box<AddArguments>),
    /// Change options and members of a bond. What is not given stays.
    Set(SetArguments),
    /// List bonds.
    List,
    /// Show all about a bond and its members.
    Show {
        /// Name, or number of its port.
        bond: String,
    },
    /// Delete bonds. Their members are the host's again.
    #[command(visible_alias = "delete")]
    Del {
        /// Names, or numbers of their ports.
        #[arg(required = true)]
        bonds: Vec<String>,
    },
}

/// `bond add`.
#[derive(Debug, Args)]
pub struct AddArguments {
    /// Name of the bond.
    name: String,
    /// Options of the Linux bonding driver, by its names and values, such as `xmit_hash_policy=layer3+4`.
    #[arg(value_name = "OPTION=VALUE", value_parser = option)]
    options: Vec<(String, String)>,
    /// Netdev that becomes a member. May be repeated, or several separated by commas.
    #[arg(long = "member", value_name = "IF", value_delimiter = ',')]
    members: Vec<String>,
    /// The same as `mode=…`: balance-rr, active-backup, balance-xor, broadcast or 802.3ad. Default: balance-rr.
    #[arg(long)]
    mode: Option<String>,
    /// Identity from the manager of the guests. Default: the name.
    #[arg(long)]
    uuid: Option<String>,
    /// Number of its port. Default: the lowest free one.
    #[arg(long)]
    vport: Option<u16>,
    /// Layer 3 MTU in bytes. Default: that of the first member.
    #[arg(long)]
    mtu: Option<u32>,
    /// Room for the queues of all members. Default: 64.
    #[arg(long)]
    queues: Option<u32>,
    /// Descriptors per ring, a power of two.
    #[arg(long)]
    queue_depth: Option<u32>,
    /// XDP mode of the members: auto, native or generic.
    #[arg(long, default_value = "auto", value_parser = word::<ModeRequest>)]
    xdp_mode: ModeRequest,
    /// Packets that go to the switch: all or shared.
    #[arg(long, default_value = "all", value_parser = word::<Steering>)]
    steering: Steering,
    /// Takes members although the host has addresses or its default route there, which it loses.
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
    /// Limit of MAC addresses learned on the bond.
    #[arg(long)]
    fdb_limit: Option<u32>,
    /// Name of the bond's port in the Soft Patch Panel, such as phy:0. It is then not part of the bridge.
    #[arg(long, value_name = "TYPE:N")]
    spp: Option<String>,
}

impl AddArguments {
    /// The options as a request of the API.
    fn request(self) -> anyhow::Result<NewBond> {
        let mode = self.mode.map(|mode| ("mode".to_owned(), mode));
        Ok(NewBond {
            name: self.name,
            members: self.members,
            options: unique(mode.into_iter().chain(self.options))?,
            uuid: self.uuid,
            vport: self.vport,
            mtu: self.mtu,
            queues: self.queues,
            queue_depth: self.queue_depth,
            xdp_mode: self.xdp_mode,
            steering: self.steering,
            force: self.force,
            zero_copy: self.zero_copy,
            vlan: self.vlan,
            isolated: self.isolated,
            fdb_limit: self.fdb_limit,
            spp: self.spp,
        })
    }
}

/// `bond set`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("change").required(true).multiple(true)))]
pub struct SetArguments {
    /// Name, or number of its port.
    bond: String,
    /// Options of the Linux bonding driver, by its names and values, such as `updelay=200`.
    #[arg(value_name = "OPTION=VALUE", value_parser = option, group = "change")]
    options: Vec<(String, String)>,
    /// Netdev that becomes a member. May be repeated, or several separated by commas.
    #[arg(long, value_name = "IF", value_delimiter = ',', group = "change")]
    add: Vec<String>,
    /// Member that leaves. Nothing is lost: its traffic moves first. May be repeated.
    #[arg(long, value_name = "IF", value_delimiter = ',', group = "change")]
    remove: Vec<String>,
    /// Mode active-backup: the member to make active; empty: the best one.
    #[arg(long, value_name = "IF", group = "change")]
    active: Option<String>,
}

impl SetArguments {
    /// The options as a change of the API.
    fn update(self) -> anyhow::Result<BondUpdate> {
        let Self { bond: _, options, add, remove, active } = self;
        Ok(BondUpdate { options: unique(options)?, add, remove, active })
    }
}

/// Parses `NAME=VALUE`. What names and values there are, the daemon knows.
fn option(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.trim().to_owned())),
        _ => Err("OPTION=VALUE is expected, such as `miimon=100`".to_owned()),
    }
}

fn unique(options: impl IntoIterator<Item = (String, String)>) -> anyhow::Result<BTreeMap<String, String>> {
    let mut unique = BTreeMap::new();
    for (name, value) in options {
        anyhow::ensure!(unique.insert(name.clone(), value).is_none(), "option {name} is given twice");
    }
    Ok(unique)
}

pub(crate) async fn run(client: &Client, printer: &Printer, command: BondCommand) -> anyhow::Result<()> {
    let path = |bond: &str| format!("bonds/{}", encode(bond));
    let one = |answer: &Value| printer.show(answer, |bond: BondEntry| show::bond(&bond));
    match command {
        BondCommand::Add(arguments) => one(&client.post("bonds", &arguments.request()?).await?),
        BondCommand::Set(arguments) => {
            let path = path(&arguments.bond);
            one(&client.patch(&path, &arguments.update()?).await?)
        }
        BondCommand::List => {
            let answer = client.get("bonds").await?;
            printer.show(&answer, |bonds: Vec<BondEntry>| show::list(&bonds))
        }
        BondCommand::Show { bond } => one(&client.get(&path(&bond)).await?),
        BondCommand::Del { bonds } => {
            for bond in bonds {
                client.delete(&path(&bond)).await.with_context(|| format!("bond {bond}"))?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Command};

    fn command(line: &str) -> BondCommand {
        match Arguments::try_parse_from(line.split(' ')).unwrap().command {
            Command::Bond(command) => command,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_bond_has_members_and_options_of_the_driver() {
        let line = "xswitch bond add bond0 miimon=100 --member eth1,eth2 --member eth3 --mode 802.3ad lacp_rate=fast --mtu 9000";
        let BondCommand::Add(arguments) = command(line) else { panic!("another command") };
        let request = arguments.request().unwrap();
        assert_eq!((request.name.as_str(), request.mtu), ("bond0", Some(9000)));
        assert_eq!(request.members, ["eth1", "eth2", "eth3"]);
        let options = [("lacp_rate", "fast"), ("miimon", "100"), ("mode", "802.3ad")];
        assert!(request.options.iter().map(|(name, value)| (name.as_str(), value.as_str())).eq(options));
        let BondCommand::Add(twice) = command("xswitch bond add bond0 mode=1 --mode 4") else { panic!() };
        assert!(twice.request().unwrap_err().to_string().contains("option mode is given twice"));
    }

    #[test]
    fn a_bond_is_changed_by_options_and_members() {
        let line = "xswitch bond set bond0 updelay=200 --add eth4 --remove eth1 --active eth4";
        let BondCommand::Set(arguments) = command(line) else { panic!("another command") };
        let update = arguments.update().unwrap();
        assert_eq!((update.options["updelay"].as_str(), update.active.as_deref()), ("200", Some("eth4")));
        assert_eq!((update.add, update.remove), (vec!["eth4".to_owned()], vec!["eth1".to_owned()]));
        for bad in [
            "xswitch bond set bond0",
            "xswitch bond set bond0 updelay",
            "xswitch bond set bond0 =1",
            "xswitch bond add",
        ] {
            assert!(Arguments::try_parse_from(bad.split(' ')).is_err(), "{bad}");
        }
    }
}
