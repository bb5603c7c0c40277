//! The running data plane as its manager sees it: [`Switch`].
//!
//! All that control knows of ports lies behind one mutex, which no worker ever takes. Adding a port goes from the outside in:
//! netdevs, XDP program (loaded), sockets with their fill rings full, the new view, the workers, and last the attachment.
//! Removing goes the other way round, and waits at each border until the other side has let go, so that a frame is never where
//! nobody looks for it, and what a later port of the same number gets was never meant for this one.

mod audit;
mod bring_up;
mod components;
mod group_tap;
mod guest_end;
mod netdevs;
mod ports;
pub mod resolve;
mod several;
mod start;
mod steer;
mod tables;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use self::components::Live;
use self::group_tap::TapGate;
pub use self::guest_end::{GuestSockets, PinPlace};
use self::ports::{AskBound, LivePort};
use self::start::Threads;
use crate::capture::Tap;
use crate::engine::PortNo;
use crate::engine::fdb::{Fdb, Learn, StaticError};
use crate::engine::snapshot::{BridgePolicy, PortPolicy, Snapshot};
use crate::engine::tables::Tables;
use crate::engine::trace;
use crate::io::socket::UmemSharers;
use crate::model::*;
use crate::worker::shared::Shared;
use crate::worker::view::View;
use crate::{Error, ErrorKind};

/// Captures at a time: each costs every frame of its ports a look.
const MAX_CAPTURES: usize = 32;

/// What to capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureRequest {
    /// Names of the ports; empty: all, also those added later.
    pub ports: Vec<String>,
    /// Only this direction; `None`: both.
    pub direction: Option<Direction>,
    /// Bytes kept of each frame, 14–65535.
    pub snaplen: u32,
}

/// A running capture; it ends when this is dropped.
#[derive(Debug)]
pub struct CaptureStream {
    tap: Arc<Tap>,
    state: Arc<State>,
}

impl CaptureStream {
    /// Waits up to `timeout` for frames and returns those that came, oldest first; an empty vector after a timeout.
    pub fn recv(&mut self, timeout: Duration) -> Vec<CapturedFrame> {
        self.tap.receive(timeout)
    }

    /// Frames that matched and were not captured because the reader was too slow, since the start.
    pub fn missed(&self) -> u64 {
        self.tap.missed()
    }
}

impl Drop for CaptureStream {
    fn drop(&mut self) {
        let mut control = self.state.lock();
        control.taps.retain(|tap| !Arc::ptr_eq(tap, &self.tap));
        self.state.publish(&mut control);
    }
}

/// A finding about the netdevs of a live port, for `doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetdevFinding {
    /// Port name.
    pub port: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// What control knows.
#[derive(Debug)]
struct Control {
    ports: BTreeMap<PortNo, LivePort>,
    bridge: BridgeSettings,
    fdb: Arc<Fdb>,
    /// Meters, rules and redirects.
    tables: Tables,
    components: Live,
    /// Numbers kept for ports that are configured and not up, with their names and queues.
    reserved: BTreeMap<PortNo, (String, u32)>,
    taps: Vec<Arc<Tap>>,
    /// Views that a worker may still have.
    old_views: Vec<Arc<View>>,
    epoch: u64,
    generation: u32,
    /// Counters of ports that are gone.
    retired: PortStats,
}

impl Control {
    fn find(&self, name: &str) -> Result<&LivePort, Error> {
        self.ports.values().find(|port| port.spec.name == name).ok_or_else(|| no_port(name))
    }

    fn number(&self, name: &str) -> Result<PortNo, Error> {
        self.find(name).map(|port| port.shared.no)
    }

    /// The number of a port that the bridge has.
    fn bridged(&self, name: &str) -> Result<PortNo, Error> {
        let port = self.find(name)?;
        match &port.spec.spp {
            None => Ok(port.shared.no),
            Some(spp) => Err(Error::invalid(format!(
                "port `{name}` is {spp}, which is for components: the bridge neither gets its frames nor sends to it"
            ))),
        }
    }

