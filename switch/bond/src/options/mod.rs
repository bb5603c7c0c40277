//! Options of a bond: names, values, defaults, refusals and rounding of the Linux bonding driver.
//!
//! [`Options::set`] changes one option, as a write to a file of `/sys/class/net/BOND/bonding/` does. After a refusal
//! nothing has changed. What the driver has and a switch can't do is known by name, and refused with the reason:
//! - `balance-tlb` and `balance-alb` rewrite ARP for the addresses of the host that owns the bond. A switch has none.
//! - ARP monitoring (`arp_*`) probes from an address of the host. Links are watched by the kernel's notifications.
//!
//! Options that make sense only there keep their defaults. They may be set to those.

mod rules;
#[cfg(test)]
mod tests;
mod values;

use std::ops::RangeInclusive;
use std::time::Duration;

use model::MacAddr;

pub use rules::{BondState, OptionError, OptionName};
pub use values::{AdSelect, FailOverMac, HashPolicy, LacpRate, Mode, OnOff, PrimaryReselect, Word};

use rules::Rule;
use values::{NumberWords, read_number};

/// What the driver takes for milliseconds and counts: an `int` that is not negative.
const INT: RangeInclusive<u32> = 0..=0x7fff_ffff;
/// `BOND_DEFAULT_MIIMON`, ms.
const DEFAULT_MIIMON: u32 = 100;
/// Longest delay between peer notifications, ms.
const MAX_PEER_NOTIF_DELAY: u32 = 300_000;
/// Longest name of a netdev, bytes (`IFNAMSIZ` less the final zero).
const MAX_IFNAME: usize = 15;
const OFF: NumberWords = &[("off", 0), ("default", 0), ("maxval", 0x7fff_ffff)];
const PEER_NOTIFICATIONS: NumberWords = &[("off", 0), ("default", 1), ("maxval", 255)];

const NO_TLB: &str = "it steers by rewriting ARP for the host's own addresses, and a switch has none; \
                      802.3ad, balance-xor and active-backup are possible";
const NO_ARP_MONITOR: &str = "ARP probes need an address of the host, and a switch has none; \
                              link changes are heard from the kernel, and 802.3ad notices a dead partner";
const NO_MII_IOCTL: &str = "the carrier is what the kernel reports; only 1 is possible";

/// Options of a bond in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How the bond uses its members.
    pub mode: Mode,
    /// Unit of the delays, ms. 0: no delays. The links themselves are heard from the kernel, not polled.
    pub miimon: u32,
    /// How long a link must be up before its member is used, in units of `miimon`.
    pub updelay: u32,
    /// How long a link must be down before its member is given up, in units of `miimon`.
    pub downdelay: u32,
    /// Time between announcements after a failover, in units of `miimon`. 0: one unit.
    pub peer_notif_delay: u32,
    /// Which fields of a frame decide its member.
    pub xmit_hash_policy: HashPolicy,
    /// How often the partner is asked to send LACPDUs.
    pub lacp_rate: LacpRate,
    /// Whether LACPDUs are sent before the partner sends any.
    pub lacp_active: OnOff,
    /// Which aggregator carries traffic.
    pub ad_select: AdSelect,
    /// Priority of the actor's system, 1–65,535.
    pub ad_actor_sys_prio: u16,
    /// Address of the actor's system. All zero: the bond's.
    pub ad_actor_system: MacAddr,
    /// Upper 10 bits of the members' keys, 0–1,023.
    pub ad_user_port_key: u16,
    /// Links that `802.3ad` wants before the bond has a carrier. 0 is as 1.
    pub min_links: u32,
    /// Name of the member to prefer, which need not be one yet.
    pub primary: Option<String>,
    /// When the primary is made active again.
    pub primary_reselect: PrimaryReselect,
    /// Which addresses members have in mode `active-backup`.
    pub fail_over_mac: FailOverMac,
    /// How often addresses are announced after a failover, 0–255. `num_unsol_na` is another name of it.
    pub num_grat_arp: u32,
    /// How often group memberships are renewed after a failover, 0–255.
    pub resend_igmp: u32,
    /// Whether frames of inactive members are taken too.
    pub all_slaves_active: OnOff,
    /// Frames a member gets in its turn in mode `balance-rr`, 0–65,535. 0: a random member for each frame.
    pub packets_per_slave: u16,
    /// Kept for `show`; always as the driver's default.
    pub lp_interval: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::BalanceRr,
            miimon: 0,
            updelay: 0,
            downdelay: 0,
            peer_notif_delay: 0,
            xmit_hash_policy: HashPolicy::Layer2,
            lacp_rate: LacpRate::Slow,
            lacp_active: OnOff::On,
            ad_select: AdSelect::Stable,
            ad_actor_sys_prio: 65535,
            ad_actor_system: MacAddr::ZERO,
            ad_user_port_key: 0,
            min_links: 0,
            primary: None,
            primary_reselect: PrimaryReselect::Always,
            fail_over_mac: FailOverMac::None,
            num_grat_arp: 1,
            resend_igmp: 1,
            all_slaves_active: OnOff::Off,
            packets_per_slave: 1,
            lp_interval: 1,
        }
    }
}

