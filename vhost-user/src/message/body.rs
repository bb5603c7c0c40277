//! The fields of a message, taken one by one.

use std::os::fd::OwnedFd;

use thiserror::Error;

use super::{MAX_CONFIG, MAX_DESCRIPTORS};

/// Why a message is not a request. The stream can be read on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Invalid {
    /// The number of the request is not known.
    #[error("request {0} is not known")]
    Unknown(u32),
    /// The payload is too short or too long.
    #[error("{0} bytes of payload are not what this request has")]
    Size(usize),
    /// There are too few or too many descriptors.
    #[error("{0} descriptors are not what this request has")]
    Descriptors(usize),
    /// A memory table has too many regions.
    #[error("{0} regions, {MAX_DESCRIPTORS} are possible")]
    Regions(u32),
    /// A ring's index does not fit the 8 bits that the protocol has.
    #[error("ring {0} is out of range, 0 to 255 are possible")]
    Ring(u32),
    /// A piece of configuration space is too long, or its length is not that of the payload.
    #[error("{0} bytes of configuration space, 1 to {MAX_CONFIG} are possible, and as many as the message has")]
    Config(u32),
    /// A field has a value without a meaning.
    #[error("{field}: {value} has no meaning")]
    Value {
        /// Which field.
        field: &'static str,
        /// What it has.
        value: u64,
    },
}

/// What is left of a message.
#[derive(Debug)]
pub(super) struct Body<'a> {
    whole: usize,
    rest: &'a [u8],
    given: usize,
    fds: std::vec::IntoIter<OwnedFd>,
}

impl<'a> Body<'a> {
    pub(super) fn new(payload: &'a [u8], fds: Vec<OwnedFd>) -> Self {
        Self { whole: payload.len(), rest: payload, given: fds.len(), fds: fds.into_iter() }
    }

    /// Bytes that are left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn size_error(&self) -> Invalid {
        Invalid::Size(self.whole)
    }

    fn fd_error(&self) -> Invalid {
        Invalid::Descriptors(self.given)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Invalid> {
        let (field, rest) = self.rest.split_first_chunk().ok_or_else(|| self.size_error())?;
        self.rest = rest;
        Ok(*field)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Invalid> {
        self.array().map(u16::from_ne_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Invalid> {
        self.array().map(u32::from_ne_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Invalid> {
        self.array().map(u64::from_ne_bytes)
    }

    pub(super) fn mac(&mut self) -> Result<[u8; 6], Invalid> {
        let [mac @ .., _, _] = self.array::<8>()?;
        Ok(mac)
    }

    /// Takes all that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// A ring's index as a field of its own.
    pub(super) fn ring(&mut self) -> Result<u8, Invalid> {
        let index = self.u32()?;
        u8::try_from(index).map_err(|_| Invalid::Ring(index))
    }

    /// A ring's index in bits 0 to 7, and its event. Bit 8 says that there is none.
    pub(super) fn ring_event(&mut self) -> Result<(u8, Option<OwnedFd>), Invalid> {
        let [ring, flags, ..] = self.u64()?.to_le_bytes();
        let fd = if flags & 1 != 0 { None } else { Some(self.fd()?) };
        Ok((ring, fd))
    }

    pub(super) fn fd(&mut self) -> Result<OwnedFd, Invalid> {
        self.fds.next().ok_or_else(|| self.fd_error())
    }

    /// Closes a descriptor that may be there and is of no use.
    pub(super) fn ignore_fd(&mut self) {
        drop(self.fds.next());
    }

    pub(super) fn has_fd(&self) -> bool {
        self.fds.len() > 0
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), Invalid> {
        if !self.rest.is_empty() {
            return Err(self.size_error());
        }
        if self.fds.len() > 0 {
            return Err(self.fd_error());
        }
        Ok(())
    }
}
