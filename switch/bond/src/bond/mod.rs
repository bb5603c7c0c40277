//! A bond: its members, which of them carry traffic, and what is to be done when that changes.
//!
//! Something happens: a member is added or removed, a link changes, a frame of LACP comes in, an option is set, time
//! passes. Each has its method. Then [`Bond::take_actions`] says what to do, and [`Bond::egress`], [`Bond::collect`]
//! and [`Bond::carrier`] say how frames move from now on.
//!
//! A member is removed in steps, so that nothing is lost. [`Bond::remove`] moves its buckets away. When nothing is sent
//! by it any more, LACP tells the partner to do the same. When the partner has stopped, [`Action::Release`] gives the
//! member free. A member that was deleted is dropped at once by [`Bond::drop_member`].

mod active;
mod info;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use model::MacAddr;

pub use active::ActivateError;
pub use info::MemberInfo;

use crate::buckets::{Buckets, DRAIN};
use crate::lacp::pdu::{FRAME_LEN, PduError};
use crate::lacp::{Lacp, LacpConfig};
use crate::link::{Link, LinkState};
use crate::options::{BondState, Mode, OptionError, Options, Setting};
use crate::repeat::Repeat;
use crate::{MemberId, Time, earliest};

/// Between renewals of group memberships, as the Linux bonding driver has it.
const GROUPS_INTERVAL: Duration = Duration::from_millis(200);

/// What the caller has to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this frame out at the member, past all queues of data if possible.
    Send {
        /// The member.
        member: MemberId,
        /// The frame.
        frame: [u8; FRAME_LEN],
    },
    /// Announce the addresses that are behind other ports of the switch, once each, out of the bond. So the network
    /// learns that they moved. It comes `num_grat_arp` times after a failover.
    Announce,
    /// Have the group memberships behind other ports renewed. It comes `resend_igmp` times after a failover.
    RenewGroups,
    /// The member is no longer of the bond, and the caller may have it.
    Release(MemberId),
}

/// Where the bond's frames go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Egress {
    /// No member may send.
    Nowhere,
    /// All to one member.
    Member(MemberId),
    /// Each flow to its bucket's member: [`Bond::buckets`].
    Buckets,
    /// Each frame to all of these.
    All(Vec<MemberId>),
    /// To these in turn.
    InTurn {
        /// The members.
        members: Vec<MemberId>,
        /// Frames a member gets in its turn. 0: a random member for each frame.
        frames: u16,
    },
}

/// Which frames that come in at a member belong to the bond. Frames of the Slow Protocols never do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Collect {
    /// None.
    Nothing,
    /// Those to one station. Frames to groups come in by another member too.
    Unicast,
    /// All.
    All,
}

/// A netdev that becomes a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMember {
    /// Its name.
    pub name: String,
    /// Its own address.
    pub mac: MacAddr,
    /// Its link.
    pub link: Link,
}

#[derive(Clone, Debug)]
struct Member {
    name: String,
    mac: MacAddr,
    link: Link,
    state: LinkState,
    failures: u64,
    /// Since when it is being removed.
    leaving: Option<Time>,
    /// What LACP was told of its link last.
    told: Link,
}

impl Member {
    fn usable(&self) -> bool {
        self.state.usable() && self.leaving.is_none()
    }
}

/// A bond.
#[derive(Clone, Debug)]
pub struct Bond {
    options: Options,
    up: bool,
    /// Its own address. All zero until there was a member.
    mac: MacAddr,
    members: BTreeMap<MemberId, Member>,
    /// The active member of mode `active-backup`.
    active: Option<MemberId>,
    last_active: Option<MemberId>,
    /// Something has changed that the choice of the active member depends on.
    choose: bool,
    /// The primary is made active at the next choice, whatever `primary_reselect` says.
    force_primary: bool,
    lacp: Lacp,
    /// The aggregator that carried traffic last.
    aggregator: Option<u16>,
    buckets: Buckets,
    carrier: bool,
    announce: Repeat,
    groups: Repeat,
    actions: Vec<Action>,
}

impl Bond {
    /// A bond that is down and has no members. Without a `mac` it takes the first member's address.
    pub fn new(options: Options, mac: Option<MacAddr>) -> Self {
        let mac = mac.unwrap_or(MacAddr::ZERO);
        Self {
            lacp: Lacp::new(lacp_config(&options, mac)),
            options,
            up: false,
            mac,
            members: BTreeMap::new(),
            active: None,
            last_active: None,
            choose: false,
            force_primary: false,
            aggregator: None,
            buckets: Buckets::default(),
            carrier: false,
            announce: Repeat::default(),
            groups: Repeat::default(),
            actions: Vec::new(),
        }
    }

