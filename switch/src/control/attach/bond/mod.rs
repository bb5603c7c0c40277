//! A bond: several netdevs that are one port.
//!
//! Each member is a netdev as a `phy` port has it, with its own program and sockets. Their queues are queues of the
//! bond's port, each member's in a row. So bridge, rules, meters, captures and components see one port. Which member a
//! frame goes out by, and what is taken in by a member, the bond's thread decides.
//!
//! A member whose netdev is gone leaves the bond, and is taken up again when it is back.

mod announce;
mod info;
mod thread;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bond::options::{BondState, Options, Setting};
use bond::{Bond, MemberId};

use self::thread::{BondThread, Joining};
use super::find::FoundNetdev;
use super::mtu::{MtuFacts, mtu_limit, one_chunk};
use super::netdev::{NetdevPort, NetdevRemains, close};
use super::{AttachmentInfo, Followed, OpenQueue, OtherQueues, OutsideCounters, Plan, RingOptions, Sight, Wish};
use crate::control::change::{SEND_GRACE, count_untaken};
use crate::control::core::Core;
use crate::control::fields::check_mtu;
use crate::counters::as_count;
use crate::host::{Host, Netdev, SteerKey};
use crate::io::backend::Backend;
use crate::io::umem::FrameCache;
use crate::model::*;
use crate::worker::bond::MemberShared;
use crate::worker::view::PortShared;
use crate::{Error, ErrorKind};

/// How long a member that is removed may take to leave. LACP wants up to three seconds of a partner that is slow.
const LEAVE: Duration = Duration::from_secs(4);

/// A member that was looked for.
#[derive(Debug)]
struct FoundMember {
    spec: PortSpec,
    netdev: FoundNetdev,
}

/// What there is of a bond.
#[derive(Debug)]
pub struct FoundBond {
    members: Vec<FoundMember>,
    /// Members that are not there, and why.
    missing: BTreeMap<String, String>,
    options: Options,
}

