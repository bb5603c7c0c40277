//! The types of the management API beside those of [`model`]: entries, requests, findings, errors.
//!
//! The service takes and returns these types. Transports serialize them, and clients parse them. So this crate depends
//! on `model` only, and everything in `ctl/` may depend on it. It is plain data: no thread, no file, no socket.
//!
//! With feature `schema` the types have OpenAPI schemas.
#![forbid(unsafe_code)]

mod bond;
mod check;
mod config;
mod disk;
mod error;
mod link;
mod packet;
mod service;
pub mod table;

pub use self::bond::{BondEntry, NewBond};
pub use self::check::{Check, Status};
pub use self::config::{
    ConfigAction, ConfigChange, ConfigChanges, ConfigRequest, ConfigSection, FieldChange, MeterConfig, SwitchConfig,
};
pub use self::disk::{
    DiskCount, DiskEntry, DiskInfo, DiskLimits, DiskQueueStats, DiskRate, DiskSpec, DiskState, DiskStats,
    DiskTransport, DiskUpdate, PvfType,
};
pub use self::error::ErrorBody;
pub use self::link::LinkUpdate;
pub use self::packet::PacketSpec;
pub use self::service::{
    BridgeUpdate, Capability, FdbFilter, GuestHolder, GuestSocket, Page, PortEntry, PortState, RuleWrite, TraceRequest,
};
