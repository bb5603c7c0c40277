//! What the Soft Patch Panel's API speaks: names of ports and instances, what they do, what there is at one moment.
//!
//! [`save`] writes that as a recipe, [`topo`] as a graph. Both are pure functions of [`SppState`], for the daemon and the
//! command line alike. The crate depends on `model` and `ctl-types` only. It is plain data: no thread, no file, no socket.
//!
//! With feature `schema` the types have OpenAPI schemas.
#![forbid(unsafe_code)]

mod answer;
mod ends;
mod port;
mod save;
mod state;
pub mod topo;
mod types;
mod words;

pub use self::answer::{Answer, BOM, is_comment};
pub use self::ends::{MAX_CLIENT_ID, PCAP_ENDS, capture_end};
pub use self::port::{PortId, PortType};
pub use self::save::save;
pub use self::state::{FlowState, NamedPort, PortFlow, SppState};
pub use self::types::*;
pub use self::words::{compression_word, key_text, mac_text};