/// What setting an option comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The option has its new value.
    Done,
    /// So it has, but not the one that was asked for. The text says which and why.
    Rounded(String),
    /// The netdev of that name is to be made a member.
    AddMember(String),
    /// The member of that name is to be removed.
    RemoveMember(String),
    /// The member of that name is to be made the active one. None: the best one.
    Activate(Option<String>),
}

/// Names of all options, in an order in which they can be set one after the other.
pub fn names() -> Vec<&'static str> {
    rules::RULES.iter().map(|rule| rule.name).collect()
}

/// Whether the driver changes an option while a bond is up and has members.
pub fn is_live(name: &str) -> bool {
    let state = BondState { up: true, has_members: true };
    rules::find(name).is_ok_and(|rule| rule.is_possible_in(state))
}

impl Options {
    /// Sets the option `name` to `value`, as the driver does.
    ///
    /// `slaves` (`+NAME`, `-NAME`) and `active_slave` are no options but commands. They are checked and given back.
    ///
    /// # Errors
    /// See [`OptionError`]. Nothing has changed then.
    pub fn set(&mut self, name: &str, value: &str, state: BondState) -> Result<Setting, OptionError> {
        let rule = rules::find(name)?;
        rule.check(self.mode, state)?;
        match rule.option {
            OptionName::Mode => self.set_mode(word(rule, value)?, rule)?,
            OptionName::Miimon => self.miimon = number(rule, value, &INT, OFF)?,
            OptionName::Updelay | OptionName::Downdelay | OptionName::PeerNotifDelay => {
                return self.set_delay(rule, value);
            }
            OptionName::XmitHashPolicy => self.xmit_hash_policy = word(rule, value)?,
            OptionName::LacpRate => self.lacp_rate = word(rule, value)?,
            OptionName::LacpActive => self.lacp_active = word(rule, value)?,
            OptionName::AdSelect => self.ad_select = word(rule, value)?,
            OptionName::AdActorSysPrio => self.ad_actor_sys_prio = number_u16(rule, value, 1..=65535)?,
            OptionName::AdActorSystem => self.ad_actor_system = system(rule, value)?,
            OptionName::AdUserPortKey => self.ad_user_port_key = number_u16(rule, value, 0..=1023)?,
            OptionName::MinLinks => self.min_links = number(rule, value, &INT, OFF)?,
            OptionName::Primary => self.primary = member_name(rule, value)?,
            OptionName::PrimaryReselect => self.primary_reselect = word(rule, value)?,
            OptionName::FailOverMac => self.fail_over_mac = word(rule, value)?,
            OptionName::NumGratArp | OptionName::NumUnsolNa => {
                self.num_grat_arp = number(rule, value, &(0..=255), PEER_NOTIFICATIONS)?;
            }
            OptionName::ResendIgmp => self.resend_igmp = number(rule, value, &(0..=255), PEER_NOTIFICATIONS)?,
            OptionName::AllSlavesActive => self.all_slaves_active = word(rule, value)?,
            OptionName::PacketsPerSlave => self.packets_per_slave = number_u16(rule, value, 0..=65535)?,
            OptionName::Slaves => return command(rule, value),
            OptionName::ActiveSlave => return Ok(Setting::Activate(member_name(rule, value)?)),
            OptionName::LpInterval => {
                self.lp_interval = number(rule, value, &(1..=0x7fff_ffff), &[("minval", 1), ("maxval", 0x7fff_ffff)])?;
            }
            OptionName::UseCarrier => only(rule, value, word::<OnOff>(rule, value)? == OnOff::On, NO_MII_IOCTL)?,
            OptionName::ArpInterval => only(rule, value, number(rule, value, &INT, OFF)? == 0, NO_ARP_MONITOR)?,
            OptionName::ArpIpTarget => only(rule, value, value.trim().is_empty(), NO_ARP_MONITOR)?,
            OptionName::ArpValidate => only(rule, value, ["none", "0"].contains(&value.trim()), NO_ARP_MONITOR)?,
            OptionName::ArpAllTargets => only(rule, value, ["any", "0"].contains(&value.trim()), NO_ARP_MONITOR)?,
            OptionName::ArpMissedMax => {
                only(rule, value, number(rule, value, &(1..=255), &[])? == 2, NO_ARP_MONITOR)?;
            }
            // Modes without it were refused above, and the others can't be set.
            OptionName::TlbDynamicLb => only(rule, value, false, NO_TLB)?,
        }
        Ok(Setting::Done)
    }

