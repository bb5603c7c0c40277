//! Sockets by path, server and client. Nothing here waits.
//!
//! A device is either. As the server it makes the socket's file and keeps it while front ends come and go. As the
//! client it connects to the front end's file, again and again until it is there; how often is the caller's choice.
//!
//! **One front end at a time.** A server takes one connection. While it has it, others are turned away at once: the
//! connection is closed. Otherwise a front end would wait for an answer that does not come, and QEMU waits before it
//! starts its guest. Those that want to wait connect again (`reconnect-ms` of QEMU).
//!
//! The end of a connection and the next one may come together, if a guest is started anew. So a server looks whether
//! its front end has hung up before it turns the next one away.

pub mod account;
mod client;
mod file;
mod listener;
mod place;
#[cfg(test)]
mod tests;

pub use client::{ConnectError, connect};
pub use file::Access;
pub use listener::{BindError, Listener};
pub use place::{AccessError, Place, Role};