impl FoundBond {
    /// Looks for the members, and completes `spec` by them (MTU).
    ///
    /// # Errors
    /// As for `phy` ports, and `Invalid`: an option. The members of a bond that was there before may be missing.
    pub fn find(host: &dyn Host, spec: &mut PortSpec, frame_size: u32, wish: &Wish) -> Result<Self, Error> {
        let options = options(spec)?;
        let names = spec.bond.clone().unwrap_or_default().members;
        let first = names.iter().find_map(|name| host.find(name).ok().flatten());
        let mtu = *spec.mtu.get_or_insert(first.map_or(DEFAULT_MTU, |link| link.mtu));
        let (max, why) = without_members(host, spec.mode, frame_size);
        check_mtu(mtu, max, why)?;
        let mut found = Self { members: Vec::new(), missing: BTreeMap::new(), options };
        for name in names {
            match find_member(host, spec, &name, frame_size, wish) {
                Ok(member) => found.members.push(member),
                Err(error) if wish.is_known() => {
                    tracing::warn!(port = spec.name, member = name, %error, "a member of a bond is missing");
                    found.missing.insert(name, error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        let (needed, queues) = (found.queues(), spec.queues.unwrap_or(DEFAULT_BOND_QUEUES));
        if needed > queues {
            return Err(no_room(needed, queues));
        }
        Ok(found)
    }

    /// Queues of all members that are there.
    pub fn queues(&self) -> u32 {
        self.members.iter().map(|member| member.spec.queues.unwrap_or(1)).sum()
    }

    /// The members' netdevs.
    pub fn netdevs(&self) -> Vec<Netdev> {
        self.members.iter().flat_map(|member| member.netdev.netdevs()).collect()
    }

    /// Takes the netdevs, opens their queues, and starts the bond. On an error all is as it was.
    pub fn open(self, core: &Arc<Core>, plan: &Plan) -> Result<(BondPort, Vec<OpenQueue>), Error> {
        let Self { members, missing, options } = self;
        let thread = BondThread::start(core, &plan.shared, Bond::new(options, plan.spec.mac))?;
        let mut port = BondPort {
            core: Arc::clone(core),
            shared: Arc::clone(&plan.shared),
            steering: Mutex::new(plan.steering.clone()),
            members: Vec::new(),
            missing,
            thread,
        };
        let mut queues = Vec::new();
        for member in members {
            match port.join(&plan.spec, member, plan.rings) {
                Ok(opened) => queues.extend(opened),
                Err(error) => {
                    port.detach();
                    let remains = port.into_remains();
                    close_all(core, queues.into_iter().map(|queue: OpenQueue| queue.backend));
                    remains.remove();
                    return Err(error);
                }
            }
        }
        Ok((port, queues))
    }
}

/// The largest MTU of a bond as far as its members don't set it.
fn without_members(host: &dyn Host, mode: ModeRequest, frame_size: u32) -> (u32, &'static str) {
    let one_chunk = one_chunk(host, false);
    mtu_limit(MtuFacts { mode, is_veth: false, has_tap: false, frame_size, one_chunk })
}

fn no_room(needed: u32, queues: u32) -> Error {
    Error::invalid(format!(
        "queues: the members have {needed} queues, and the bond has room for {queues}: name a larger number"
    ))
}

/// Looks for the netdev of a member.
fn find_member(
    host: &dyn Host,
    spec: &PortSpec,
    name: &str,
    frame_size: u32,
    wish: &Wish,
) -> Result<FoundMember, Error> {
    let mut member = member_spec(spec, name);
    let netdev = FoundNetdev::for_phy(host, &mut member, frame_size, wish)
        .map_err(|error| Error::new(error.kind(), format!("bond.members: {name}: {error}")))?;
    Ok(FoundMember { spec: member, netdev })
}

/// A member as if it were a `phy` port.
fn member_spec(spec: &PortSpec, name: &str) -> PortSpec {
    PortSpec {
        kind: PortKind::Phy,
        ifname: Some(name.to_owned()),
        queues: None,
        mac: None,
        bond: None,
        // A bond that was there before need not be asked again.
        ..spec.clone()
    }
}

/// The options of a bond that is not up yet.
fn options(spec: &PortSpec) -> Result<Options, Error> {
    let mut options = Options::default();
    let wishes = spec.bond.as_ref().map(|bond| &bond.options);
    for (name, value) in in_order(wishes.into_iter().flatten()) {
        check_is_option(name)?;
        options.set(name, value, BondState::default()).map_err(|error| option_error(&error))?;
    }
    Ok(options)
}

/// Options in the order in which they depend on each other, unknown ones last.
fn in_order<'a>(options: impl Iterator<Item = (&'a String, &'a String)>) -> Vec<(&'a str, &'a str)> {
    let order = bond::options::names();
    let mut options: Vec<_> = options.map(|(name, value)| (name.as_str(), value.as_str())).collect();
    options.sort_by_key(|(name, _)| order.iter().position(|known| known == name).unwrap_or(usize::MAX));
    options
}

/// Refuses what the driver calls an option, and is a command.
fn check_is_option(name: &str) -> Result<(), Error> {
    match name {
        "slaves" => Err(Error::invalid("bond: slaves: members are named by `members`, or added and removed")),
        "active_slave" => Err(Error::invalid("bond: active_slave: it is no option but `active` of a change")),
        _ => Ok(()),
    }
}

fn option_error(error: &bond::options::OptionError) -> Error {
    let kind = match error.errno() {
        1 => ErrorKind::NotReady,
        13 => ErrorKind::WrongMode,
        16 => ErrorKind::Busy,
        39 => ErrorKind::NotEmpty,
        95 => ErrorKind::Unsupported,
        _ => ErrorKind::Invalid,
    };
    Error::new(kind, format!("bond: {error}"))
}

/// Checks members and options as far as that does not depend on netdevs.
pub fn check(spec: &PortSpec) -> Result<(), Error> {
    let Some(bond) = &spec.bond else {
        return match spec.kind {
            PortKind::Bond => Err(Error::invalid("bond: a bond port needs its members and options")),
            _ => Ok(()),
        };
    };
    if spec.kind != PortKind::Bond {
        return Err(Error::invalid("bond: members and options are for bond ports"));
    }
    if spec.ifname.is_some() {
        return Err(Error::invalid("ifname: a bond has no netdev of its own, but members"));
    }
    if bond.members.len() > MAX_BOND_MEMBERS {
        let text = format!("bond.members: {} are too many, {MAX_BOND_MEMBERS} are possible", bond.members.len());
        return Err(Error::invalid(text));
    }
    for (at, name) in bond.members.iter().enumerate() {
        crate::control::fields::check_ifname("bond.members", name)?;
        if bond.members[..at].contains(name) {
            return Err(Error::invalid(format!("bond.members: {name} is named twice")));
        }
    }
    options(spec).map(drop)
}

/// A member of a live bond.
#[derive(Debug)]
struct Member {
    id: MemberId,
    /// As if it were a `phy` port.
    spec: PortSpec,
    port: NetdevPort,
    queues: Range<u32>,
    gate: Arc<MemberShared>,
    /// What is wrong with its netdev.
    problems: Vec<String>,
}

/// A live bond.
#[derive(Debug)]
pub struct BondPort {
    core: Arc<Core>,
    shared: Arc<PortShared>,
    /// Stations whose packets come to the switch, if its netdevs are shared.
    steering: Mutex<BTreeSet<SteerKey>>,
    /// By their numbers.
    members: Vec<Member>,
    missing: BTreeMap<String, String>,
    thread: BondThread,
}

impl BondPort {
    /// Takes a member in whose queues are not the workers' yet.
    fn join(&mut self, spec: &PortSpec, found: FoundMember, rings: RingOptions) -> Result<Vec<OpenQueue>, Error> {
        let FoundMember { spec: member, netdev } = found;
        let count = member.queues.unwrap_or(1);
        let queues = self.free_queues(count).ok_or_else(|| {
            let (used, room) = (self.queue_numbers().len(), as_count(self.shared.queues.len()));
            no_room(as_count(used) + count, room)
        })?;
        let id = self.thread.look(Bond::next_id);
        let gate = Arc::new(MemberShared::new(id, Arc::clone(self.thread.slow())));
        let spec = PortSpec { mtu: spec.mtu, ..member };
        let plan = Plan {
            spec,
            shared: Arc::clone(&self.shared),
            rings,
            steering: self.steering().clone(),
            member: Some(Arc::clone(&gate)),
        };
        let (mut port, backends) = NetdevPort::open(&self.core, netdev, &plan)?;
        let netdev = port.netdev().clone();
        let joining = Joining { netdev, queues: queues.clone(), gate: Arc::clone(&gate) };
        match self.thread.add(joining) {
            Ok(added) => debug_assert_eq!(added, id, "control adds one member at a time"),
            Err(error) => {
                port.detach();
                let remains = port.into_remains();
                close_all(&self.core, backends.into_iter());
                remains.remove();
                return Err(error);
            }
        }
        let number = |(number, backend)| OpenQueue { number, backend, member: Some(Arc::clone(&gate)) };
        let opened = queues.clone().zip(backends).map(number).collect();
        let Plan { spec, .. } = plan;
        self.members.push(Member { id, spec, port, queues, gate, problems: Vec::new() });
        self.members.sort_by_key(|member| member.id);
        Ok(opened)
    }

    fn steering(&self) -> MutexGuard<'_, BTreeSet<SteerKey>> {
        self.steering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many queues in a row that no member has.
    fn free_queues(&self, count: u32) -> Option<Range<u32>> {
        let mut used: Vec<_> = self.members.iter().map(|member| member.queues.clone()).collect();
        used.sort_by_key(|queues| queues.start);
        let mut start = 0;
        for queues in used {
            if start + count <= queues.start {
                break;
            }
            start = queues.end;
        }
        (start + count <= as_count(self.shared.queues.len())).then_some(start..start + count)
    }

    /// Adds a member to a live bond.
    fn add_member(&mut self, spec: &PortSpec, name: &str, rings: RingOptions, wish: &Wish) -> Result<(), Error> {
        if self.members.len() >= MAX_BOND_MEMBERS {
            let text = format!("bond.add: the bond has {MAX_BOND_MEMBERS} members already: remove one first");
            return Err(Error::new(ErrorKind::Full, text));
        }
        let frame_size = self.core.settings.frame_size;
        let found = find_member(&*self.core.host, spec, name, frame_size, wish)?;
        let opened = self.join(spec, found, rings)?;
        for queue in opened {
            self.core.workers.add(queue.into_queue(&self.shared));
        }
        // Workers find their way to the new queues.
        self.core.shared.publish_bonds();
        self.missing.remove(name);
        tracing::info!(port = self.shared.name, member = name, "a bond has a new member");
        Ok(())
    }

    /// Takes a member out of a live bond. Its queues are closed when nothing comes by them any more.
    fn take_out(&mut self, at: usize) -> NetdevRemains {
        let Member { spec, mut port, queues, .. } = self.members.remove(at);
        port.detach();
        let taken = self.core.workers.take_back_some(&self.shared, queues);
        let remains = port.into_remains();
        let mut cache = self.core.frame_cache();
        for queue in taken {
            count_untaken(&self.shared, queue.number, queue.backend.close(SEND_GRACE, &mut cache));
        }
        self.core.recycle(cache);
        tracing::info!(port = self.shared.name, member = spec.ifname, "a member has left the bond");
        remains
    }

    fn place_of(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|member| member.spec.ifname.as_deref() == Some(name))
    }

    /// Refuses a change that can't be, before anything is changed.
    pub fn check_update(&self, spec: &PortSpec, update: &BondUpdate) -> Result<(), Error> {
        let state = BondState { up: true, has_members: !self.members.is_empty() };
        let mut options = self.thread.options();
        for (name, value) in in_order(update.options.iter()) {
            check_is_option(name)?;
            options.set(name, value, state).map_err(|error| option_error(&error))?;
        }
        let members = spec.bond.as_ref().map(|bond| &bond.members[..]).unwrap_or_default();
        for name in &update.add {
            crate::control::fields::check_ifname("bond.add", name)?;
            if members.contains(name) {
                return Err(Error::new(ErrorKind::Exists, format!("bond.add: {name} is a member already")));
            }
        }
        match update.remove.iter().find(|name| !members.contains(name)) {
            Some(name) => Err(Error::new(
                ErrorKind::NotFound,
                format!("bond.remove: {name} is no member: it has {}", list(members)),
            )),
            None => Ok(()),
        }
    }

    /// Changes the bond, and `spec` by what it has become. On an error nothing is changed but what a member that came
    /// and went has cost.
    pub fn update(&mut self, spec: &mut PortSpec, update: &BondUpdate, rings: RingOptions) -> Result<(), Error> {
        let before = self.thread.options();
        self.update_each(spec, update, rings).inspect_err(|_| self.set_back(&before, update))?;
        let bond = spec.bond.get_or_insert_default();
        bond.options.extend(update.options.clone());
        let options = self.thread.options();
        for (name, value) in &mut bond.options {
            // As it is now: a delay is rounded, and follows its unit.
            if let Some(is) = options.value_of(name) {
                *value = is;
            }
        }
        bond.members.retain(|name| !update.remove.contains(name));
        bond.members.extend(update.add.iter().filter(|name| !update.remove.contains(name)).cloned());
        Ok(())
    }

    fn update_each(&mut self, spec: &PortSpec, update: &BondUpdate, rings: RingOptions) -> Result<(), Error> {
        for (name, value) in in_order(update.options.iter()) {
            let set = self.thread.set_option(name, value).map_err(|error| option_error(&error))?;
            if let Setting::Rounded(text) = set {
                tracing::info!(port = spec.name, "{text}");
            }
        }
        if let Some(active) = &update.active {
            self.thread.activate(Some(active.as_str()).filter(|name| !name.is_empty()))?;
        }
        let wish = Wish::new(false);
        for (at, name) in update.add.iter().enumerate() {
            if let Err(error) = self.add_member(spec, name, rings, &wish) {
                update.add[..at].iter().for_each(|name| self.remove_member(name));
                return Err(error);
            }
        }
        update.remove.iter().for_each(|name| self.remove_member(name));
        Ok(())
    }

    /// Removes a member without a loss.
    fn remove_member(&mut self, name: &str) {
        self.missing.remove(name);
        if let Some(at) = self.place_of(name) {
            self.thread.remove(self.members[at].id, LEAVE);
            self.take_out(at).remove();
        }
    }

    fn set_back(&self, before: &Options, update: &BondUpdate) {
        for name in update.options.keys() {
            if let Some(value) = before.value_of(name)
                && let Err(error) = self.thread.set_option(name, &value)
            {
                tracing::error!(port = self.shared.name, %error, "an option of a bond can't be set back");
            }
        }
    }

    /// The members' netdevs, as far as they can be reached.
    pub fn netdevs(&self) -> impl Iterator<Item = &Netdev> {
        self.members.iter().flat_map(|member| member.port.netdevs())
    }

    /// Numbers of its queues.
    pub fn queue_numbers(&self) -> Vec<u32> {
        self.members.iter().flat_map(|member| member.queues.clone()).collect()
    }

    /// Whether frames can be sent by it.
    pub fn carrier(&self) -> bool {
        self.thread.look(Bond::carrier)
    }

    /// What users see of it.
    pub fn info(&self) -> AttachmentInfo {
        let infos: Vec<_> = self.members.iter().map(|member| member.port.info()).collect();
        let modes = || infos.iter().filter_map(|info| info.mode);
        let zero_copy = self.members.iter().zip(&infos).flat_map(|(member, info)| {
            member.queues.clone().zip(info.zero_copy.iter().map(|(_, zero_copy)| *zero_copy))
        });
        AttachmentInfo {
            mode: modes().find(|mode| *mode == Mode::Generic).or_else(|| modes().next()),
            mode_reason: infos.iter().find_map(|info| info.mode_reason.clone()),
            max_mtu: self.max_mtu().0,
            zero_copy: zero_copy.collect(),
            guest_end: None,
            vhost: None,
            tap: None,
            bond: Some(self.thread.look(|bond| info::describe(bond, &self.members))),
        }
    }

    /// The largest MTU that all members can be set to, and what sets it.
    pub fn max_mtu(&self) -> (u32, &'static str) {
        let of_member = self.members.iter().map(|member| member.port.max_mtu());
        let without = || without_members(&*self.core.host, ModeRequest::Auto, self.core.settings.frame_size);
        of_member.min_by_key(|(mtu, _)| *mtu).unwrap_or_else(without)
    }

    /// What would break its packets now, in words.
    pub fn problems(&self, mtu: u32) -> Vec<String> {
        let members = self.members.iter().flat_map(|member| member.port.problems(mtu));
        members.chain(self.missing_problems()).collect()
    }

    fn missing_problems(&self) -> impl Iterator<Item = String> {
        self.missing
            .iter()
            .map(|(name, why)| format!("member {name} is missing ({why}): it is taken up when it can be"))
    }

    /// What was counted outside of the switch, by queue of the port.
    pub fn counters(&self) -> OutsideCounters {
        let mut counters = OutsideCounters { program: Vec::new(), sockets: Vec::new() };
        for member in &self.members {
            let OutsideCounters { program, sockets } = member.port.counters();
            put_at(&mut counters.program, member.queues.start, program);
            put_at(&mut counters.sockets, member.queues.start, sockets);
        }
        counters
    }

    /// Goes by what was seen of the members' netdevs, and takes up those that are back.
    pub fn follow(&mut self, spec: &mut PortSpec, sight: &Sight<'_>, rings: RingOptions) -> Followed {
        let mut changed = false;
        let mut program_problem = None;
        let mut lost = Vec::new();
        let host = Arc::clone(&self.core.host);
        for (at, member) in self.members.iter_mut().enumerate() {
            let netdev = member.port.netdev();
            let link = match sight.said.touches(netdev.index) {
                true => host.look_at(netdev),
                false => Ok(None),
            };
            let link = match link {
                Ok(None) if sight.said.touches(netdev.index) => {
                    lost.push((at, format!("{} is gone", netdev.name)));
                    continue;
                }
                Ok(link) => link,
                Err(_) => None,
            };
            let before = member.spec.ifname.clone().unwrap_or_default();
            match member.port.follow(&mut member.spec, &Sight { link: link.as_ref(), said: sight.said }) {
                Err(OtherQueues { why, .. }) => lost.push((at, why)),
                Ok(followed) => {
                    program_problem = program_problem.or(followed.program_problem);
                    if let Some(problems) = followed.netdev_problems {
                        member.problems = problems;
                        let mtu = member.spec.mtu;
                        if mtu != spec.mtu {
                            let (is, all) = (mtu.unwrap_or_default(), spec.mtu.unwrap_or_default());
                            member.problems.push(format!("{before} has MTU {is}, and the bond {all}"));
                            member.spec.mtu = spec.mtu;
                        }
                    }
                    let now = member.spec.ifname.clone().unwrap_or_default();
                    if now != before {
                        self.thread.rename(member.id, &now);
                        let members = spec.bond.iter_mut().flat_map(|bond| &mut bond.members);
                        members.filter(|name| **name == before).for_each(|name| now.clone_into(name));
                        changed = true;
                    }
                }
            }
        }
        for (at, why) in lost.into_iter().rev() {
            let name = self.members[at].spec.ifname.clone().unwrap_or_default();
            tracing::warn!(port = spec.name, member = name, why, "a bond has lost a member");
            self.thread.drop_member(self.members[at].id);
            self.take_out(at).let_go();
            self.missing.insert(name, why);
        }
        self.take_up_missing(spec, rings);
        let problems = self.members.iter().flat_map(|member| member.problems.clone());
        Followed {
            changed,
            carrier: Some(self.carrier()),
            netdev_problems: Some(problems.chain(self.missing_problems()).collect()),
            program_problem,
        }
    }

    fn take_up_missing(&mut self, spec: &PortSpec, rings: RingOptions) {
        let names: Vec<_> = self.missing.keys().cloned().collect();
        for name in names {
            if !matches!(self.core.host.find(&name), Ok(Some(_))) {
                continue;
            }
            if let Err(error) = self.add_member(spec, &name, rings, &Wish::new(true)) {
                self.missing.insert(name, error.to_string());
            }
        }
    }

    /// Makes `keys` the stations whose packets come to the switch.
    pub fn set_steering(&self, keys: &BTreeSet<SteerKey>) -> Result<(), Error> {
        self.steering().clone_from(keys);
        self.members.iter().try_for_each(|member| member.port.set_steering(keys))
    }

    /// Sets the MTU of all members, or of none.
    pub fn set_mtu(&mut self, mtu: u32) -> Result<(), Error> {
        for at in 0..self.members.len() {
            if let Err(error) = self.members[at].port.set_mtu(mtu) {
                for member in &self.members[..at] {
                    member.spec.mtu.map_or(Ok(()), |before| member.port.set_mtu(before))?;
                }
                return Err(error);
            }
        }
        self.members.iter_mut().for_each(|member| member.spec.mtu = Some(mtu));
        Ok(())
    }

    /// Stops packets from coming, and the bond.
    pub fn detach(&mut self) {
        self.thread.stop();
        self.members.iter_mut().for_each(|member| member.port.detach());
    }

    /// Has packets dropped and counted, instead of sent to the queues.
    pub fn unplug(&self) -> Result<(), Error> {
        self.members.iter().try_for_each(|member| member.port.unplug())
    }

    /// Lets go of queues that are about to be closed, and keeps what they counted.
    pub fn forget_queues(&mut self) {
        self.members.iter_mut().for_each(|member| member.port.forget_queues());
    }

    /// Opens all queues of a bond that has none, with such rings. On an error none is open.
    pub fn reopen(&mut self, rings: RingOptions, cache: &mut FrameCache) -> Result<Vec<OpenQueue>, Error> {
        let mut opened: Vec<OpenQueue> = Vec::new();
        for member in &mut self.members {
            match member.port.reopen(&member.spec, rings, cache) {
                Ok(backends) => {
                    let gate = &member.gate;
                    let number = |(number, backend)| OpenQueue { number, backend, member: Some(Arc::clone(gate)) };
                    opened.extend(member.queues.clone().zip(backends).map(number));
                }
                Err(error) => {
                    close(opened.into_iter().map(|queue| queue.backend), cache);
                    return Err(error);
                }
            }
        }
        Ok(opened)
    }

    /// What is left outside once the port is gone from the switch. Its sockets are let go of.
    pub fn into_remains(self) -> BondRemains {
        BondRemains(self.members.into_iter().map(|member| member.port.into_remains()).collect())
    }
}

/// Closes queues that no packet has come by yet, and gives their frames back.
fn close_all(core: &Core, queues: impl Iterator<Item = Backend>) {
    let mut cache = core.frame_cache();
    close(queues, &mut cache);
    core.recycle(cache);
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Puts counters of queues at their place among those of a port.
fn put_at<T: Default>(all: &mut Vec<T>, start: u32, counters: Vec<T>) {
    let start = start as usize;
    let end = start + counters.len();
    if all.len() < end {
        all.resize_with(end, T::default);
    }
    all.iter_mut().skip(start).zip(counters).for_each(|(place, counters)| *place = counters);
}

/// What a bond that is gone has left outside.
#[derive(Debug)]
pub struct BondRemains(Vec<NetdevRemains>);

impl BondRemains {
    /// Takes down what the switch has made.
    pub fn remove(self) {
        self.0.into_iter().for_each(NetdevRemains::remove);
    }

    /// Lets go of netdevs that are gone, or somebody else's now.
    pub fn let_go(self) {
        self.0.into_iter().for_each(NetdevRemains::let_go);
    }
}
