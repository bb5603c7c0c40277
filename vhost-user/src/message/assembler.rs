//! Puts messages together.

use std::os::fd::OwnedFd;

use super::MAX_DESCRIPTORS;
use super::body::Invalid;
use super::decode::decode;
use super::header::{HEADER_LEN, Header, MAX_PAYLOAD, Malformed};
use super::request::Request;

/// Puts messages together from the pieces of a stream.
///
/// It never asks for bytes beyond the message that it is at. The kernel hands out descriptors with the bytes that they
/// were sent with. So descriptors that come while a message is read belong to that message.
///
/// Invariants: `at < wanted`, and `wanted` is within `buffer`. It keeps one message and its descriptors, no more.
#[derive(Debug)]
pub struct Assembler {
    buffer: Box<[u8]>,
    /// Bytes that are there.
    at: usize,
    /// Bytes that have to be there for the next step: a header, or a message.
    wanted: usize,
    /// Known from when the header was complete.
    header: Option<Header>,
    fds: Vec<OwnedFd>,
}

/// A message.
#[derive(Debug)]
pub struct Message {
    /// The number of the request, known or not.
    pub code: u32,
    /// The front end waits for an acknowledgement.
    pub need_reply: bool,
    /// Bytes of payload. Replies to some requests have as many.
    pub size: usize,
    /// What is asked for, or why the message is none.
    pub request: Result<Request, Invalid>,
}

impl Default for Assembler {
    fn default() -> Self {
        let buffer = vec![0; HEADER_LEN + MAX_PAYLOAD].into();
        Self { buffer, at: 0, wanted: HEADER_LEN, header: None, fds: Vec::new() }
    }
}

impl Assembler {
    /// Where the next bytes go. It is never empty.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.at..self.wanted]
    }

    /// Nothing of a message is there.
    pub fn is_between_messages(&self) -> bool {
        self.at == 0
    }

    /// The first `count` bytes of the room were filled, and these descriptors came along. Gives the message that is
    /// complete with that.
    ///
    /// # Errors
    /// If this is no stream of messages. It can't be read on.
    pub fn advance(&mut self, count: usize, fds: Vec<OwnedFd>) -> Result<Option<Message>, Malformed> {
        if self.fds.len() + fds.len() > MAX_DESCRIPTORS {
            self.fds.clear();
            return Err(Malformed::TooManyDescriptors);
        }
        self.fds.extend(fds);
        self.at = self.wanted.min(self.at.saturating_add(count));
        if self.at < self.wanted {
            return Ok(None);
        }
        let header = match self.header {
            Some(header) => header,
            None => self.take_header()?,
        };
        if self.at < self.wanted {
            return Ok(None);
        }
        let request = decode(header.code, &self.buffer[HEADER_LEN..self.at], std::mem::take(&mut self.fds));
        self.start();
        Ok(Some(Message { code: header.code, need_reply: header.need_reply, size: header.size, request }))
    }

    fn take_header(&mut self) -> Result<Header, Malformed> {
        let bytes = self.buffer.first_chunk().copied().unwrap_or_default();
        let header = Header::of_request(bytes).inspect_err(|_| self.start())?;
        self.wanted += header.size;
        self.header = Some(header);
        Ok(header)
    }

    fn start(&mut self) {
        self.fds.clear();
        (self.at, self.wanted, self.header) = (0, HEADER_LEN, None);
    }
}
