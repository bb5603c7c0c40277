//! What manages the data plane: configuration, state, the service, its HTTP API, the Prometheus scrape and the command line.
//!
//! There is one [`service::Service`]; every transport calls it, and it alone changes anything. `xswitchd` puts it together
//! with a [`switch::Switch`], `xswitch` talks to it.
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