    fn set_mode(&mut self, mode: Mode, rule: &Rule) -> Result<(), OptionError> {
        if matches!(mode, Mode::BalanceTlb | Mode::BalanceAlb) {
            return Err(rule.not_here(mode.name(), NO_TLB));
        }
        // LACP is of no use without news of the links.
        if mode == Mode::Lacp && self.miimon == 0 {
            self.miimon = DEFAULT_MIIMON;
        }
        self.mode = mode;
        Ok(())
    }

    /// Delays are kept in units of `miimon`, rounded down. So they follow it, as the driver's do.
    fn set_delay(&mut self, rule: &Rule, value: &str) -> Result<Setting, OptionError> {
        let range = if rule.option == OptionName::PeerNotifDelay { 0..=MAX_PEER_NOTIF_DELAY } else { INT };
        let asked = number(rule, value, &range, OFF)?;
        let Some(units) = asked.checked_div(self.miimon) else {
            return Err(OptionError::NoMonitoring { option: rule.name });
        };
        match rule.option {
            OptionName::Updelay => self.updelay = units,
            OptionName::Downdelay => self.downdelay = units,
            _ => self.peer_notif_delay = units,
        }
        let rounded = units * self.miimon;
        if rounded == asked {
            return Ok(Setting::Done);
        }
        let (name, miimon) = (rule.name, self.miimon);
        Ok(Setting::Rounded(format!("{name} {asked} is no multiple of miimon ({miimon} ms), so it is {rounded} ms")))
    }

    /// Time of so many units of `miimon`.
    fn delay(&self, units: u32) -> Duration {
        Duration::from_millis(u64::from(units) * u64::from(self.miimon))
    }

    /// `updelay` as a time.
    pub fn up_delay(&self) -> Duration {
        self.delay(self.updelay)
    }

    /// `downdelay` as a time.
    pub fn down_delay(&self) -> Duration {
        self.delay(self.downdelay)
    }

    /// Time between two announcements: `peer_notif_delay`, or an interval of `miimon`, or that one's default.
    pub fn announce_delay(&self) -> Duration {
        let delay = self.delay(self.peer_notif_delay.max(1));
        if delay.is_zero() { Duration::from_millis(u64::from(DEFAULT_MIIMON)) } else { delay }
    }

    /// The value of an option by its name, as [`Options::set`] takes it. None for what is no option.
    pub fn value_of(&self, name: &str) -> Option<String> {
        let value = self.value(rules::find(name).ok()?.option)?;
        Some(value.split_whitespace().next().unwrap_or_default().to_owned())
    }

    /// All options with their values in the form of sysfs, in the order of their names' list. Words have their number
    /// behind them.
    pub fn all(&self) -> Vec<(&'static str, String)> {
        rules::RULES.iter().filter_map(|rule| Some((rule.name, self.value(rule.option)?))).collect()
    }

