//! Requests of virtio-blk (virtio 1.2, 5.2.6): what a guest asks for, and whether it may.
//!
//! All of this is pure: a chain of buffers in, a [`Command`] out. Nothing is believed that the guest says. Each field
//! is read once. A request may lie in its buffers in any way: the header is the first 16 bytes to read, and the status
//! is the last byte to write.

#[cfg(test)]
mod tests;

use vhost_user::memory::GuestSlice;
use vhost_user::ring::Chain;

use crate::config::{DISCARD, MAX_DISCARD_SECTORS, MAX_SEGMENTS, MAX_ZEROES_SECTORS, WRITE_ZEROES};

/// Bytes of a sector. The protocol counts in these, whatever the block size is.
pub const SECTOR: u64 = 512;
/// Bytes of the header.
const HEADER: usize = 16;
/// Bytes of a segment of DISCARD and WRITE_ZEROES.
const SEGMENT: usize = 16;
/// Bytes of a disk's name for GET_ID.
pub const ID_LEN: usize = 20;
/// Flag of a segment: the range need not stay allocated.
const UNMAP: u32 = 1;

/// Types of requests.
mod kind {
    pub const READ: u32 = 0;
    pub const WRITE: u32 = 1;
    pub const FLUSH: u32 = 4;
    pub const GET_ID: u32 = 8;
    pub const DISCARD: u32 = 11;
    pub const WRITE_ZEROES: u32 = 13;
}

/// What a guest is told of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// It is done.
    Ok = 0,
    /// It failed, or was none.
    IoError = 1,
    /// The device has no such request.
    Unsupported = 2,
}

/// What requests are held to.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Bytes of the disk.
    pub capacity: u64,
    /// Bytes of a block: requests begin and end at multiples.
    pub block: u32,
    /// Nothing is written.
    pub read_only: bool,
    /// Virtio features that were negotiated.
    pub features: u64,
}

/// Part of a disk, in bytes. It is within the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub at: u64,
    /// Number of bytes.
    pub len: u64,
    /// The range need not stay allocated.
    pub unmap: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read `len` bytes at `at`.
    Read {
        /// First byte.
        at: u64,
        /// Number of bytes.
        len: u32,
    },
    /// Write `len` bytes at `at`.
    Write {
        /// First byte.
        at: u64,
        /// Number of bytes.
        len: u32,
    },
    /// Make durable what was written.
    Flush,
    /// Tell the disk's name.
    Identify,
    /// The ranges' bytes are not needed any more.
    Discard,
    /// The ranges' bytes are zeroes.
    WriteZeroes,
}

/// Why a request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no room for a status: the guest can't be told.
    NoStatus,
    /// The guest is told this.
    Status(Status),
}

const IO_ERROR: Refused = Refused::Status(Status::IoError);
const UNSUPPORTED: Refused = Refused::Status(Status::Unsupported);

impl Rules {
    /// The bytes of some sectors, if the disk has them and they are whole blocks.
    fn range(&self, sector: u64, len: u64) -> Result<u64, Refused> {
        let at = sector.checked_mul(SECTOR).ok_or(IO_ERROR)?;
        let end = at.checked_add(len).ok_or(IO_ERROR)?;
        let block = u64::from(self.block);
        let fits = end <= self.capacity && at.is_multiple_of(block) && len.is_multiple_of(block);
        if fits { Ok(at) } else { Err(IO_ERROR) }
    }

    fn writable(&self) -> Result<(), Refused> {
        if self.read_only { Err(IO_ERROR) } else { Ok(()) }
    }
}

