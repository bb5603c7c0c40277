//! A bond's thread: it runs the bond, sends what the bond sends, and publishes where frames go.
//!
//! It takes no lock of control's, so a long change elsewhere does not hold up a failover or an LACPDU. It hears of
//! links from the kernel itself, and from workers of Slow Protocols frames.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bond::buckets::{DRAIN, Slot};
use bond::options::{OptionError, Options, Setting};
use bond::{Action, Bond, Collect, Egress, MemberId, NewMember};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::announce;
use crate::control::core::Core;
use crate::host::{FrameSocket, HostChange, HostWatch, Netdev};
use crate::io::sys::raise_priority;
use crate::model::Duplex;
use crate::worker::bond::{BondTable, MemberShared, Place, SlowFrames, Way};
use crate::worker::view::PortShared;
use crate::{Error, ErrorKind};

/// A member's way out of the thread, and its queues.
#[derive(Debug)]
struct Member {
    netdev: Netdev,
    queues: Range<u32>,
    gate: Arc<MemberShared>,
    socket: Box<dyn FrameSocket>,
}

/// A member that comes.
#[derive(Debug)]
pub struct Joining {
    /// Its netdev.
    pub netdev: Netdev,
    /// Queues of the port that are its own.
    pub queues: Range<u32>,
    /// What passes from it.
    pub gate: Arc<MemberShared>,
}

/// What a bond is at the moment.
#[derive(Debug)]
struct State {
    bond: Bond,
    members: BTreeMap<MemberId, Member>,
}

/// What the thread and control have of a bond.
#[derive(Debug)]
struct Inner {
    core: Arc<Core>,
    port: Arc<PortShared>,
    slow: Arc<SlowFrames>,
    start: Instant,
    state: Mutex<State>,
    released: Condvar,
    stop: AtomicBool,
}

/// A running bond. It ends when this is dropped.
#[derive(Debug)]
pub struct BondThread {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

impl BondThread {
    /// Starts a bond that is up and has no members.
    pub fn start(core: &Arc<Core>, port: &Arc<PortShared>, mut bond: Bond) -> Result<Self, Error> {
        let failed = |why: String| Error::new(ErrorKind::System, format!("starting the thread of a bond: {why}"));
        let slow = SlowFrames::new().map_err(|errno| failed(errno.to_string()))?;
        let watch = core.host.watch()?;
        let start = Instant::now();
        bond.set_up(Duration::ZERO, true);
        let state = Mutex::new(State { bond, members: BTreeMap::new() });
        let (core, port) = (Arc::clone(core), Arc::clone(port));
        let (released, stop) = (Condvar::new(), AtomicBool::new(false));
        let inner = Arc::new(Inner { core, port, slow: Arc::new(slow), start, state, released, stop });
        let run = {
            let inner = Arc::clone(&inner);
            move || inner.run(watch)
        };
        let thread = std::thread::Builder::new().name(format!("xs-bond-{}", inner.port.no)).spawn(run);
        let thread = thread.map_err(|error| failed(error.to_string()))?;
        Ok(Self { inner, thread: Some(thread) })
    }

    /// Where Slow Protocols frames of members go.
    pub fn slow(&self) -> &Arc<SlowFrames> {
        &self.inner.slow
    }

    /// Adds a member whose queues have their workers. Its number is the lowest that is free.
    pub fn add(&self, joining: Joining) -> Result<MemberId, Error> {
        let Joining { netdev, queues, gate } = joining;
        let socket = self.inner.core.host.open_frame_socket(&netdev)?;
        let (mac, link) = self.inner.look_at(&netdev);
        let mut state = self.inner.lock();
        let new = NewMember { name: netdev.name.clone(), mac, link };
        let id = state.bond.add(self.inner.now(), new);
        state.members.insert(id, Member { netdev, queues, gate, socket });
        self.inner.settle(&mut state);
        Ok(id)
    }

