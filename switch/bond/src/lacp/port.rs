//! One port: the receive, periodic, mux and transmit machines (IEEE 802.1AX-2008, 5.4.12–5.4.16).
//!
//! The mux machine is that of independent control: a port collects as soon as its partner is in sync, and distributes
//! when the partner collects. So nothing is sent to a partner that does not take it yet. Partners with coupled control,
//! such as the Linux bonding driver, get along with that.

use std::time::Duration;

use model::MacAddr;

use super::churn::Churn;
use super::pdu::{Lacpdu, PortInfo};
use super::rate::RateLimit;
use super::state::PortState;
use crate::{Link, MemberId, Time, earliest};

/// Intervals between LACPDUs (`Fast_Periodic_Time`, `Slow_Periodic_Time`).
pub(super) const FAST: Duration = Duration::from_secs(1);
pub(super) const SLOW: Duration = Duration::from_secs(30);
/// How long a partner's word holds (`Short_Timeout_Time`, `Long_Timeout_Time`): three intervals.
pub(super) const SHORT_TIMEOUT: Duration = Duration::from_secs(3);
pub(super) const LONG_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a port waits for others before it is attached (`Aggregate_Wait_Time`).
pub(super) const AGGREGATE_WAIT: Duration = Duration::from_secs(2);
/// How long a port that is removed goes on to collect, if its partner does not say that it has stopped.
pub(super) const LEAVE: Duration = Duration::from_secs(1);
/// LACPDUs in any second (5.4.16).
const MAX_LACPDUS: usize = 3;
/// Responses to markers in any second. Generators send at most so many markers.
const MAX_MARKERS: usize = 5;
const PORT_PRIORITY: u16 = 255;

/// State of the receive machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveState {
    /// The link is down.
    Disabled,
    /// What the partner said is too old, or it has said nothing yet.
    Expired,
    /// Nobody has answered.
    Defaulted,
    /// The partner's word is fresh.
    Current,
}

/// State of the mux machine, in the order of what a port may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MuxState {
    /// It has no aggregator.
    Detached,
    /// It waits whether other ports come along.
    Waiting,
    /// It has its aggregator.
    Attached,
    /// It takes frames.
    Collecting,
    /// It sends frames too.
    Distributing,
}

/// PDUs of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// LACPDUs received.
    pub lacpdus_in: u64,
    /// LACPDUs sent.
    pub lacpdus_out: u64,
    /// Markers received.
    pub markers_in: u64,
    /// Responses to markers that were sent.
    pub marker_responses_out: u64,
    /// Markers that came too often to be answered, and responses that nobody asked for.
    pub markers_ignored: u64,
    /// Slow Protocols frames that are badly formed, or of another protocol.
    pub illegal: u64,
    /// LACPDUs that this system had sent itself: two of its links are plugged into one another.
    pub loopbacks: u64,
}

/// A port with its machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) actor: PortInfo,
    pub(super) partner: PortInfo,
    pub(super) receive: ReceiveState,
    /// End of `Expired` and of `Current`.
    receive_until: Option<Time>,
    pub(super) selected: bool,
    pub(super) aggregator: u16,
    pub(super) mux: MuxState,
    /// End of `Waiting`.
    wait_until: Time,
    need_to_transmit: bool,
    /// Next LACPDU, and whether in short intervals. None: no periodic transmission.
    periodic: Option<(Time, bool)>,
    lacpdus: RateLimit,
    pub(super) markers: RateLimit,
    pub(super) actor_churn: Churn,
    pub(super) partner_churn: Churn,
    /// The port is being removed; until when at the latest.
    pub(super) leaving: Option<Time>,
    pub(super) link: Link,
    pub(super) counters: Counters,
}

/// What a port takes its partner for that has said nothing: an individual port that sends nothing by itself.
const DEFAULT_PARTNER: PortInfo = PortInfo {
    system_priority: 65535,
    system: MacAddr::ZERO,
    key: 1,
    port_priority: PORT_PRIORITY,
    port: 1,
    state: PortState(0),
};

impl Port {
    /// A port whose link is down. `state` has the bits that configuration decides.
    pub(super) fn new(id: MemberId, system: MacAddr, system_priority: u16, state: PortState) -> Self {
        let state = state | PortState::DEFAULTED;
        Self {
            actor: PortInfo { system_priority, system, key: 0, port_priority: PORT_PRIORITY, port: id.0, state },
            partner: DEFAULT_PARTNER,
            receive: ReceiveState::Disabled,
            receive_until: None,
            selected: false,
            aggregator: id.0,
            mux: MuxState::Detached,
            wait_until: Time::ZERO,
            need_to_transmit: false,
            periodic: None,
            lacpdus: RateLimit::new(MAX_LACPDUS),
            markers: RateLimit::new(MAX_MARKERS),
            actor_churn: Churn::default(),
            partner_churn: Churn::default(),
            leaving: None,
            link: Link::default(),
            counters: Counters::default(),
        }
    }