/// Reads a request. The ranges of DISCARD and WRITE_ZEROES go into `ranges`, whose content is replaced.
///
/// # Errors
/// The request is none, or may not be.
pub fn parse(chain: &Chain<'_>, rules: &Rules, ranges: &mut Vec<Range>) -> Result<Command, Refused> {
    ranges.clear();
    let Some(room) = chain.writable_len().checked_sub(1) else { return Err(Refused::NoStatus) };
    let header: [u8; HEADER] = chain.reader().read_array().ok_or(IO_ERROR)?;
    let [a, b, c, d, _, _, _, _, sector @ ..] = header;
    let (kind, sector) = (u32::from_le_bytes([a, b, c, d]), u64::from_le_bytes(sector));
    // A chain has less than 4 GiB.
    let length = |len: usize| u32::try_from(len).map_err(|_| IO_ERROR);
    match kind {
        kind::READ => {
            let len = length(room)?;
            Ok(Command::Read { at: rules.range(sector, len.into())?, len })
        }
        kind::WRITE => {
            rules.writable()?;
            let len = length(chain.readable_len() - HEADER)?;
            Ok(Command::Write { at: rules.range(sector, len.into())?, len })
        }
        kind::FLUSH => Ok(Command::Flush),
        kind::GET_ID => Ok(Command::Identify),
        kind::DISCARD if rules.features & DISCARD != 0 => {
            segments(chain, rules, ranges, 0, MAX_DISCARD_SECTORS).map(|()| Command::Discard)
        }
        kind::WRITE_ZEROES if rules.features & WRITE_ZEROES != 0 => {
            segments(chain, rules, ranges, UNMAP, MAX_ZEROES_SECTORS).map(|()| Command::WriteZeroes)
        }
        _ => Err(UNSUPPORTED),
    }
}

/// Reads the segments of DISCARD or WRITE_ZEROES. Nothing is done of a request of which one segment is wrong.
fn segments(
    chain: &Chain<'_>,
    rules: &Rules,
    ranges: &mut Vec<Range>,
    flags_allowed: u32,
    most: u32,
) -> Result<(), Refused> {
    rules.writable()?;
    let len = chain.readable_len() - HEADER;
    if len == 0 || !len.is_multiple_of(SEGMENT) || len / SEGMENT > MAX_SEGMENTS as usize {
        return Err(IO_ERROR);
    }
    let mut reader = chain.reader();
    let _header: Option<[u8; HEADER]> = reader.read_array();
    while let Some(segment) = reader.read_array::<SEGMENT>() {
        let [a, b, c, d, e, f, g, h, i, j, k, l, flags @ ..] = segment;
        let sector = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let (sectors, flags) = (u32::from_le_bytes([i, j, k, l]), u32::from_le_bytes(flags));
        if flags & !flags_allowed != 0 {
            return Err(UNSUPPORTED);
        }
        if sectors > most {
            return Err(IO_ERROR);
        }
        let len = u64::from(sectors) * SECTOR;
        let at = rules.range(sector, len)?;
        if len > 0 {
            ranges.push(Range { at, len, unmap: flags & UNMAP != 0 });
        }
    }
    Ok(())
}

/// Hands out the memory of a request's data, from byte `from` of it on, up to `len` bytes: what a write is to be read
/// from, or what a read is to be written to.
pub fn data<'a>(chain: &Chain<'a>, is_read: bool, from: usize, len: usize, mut each: impl FnMut(GuestSlice<'a>)) {
    let (slices, mut skip) = if is_read { (chain.writable(), from) } else { (chain.readable(), from + HEADER) };
    let mut left = len;
    for slice in slices {
        let rest = slice.after(skip);
        skip -= skip.min(slice.len());
        let part = rest.first(left);
        left -= part.len();
        if !part.is_empty() {
            each(part);
        }
        if left == 0 {
            break;
        }
    }
}

/// Tells the disk's name. Returns nothing: who asks with less room gets less.
pub fn identify(chain: &Chain<'_>, id: &[u8; ID_LEN]) {
    let room = chain.writable_len().saturating_sub(1).min(ID_LEN);
    chain.writer().write(&id[..room]);
}

/// Writes the status. The driver sees it when the chain is used.
pub fn answer(chain: &Chain<'_>, status: Status) {
    if let Some(last) = chain.writable().last() {
        last.after(last.len().saturating_sub(1)).write_array([status as u8]);
    }
}
