//! Names of options, in which modes and states each may be set, and refusals.

use thiserror::Error;

use super::values::Mode;

/// An option by its name in the Linux bonding driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "`docs/bonds.md` and the fields of `Options` describe them")]
pub enum OptionName {
    Mode,
    Miimon,
    Updelay,
    Downdelay,
    PeerNotifDelay,
    XmitHashPolicy,
    LacpRate,
    LacpActive,
    AdSelect,
    AdActorSysPrio,
    AdActorSystem,
    AdUserPortKey,
    MinLinks,
    Primary,
    PrimaryReselect,
    FailOverMac,
    NumGratArp,
    NumUnsolNa,
    ResendIgmp,
    AllSlavesActive,
    PacketsPerSlave,
    UseCarrier,
    ArpInterval,
    ArpIpTarget,
    ArpValidate,
    ArpAllTargets,
    ArpMissedMax,
    LpInterval,
    TlbDynamicLb,
    Slaves,
    ActiveSlave,
}

/// What has to hold before an option may be set.
pub(super) struct Rule {
    pub(super) option: OptionName,
    pub(super) name: &'static str,
    /// Modes in which it may be set. Empty: all.
    modes: &'static [Mode],
    /// Only while the bond has no members.
    no_members: bool,
    /// Only while the bond is down.
    down: bool,
}

const AD: &[Mode] = &[Mode::Lacp];
const ONE_ACTIVE: &[Mode] = &[Mode::ActiveBackup, Mode::BalanceTlb, Mode::BalanceAlb];
const ARP: &[Mode] = &[Mode::BalanceRr, Mode::ActiveBackup, Mode::BalanceXor, Mode::Broadcast];

const fn rule(option: OptionName, name: &'static str) -> Rule {
    Rule { option, name, modes: &[], no_members: false, down: false }
}

impl Rule {
    const fn modes(self, modes: &'static [Mode]) -> Self {
        Self { modes, ..self }
    }

    const fn no_members(self) -> Self {
        Self { no_members: true, ..self }
    }

    const fn down(self) -> Self {
        Self { down: true, ..self }
    }
}

/// Linux: `bond_opts` of `drivers/net/bonding/bond_options.c`, 6.1.
pub(super) static RULES: &[Rule] = {
    use OptionName as N;
    &[
        rule(N::Mode, "mode").no_members().down(),
        rule(N::Miimon, "miimon"),
        rule(N::Updelay, "updelay"),
        rule(N::Downdelay, "downdelay"),
        rule(N::PeerNotifDelay, "peer_notif_delay"),
        rule(N::XmitHashPolicy, "xmit_hash_policy"),
        rule(N::LacpRate, "lacp_rate").modes(AD).down(),
        rule(N::LacpActive, "lacp_active").modes(AD).down(),
        rule(N::AdSelect, "ad_select").down(),
        rule(N::AdActorSysPrio, "ad_actor_sys_prio").modes(AD),
        rule(N::AdActorSystem, "ad_actor_system").modes(AD),
        rule(N::AdUserPortKey, "ad_user_port_key").modes(AD).down(),
        rule(N::MinLinks, "min_links"),
        rule(N::Primary, "primary").modes(ONE_ACTIVE),
        rule(N::PrimaryReselect, "primary_reselect"),
        rule(N::FailOverMac, "fail_over_mac").no_members(),
        rule(N::NumGratArp, "num_grat_arp"),
        rule(N::NumUnsolNa, "num_unsol_na"),
        rule(N::ResendIgmp, "resend_igmp"),
        rule(N::AllSlavesActive, "all_slaves_active"),
        rule(N::PacketsPerSlave, "packets_per_slave").modes(&[Mode::BalanceRr]),
        rule(N::UseCarrier, "use_carrier"),
        rule(N::ArpInterval, "arp_interval").modes(ARP),
        rule(N::ArpIpTarget, "arp_ip_target"),
        rule(N::ArpValidate, "arp_validate").modes(ARP),
        rule(N::ArpAllTargets, "arp_all_targets"),
        rule(N::ArpMissedMax, "arp_missed_max").modes(ARP),
        rule(N::LpInterval, "lp_interval"),
        rule(N::TlbDynamicLb, "tlb_dynamic_lb").modes(&[Mode::BalanceTlb, Mode::BalanceAlb]).down(),
        rule(N::Slaves, "slaves"),
        rule(N::ActiveSlave, "active_slave").modes(ONE_ACTIVE),
    ]
};