    /// Starts over with another configuration. Links, counters and limits of frames stay.
    pub(super) fn restart(&mut self, now: Time, new: Self, user_key: u16) {
        let old = std::mem::replace(self, new);
        self.lacpdus = old.lacpdus;
        self.markers = old.markers;
        self.counters = old.counters;
        self.leaving = old.leaving;
        self.set_link(now, old.link, user_key);
    }

    /// Whether the link is up.
    pub(super) fn enabled(&self) -> bool {
        self.receive != ReceiveState::Disabled
    }

    /// Whether a partner has answered.
    pub(super) fn has_partner(&self) -> bool {
        self.partner.system != MacAddr::ZERO
    }

    /// Whether both ends may be aggregated with other ports.
    pub(super) fn aggregatable(&self) -> bool {
        let may = |info: &PortInfo| info.state.has(PortState::AGGREGATION);
        self.has_partner() && may(&self.actor) && may(&self.partner)
    }

    /// The link is so now. `user_key` makes its key.
    pub(super) fn set_link(&mut self, now: Time, link: Link, user_key: u16) {
        self.link = link;
        let Some(key) = link.key(user_key) else {
            self.disable();
            return;
        };
        if self.actor.key != key {
            self.actor.key = key;
            self.selected = false;
            self.need_to_transmit = true;
        }
        if !self.enabled() {
            self.expire(now);
        }
    }

    fn disable(&mut self) {
        self.receive = ReceiveState::Disabled;
        self.receive_until = None;
        self.partner.state.set(PortState::SYNCHRONIZATION, false);
    }

    fn expire(&mut self, now: Time) {
        self.receive = ReceiveState::Expired;
        self.receive_until = Some(now + SHORT_TIMEOUT);
        self.partner.state.set(PortState::SYNCHRONIZATION, false);
        self.partner.state.set(PortState::TIMEOUT, true);
        self.actor.state.set(PortState::EXPIRED, true);
    }

    /// Forgets the partner. It may be another one that comes next.
    pub(super) fn forget_partner(&mut self) {
        self.selected &= self.partner.same_link(&DEFAULT_PARTNER);
        self.partner = DEFAULT_PARTNER;
        self.actor.state.set(PortState::DEFAULTED, true);
        self.actor.state.set(PortState::EXPIRED, false);
    }

    /// A LACPDU came in. The caller has made sure that it is not one of this system.
    pub(super) fn receive(&mut self, now: Time, pdu: &Lacpdu) {
        if !self.enabled() {
            return;
        }
        self.selected &= pdu.actor.same_link(&self.partner);
        let known = pdu.partner.same_link(&self.actor);
        let told = PortState::ACTIVITY.0 | PortState::TIMEOUT.0 | PortState::SYNCHRONIZATION.0;
        if !known || (pdu.partner.state.0 ^ self.actor.state.0) & told != 0 {
            self.need_to_transmit = true;
        }
        // The partner means this link, and will keep it alive.
        let individual = !pdu.actor.state.has(PortState::AGGREGATION);
        let alive = pdu.actor.state.has(PortState::ACTIVITY)
            || self.actor.state.has(PortState::ACTIVITY) && pdu.partner.state.has(PortState::ACTIVITY);
        self.partner = pdu.actor;
        if !((known || individual) && alive) {
            self.partner.state.set(PortState::SYNCHRONIZATION, false);
        }
        self.actor.state.set(PortState::DEFAULTED, false);
        self.actor.state.set(PortState::EXPIRED, false);
        self.receive = ReceiveState::Current;
        let short = self.actor.state.has(PortState::TIMEOUT);
        self.receive_until = Some(now + if short { SHORT_TIMEOUT } else { LONG_TIMEOUT });
    }

    /// The receive machine's timer.
    pub(super) fn run_receive(&mut self, now: Time) {
        if self.receive_until.is_none_or(|until| until > now) {
            return;
        }
        match self.receive {
            ReceiveState::Current => self.expire(now),
            _ => {
                self.receive = ReceiveState::Defaulted;
                self.receive_until = None;
                self.forget_partner();
            }
        }
    }

    /// Whether the port waits no longer for others.
    pub(super) fn ready(&self, now: Time) -> bool {
        self.mux != MuxState::Waiting || self.wait_until <= now
    }

    /// Leaves its aggregator, before it selects another one.
    pub(super) fn detach(&mut self) {
        self.mux = MuxState::Detached;
        self.show_mux(false);
    }

