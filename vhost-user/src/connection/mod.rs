//! A connection to a front end: whole messages in, replies out. Nothing here waits.
//!
//! - [`Connection`] is the stream. It reads a message at a time and keeps at most one reply that the front end has not
//!   taken yet. While it has one, it reads nothing. So a front end that sends and never reads is not served.
//! - [`FrontEnd`] is a connection with its session. This is what a device uses.
//! - [`BackendChannel`] is the other way: requests to the front end.
//!
//! All of them are used by one thread at a time. A thread with epoll may have any number. It waits for
//! [`Connection::events`], level-triggered, and asks for one message a turn, so that none takes the time of others.

mod backend_channel;
mod front_end;
mod receive;
mod stream;
#[cfg(test)]
mod tests;

pub use backend_channel::BackendChannel;
pub use front_end::FrontEnd;
pub use stream::{Connection, Ended};