    fn name_of(&self, no: PortNo) -> String {
        self.ports.get(&no).map_or_else(|| format!("vport {no}"), |port| port.spec.name.clone())
    }
}

fn no_port(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no port `{name}`"))
}

/// The parts that the clock thread and captures share with the `Switch`.
#[derive(Debug)]
struct State {
    settings: DataplaneSettings,
    /// Where guests' ends are pinned, if they can be opened at all.
    pins: Option<PinPlace>,
    shared: Arc<Shared>,
    sharers: UmemSharers,
    gate: Arc<TapGate>,
    control: Mutex<Control>,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Builds the view that `control` describes and puts it in place.
    fn publish(&self, control: &mut Control) {
        control.epoch += 1;
        let view = build_view(control);
        self.put(control, view);
    }

    /// Puts a view in place, and lets go of old ones that no worker has any more. The workers must not be the last to have
    /// one: they would spend their time on freeing it.
    fn put(&self, control: &mut Control, view: View) {
        control.old_views.push(self.shared.publish(view));
        self.forget_views(control);
    }

    fn forget_views(&self, control: &mut Control) {
        let oldest = self.shared.oldest_epoch();
        control.old_views.retain(|view| view.snapshot.epoch >= oldest);
    }
}

fn build_view(control: &Control) -> View {
    let policy = |port: &LivePort| PortPolicy {
        mac: port.spec.mac,
        mac_check: port.spec.mac_check.unwrap_or(false),
        isolated: port.spec.isolated,
        vlan: port.spec.vlan.clone().unwrap_or(VlanMode::Access { vid: 0 }),
        mtu: port.spec.mtu.unwrap_or(DEFAULT_MTU),
        fdb_limit: port.spec.fdb_limit.unwrap_or(u32::MAX),
    };
    let bridge = BridgePolicy { forward_reserved: control.bridge.forward_reserved };
    let bridged = control.ports.iter().filter(|(_, port)| port.shared.bridged);
    let policies = bridged.map(|(&no, port)| (no, policy(port))).collect();
    let slots = control.ports.keys().next_back().map_or(0, |&last| usize::from(last) + 1);
    let mut ports = vec![None; slots];
    let mut taps = if control.taps.is_empty() { Vec::new() } else { vec![Vec::new(); slots] };
    for (&no, port) in &control.ports {
        ports[usize::from(no)] = Some(Arc::clone(&port.shared));
        if let Some(list) = taps.get_mut(usize::from(no)) {
            *list = control.taps.iter().filter(|tap| tap.covers(&port.spec.name)).cloned().collect();
        }
    }
    let snapshot = Snapshot::build(control.epoch, &bridge, policies);
    View {
        snapshot: tables::with_redirects(snapshot, &control.tables)
            .with_rules(control.epoch, control.tables.rules.current().clone()),
        ports_epoch: control.epoch,
        fdb: Arc::clone(&control.fdb),
        ports: ports.into(),
        meters: control.tables.meters.by_port(slots).into(),
        metered: control.tables.meters.any(),
        taps: taps.into(),
    }
}

/// A running data plane. All methods may be called from any thread; they block for milliseconds at most, but for
/// [`Switch::add_ports`] and [`Switch::del_port`], which wait for the kernel. None of them disturbs the packets of other ports.
#[derive(Debug)]
pub struct Switch {
    state: Arc<State>,
    threads: Threads,
}

impl Switch {
    /// Says whether it could be started with these settings, as far as that does not depend on the machine.
    pub fn check(settings: &DataplaneSettings, bridge: &BridgeSettings) -> Result<(), Error> {
        resolve::check_settings(settings)?;
        resolve::check_bridge(bridge)
    }

    /// Says whether these ports could be added together, as far as that does not depend on netdevs and on ports that are there; the
    /// error names the port.
    pub fn check_ports(settings: &DataplaneSettings, ports: &[PortSpec]) -> Result<(), Error> {
        resolve::check_ports(ports, settings.capacity.port_slots())
    }

