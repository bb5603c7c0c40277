//! The header that each message starts with.

use thiserror::Error;

use super::MAX_DESCRIPTORS;

/// Bytes of a header: request, flags and size of the payload.
pub const HEADER_LEN: usize = 12;

/// Bytes of payload that are read at most. The longest request for a net or block device has 268. The rest is room
/// for requests that are not known here, so that they can be skipped and refused.
pub const MAX_PAYLOAD: usize = 4096;

const VERSION: u32 = 1;
const VERSION_MASK: u32 = 0b11;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// The header of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which request it is. [`super::Code`] has those that are known.
    pub code: u32,
    /// The front end waits for an acknowledgement (`REPLY_ACK`).
    pub need_reply: bool,
    /// Bytes of payload that follow, at most [`MAX_PAYLOAD`].
    pub size: usize,
}

/// Why a stream can't be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The version is not 1.
    #[error("a message of version {0}, only version {VERSION} is known")]
    Version(u32),
    /// The reply flag is set, but nothing was asked.
    #[error("a reply to a question that was not asked")]
    Reply,
    /// The payload is too long.
    #[error("a message with {0} bytes of payload, {MAX_PAYLOAD} are possible")]
    TooLong(u32),
    /// More descriptors than any request has.
    #[error("a message with more than {MAX_DESCRIPTORS} descriptors")]
    TooManyDescriptors,
}

impl Header {
    /// Reads the header of a request.
    ///
    /// # Errors
    /// If version, reply flag or size are not those of a request.
    pub fn of_request(bytes: [u8; HEADER_LEN]) -> Result<Self, Malformed> {
        let [c0, c1, c2, c3, f0, f1, f2, f3, s0, s1, s2, s3] = bytes;
        let code = u32::from_ne_bytes([c0, c1, c2, c3]);
        let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
        let size = u32::from_ne_bytes([s0, s1, s2, s3]);
        if flags & VERSION_MASK != VERSION {
            return Err(Malformed::Version(flags & VERSION_MASK));
        }
        if flags & REPLY != 0 {
            return Err(Malformed::Reply);
        }
        let bytes = usize::try_from(size).ok().filter(|bytes| *bytes <= MAX_PAYLOAD);
        let size = bytes.ok_or(Malformed::TooLong(size))?;
        Ok(Self { code, need_reply: flags & NEED_REPLY != 0, size })
    }
}

/// The first bytes of a reply with that payload, and the payload.
pub(super) fn reply(code: u32, payload: &[u8]) -> Vec<u8> {
    framed(code, VERSION | REPLY, payload)
}

/// The same of a request that the back end makes.
pub(super) fn request(code: u32, payload: &[u8]) -> Vec<u8> {
    framed(code, VERSION, payload)
}

fn framed(code: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    // Payloads are made here, of some hundred bytes at most.
    let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
    for word in [code, flags, size] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(payload);
    bytes
}