    /// Its options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Brings it up or down.
    pub fn set_up(&mut self, now: Time, up: bool) {
        self.up = up;
        self.update(now);
    }

    /// The number that the next member gets: the lowest that is free.
    ///
    /// # Panics
    /// If there are 65,535 members.
    pub fn next_id(&self) -> MemberId {
        let free = (1..=u16::MAX).map(MemberId).find(|id| !self.members.contains_key(id));
        #[expect(clippy::expect_used, reason = "a documented panic; the switch has far fewer ports")]
        let id = free.expect("fewer members than numbers");
        id
    }

    /// Adds a member, and gives it the [next number](Self::next_id).
    ///
    /// # Panics
    /// If there are 65,535 members.
    pub fn add(&mut self, now: Time, new: NewMember) -> MemberId {
        let id = self.next_id();
        if self.mac == MacAddr::ZERO {
            self.mac = new.mac;
            self.lacp.set_config(now, lacp_config(&self.options, self.mac));
        }
        self.force_primary |= self.options.primary.as_ref() == Some(&new.name);
        self.choose = true;
        // `updelay` holds for a new member too, unless no other one is usable.
        let (NewMember { name, mac, link }, state) = (new, LinkState::Down);
        self.members.insert(id, Member { name, mac, link, state, failures: 0, leaving: None, told: Link::default() });
        if self.options.mode == Mode::Lacp {
            self.lacp.add(id);
        }
        self.update(now);
        id
    }

