//! A fake data plane without netdevs and packets. Tests and fuzzing run the service and its transports on it.
//!
//! Meters, rules and redirects are in the switch's real tables, so they are checked as in operation. Ports, FDB and
//! components are plain lists. Lock order: tables before ports.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ctl_service::{Capture, Dataplane};
use switch::engine::tables::Tables;
use switch::model::*;
use switch::{CaptureRequest, Error, ErrorKind, GuestSockets, KeptTables, NetdevFinding, RuleUndo, resolve};

use crate::capture::Nothing;
use crate::components::FakeComponents;

/// A `phy` port on this netdev can't be brought up, until [`FakeDataplane::provided`] is set.
pub const MISSING_NETDEV: &str = "missing0";

#[derive(Debug, Default)]
struct Inner {
    ports: Vec<PortInfo>,
    fdb: Vec<FdbEntry>,
    bridge: BridgeSettings,
    reserved: Vec<(u16, String, u32)>,
    panel: FakeComponents,
}

/// Largest MTU of every port, in bytes.
const MAX_MTU: u32 = 3822;

/// The fake. It uses the switch's real tables, but has no packets.
#[derive(Debug)]
pub struct FakeDataplane {
    settings: DataplaneSettings,
    inner: Mutex<Inner>,
    tables: Mutex<Tables>,
    /// Whether [`MISSING_NETDEV`] exists.
    provided: Arc<AtomicBool>,
}

impl Default for FakeDataplane {
    fn default() -> Self {
        Self::with(Capacity::default())
    }
}

impl FakeDataplane {
    /// A fake with tables of that size.
    pub fn with(capacity: Capacity) -> Self {
        let settings = DataplaneSettings { capacity, ..DataplaneSettings::default() };
        let tables = Mutex::new(Tables::new(capacity, 1));
        Self { settings, inner: Mutex::default(), tables, provided: Arc::default() }
    }

