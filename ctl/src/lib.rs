//! Management of the data plane: configuration, state, service, HTTP API, gRPC interface and Prometheus endpoint.
//!
//! There is one [`service::Service`]. All transports call it, and it alone changes the data plane. `xswitchd` connects
//! it to a [`switch::Switch`], and `xswitch` is a client of its API.
#![forbid(unsafe_code)]

pub mod companion;
pub mod config;
pub mod daemon;
pub mod dataplane;
pub mod doctor;
pub mod error;
#[doc(hidden)]
pub mod fake;
pub mod grpc;
pub mod http;
pub mod metrics;
pub mod packet;
pub mod pcapng;
pub mod service;
pub mod spp;
pub mod state;