    /// Makes UMEM and starts the workers. Without a place for pins no guest's end can be opened for AF_XDP sockets.
    pub fn start(settings: &DataplaneSettings, bridge: BridgeSettings, pins: Option<PinPlace>) -> Result<Self, Error> {
        Self::check(settings, &bridge)?;
        start::start(settings, bridge, pins)
    }

    /// Settings it was started with.
    pub fn settings(&self) -> &DataplaneSettings {
        &self.state.settings
    }

    /// Adds a port: makes or adopts its netdevs, binds sockets, attaches the XDP program last. On an error nothing is left.
    pub fn add_port(&self, spec: PortSpec) -> Result<PortInfo, Error> {
        let added = self.add_ports(vec![spec]).pop();
        added.unwrap_or_else(|| Err(Error::new(ErrorKind::System, "a port was neither added nor refused")))
    }

    /// Adds ports as [`Switch::add_port`] does, but several at a time, which saves most of the waiting for the kernel. What one
    /// gets does not depend on which is ready first: numbers go in the order of `specs`, and so do the results. One that fails
    /// stops none of the others.
    pub fn add_ports(&self, specs: Vec<PortSpec>) -> Vec<Result<PortInfo, Error>> {
        let mut control = self.state.lock();
        let added = bring_up::add(&self.state, &self.threads, &mut control, specs);
        ports::steer(&self.state, &control);
        ports::infos_of(&self.state, &control, added)
    }

    /// Removes a port: detaches first, brings its frames back, removes the veth pair if the switch made it. Its meter bindings
    /// and its redirect go with it. `Busy` if what would go to another port is redirected to it, or a component has it.
    pub fn del_port(&self, name: &str) -> Result<(), Error> {
        let mut control = self.state.lock();
        let no = control.number(name)?;
        control.tables.check_port_unused(no)?;
        control.components.check_port_unused(name)?;
        control.tables.forget_port(no);
        let removed = ports::remove(&self.state, &self.threads, &mut control, &[no]).pop();
        ports::steer(&self.state, &control);
        drop(control);
        if let Some((netdevs, guest_end)) = removed {
            if let Some(guest_end) = guest_end {
                guest_end.remove(name);
                if !netdevs.made {
                    guest_end::give_back(&netdevs);
                }
            }
            netdevs.remove();
        }
        Ok(())
    }

    /// Changes a live port. On an error nothing is changed.
    pub fn update_port(&self, name: &str, update: PortUpdate) -> Result<PortInfo, Error> {
        let mut control = self.state.lock();
        let no = control.number(name)?;
        ports::update(&self.state, &self.threads, &mut control, no, update)?;
        ports::steer(&self.state, &control);
        Ok(ports::info(&self.state, &control, &control.ports[&no]))
    }

    /// Live ports, by number.
    pub fn ports(&self) -> Vec<PortInfo> {
        let control = self.state.lock();
        let mut infos = ports::infos(&self.state, &control);
        let ask = AskBound::of(control.ports.values());
        drop(control);
        ask.fill(&mut infos);
        infos
    }

    /// The same but for `active_queues`, which takes a look into each guest's namespace.
    pub fn ports_in_brief(&self) -> Vec<PortInfo> {
        ports::infos(&self.state, &self.state.lock())
    }

    /// Numbers and names of live ports.
    pub fn port_names(&self) -> Vec<(u16, String)> {
        self.state.lock().ports.iter().map(|(&no, port)| (no, port.spec.name.clone())).collect()
    }

    /// One live port.
    pub fn port(&self, name: &str) -> Result<PortInfo, Error> {
        let control = self.state.lock();
        let port = control.find(name)?;
        let mut info = ports::info(&self.state, &control, port);
        let ask = AskBound::of([port]);
        drop(control);
        ask.fill(std::slice::from_mut(&mut info));
        Ok(info)
    }

    /// All counters.
    pub fn stats(&self) -> StatsReport {
        audit::stats(&self.state, &self.state.lock())
    }

    /// The workers.
    pub fn workers(&self) -> Vec<WorkerInfo> {
        audit::workers(&self.state, &self.state.lock())
    }

