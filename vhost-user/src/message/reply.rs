//! What goes back to the front end.

use std::os::fd::OwnedFd;

use super::code::Code;
use super::header;
use super::region::{InflightLayout, InflightRegion};

/// A reply, ready to be sent.
#[derive(Debug)]
pub struct Reply {
    /// Header and payload.
    pub bytes: Vec<u8>,
    /// A descriptor that goes along.
    pub fd: Option<OwnedFd>,
}

impl Reply {
    fn new(code: u32, payload: &[u8]) -> Self {
        Self { bytes: header::reply(code, payload), fd: None }
    }

    /// A number, which answers most questions.
    pub fn number(code: u32, number: u64) -> Self {
        Self::new(code, &number.to_ne_bytes())
    }

    /// An acknowledgement (`REPLY_ACK`): was the request carried out?
    pub fn acknowledgement(code: u32, done: bool) -> Self {
        Self::number(code, u64::from(!done))
    }

    /// Where a ring was stopped.
    pub fn ring_base(ring: u8, base: u32) -> Self {
        let payload = [u32::from(ring).to_ne_bytes(), base.to_ne_bytes()].concat();
        Self::new(Code::GetVringBase.number(), &payload)
    }

    /// A piece of the configuration space.
    pub fn config(offset: u32, flags: u32, data: &[u8]) -> Self {
        // At most `MAX_CONFIG` bytes.
        let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let mut payload = [offset, size, flags].map(u32::to_ne_bytes).concat();
        payload.extend_from_slice(data);
        Self::new(Code::GetConfig.number(), &payload)
    }

    /// There is no such piece: an empty payload means an error.
    pub fn no_config() -> Self {
        Self::new(Code::GetConfig.number(), &[])
    }

    /// A record of requests in flight, or none. The payload gets `len` bytes: front ends differ in the padding, and
    /// expect what they sent.
    pub fn inflight(region: Option<InflightRegion>, len: usize) -> Self {
        let none = InflightLayout { size: 0, offset: 0, rings: 0, ring_size: 0 };
        let (layout, fd) = region.map_or((none, None), |region| (region.layout, Some(region.fd)));
        let mut payload = [layout.size, layout.offset].map(u64::to_ne_bytes).concat();
        payload.extend([layout.rings, layout.ring_size].map(u16::to_ne_bytes).concat());
        payload.resize(len.max(payload.len()), 0);
        Self { fd, ..Self::new(Code::GetInflightFd.number(), &payload) }
    }
}
