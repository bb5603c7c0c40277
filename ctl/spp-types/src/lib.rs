//! Types of the Soft Patch Panel's API: names of ports and instances, what they do, and the whole state.
//!
//! [`save()`] writes a state as a recipe, [`topo`] as a graph. Both are pure functions of [`SppState`], shared by the
//! daemon and the command line. The crate depends on `model` and `ctl-types` only. It has no threads, files or sockets.
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
pub use self::port::{PortId, PortType, ShownPort};
pub use self::save::save;
pub use self::state::{FlowState, NamedPort, PortFlow, SppState};
pub use self::types::*;
pub use self::words::{compression_word, key_text, mac_text};