    /// Current bridge settings.
    pub fn bridge(&self) -> BridgeSettings {
        self.state.lock().bridge.clone()
    }

    /// Changes the bridge settings.
    pub fn set_bridge(&self, bridge: BridgeSettings) -> Result<(), Error> {
        resolve::check_bridge(&bridge)?;
        let mut control = self.state.lock();
        if bridge.fdb_limit != control.bridge.fdb_limit {
            control.fdb = Arc::new(control.fdb.resized(bridge.fdb_limit));
        }
        control.fdb.set_ageing(bridge.fdb_ageing_seconds);
        control.bridge = bridge;
        self.state.publish(&mut control);
        Ok(())
    }

    /// MAC table, by VLAN and address.
    pub fn fdb(&self) -> Vec<FdbEntry> {
        let control = self.state.lock();
        let mut rows = control.fdb.entries(self.state.now());
        rows.sort_by_key(|row| (row.vid, row.mac));
        let entry = |row: crate::engine::fdb::Row| FdbEntry {
            mac: row.mac,
            vlan: row.vid,
            port: control.name_of(row.port),
            kind: if row.is_static { FdbKind::Static } else { FdbKind::Learned },
            age_seconds: row.age,
        };
        rows.into_iter().map(entry).collect()
    }

    /// Adds a static row, or turns a learned one into it. A static row of another port is an error of kind `Exists`.
    pub fn fdb_add(&self, entry: &FdbSpec) -> Result<(), Error> {
        resolve::check_mac(entry.mac)?;
        resolve::check_vlan(&VlanMode::Access { vid: entry.vlan }).map_err(|_| {
            Error::invalid(format!(
                "vlan: {} is not a VLAN: 1 to 4094, or 0 for the untagged segment, are possible",
                entry.vlan
            ))
        })?;
        let control = self.state.lock();
        let no = control.bridged(&entry.port)?;
        let same = |row: &crate::engine::fdb::Row| row.is_static && row.mac == entry.mac && row.vid == entry.vlan;
        if let Some(row) = control.fdb.entries(self.state.now()).iter().find(|row| same(row))
            && row.port != no
        {
            return Err(Error::new(
                ErrorKind::Exists,
                format!(
                    "{} in VLAN {} is static on port `{}`: delete that first",
                    entry.mac,
                    entry.vlan,
                    control.name_of(row.port)
                ),
            ));
        }
        control.fdb.add_static(entry.mac, entry.vlan, no).map_err(|error| match error {
            StaticError::Full => {
                Error::new(ErrorKind::Full, "the MAC table is full of static rows: raise fdb_limit or delete some")
            }
            error => Error::invalid(error.to_string()),
        })?;
        ports::steer(&self.state, &control);
        Ok(())
    }

    /// Removes a row, static or learned.
    pub fn fdb_del(&self, mac: MacAddr, vlan: u16) -> Result<(), Error> {
        let control = self.state.lock();
        if !control.fdb.remove(mac, vlan) {
            return Err(Error::new(ErrorKind::NotFound, format!("the MAC table has no {mac} in VLAN {vlan}")));
        }
        ports::steer(&self.state, &control);
        Ok(())
    }

    /// Forgets learned rows, of one port or of all; returns how many.
    pub fn fdb_flush(&self, port: Option<&str>) -> Result<usize, Error> {
        let control = self.state.lock();
        let no = port.map(|name| control.number(name)).transpose()?;
        Ok(control.fdb.flush_learned(no))
    }

    /// Learns addresses that an earlier switch had learned, on ports of the same names, unless they were seen here already;
    /// returns how many.
    pub fn relearn(&self, rows: &[FdbEntry]) -> usize {
        let control = self.state.lock();
        let limit = |no| control.ports.get(&no).and_then(|port| port.spec.fdb_limit).unwrap_or(u32::MAX);
        let relearn = |row: &&FdbEntry| {
            let Ok(no) = control.bridged(&row.port) else { return false };
            if control.fdb.lookup(row.mac, row.vlan).is_some() {
                return false;
            }
            let learn = || control.fdb.learn(row.mac, row.vlan, no, limit(no), self.state.now());
            // Not while a worker learns, which takes a moment at most.
            let learned = (0..100).map(|_| learn()).find(|learned| *learned != Learn::Skipped);
            learned == Some(Learn::Learned)
        };
        let learned = rows.iter().filter(relearn).count();
        ports::steer(&self.state, &control);
        learned
    }

