//! The data plane of xswitch.
pub mod engine;
pub mod model;
mod facade;

pub use facade::{CaptureRequest, CaptureStream, Error, ErrorKind, NetdevFinding, Switch};
