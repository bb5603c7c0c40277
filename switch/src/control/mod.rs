//! Control: the ports, the tables and the components of a running switch, and their changes.
//!
//! All that control knows lies behind one lock ([`state`]), which no worker ever takes. What stands beside the lock
//! is the same from start to end ([`core`]). A port is brought up from the outside in: netdevs, program loaded,
//! queues supplied, program attached, view, workers. It is taken down the other way round. Each step waits until
//! the other side has let go. So a frame is never where nobody looks for it, and what a later port of the same
//! number gets was never meant for this one.
//!
//! Modules depend on those before them only:
//!
//! | modules | what they are |
//! | --- | --- |
//! | `fields`, `feature_list`, `settings`, `resolve` | checks of what is asked for, and its defaults |
//! | `several`, `gate`, `workers`, `changes`, `core` | what stands beside the lock |
//! | `attach` | what ports have outside of the switch |
//! | `ports`, `host_addresses`, `sums`, `components`, `views`, `state` | what control knows |
//! | `change`, `report`, `flaps` | changes, and what is told |
//! | `clock`, `watcher`, `switch` | who asks for them |

mod attach;
mod change;
mod changes;
mod clock;
mod components;
mod core;
mod feature_list;
mod fields;
mod flaps;
mod gate;
mod host_addresses;
mod ports;
mod report;
mod resolve;
mod settings;
mod several;
mod state;
mod sums;
mod switch;
#[cfg(test)]
mod tests;
mod views;
mod watcher;
mod workers;

pub use self::attach::{frame_mtu, jumbo_mtu};
pub use self::changes::PortChange;
pub use self::fields::check_name;
pub use self::switch::{CaptureRequest, CaptureStream, NetdevFinding, Switch};