    /// A flag that reads and sets whether [`MISSING_NETDEV`] exists.
    pub fn provided(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.provided)
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of queues of a port that is up or reserved.
    fn queues(&self, no: u16) -> Option<u32> {
        let inner = self.lock();
        let live =
            inner.ports.iter().find(|port| port.vport == no).and_then(|port| u32::try_from(port.queues.len()).ok());
        live.or_else(|| inner.reserved.iter().find(|port| port.0 == no).map(|port| port.2))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn missing(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no port `{name}`"))
}

impl Dataplane for FakeDataplane {
    fn settings(&self) -> &DataplaneSettings {
        &self.settings
    }

    fn add_port(&self, mut spec: PortSpec) -> Result<PortInfo, Error> {
        let mut inner = self.lock();
        let kept = |no: u16| inner.reserved.iter().any(|port| port.0 == no && port.1 != spec.name);
        let taken = |no: u16| inner.ports.iter().any(|port| port.vport == no) || kept(no);
        spec = resolve::resolve(spec.clone(), self.settings.capacity.port_slots(), taken)?;
        if inner.ports.iter().any(|port| port.spec.name == spec.name) {
            return Err(Error::new(ErrorKind::Exists, "name: it is taken"));
        }
        if spec.ifname.as_deref() == Some(MISSING_NETDEV) && !self.provided.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::NotFound, "ifname: there is no netdev missing0 here"));
        }
        resolve::check_mtu(*spec.mtu.get_or_insert(DEFAULT_MTU), MAX_MTU, "packets don't exist")?;
        let queues = *spec.queues.get_or_insert(1);
        let mac = MacAddr::derived_from(spec.uuid());
        if spec.kind == PortKind::Guest {
            spec.mac.get_or_insert(mac);
        }
        let vport = spec.vport.unwrap_or_default();
        if spec.kind == PortKind::Guest {
            spec.guest_ifname.get_or_insert_with(|| format!("xg{vport}"));
        }
        inner.reserved.retain(|port| port.0 != vport);
        let info = PortInfo {
            spec,
            vport,
            ifindex: u32::from(vport) + 2,
            mode: Mode::Native,
            mode_reason: None,
            mac: Some(mac),
            link_up: true,
            max_mtu: MAX_MTU,
            queues: (0..queues).map(|queue| QueueInfo { queue, worker: 0, zero_copy: false }).collect(),
            active_queues: 0,
            fdb_entries: 0,
            guest_end: None,
        };
        inner.ports.push(info.clone());
        inner.ports.sort_by_key(|port| port.vport);
        Ok(info)
    }

    fn set_components(&self, components: Vec<ComponentSpec>) -> Result<(), Error> {
        self.lock().panel.components = components;
        Ok(())
    }

    fn components(&self) -> Vec<ComponentInfo> {
        self.lock().panel.components()
    }

    fn add_ring(&self, no: u32, _depth: u32) -> Result<(), Error> {
        self.lock().panel.add_ring(no)
    }

    fn del_ring(&self, no: u32) -> Result<(), Error> {
        self.lock().panel.del_ring(no)
    }

    fn add_outside(&self, no: u32, spec: OutsideSpec) -> Result<(), Error> {
        self.lock().panel.add_outside(no, spec)
    }

    fn del_outside(&self, no: u32) -> Result<(), Error> {
        self.lock().panel.del_outside(no)
    }

    fn outside(&self) -> Vec<OutsideInfo> {
        self.lock().panel.outside()
    }

    fn set_flow_rules(&self, port: &str, rules: Vec<FlowRule>) -> Result<(), Error> {
        let mut inner = self.lock();
        let queues = inner.ports.iter().find(|info| info.spec.name == port).map(|info| info.queues.len());
        let queues = queues.ok_or_else(|| missing(port))?;
        inner.panel.set_flow_rules(port, queues, rules)
    }

    fn flow_rules(&self, port: &str) -> Result<Vec<FlowRule>, Error> {
        let inner = self.lock();
        let there = inner.ports.iter().any(|info| info.spec.name == port);
        if there { Ok(inner.panel.flow_rules(port)) } else { Err(missing(port)) }
    }

    fn flow_counts(&self) -> Vec<FlowCount> {
        self.lock().panel.flow_counts()
    }

    fn ends(&self) -> Vec<EndInfo> {
        self.lock().panel.ends()
    }

    fn add_ports(&self, specs: Vec<PortSpec>) -> Vec<Result<PortInfo, Error>> {
        specs.into_iter().map(|spec| self.add_port(spec)).collect()
    }

    fn del_port(&self, name: &str) -> Result<(), Error> {
        // Lock order, as everywhere: tables before ports.
        let mut tables = self.tables();
        let mut inner = self.lock();
        let at = inner.ports.iter().position(|port| port.spec.name == name).ok_or_else(|| missing(name))?;
        let no = inner.ports[at].vport;
        tables.check_port_unused(no)?;
        tables.forget_port(no);
        inner.ports.remove(at);
        inner.panel.forget_flow_rules(name);
        inner.fdb.retain(|row| row.port != name);
        Ok(())
    }

    fn update_port(&self, name: &str, update: PortUpdate) -> Result<PortInfo, Error> {
        let mut inner = self.lock();
        let port = inner.ports.iter_mut().find(|port| port.spec.name == name).ok_or_else(|| missing(name))?;
        update.mtu.map_or(Ok(()), |mtu| resolve::check_mtu(mtu, port.max_mtu, "packets don't exist"))?;
        update.mac.map_or(Ok(()), resolve::check_mac)?;
        update.queue_depth.map_or(Ok(()), resolve::check_depth)?;
        if update.queues.is_some_and(|queues| Some(queues) != port.spec.queues) {
            return Err(Error::new(ErrorKind::Unsupported, "queues: they are fixed"));
        }
        port.spec.queue_depth = update.queue_depth.or(port.spec.queue_depth);
        if let Some(open) = update.guest_sockets {
            port.spec.guest_sockets = open;
            port.guest_end = port.guest_end.take().filter(|_| open);
        }
        port.spec.mac = update.mac.or(port.spec.mac);
        port.spec.mtu = update.mtu.or(port.spec.mtu);
        port.spec.isolated = update.isolated.unwrap_or(port.spec.isolated);
        port.spec.vlan = update.vlan.or(port.spec.vlan.take());
        Ok(port.clone())
    }

    fn ports(&self) -> Vec<PortInfo> {
        self.lock().ports.clone()
    }

    fn ports_in_brief(&self) -> Vec<PortInfo> {
        self.ports()
    }

    fn port_names(&self) -> Vec<(u16, String)> {
        self.lock().ports.iter().map(|port| (port.vport, port.spec.name.clone())).collect()
    }

    fn port(&self, name: &str) -> Result<PortInfo, Error> {
        self.lock().ports.iter().find(|port| port.spec.name == name).cloned().ok_or_else(|| missing(name))
    }

    fn stats(&self) -> StatsReport {
        let port = |port: &PortInfo| PortStats {
            vport: port.vport,
            name: port.spec.name.clone(),
            rx: Count { packets: 3, bytes: 180 },
            tx: Count { packets: 2, bytes: 120 },
            drops: [("mac_spoofed".to_owned(), Count { packets: 1, bytes: 60 })].into(),
            queues: vec![QueueStats {
                xdp: [("redirect".to_owned(), 3)].into(),
                xsk: [("rx_ring_full".to_owned(), 0)].into(),
                ..QueueStats::default()
            }],
            ..PortStats::default()
        };
        let ports = self.lock().ports.iter().map(port).collect();
        let (running, ends, flow_rules) = (self.components(), self.ends(), self.flow_counts());
        StatsReport { ports, running, ends, flow_rules, ..StatsReport::default() }
    }

    fn workers(&self) -> Vec<WorkerInfo> {
        vec![WorkerInfo::default()]
    }

    fn bridge(&self) -> BridgeSettings {
        self.lock().bridge.clone()
    }

    fn set_bridge(&self, bridge: BridgeSettings) -> Result<(), Error> {
        resolve::check_bridge(&bridge)?;
        self.lock().bridge = bridge;
        Ok(())
    }

    fn fdb(&self) -> Vec<FdbEntry> {
        self.lock().fdb.clone()
    }

    fn fdb_add(&self, entry: &FdbSpec) -> Result<(), Error> {
        let mut inner = self.lock();
        if !inner.ports.iter().any(|port| port.spec.name == entry.port) {
            return Err(missing(&entry.port));
        }
        resolve::check_mac(entry.mac)?;
        inner.fdb.retain(|row| (row.mac, row.vlan) != (entry.mac, entry.vlan));
        let FdbSpec { mac, vlan, port } = entry.clone();
        inner.fdb.push(FdbEntry { mac, vlan, port, kind: FdbKind::Static, age_seconds: 0 });
        Ok(())
    }

    fn fdb_del(&self, mac: MacAddr, vlan: u16) -> Result<(), Error> {
        let mut inner = self.lock();
        let at = inner.fdb.iter().position(|row| (row.mac, row.vlan) == (mac, vlan));
        let at = at.ok_or_else(|| Error::new(ErrorKind::NotFound, "the MAC table has no such row"))?;
        inner.fdb.remove(at);
        Ok(())
    }

    fn fdb_flush(&self, _port: Option<&str>) -> Result<usize, Error> {
        Ok(0)
    }

    fn relearn(&self, rows: &[FdbEntry]) -> usize {
        self.lock().fdb.extend_from_slice(rows);
        rows.len()
    }

    /// A frame from a port of components ends there.
    fn trace(&self, port: &str, queue: u32, frame: &[u8], rule: Option<u32>) -> Result<TraceReport, Error> {
        let detail = format!("{} bytes from {port}", frame.len());
        let steps = vec![TraceStep { stage: "ingress".to_owned(), detail }];
        let inner = self.lock();
        let of_components = inner.ports.iter().any(|info| info.spec.name == port && info.spec.spp.is_some());
        let at = Some(EndPort::Port { name: port.to_owned(), queue: Some(queue) });
        let (components, reason, hex) = (Vec::new(), None, String::new());
        let end = TraceEnd { fate: TraceFate::Waiting, at, components, reason, hex };
        Ok(TraceReport {
            steps,
            verdict: "flood".to_owned(),
            outputs: Vec::new(),
            drop_reason: None,
            rule,
            mirror: None,
            ends: Vec::from_iter(of_components.then_some(end)),
        })
    }

    fn reserve_ports(&self, ports: Vec<(u16, String, u32)>) {
        self.lock().reserved = ports;
    }

    fn forget_port(&self, no: u16) -> Result<(), Error> {
        let mut tables = self.tables();
        tables.check_port_unused(no)?;
        tables.forget_port(no);
        self.lock().reserved.retain(|port| port.0 != no);
        Ok(())
    }

    fn restore_tables(&self, kept: KeptTables) -> Vec<String> {
        self.tables().restore(kept, 0)
    }

    fn port_slots(&self) -> u32 {
        u32::try_from(self.settings.capacity.port_slots()).unwrap_or(u32::MAX)
    }

    fn meter_usage(&self) -> Usage {
        self.tables().meters.usage()
    }

    fn add_meter(&self, spec: MeterSpec, implicit: bool) -> Result<(), Error> {
        self.tables().meters.add(spec, implicit, 0)
    }

    fn del_meter(&self, id: u32) -> Result<(), Error> {
        self.tables().meters.delete(id)
    }

    fn update_meter(&self, id: u32, update: &MeterUpdate) -> Result<MeterSpec, Error> {
        self.tables().meters.update(id, update, 0)
    }

    fn configure_meter(&self, spec: MeterSpec) -> Result<(), Error> {
        self.tables().meters.configure(spec, 0)
    }

    fn meter(&self, id: u32) -> Result<MeterInfo, Error> {
        self.tables().meters.info(id, &|no| self.queues(no))
    }

    fn meters(&self, from: u32, limit: usize) -> Vec<MeterInfo> {
        self.tables().meters.list(from, limit, &|no| self.queues(no))
    }

    fn set_meter_implicit(&self, id: u32, implicit: bool) {
        self.tables().meters.set_implicit(id, implicit);
    }

    fn bind_meter(&self, binding: &MeterBinding) -> Result<Option<u32>, Error> {
        self.tables().meters.bind(binding, &|no| self.queues(no))
    }

    fn unbind_meter(&self, vport: u16, direction: MeterDirection) -> Result<u32, Error> {
        self.tables().meters.unbind(vport, direction)
    }

    fn meter_bindings(&self) -> Vec<MeterBinding> {
        self.tables().meters.bindings()
    }

    fn rule_usage(&self) -> Usage {
        self.tables().rules.usage()
    }

    fn rules_applied(&self) -> Vec<(u32, Count)> {
        Vec::new()
    }

    fn rule_masks(&self) -> usize {
        self.tables().rules.current().masks()
    }

    fn free_rule(&self) -> Result<u32, Error> {
        self.tables().rules.first_free()
    }

    fn change_rules(&self, changes: Vec<RuleChange>) -> Result<RuleUndo, Error> {
        self.tables().change_rules(changes, &|no| self.queues(no))
    }

    fn undo_rules(&self, undo: RuleUndo) {
        self.tables().undo_rules(undo);
    }

    fn rule(&self, index: u32) -> Option<RuleInfo> {
        let tables = self.tables();
        tables.rules.current().get(index).map(|rule| RuleInfo { spec: rule.spec(), matched: rule.matched() })
    }

    fn rules(&self, from: u32, limit: usize) -> Vec<RuleInfo> {
        let rules = self.tables().rules.current().clone();
        let info =
            |rule: &std::sync::Arc<switch::engine::rule::Rule>| RuleInfo { spec: rule.spec(), matched: rule.matched() };
        rules.iter_from(from).take(limit).map(info).collect()
    }

    fn redirect(&self, spec: RedirectSpec) -> Result<Option<u16>, Error> {
        self.tables().redirects.set(spec, &|no| self.queues(no))
    }

    fn restore_redirect(&self, src: u16, dest: Option<u16>) {
        self.tables().redirects.put(src, dest);
    }

    fn redirects(&self) -> Vec<RedirectInfo> {
        let info = |(spec, ends_at)| RedirectInfo { spec, ends_at, redirected: Count::default() };
        self.tables().redirects.iter().map(info).collect()
    }

    fn open_guest_end(&self, name: &str) -> Result<GuestEndInfo, Error> {
        let mut inner = self.lock();
        let port = inner.ports.iter_mut().find(|port| port.spec.name == name).ok_or_else(|| missing(name))?;
        if port.spec.kind != PortKind::Guest {
            return Err(Error::new(ErrorKind::Unsupported, format!("port `{name}` is a phy")));
        }
        let queue = |info: &QueueInfo| GuestQueue { queue: info.queue, ..GuestQueue::default() };
        let end = GuestEndInfo {
            mode: Mode::Native,
            mode_reason: None,
            map_path: format!("/sys/fs/bpf/xswitch/fake/{}/sockets", port.vport),
            queues: port.queues.iter().map(queue).collect(),
        };
        port.spec.guest_sockets = true;
        Ok(port.guest_end.insert(end).clone())
    }

    /// Sockets of another family, so they look like AF_XDP sockets that are never bound.
    fn guest_sockets(&self, name: &str) -> Result<GuestSockets, Error> {
        let queues = self.open_guest_end(name)?.queues;
        let failed = |error: std::io::Error| Error::new(ErrorKind::System, error.to_string());
        let socket = |_: &GuestQueue| Ok(std::os::unix::net::UnixDatagram::unbound()?.into());
        let sockets = queues.iter().map(socket).collect::<std::io::Result<_>>().map_err(failed)?;
        let netns = std::fs::File::open("/proc/self/ns/net").map_err(failed)?;
        Ok(GuestSockets { sockets, netns: netns.into() })
    }

    fn withdraw_guest_sockets(&self, _name: &str) -> Result<(), Error> {
        Ok(())
    }

    fn return_guest_sockets(&self, _name: &str, _sockets: &[std::os::fd::OwnedFd]) -> Result<bool, Error> {
        Ok(true)
    }

    fn forget_stale_pins(&self) {}

    fn frames(&self) -> FramePlaces {
        FramePlaces { free: 1024, ..FramePlaces::default() }
    }

    fn audit(&self) -> FrameAudit {
        FrameAudit { frames: 1024, free: 1024, consistent: true, ..FrameAudit::default() }
    }

    fn check_netdevs(&self) -> Vec<NetdevFinding> {
        Vec::new()
    }

    fn capture(&self, request: CaptureRequest) -> Result<Box<dyn Capture>, Error> {
        let inner = self.lock();
        match request.ports.iter().find(|name| inner.ports.iter().all(|port| port.spec.name != **name)) {
            Some(name) => Err(missing(name)),
            None => Ok(Box::new(Nothing)),
        }
    }
}
