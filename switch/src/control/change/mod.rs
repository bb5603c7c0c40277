//! Changes: each is checked whole, then made, then put in place as a view. A refused change leaves everything as it
//! was.

mod add;
mod components;
mod depth;
mod flows;
mod follow;
mod leftovers;
mod remove;
mod steer;
mod supply;
mod unique;
mod update;

pub(super) use self::add::{add_ports, before};
pub(super) use self::components::set_components;
pub(super) use self::depth::{SEND_GRACE, count_untaken};
pub(super) use self::flows::set_flow_rules;
pub(super) use self::follow::follow;
pub(super) use self::leftovers::clear_leftovers;
pub(super) use self::remove::remove_ports;
pub(super) use self::steer::steer;
pub(super) use self::update::{check_update, update_port};
