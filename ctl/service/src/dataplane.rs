//! The data plane as a trait, so that the service can be tested without a real one.
//!
//! [`Switch`] is the real implementation. A macro writes each signature once, for the trait and for the implementation.
//! All methods may be called from any thread.

use std::os::fd::OwnedFd;
use std::time::Duration;

use switch::model::*;
use switch::{CaptureRequest, CaptureStream, Error, GuestSockets, KeptTables, NetdevFinding, RuleUndo, Switch};

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
    /// As [`Switch::add_ports`].
    fn add_ports(&self, specs: Vec<PortSpec>) -> Vec<Result<PortInfo, Error>>;
    /// As [`Switch::del_port`].
    fn del_port(&self, name: &str) -> Result<(), Error>;
    /// As [`Switch::update_port`].
    fn update_port(&self, name: &str, update: PortUpdate) -> Result<PortInfo, Error>;
    /// As [`Switch::ports`].
    fn ports(&self) -> Vec<PortInfo>;
    /// As [`Switch::ports_in_brief`].
    fn ports_in_brief(&self) -> Vec<PortInfo>;
    /// As [`Switch::port_names`].
    fn port_names(&self) -> Vec<(u16, String)>;
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
    /// As [`Switch::relearn`].
    fn relearn(&self, rows: &[FdbEntry]) -> usize;
    /// As [`Switch::trace`].
    fn trace(&self, port: &str, queue: u32, frame: &[u8], rule: Option<u32>) -> Result<TraceReport, Error>;
    /// As [`Switch::reserve_ports`].
    fn reserve_ports(&self, ports: Vec<(u16, String, u32)>);
    /// As [`Switch::forget_port`].
    fn forget_port(&self, no: u16) -> Result<(), Error>;
    /// As [`Switch::restore_tables`].
    fn restore_tables(&self, kept: KeptTables) -> Vec<String>;
    /// As [`Switch::port_slots`].
    fn port_slots(&self) -> u32;
    /// As [`Switch::meter_usage`].
    fn meter_usage(&self) -> Usage;
    /// As [`Switch::add_meter`].
    fn add_meter(&self, spec: MeterSpec, implicit: bool) -> Result<(), Error>;
    /// As [`Switch::del_meter`].
    fn del_meter(&self, id: u32) -> Result<(), Error>;
    /// As [`Switch::update_meter`].
    fn update_meter(&self, id: u32, update: &MeterUpdate) -> Result<MeterSpec, Error>;
    /// As [`Switch::configure_meter`].
    fn configure_meter(&self, spec: MeterSpec) -> Result<(), Error>;
    /// As [`Switch::meter`].
    fn meter(&self, id: u32) -> Result<MeterInfo, Error>;
    /// As [`Switch::meters`].
    fn meters(&self, from: u32, limit: usize) -> Vec<MeterInfo>;
    /// As [`Switch::set_meter_implicit`].
    fn set_meter_implicit(&self, id: u32, implicit: bool);
    /// As [`Switch::bind_meter`].
    fn bind_meter(&self, binding: &MeterBinding) -> Result<Option<u32>, Error>;
    /// As [`Switch::unbind_meter`].
    fn unbind_meter(&self, vport: u16, direction: MeterDirection) -> Result<u32, Error>;
    /// As [`Switch::meter_bindings`].
    fn meter_bindings(&self) -> Vec<MeterBinding>;
    /// As [`Switch::rule_usage`].
    fn rule_usage(&self) -> Usage;
    /// As [`Switch::rules_applied`].
    fn rules_applied(&self) -> Vec<(u32, Count)>;
    /// As [`Switch::rule_masks`].
    fn rule_masks(&self) -> usize;
    /// As [`Switch::free_rule`].
    fn free_rule(&self) -> Result<u32, Error>;
    /// As [`Switch::change_rules`].
    fn change_rules(&self, changes: Vec<RuleChange>) -> Result<RuleUndo, Error>;
    /// As [`Switch::undo_rules`].
    fn undo_rules(&self, undo: RuleUndo);
    /// As [`Switch::rule`].
    fn rule(&self, index: u32) -> Option<RuleInfo>;
    /// As [`Switch::rules`].
    fn rules(&self, from: u32, limit: usize) -> Vec<RuleInfo>;
    /// As [`Switch::redirect`].
    fn redirect(&self, spec: RedirectSpec) -> Result<Option<u16>, Error>;
    /// As [`Switch::restore_redirect`].
    fn restore_redirect(&self, src: u16, dest: Option<u16>);
    /// As [`Switch::redirects`].
    fn redirects(&self) -> Vec<RedirectInfo>;
    /// As [`Switch::open_guest_end`].
    fn open_guest_end(&self, name: &str) -> Result<GuestEndInfo, Error>;
    /// As [`Switch::guest_sockets`].
    fn guest_sockets(&self, name: &str) -> Result<GuestSockets, Error>;
    /// As [`Switch::withdraw_guest_sockets`].
    fn withdraw_guest_sockets(&self, name: &str) -> Result<(), Error>;
    /// As [`Switch::return_guest_sockets`].
    fn return_guest_sockets(&self, name: &str, sockets: &[OwnedFd]) -> Result<bool, Error>;
    /// As [`Switch::forget_stale_pins`].
    fn forget_stale_pins(&self);
    /// As [`Switch::frames`].
    fn frames(&self) -> FramePlaces;
    /// As [`Switch::audit`].
    fn audit(&self) -> FrameAudit;
    /// As [`Switch::set_components`].
    fn set_components(&self, components: Vec<ComponentSpec>) -> Result<(), Error>;
    /// As [`Switch::components`].
    fn components(&self) -> Vec<ComponentInfo>;
    /// As [`Switch::add_ring`].
    fn add_ring(&self, no: u32, depth: u32) -> Result<(), Error>;
    /// As [`Switch::del_ring`].
    fn del_ring(&self, no: u32) -> Result<(), Error>;
    /// As [`Switch::add_outside`].
    fn add_outside(&self, no: u32, spec: OutsideSpec) -> Result<(), Error>;
    /// As [`Switch::del_outside`].
    fn del_outside(&self, no: u32) -> Result<(), Error>;
    /// As [`Switch::outside`].
    fn outside(&self) -> Vec<OutsideInfo>;
    /// As [`Switch::set_flow_rules`].
    fn set_flow_rules(&self, port: &str, rules: Vec<FlowRule>) -> Result<(), Error>;
    /// As [`Switch::flow_rules`].
    fn flow_rules(&self, port: &str) -> Result<Vec<FlowRule>, Error>;
    /// As [`Switch::flow_counts`].
    fn flow_counts(&self) -> Vec<FlowCount>;
    /// As [`Switch::ends`].
    fn ends(&self) -> Vec<EndInfo>;
    /// As [`Switch::check_netdevs`].
    fn check_netdevs(&self) -> Vec<NetdevFinding>;
}
