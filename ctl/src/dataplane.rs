//! What the service needs of a data plane, so that it can be tried without one.

use std::time::Duration;

use switch::model::*;
use switch::{CaptureRequest, CaptureStream, Error, NetdevFinding, Switch};

/// A running capture.
pub trait Capture: Send {
    /// As [`CaptureStream::recv`].
    fn receive(&mut self, timeout: Duration) -> Vec<CapturedFrame>;
    /// As [`CaptureStream::missed`].
    fn missed(&self) -> u64;
}

impl Capture for CaptureStream {
    fn receive(&mut self, timeout: Duration) -> Vec<CapturedFrame> {
        self.recv(timeout)
    }

    fn missed(&self) -> u64 {
        CaptureStream::missed(self)
    }
}

macro_rules! dataplane {
    ($($(#[$doc:meta])* fn $name:ident(&self $(, $arg:ident: $type:ty)*) $(-> $result:ty)?;)*) => {
        /// The methods of [`Switch`] under the same names.
        pub trait Dataplane: Send + Sync {
            $($(#[$doc])* fn $name(&self $(, $arg: $type)*) $(-> $result)?;)*
            /// As [`Switch::capture`].
            fn capture(&self, request: CaptureRequest) -> Result<Box<dyn Capture>, Error>;
        }

        impl Dataplane for Switch {
            $(fn $name(&self $(, $arg: $type)*) $(-> $result)? {
                Switch::$name(self $(, $arg)*)
            })*
            fn capture(&self, request: CaptureRequest) -> Result<Box<dyn Capture>, Error> {
                Switch::capture(self, request).map(|stream| Box::new(stream) as Box<dyn Capture>)
            }
        }
    };
}

dataplane! {
    /// As [`Switch::settings`].
    fn settings(&self) -> &DataplaneSettings;
    /// As [`Switch::add_port`].
    fn add_port(&self, spec: PortSpec) -> Result<PortInfo, Error>;
    /// As [`Switch::del_port`].
    fn del_port(&self, name: &str) -> Result<(), Error>;
    /// As [`Switch::update_port`].
    fn update_port(&self, name: &str, update: PortUpdate) -> Result<PortInfo, Error>;
    /// As [`Switch::ports`].
    fn ports(&self) -> Vec<PortInfo>;
    /// As [`Switch::port`].
    fn port(&self, name: &str) -> Result<PortInfo, Error>;
    /// As [`Switch::stats`].
    fn stats(&self) -> StatsReport;
    /// As [`Switch::workers`].
    fn workers(&self) -> Vec<WorkerInfo>;
    /// As [`Switch::bridge`].
    fn bridge(&self) -> BridgeSettings;
    /// As [`Switch::set_bridge`].
    fn set_bridge(&self, bridge: BridgeSettings) -> Result<(), Error>;
    /// As [`Switch::fdb`].
    fn fdb(&self) -> Vec<FdbEntry>;
    /// As [`Switch::fdb_add`].
    fn fdb_add(&self, entry: &FdbSpec) -> Result<(), Error>;
    /// As [`Switch::fdb_del`].
    fn fdb_del(&self, mac: MacAddr, vlan: u16) -> Result<(), Error>;
    /// As [`Switch::fdb_flush`].
    fn fdb_flush(&self, port: Option<&str>) -> Result<usize, Error>;
    /// As [`Switch::trace`].
    fn trace(&self, port: &str, frame: &[u8]) -> Result<TraceReport, Error>;
    /// As [`Switch::audit`].
    fn audit(&self) -> FrameAudit;
    /// As [`Switch::check_netdevs`].
    fn check_netdevs(&self) -> Vec<NetdevFinding>;
}