    /// The mux machine. `active`: its aggregator carries the bond's traffic. `ready`: so are all ports of it.
    pub(super) fn run_mux(&mut self, now: Time, active: bool, ready: bool) {
        use MuxState as M;
        let partner = |bits| self.partner.state.has(bits);
        let in_sync = active && partner(PortState::SYNCHRONIZATION);
        let collected = in_sync && partner(PortState::COLLECTING);
        if self.leaving.is_some() {
            self.mux = self.mux.min(M::Collecting);
            self.show_mux(false);
            return;
        }
        if !self.selected {
            self.detach();
            return;
        }
        if self.mux == M::Detached {
            self.mux = M::Waiting;
            self.wait_until = now + AGGREGATE_WAIT;
        }
        if self.mux == M::Waiting && ready && self.ready(now) {
            self.mux = M::Attached;
        }
        if self.mux >= M::Attached {
            self.mux = match (in_sync, collected) {
                (false, _) => M::Attached,
                (true, false) => M::Collecting,
                (true, true) => M::Distributing,
            };
        }
        self.show_mux(active);
    }

    /// Shows the mux machine's state in the actor's, and lets the partner know.
    fn show_mux(&mut self, in_sync: bool) {
        let (mux, state) = (self.mux, &mut self.actor.state);
        let changed = [
            state.set(PortState::SYNCHRONIZATION, in_sync && mux >= MuxState::Attached),
            state.set(PortState::COLLECTING, mux >= MuxState::Collecting),
            state.set(PortState::DISTRIBUTING, mux >= MuxState::Distributing),
        ];
        self.need_to_transmit |= changed.contains(&true);
    }

    /// The periodic machine.
    pub(super) fn run_periodic(&mut self, now: Time) {
        let active = self.actor.state.has(PortState::ACTIVITY) || self.partner.state.has(PortState::ACTIVITY);
        if !self.enabled() || !active {
            self.periodic = None;
            self.need_to_transmit = false;
            return;
        }
        let fast = self.partner.state.has(PortState::TIMEOUT);
        let interval = if fast { FAST } else { SLOW };
        let due = match self.periodic {
            // The partner asks for shorter intervals: it has waited long enough.
            None | Some((_, false)) if fast => now,
            None => now,
            Some((_, true)) if !fast => now + interval,
            Some((due, _)) => due,
        };
        self.need_to_transmit |= due <= now;
        self.periodic = Some((if due <= now { now + interval } else { due }, fast));
    }

    /// The churn machines.
    pub(super) fn run_churn(&mut self, now: Time) {
        let enabled = self.enabled();
        self.actor_churn.run(now, enabled, self.actor.state.has(PortState::SYNCHRONIZATION));
        self.partner_churn.run(now, enabled, self.partner.state.has(PortState::SYNCHRONIZATION));
    }

    /// The transmit machine: the LACPDU to send now.
    pub(super) fn transmit(&mut self, now: Time) -> Option<Lacpdu> {
        if !self.need_to_transmit || !self.lacpdus.take(now) {
            return None;
        }
        self.need_to_transmit = false;
        self.counters.lacpdus_out += 1;
        Some(Lacpdu { version: 1, actor: self.actor, partner: self.partner, collector_max_delay: 0 })
    }

    /// Starts to leave: the partner is to send nothing more here. What it has sent is still taken.
    pub(super) fn leave(&mut self, now: Time) {
        self.leaving.get_or_insert(now + LEAVE);
    }

    /// Whether a port that leaves has nothing to wait for any more.
    pub(super) fn has_left(&self, now: Time) -> bool {
        let sends = self.enabled() && self.has_partner() && self.partner.state.has(PortState::DISTRIBUTING);
        self.leaving.is_some_and(|until| until <= now || !sends)
    }

    /// The last word of a port that is removed: it is no longer one to aggregate.
    pub(super) fn farewell(&mut self, now: Time) -> Option<Lacpdu> {
        if !self.enabled() || !self.has_partner() {
            return None;
        }
        self.detach();
        self.actor.state.set(PortState::AGGREGATION, false);
        self.need_to_transmit = true;
        self.transmit(now)
    }

    /// When a machine has something to do next.
    pub(super) fn deadline(&self, now: Time) -> Option<Time> {
        let waiting = (self.mux == MuxState::Waiting && self.wait_until > now).then_some(self.wait_until);
        let send = self.need_to_transmit.then(|| self.lacpdus.wait(now).unwrap_or(now));
        [
            self.receive_until,
            waiting,
            self.periodic.map(|(due, _)| due),
            send,
            self.leaving.filter(|until| *until > now),
            self.actor_churn.deadline(),
            self.partner_churn.deadline(),
        ]
        .into_iter()
        .fold(None, earliest)
    }
}
