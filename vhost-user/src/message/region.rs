//! Memory that a front end shares: the guest's own, the log of written pages, requests in flight.
//!
//! These are descriptions. Who maps one must look at its descriptor first: it may be any kind of file, of any size.

use std::os::fd::OwnedFd;

/// Where a region of the guest's memory is. All fields are in bytes, and a front end may say anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RegionAddress {
    /// Where the guest sees it. Descriptors of rings and the log of written pages count from here.
    pub guest_addr: u64,
    /// Its length.
    pub size: u64,
    /// Where the front end sees it. Addresses of rings count from here.
    pub user_addr: u64,
    /// Where it begins in the file.
    pub mmap_offset: u64,
}

/// A region of the guest's memory.
#[derive(Debug)]
pub struct MemoryRegion {
    /// Where it is.
    pub address: RegionAddress,
    /// What to map.
    pub fd: OwnedFd,
}

/// The log of written pages: a bit for each 4,096 bytes of guest memory, from guest address 0.
#[derive(Debug)]
pub struct LogRegion {
    /// Its length in bytes.
    pub size: u64,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// What to map.
    pub fd: OwnedFd,
}

/// How the record of requests in flight is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InflightLayout {
    /// Its length in bytes. 0 in the question for a new one.
    pub size: u64,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// Rings that it has room for.
    pub rings: u16,
    /// Entries of each ring.
    pub ring_size: u16,
}

/// The record of requests in flight.
#[derive(Debug)]
pub struct InflightRegion {
    /// Its layout.
    pub layout: InflightLayout,
    /// What to map.
    pub fd: OwnedFd,
}