    /// Says what would happen to `frame` (Ethernet without FCS) coming in from `port` by that queue, which matters for ports of
    /// components only, and why the traffic rule `rule` does not apply to it, if it does not. Changes nothing.
    ///
    /// # Errors
    /// `NotFound`: there is no such port, or it has no such queue.
    pub fn trace(&self, port: &str, queue: u32, frame: &[u8], rule: Option<u32>) -> Result<TraceReport, Error> {
        let control = self.state.lock();
        let live = control.find(port)?;
        let queues = live.shared.queues.len();
        if queue as usize >= queues {
            let message = format!("port `{port}` has no queue {queue}: it has 0 to {}", queues - 1);
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        if !live.shared.bridged {
            return Ok(components::trace(&self.state, &control, &live.shared, queue, frame));
        }
        let no = live.shared.no;
        let view = self.state.shared.view.load_full();
        let input = trace::TraceInput {
            snapshot: &view.snapshot,
            fdb: &view.fdb,
            meters: &view.meters,
            now: self.state.now(),
            now_ns: self.state.shared.now_ns(),
            names: &|no| control.name_of(no),
            rule,
        };
        Ok(trace::trace(&input, no, frame))
    }

    /// Starts a capture.
    pub fn capture(&self, request: CaptureRequest) -> Result<CaptureStream, Error> {
        if !(14..=65_535).contains(&request.snaplen) {
            return Err(Error::invalid(format!(
                "snaplen: {} is out of range, 14 to 65535 are possible",
                request.snaplen
            )));
        }
        let mut control = self.state.lock();
        for name in &request.ports {
            control.find(name)?;
        }
        if control.taps.len() >= MAX_CAPTURES {
            return Err(Error::new(ErrorKind::Busy, format!("{MAX_CAPTURES} captures are running: end one first")));
        }
        let tap = Tap::new(request.ports, request.direction, request.snaplen as usize);
        control.taps.push(Arc::clone(&tap));
        self.state.publish(&mut control);
        self.state.shared.quiesce();
        Ok(CaptureStream { tap, state: Arc::clone(&self.state) })
    }

    /// Where the frames are. Nobody is stopped for it: those that move meanwhile are counted where they are when they are looked at.
    pub fn frames(&self) -> FramePlaces {
        audit::frames(&self.state)
    }

    /// Stops the workers between two bursts, counts the frames, lets them go on.
    pub fn audit(&self) -> FrameAudit {
        let control = self.state.lock();
        audit::audit(&self.state, &self.threads, &control)
    }

    /// Looks at the netdevs of all live ports: offloads that would break checksums, MTU, carrier, foreign programs.
    pub fn check_netdevs(&self) -> Vec<NetdevFinding> {
        let control = self.state.lock();
        let findings = |port: &LivePort| {
            let name = port.spec.name.clone();
            port.problems()
                .into_iter()
                .map(move |message| NetdevFinding { port: name.clone(), message })
                .collect::<Vec<_>>()
        };
        control.ports.values().flat_map(findings).collect()
    }

    /// Detaches all ports, brings their frames back and stops the workers; the netdevs stay, and so does what is on guests'
    /// ends. Dropping a `Switch` does the same.
    pub fn shutdown(self) {}
}

impl Drop for Switch {
    fn drop(&mut self) {
        let mut control = self.state.lock();
        components::end(&self.state, &mut control);
        let numbers: Vec<_> = control.ports.keys().copied().collect();
        ports::remove(&self.state, &self.threads, &mut control, &numbers);
        drop(control);
        self.threads.stop();
    }
}

/// The state as the clock thread holds it: it ends with the `Switch`.
type WeakState = Weak<State>;