    /// Starts to remove a member. [`Action::Release`] follows.
    pub fn remove(&mut self, now: Time, id: MemberId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.leaving.get_or_insert(now);
        }
        self.update(now);
    }

    /// Removes a member at once: its netdev is gone.
    pub fn drop_member(&mut self, now: Time, id: MemberId) {
        self.members.remove(&id);
        self.lacp.remove(now, id);
        self.update(now);
    }

    /// A member's netdev has another name now.
    pub fn rename(&mut self, id: MemberId, name: &str) {
        if let Some(member) = self.members.get_mut(&id) {
            name.clone_into(&mut member.name);
        }
    }

    /// The kernel reports a link.
    pub fn set_link(&mut self, now: Time, id: MemberId, link: Link) {
        if let Some(member) = self.members.get_mut(&id) {
            member.link = link;
        }
        self.update(now);
    }

    /// A frame of the Slow Protocols came in at a member.
    ///
    /// # Errors
    /// If it is badly formed. It is counted, and nothing else happens.
    pub fn receive(&mut self, now: Time, id: MemberId, frame: &[u8]) -> Result<(), PduError> {
        // Without LACP they are taken from the bond's traffic too, and nobody listens.
        let result = self.lacp.receive(now, id, frame);
        self.update(now);
        result
    }

    /// Time has passed. `frames` gives the frames that each bucket has had so far.
    pub fn run(&mut self, now: Time, frames: impl Fn(usize) -> u64) {
        self.buckets.settle(now, frames);
        self.update(now);
    }

    /// When [`Bond::run`] has something to do next. None: not before something else happens.
    pub fn deadline(&self, now: Time) -> Option<Time> {
        let links = self.members.values().map(|member| member.state.deadline());
        let leaving = self.members.values().any(|member| member.leaving.is_some());
        let drain = (leaving || self.buckets.unsettled()).then(|| now + DRAIN);
        links
            .chain([self.lacp.deadline(now), self.announce.deadline(), self.groups.deadline(), drain])
            .fold(None, earliest)
    }

    /// Sets an option, as [`Options::set`] does. What it answers with members is for the caller to do.
    ///
    /// # Errors
    /// See [`OptionError`]. Nothing has changed then.
    pub fn set_option(&mut self, now: Time, name: &str, value: &str) -> Result<Setting, OptionError> {
        let state = BondState { up: self.up, has_members: !self.members.is_empty() };
        let primary = self.options.primary.clone();
        let setting = self.options.set(name, value, state)?;
        self.force_primary |= primary != self.options.primary;
        self.choose = true;
        let config = lacp_config(&self.options, self.mac);
        if *self.lacp.config() != config {
            self.lacp.set_config(now, config);
        }
        self.update(now);
        Ok(setting)
    }

    /// What to do since the last call.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Whether the bond has a carrier. Without one, nothing is to be sent to it.
    pub fn carrier(&self) -> bool {
        self.carrier
    }

    /// The table of mode `balance-xor` and `802.3ad`.
    pub fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    /// Where the bond's frames go.
    pub fn egress(&self) -> Egress {
        if !self.carrier {
            return Egress::Nowhere;
        }
        match self.options.mode {
            Mode::ActiveBackup => self.active.map_or(Egress::Nowhere, Egress::Member),
            Mode::BalanceRr => Egress::InTurn { members: self.senders(), frames: self.options.packets_per_slave },
            Mode::Broadcast => Egress::All(self.senders()),
            _ => Egress::Buckets,
        }
    }

    /// Which frames that come in at a member belong to the bond.
    pub fn collect(&self, id: MemberId) -> Collect {
        let Some(member) = self.members.get(&id).filter(|_| self.up) else { return Collect::Nothing };
        let all = match self.options.mode {
            Mode::ActiveBackup => self.active == Some(id) && member.state.usable(),
            Mode::Lacp => self.lacp.collects(id),
            _ => member.state.usable(),
        };
        if all || bool::from(self.options.all_slaves_active) {
            Collect::All
        } else if member.leaving.is_some() && self.options.mode == Mode::ActiveBackup {
            // The network has yet to learn of the new active member.
            Collect::Unicast
        } else {
            Collect::Nothing
        }
    }

    /// Members that may send, in ascending order.
    fn senders(&self) -> Vec<MemberId> {
        let sends = |id: MemberId, member: &Member| match self.options.mode {
            Mode::Lacp => member.usable() && self.lacp.distributes(id),
            Mode::ActiveBackup => self.active == Some(id),
            _ => member.usable(),
        };
        self.members.iter().filter(|(id, member)| self.up && sends(**id, member)).map(|(id, _)| *id).collect()
    }

    /// Brings everything up to date after something has happened.
    fn update(&mut self, now: Time) {
        self.update_links(now);
        self.lacp.run(now);
        let failed_over = self.choose_active();
        let senders = self.senders();
        let hashed = matches!(self.options.mode, Mode::BalanceXor | Mode::Lacp);
        let members = &self.members;
        let lost = |id| members.get(&id).is_none_or(|member| !member.link.up);
        self.buckets.set_members(now, if hashed { senders.clone() } else { Vec::new() }, lost);
        let wanted = if self.options.mode == Mode::Lacp { self.options.min_links.max(1) } else { 1 };
        self.carrier = u32::try_from(senders.len()).is_ok_and(|count| count >= wanted);
        if failed_over | self.aggregator_changed() {
            self.announce.start(now, self.options.num_grat_arp);
        }
        if failed_over {
            self.groups.start(now, self.options.resend_igmp);
        }
        self.send_frames();
        self.release(now);
        if self.announce.due(now, self.options.announce_delay()) {
            self.actions.push(Action::Announce);
        }
        if self.groups.due(now, GROUPS_INTERVAL) {
            self.actions.push(Action::RenewGroups);
        }
    }

    fn update_links(&mut self, now: Time) {
        let delays = (self.options.up_delay(), self.options.down_delay());
        let hurry = !self.members.values().any(Member::usable);
        for (&id, member) in &mut self.members {
            let before = member.state;
            member.state = before.next(now, member.link.up, delays, hurry);
            if !member.state.usable() && before.usable() {
                member.failures += 1;
            }
            let told = Link { up: self.up && member.state.usable(), ..member.link };
            self.choose |= before != member.state;
            if member.told != told {
                member.told = told;
                self.lacp.set_link(now, id, told);
            }
        }
    }

    /// Whether another aggregator than before carries traffic.
    fn aggregator_changed(&mut self) -> bool {
        let active = self.lacp.active().map(|aggregator| aggregator.id).filter(|_| self.carrier);
        let changed = active.is_some() && active != self.aggregator;
        self.aggregator = active.or(self.aggregator);
        changed
    }

    fn send_frames(&mut self) {
        for (member, pdu) in self.lacp.take_frames() {
            if let Some(source) = self.members.get(&member) {
                self.actions.push(Action::Send { member, frame: pdu.encode(source.mac) });
            }
        }
    }

    /// Goes on with members that are being removed. First the bond stops to send by them, then the partner does.
    fn release(&mut self, now: Time) {
        let quiet = |(id, member): (&MemberId, &Member)| {
            let since = member.leaving?;
            (now.saturating_sub(since) >= DRAIN && !self.buckets.uses(*id)).then_some(*id)
        };
        let quiet: Vec<_> = self.members.iter().filter_map(quiet).collect();
        for id in quiet {
            self.lacp.leave(now, id);
            if self.lacp.has_left(now, id) {
                self.lacp.remove(now, id);
                self.send_frames();
                self.members.remove(&id);
                self.actions.push(Action::Release(id));
            }
        }
        self.send_frames();
    }
}

fn lacp_config(options: &Options, mac: MacAddr) -> LacpConfig {
    let own = options.ad_actor_system;
    LacpConfig {
        system: if own == MacAddr::ZERO { mac } else { own },
        system_priority: options.ad_actor_sys_prio,
        user_key: options.ad_user_port_key,
        rate: options.lacp_rate,
        active: options.lacp_active.into(),
        select: options.ad_select,
    }
}
