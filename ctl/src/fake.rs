//! A data plane of maps: no netdevs, no packets. The service and its transports are tried on it, by tests and by fuzzing.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use switch::model::*;
use switch::{CaptureRequest, Error, ErrorKind, NetdevFinding};

use crate::dataplane::{Capture, Dataplane};

/// Says of a `phy` port on this netdev that it can't be had.
pub const MISSING_NETDEV: &str = "missing0";

#[derive(Debug, Default)]
struct Inner {
    ports: Vec<PortInfo>,
    fdb: Vec<FdbEntry>,
    bridge: BridgeSettings,
}

/// The fake.
#[derive(Debug, Default)]
pub struct FakeDataplane {
    settings: DataplaneSettings,
    inner: Mutex<Inner>,
}

impl FakeDataplane {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn missing(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no port `{name}`"))
}

struct Nothing;

impl Capture for Nothing {
    fn receive(&mut self, timeout: Duration) -> Vec<CapturedFrame> {
        std::thread::sleep(timeout.min(Duration::from_millis(1)));
        Vec::new()
    }

    fn missed(&self) -> u64 {
        0
    }
}

impl Dataplane for FakeDataplane {
    fn settings(&self) -> &DataplaneSettings {
        &self.settings
    }

    fn add_port(&self, mut spec: PortSpec) -> Result<PortInfo, Error> {
        let mut inner = self.lock();
        if spec.ifname.as_deref() == Some(MISSING_NETDEV) {
            return Err(Error::new(ErrorKind::NotFound, "ifname: there is no netdev missing0 here"));
        }
        if spec.name.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "name: it is empty"));
        }
        if inner.ports.iter().any(|port| port.spec.name == spec.name) {
            return Err(Error::new(ErrorKind::Exists, "name: it is taken"));
        }
        let taken = |no: u16| inner.ports.iter().any(|port| port.vport == no);
        let vport = match spec.vport {
            Some(no) if taken(no) => return Err(Error::new(ErrorKind::Exists, "vport: it is taken")),
            Some(no) => no,
            None => (0..).find(|&no| !taken(no)).unwrap_or(0),
        };
        spec.vport = Some(vport);
        let info = PortInfo {
            spec,
            vport,
            ifindex: u32::from(vport) + 2,
            mode: Mode::Native,
            mode_reason: None,
            link_up: true,
            max_mtu: 3822,
            queues: vec![QueueInfo { queue: 0, worker: 0, zero_copy: false }],
            fdb_entries: 0,
        };
        inner.ports.push(info.clone());
        inner.ports.sort_by_key(|port| port.vport);
        Ok(info)
    }

    fn del_port(&self, name: &str) -> Result<(), Error> {
        let mut inner = self.lock();
        let at = inner.ports.iter().position(|port| port.spec.name == name).ok_or_else(|| missing(name))?;
        inner.ports.remove(at);
        inner.fdb.retain(|row| row.port != name);
        Ok(())
    }

    fn update_port(&self, name: &str, update: PortUpdate) -> Result<PortInfo, Error> {
        let mut inner = self.lock();
        let port = inner.ports.iter_mut().find(|port| port.spec.name == name).ok_or_else(|| missing(name))?;
        if update.mtu.is_some_and(|mtu| mtu > port.max_mtu) {
            return Err(Error::new(ErrorKind::Invalid, "mtu: it is out of range"));
        }
        port.spec.mtu = update.mtu.or(port.spec.mtu);
        port.spec.isolated = update.isolated.unwrap_or(port.spec.isolated);
        port.spec.vlan = update.vlan.or(port.spec.vlan.take());
        Ok(port.clone())
    }

    fn ports(&self) -> Vec<PortInfo> {
        self.lock().ports.clone()
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
        StatsReport { ports: self.lock().ports.iter().map(port).collect(), ..StatsReport::default() }
    }

    fn workers(&self) -> Vec<WorkerInfo> {
        vec![WorkerInfo::default()]
    }

    fn bridge(&self) -> BridgeSettings {
        self.lock().bridge.clone()
    }

    fn set_bridge(&self, bridge: BridgeSettings) -> Result<(), Error> {
        if bridge.fdb_limit < 16 {
            return Err(Error::new(ErrorKind::Invalid, "fdb_limit: it is out of range"));
        }
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
        if !entry.mac.is_unicast() {
            return Err(Error::new(ErrorKind::Invalid, "mac: it is not unicast"));
        }
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

    fn trace(&self, port: &str, frame: &[u8]) -> Result<TraceReport, Error> {
        let detail = format!("{} bytes from {port}", frame.len());
        let steps = vec![TraceStep { stage: "ingress".to_owned(), detail }];
        Ok(TraceReport { steps, verdict: "flood".to_owned(), outputs: Vec::new(), drop_reason: None })
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