    /// The value of an option in the form of sysfs. None for `slaves` and `active_slave`, which are no options.
    pub fn value(&self, option: OptionName) -> Option<String> {
        let millis = |units: u32| (u64::from(units) * u64::from(self.miimon)).to_string();
        Some(match option {
            OptionName::Mode => shown(self.mode),
            OptionName::Miimon => self.miimon.to_string(),
            OptionName::Updelay => millis(self.updelay),
            OptionName::Downdelay => millis(self.downdelay),
            OptionName::PeerNotifDelay => millis(self.peer_notif_delay),
            OptionName::XmitHashPolicy => shown(self.xmit_hash_policy),
            OptionName::LacpRate => shown(self.lacp_rate),
            OptionName::LacpActive => shown(self.lacp_active),
            OptionName::AdSelect => shown(self.ad_select),
            OptionName::AdActorSysPrio => self.ad_actor_sys_prio.to_string(),
            OptionName::AdActorSystem => self.ad_actor_system.to_string(),
            OptionName::AdUserPortKey => self.ad_user_port_key.to_string(),
            OptionName::MinLinks => self.min_links.to_string(),
            OptionName::Primary => self.primary.clone().unwrap_or_default(),
            OptionName::PrimaryReselect => shown(self.primary_reselect),
            OptionName::FailOverMac => shown(self.fail_over_mac),
            OptionName::NumGratArp | OptionName::NumUnsolNa => self.num_grat_arp.to_string(),
            OptionName::ResendIgmp => self.resend_igmp.to_string(),
            OptionName::AllSlavesActive => self.all_slaves_active.number().to_string(),
            OptionName::PacketsPerSlave => self.packets_per_slave.to_string(),
            OptionName::LpInterval => self.lp_interval.to_string(),
            OptionName::UseCarrier | OptionName::TlbDynamicLb => "1".to_owned(),
            OptionName::ArpInterval => "0".to_owned(),
            OptionName::ArpIpTarget => String::new(),
            OptionName::ArpValidate => "none 0".to_owned(),
            OptionName::ArpAllTargets => "any 0".to_owned(),
            OptionName::ArpMissedMax => "2".to_owned(),
            OptionName::Slaves | OptionName::ActiveSlave => return None,
        })
    }
}

fn shown<T: Word>(value: T) -> String {
    format!("{} {}", value.name(), value.number())
}

fn word<T: Word>(rule: &Rule, value: &str) -> Result<T, OptionError> {
    T::read(value).ok_or_else(|| rule.value_error(value, T::allowed()))
}

fn number(rule: &Rule, value: &str, range: &RangeInclusive<u32>, words: NumberWords) -> Result<u32, OptionError> {
    read_number(value, range, words)
        .ok_or_else(|| rule.value_error(value, format!("{} to {}", range.start(), range.end())))
}

fn number_u16(rule: &Rule, value: &str, range: RangeInclusive<u16>) -> Result<u16, OptionError> {
    let (start, end) = range.into_inner();
    let read = read_number(value, &(start.into()..=end.into()), &[]).and_then(|number| u16::try_from(number).ok());
    read.ok_or_else(|| rule.value_error(value, format!("{start} to {end}")))
}

/// An address of one station, or all zero for the bond's.
fn system(rule: &Rule, value: &str) -> Result<MacAddr, OptionError> {
    value.trim().parse().ok().filter(|mac: &MacAddr| !mac.is_group()).ok_or_else(|| {
        rule.value_error(value, "an address of one station such as 02:00:00:00:00:01, or all zero".to_owned())
    })
}

/// A netdev's name. An empty one is none.
fn member_name(rule: &Rule, value: &str) -> Result<Option<String>, OptionError> {
    let name = value.trim();
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '/' && c != ':';
    if name.len() <= MAX_IFNAME && name.chars().all(plain) && name != "." && name != ".." {
        return Ok((!name.is_empty()).then(|| name.to_owned()));
    }
    Err(rule.value_error(value, format!("a netdev's name of at most {MAX_IFNAME} bytes, or nothing")))
}

fn command(rule: &Rule, value: &str) -> Result<Setting, OptionError> {
    let bad = || rule.value_error(value, "+NAME to add a member, -NAME to remove it".to_owned());
    let value = value.trim();
    let name = member_name(rule, value.get(1..).unwrap_or_default())?.ok_or_else(bad)?;
    match value.as_bytes()[0] {
        b'+' => Ok(Setting::AddMember(name)),
        b'-' => Ok(Setting::RemoveMember(name)),
        _ => Err(bad()),
    }
}

/// Refuses a value that the driver has and the switch has not.
fn only(rule: &Rule, value: &str, possible: bool, reason: &'static str) -> Result<(), OptionError> {
    if possible { Ok(()) } else { Err(rule.not_here(value, reason)) }
}