    /// Takes a member out without a loss, within `limit` at most. Nothing is sent by it any more afterwards.
    pub fn remove(&self, id: MemberId, limit: Duration) {
        let mut state = self.inner.lock();
        state.bond.remove(self.inner.now(), id);
        self.inner.settle(&mut state);
        let is_there = |state: &mut State| state.members.contains_key(&id);
        let waited = self.inner.released.wait_timeout_while(state, limit, is_there);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            self.inner.drop_member(&mut state, id);
        }
    }

    /// Drops a member whose netdev is gone.
    pub fn drop_member(&self, id: MemberId) {
        self.inner.drop_member(&mut self.inner.lock(), id);
    }

    /// A member's netdev has another name now.
    pub fn rename(&self, id: MemberId, name: &str) {
        let mut state = self.inner.lock();
        state.bond.rename(id, name);
        if let Some(member) = state.members.get_mut(&id) {
            name.clone_into(&mut member.netdev.name);
        }
    }

    /// Sets an option.
    pub fn set_option(&self, name: &str, value: &str) -> Result<Setting, OptionError> {
        let mut state = self.inner.lock();
        let set = state.bond.set_option(self.inner.now(), name, value);
        self.inner.settle(&mut state);
        set
    }

    /// Makes a member the active one; without a name the best one.
    pub fn activate(&self, name: Option<&str>) -> Result<(), Error> {
        let mut state = self.inner.lock();
        let done = state.bond.activate(self.inner.now(), name);
        self.inner.settle(&mut state);
        done.map_err(|error| Error::invalid(format!("bond: {error}")))
    }

    /// The options in force.
    pub fn options(&self) -> Options {
        self.inner.lock().bond.options().clone()
    }

    /// What can be told of the bond.
    pub fn look<T>(&self, look: impl FnOnce(&Bond) -> T) -> T {
        look(&self.inner.lock().bond)
    }

