//! The daemon's sockets: Unix sockets with their files, and HTTP routers served on them or on TCP.
//!
//! The limits of clients are set here, so that all transports have the same. Each socket has a number of places, of
//! which every peer gets its share ([`clients`]). Each connection has deadlines ([`Deadlines`]), and HTTP has time
//! limits for a head and a body. So slow, silent or half-open clients neither hold memory nor keep others out.
//!
//! A socket whose file was removed is made again ([`ApiSocket`]). All transports depend on this crate. Servers run on
//! the caller's tokio runtime.

pub mod clients;
pub mod config;
mod heap;
mod serve;
mod socket;
mod stream;

pub use self::serve::{BODY_TIMEOUT, MAX_CLIENTS, accept_tcp, accept_unix, serve, serve_tcp};
pub use self::socket::{ApiSocket, Kind, SocketType};
pub use self::stream::{Deadlines, Guarded};