/// What options are checked against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BondState {
    /// The bond is up (enabled).
    pub up: bool,
    /// It has members.
    pub has_members: bool,
}

/// Why an option was refused. The text says what is wrong and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OptionError {
    /// No option has that name.
    #[error("there is no bond option `{name}`; there are {known}", known = known_names())]
    Unknown {
        /// The name as given.
        name: String,
    },
    /// The value is not one of the option's.
    #[error("option {option}: `{value}` is not allowed; allowed: {allowed}")]
    Value {
        /// Name of the option.
        option: &'static str,
        /// The value as given.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// The option has no meaning in the bond's mode.
    #[error("option {option}: not in mode {mode}; it belongs to {modes}")]
    ModeDependency {
        /// Name of the option.
        option: &'static str,
        /// The bond's mode.
        mode: Mode,
        /// The modes that have it.
        modes: String,
    },
    /// It may be set only while the bond has no members.
    #[error("option {option}: can't be changed while the bond has members; remove them first")]
    HasMembers {
        /// Name of the option.
        option: &'static str,
    },
    /// It may be set only while the bond is down.
    #[error("option {option}: can't be changed while the bond is up; disable it first")]
    IsUp {
        /// Name of the option.
        option: &'static str,
    },
    /// A delay without link monitoring.
    #[error("option {option}: delays are counted in miimon intervals, and miimon is 0; set miimon (ms) first")]
    NoMonitoring {
        /// Name of the option.
        option: &'static str,
    },
    /// Linux has it, but a switch can't do it.
    #[error("option {option}: `{value}` is not possible here: {reason}")]
    NotHere {
        /// Name of the option.
        option: &'static str,
        /// The value as given.
        value: String,
        /// Why, and what to take instead.
        reason: &'static str,
    },
}

impl OptionError {
    /// The errno that the driver answers in that case. What Linux has and the switch has not is `EOPNOTSUPP` (95).
    pub fn errno(&self) -> i32 {
        match self {
            Self::Unknown { .. } | Self::Value { .. } => 22,
            Self::ModeDependency { .. } => 13,
            Self::HasMembers { .. } => 39,
            Self::IsUp { .. } => 16,
            Self::NoMonitoring { .. } => 1,
            Self::NotHere { .. } => 95,
        }
    }
}

fn known_names() -> String {
    RULES.iter().map(|rule| rule.name).collect::<Vec<_>>().join(", ")
}

/// The rule of the option `name`.
pub(super) fn find(name: &str) -> Result<&'static Rule, OptionError> {
    RULES.iter().find(|rule| rule.name == name).ok_or_else(|| OptionError::Unknown { name: name.to_owned() })
}

impl Rule {
    /// Checks mode and state, in the driver's order.
    pub(super) fn check(&self, mode: Mode, state: BondState) -> Result<(), OptionError> {
        let option = self.name;
        if !self.modes.is_empty() && !self.modes.contains(&mode) {
            let modes = self.modes.iter().map(|mode| mode.to_string()).collect::<Vec<_>>().join(", ");
            return Err(OptionError::ModeDependency { option, mode, modes });
        }
        if self.no_members && state.has_members {
            return Err(OptionError::HasMembers { option });
        }
        if self.down && state.up {
            return Err(OptionError::IsUp { option });
        }
        Ok(())
    }

    /// Whether it may be set in that state, in a mode that has it.
    pub(super) fn is_possible_in(&self, state: BondState) -> bool {
        !(self.no_members && state.has_members || self.down && state.up)
    }

    pub(super) fn value_error(&self, value: &str, allowed: String) -> OptionError {
        OptionError::Value { option: self.name, value: value.trim().to_owned(), allowed }
    }

    pub(super) fn not_here(&self, value: &str, reason: &'static str) -> OptionError {
        OptionError::NotHere { option: self.name, value: value.trim().to_owned(), reason }
    }
}