    /// Ends it. LACP partners are told, so that they do not send to nobody until they miss this side. Workers keep the
    /// last table.
    pub fn stop(&mut self) {
        if self.thread.is_some() {
            self.inner.leave();
        }
        self.inner.stop.store(true, Ordering::Release);
        self.inner.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for BondThread {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wake(&self) {
        // The only failure is a full counter, which wakes as well.
        let _ = self.slow.event.write(1);
    }

    fn run(&self, mut watch: Box<dyn HostWatch>) {
        if let Err(errno) = raise_priority() {
            tracing::debug!(port = self.port.name, %errno, "the bond's thread has no raised priority");
        }
        loop {
            let deadline = self.lock().bond.deadline(self.now());
            let timeout = deadline.map(|at| at.saturating_sub(self.now()));
            // Rounded up, or it would turn without something to do.
            let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
                PollTimeout::try_from(timeout + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            });
            let mut fds =
                [PollFd::new(self.slow.event.as_fd(), PollFlags::POLLIN), PollFd::new(watch.fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, timeout);
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            let _ = self.slow.event.read();
            let said = watch.take();
            self.turn(&said);
        }
    }

    fn turn(&self, said: &HostChange) {
        let touched: Vec<_> = {
            let state = self.lock();
            let members = state.members.iter().filter(|(_, member)| said.touches(member.netdev.index));
            members.map(|(id, member)| (*id, member.netdev.clone())).collect()
        };
        let links: Vec<_> = touched.into_iter().map(|(id, netdev)| (id, self.look_at(&netdev).1)).collect();
        let mut state = self.lock();
        let now = self.now();
        for (id, link) in links {
            state.bond.set_link(now, id, link);
        }
        while let Some(frame) = self.slow.pop() {
            // It is counted by the bond.
            let _ = state.bond.receive(now, frame.member, frame.data());
        }
        if let Some(table) = &self.port.bond {
            state.bond.run(now, |bucket| table.sent(bucket));
        }
        self.carry_out(&mut state);
    }

    /// A netdev's address and link as they are now.
    fn look_at(&self, netdev: &Netdev) -> (crate::model::MacAddr, bond::Link) {
        let status = self.core.host.link_status(netdev).ok().flatten();
        let Some(status) = status else { return Default::default() };
        let duplex = status.mode.duplex.map(|duplex| match duplex {
            Duplex::Half => bond::Duplex::Half,
            Duplex::Full => bond::Duplex::Full,
        });
        let up = status.link.up && status.link.carrier;
        (status.link.mac, bond::Link { up, speed: status.mode.speed, duplex })
    }

    /// Takes leave of partners, if there are any.
    fn leave(&self) {
        {
            let mut state = self.lock();
            let is_heard = |member: &bond::MemberInfo| member.lacp.is_some() && member.collect == Collect::All;
            let members: Vec<_> = state.bond.members().into_iter().filter(is_heard).map(|member| member.id).collect();
            if members.is_empty() {
                return;
            }
            members.into_iter().for_each(|id| state.bond.remove(self.now(), id));
            self.carry_out(&mut state);
        }
        // Nothing is sent by the members for as long before LACP speaks.
        std::thread::sleep(DRAIN + Duration::from_millis(5));
        self.turn(&HostChange::default());
    }

    fn drop_member(&self, state: &mut State, id: MemberId) {
        state.bond.drop_member(self.now(), id);
        state.members.remove(&id);
        self.settle(state);
    }

    /// Carries out what a change has brought, and has the thread sleep by what comes next.
    fn settle(&self, state: &mut State) {
        self.carry_out(state);
        self.wake();
    }

    fn carry_out(&self, state: &mut State) {
        let mut announce = false;
        let mut renew = false;
        for action in state.bond.take_actions() {
            match action {
                Action::Send { member, frame } => {
                    if let Some(member) = state.members.get(&member)
                        && let Err(errno) = member.socket.send(&frame)
                    {
                        tracing::debug!(port = self.port.name, ifname = member.netdev.name, %errno, "sending a LACPDU");
                    }
                }
                Action::Announce => announce = true,
                Action::RenewGroups => renew = true,
                Action::Release(id) => {
                    state.members.remove(&id);
                    self.released.notify_all();
                }
            }
        }
        self.publish(state);
        if announce || renew {
            let infos = state.bond.members();
            let sender = infos.iter().find(|member| member.distributes).and_then(|info| state.members.get(&info.id));
            if let (Some(sender), true) = (sender, announce) {
                announce::addresses(&self.core, self.port.no, &*sender.socket);
            }
            if renew {
                announce::query_groups(&self.core, &self.port, state.bond.mac());
            }
        }
    }

    /// Has workers go by what the bond has decided.
    fn publish(&self, state: &State) {
        for (id, member) in &state.members {
            member.gate.set_collect(state.bond.collect(*id));
        }
        let table = table(&state.bond, &state.members);
        let Some(shared) = &self.port.bond else { return };
        if *shared.table() != table {
            shared.set_table(table);
            self.core.shared.publish_bonds();
        }
    }
}

/// The table that follows from what the bond has decided.
fn table(bond: &Bond, members: &BTreeMap<MemberId, Member>) -> BondTable {
    let ids: Vec<_> = members.keys().copied().collect();
    let place = |id: MemberId| ids.iter().position(|member| *member == id);
    let places = |ids: Vec<MemberId>| ids.into_iter().filter_map(place).collect();
    let way = match bond.egress() {
        Egress::Nowhere => Way::Nowhere,
        Egress::Member(id) => place(id).map_or(Way::Nowhere, Way::Member),
        Egress::All(ids) => Way::All(places(ids)),
        Egress::InTurn { members, frames } => Way::InTurn(places(members), frames),
        Egress::Buckets => {
            let to = |slot: &Slot| match *slot {
                Slot::Nowhere => Place::Nowhere,
                Slot::Held => Place::Held,
                Slot::Member(id) => {
                    place(id).and_then(|at| u8::try_from(at).ok()).map_or(Place::Nowhere, Place::Member)
                }
            };
            let slots = bond.buckets().slots();
            Way::Buckets(bond.options().xmit_hash_policy, Box::new(std::array::from_fn(|bucket| to(&slots[bucket]))))
        }
    };
    BondTable { members: members.iter().map(|(id, member)| (*id, member.queues.clone())).collect(), way }
}
