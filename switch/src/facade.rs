//! The running data plane as its manager sees it.

use std::time::Duration;

use crate::model::*;

/// What kind of error it is, for transports that map errors to codes of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Nothing of that name or number (ENOENT, HTTP 404).
    NotFound,
    /// Name, number or netdev taken (EEXIST, HTTP 409).
    Exists,
    /// A value out of range or combination that makes no sense (EINVAL, HTTP 400).
    Invalid,
    /// A table, the port numbers or the UMEM are used up (ENOSPC, HTTP 507).
    Full,
    /// In use by somebody else, such as a foreign XDP program or a bound queue (EBUSY, HTTP 409).
    Busy,
    /// Not possible on this port kind, driver or kernel (EOPNOTSUPP, HTTP 422).
    Unsupported,
    /// The system refused; the text says what to do (HTTP 500).
    System,
}

/// An error of the data plane: what is wrong and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// An error of that kind with that text.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Its kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

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
    _private: (),
}

impl CaptureStream {
    /// Waits up to `timeout` for frames and returns those that came, oldest first; an empty vector after a timeout.
    pub fn recv(&mut self, timeout: Duration) -> Vec<CapturedFrame> {
        let _ = timeout;
        unimplemented!()
    }

    /// Frames that matched and were not captured because the reader was too slow, since the start.
    pub fn missed(&self) -> u64 {
        unimplemented!()
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

/// A running data plane. All methods may be called from any thread; they block for milliseconds at most, but for
/// [`Switch::add_port`] and [`Switch::del_port`], which wait for the kernel. None of them disturbs the packets of other ports.
#[derive(Debug)]
pub struct Switch {
    _private: (),
}

impl Switch {
    /// Makes UMEM and starts the workers.
    pub fn start(settings: &DataplaneSettings, bridge: BridgeSettings) -> Result<Self, Error> {
        let _ = (settings, bridge);
        unimplemented!()
    }

    /// Settings it was started with.
    pub fn settings(&self) -> &DataplaneSettings {
        unimplemented!()
    }

    /// Adds a port: makes or adopts its netdevs, binds sockets, attaches the XDP program last. On an error nothing is left.
    pub fn add_port(&self, spec: PortSpec) -> Result<PortInfo, Error> {
        let _ = spec;
        unimplemented!()
    }

    /// Removes a port: detaches first, brings its frames back, removes the veth pair if it was made by [`Switch::add_port`].
    pub fn del_port(&self, name: &str) -> Result<(), Error> {
        let _ = name;
        unimplemented!()
    }

    /// Changes a live port. On an error nothing is changed.
    pub fn update_port(&self, name: &str, update: PortUpdate) -> Result<PortInfo, Error> {
        let _ = (name, update);
        unimplemented!()
    }

    /// Live ports, by number.
    pub fn ports(&self) -> Vec<PortInfo> {
        unimplemented!()
    }

    /// One live port.
    pub fn port(&self, name: &str) -> Result<PortInfo, Error> {
        let _ = name;
        unimplemented!()
    }

    /// All counters.
    pub fn stats(&self) -> StatsReport {
        unimplemented!()
    }

    /// The workers.
    pub fn workers(&self) -> Vec<WorkerInfo> {
        unimplemented!()
    }

    /// Current bridge settings.
    pub fn bridge(&self) -> BridgeSettings {
        unimplemented!()
    }

    /// Changes the bridge settings.
    pub fn set_bridge(&self, bridge: BridgeSettings) -> Result<(), Error> {
        let _ = bridge;
        unimplemented!()
    }

    /// MAC table, by VLAN and address.
    pub fn fdb(&self) -> Vec<FdbEntry> {
        unimplemented!()
    }

    /// Adds a static row, or turns a learned one into it. A static row of another port is an error of kind `Exists`.
    pub fn fdb_add(&self, entry: &FdbSpec) -> Result<(), Error> {
        let _ = entry;
        unimplemented!()
    }

    /// Removes a row, static or learned.
    pub fn fdb_del(&self, mac: MacAddr, vlan: u16) -> Result<(), Error> {
        let _ = (mac, vlan);
        unimplemented!()
    }

    /// Forgets learned rows, of one port or of all; returns how many.
    pub fn fdb_flush(&self, port: Option<&str>) -> Result<usize, Error> {
        let _ = port;
        unimplemented!()
    }

    /// Says what would happen to `frame` (Ethernet without FCS) coming in from `port`. Changes nothing.
    pub fn trace(&self, port: &str, frame: &[u8]) -> Result<TraceReport, Error> {
        let _ = (port, frame);
        unimplemented!()
    }

    /// Starts a capture.
    pub fn capture(&self, request: CaptureRequest) -> Result<CaptureStream, Error> {
        let _ = request;
        unimplemented!()
    }

    /// Stops the workers between two bursts, counts the frames, lets them go on.
    pub fn audit(&self) -> FrameAudit {
        unimplemented!()
    }

    /// Looks at the netdevs of all live ports: offloads that would break checksums, MTU, carrier, foreign programs.
    pub fn check_netdevs(&self) -> Vec<NetdevFinding> {
        unimplemented!()
    }

    /// Removes all ports as [`Switch::del_port`] does and stops the workers. Dropping a `Switch` does the same.
    pub fn shutdown(self) {}
}
