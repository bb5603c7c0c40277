//! Requests that the back end makes, on the socket of `SET_BACKEND_REQ_FD`.

use super::header;

/// `VHOST_USER_BACKEND_CONFIG_CHANGE_MSG`.
const CONFIG_CHANGE: u32 = 2;

/// The configuration space has changed: the front end reads it again, and tells the guest. No reply is asked for.
pub fn config_change() -> Vec<u8> {
    header::request(CONFIG_CHANGE, &[])
}
