//! Payloads and descriptors to requests.

use std::os::fd::OwnedFd;

use super::body::{Body, Invalid};
use super::code::Code;
use super::region::{InflightLayout, InflightRegion, LogRegion, MemoryRegion, RegionAddress};
use super::request::{Request, RingAddresses};
use super::{MAX_CONFIG, MAX_DESCRIPTORS};

/// `VHOST_VRING_F_LOG`: writes to the used ring are logged.
const RING_LOG: u32 = 1 << 0;

/// Bytes that compilers put after the inflight description, whose fields are 20 bytes. QEMU and DPDK send them.
const INFLIGHT_PADDING: usize = 4;

/// The request with number `code`.
///
/// # Errors
/// If number, payload or descriptors are not those of a request. The descriptors are closed.
pub fn decode(code: u32, payload: &[u8], fds: Vec<OwnedFd>) -> Result<Request, Invalid> {
    let code = Code::of(code).ok_or(Invalid::Unknown(code))?;
    let mut body = Body::new(payload, fds);
    let request = fields(code, &mut body)?;
    body.end()?;
    Ok(request)
}

fn fields(code: Code, body: &mut Body<'_>) -> Result<Request, Invalid> {
    Ok(match code {
        Code::GetFeatures => Request::GetFeatures,
        Code::SetFeatures => Request::SetFeatures(body.u64()?),
        Code::SetOwner => Request::SetOwner,
        Code::ResetOwner => Request::ResetOwner,
        Code::SetMemTable => Request::SetMemTable(memory_table(body)?),
        Code::SetLogBase => Request::SetLogBase(log(body)?),
        Code::SetLogFd => Request::SetLogFd(body.fd()?),
        Code::SetVringNum => Request::SetVringNum { ring: body.ring()?, num: body.u32()? },
        Code::SetVringAddr => ring_addresses(body)?,
        Code::SetVringBase => Request::SetVringBase { ring: body.ring()?, base: body.u32()? },
        Code::GetVringBase => {
            let ring = body.ring()?;
            body.u32()?;
            Request::GetVringBase { ring }
        }
        Code::SetVringKick => {
            let (ring, fd) = body.ring_event()?;
            Request::SetVringKick { ring, fd }
        }
        Code::SetVringCall => {
            let (ring, fd) = body.ring_event()?;
            Request::SetVringCall { ring, fd }
        }
        Code::SetVringErr => {
            let (ring, fd) = body.ring_event()?;
            Request::SetVringErr { ring, fd }
        }
        Code::GetProtocolFeatures => Request::GetProtocolFeatures,
        Code::SetProtocolFeatures => Request::SetProtocolFeatures(body.u64()?),
        Code::GetQueueNum => Request::GetQueueNum,
        Code::SetVringEnable => Request::SetVringEnable { ring: body.ring()?, on: flag("enable", body.u32()?)? },
        Code::SendRarp => Request::SendRarp(body.mac()?),
        Code::NetSetMtu => Request::NetSetMtu(body.u64()?),
        Code::SetBackendReqFd => Request::SetBackendReqFd(body.fd()?),
        Code::GetConfig => {
            let (offset, flags, data) = config(body)?;
            let size = u32::try_from(data.len()).map_err(|_| body.size_error())?;
            Request::GetConfig { offset, size, flags }
        }
        Code::SetConfig => {
            let (offset, flags, data) = config(body)?;
            Request::SetConfig { offset, migration: flag("flags", flags)?, data: data.to_vec() }
        }
        Code::GetInflightFd => Request::GetInflightFd(inflight(body)?),
        Code::SetInflightFd => {
            let layout = inflight(body)?;
            Request::SetInflightFd(InflightRegion { layout, fd: body.fd()? })
        }
        Code::ResetDevice => Request::ResetDevice,
        Code::GetMaxMemSlots => Request::GetMaxMemSlots,
        Code::AddMemReg => {
            let address = single_region(body)?;
            Request::AddMemReg(MemoryRegion { address, fd: body.fd()? })
        }
        Code::RemMemReg => {
            let address = single_region(body)?;
            // Older front ends send one. The specification asks for tolerance.
            body.ignore_fd();
            Request::RemMemReg(address)
        }
        Code::SetStatus => Request::SetStatus(body.u64()?),
        Code::GetStatus => Request::GetStatus,
    })
}

fn flag(field: &'static str, value: u32) -> Result<bool, Invalid> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Invalid::Value { field, value: value.into() }),
    }
}

fn region(body: &mut Body<'_>) -> Result<RegionAddress, Invalid> {
    let (guest_addr, size, user_addr, mmap_offset) = (body.u64()?, body.u64()?, body.u64()?, body.u64()?);
    Ok(RegionAddress { guest_addr, size, user_addr, mmap_offset })
}

/// A region behind 8 bytes of padding.
fn single_region(body: &mut Body<'_>) -> Result<RegionAddress, Invalid> {
    body.u64()?;
    region(body)
}

fn memory_table(body: &mut Body<'_>) -> Result<Vec<MemoryRegion>, Invalid> {
    let count = body.u32()?;
    body.u32()?;
    if usize::try_from(count).is_ok_and(|count| count > MAX_DESCRIPTORS) {
        return Err(Invalid::Regions(count));
    }
    (0..count).map(|_| Ok(MemoryRegion { address: region(body)?, fd: body.fd()? })).collect()
}

/// With shared memory these are size and offset. Without, it is an address of the front end, which is of no use here.
fn log(body: &mut Body<'_>) -> Result<Option<LogRegion>, Invalid> {
    let size = body.u64()?;
    if body.left() == 0 && !body.has_fd() {
        return Ok(None);
    }
    let offset = body.u64()?;
    Ok(if body.has_fd() { Some(LogRegion { size, offset, fd: body.fd()? }) } else { None })
}

fn ring_addresses(body: &mut Body<'_>) -> Result<Request, Invalid> {
    let (ring, flags) = (body.ring()?, body.u32()?);
    let (descriptors, used, available, log) = (body.u64()?, body.u64()?, body.u64()?, body.u64()?);
    let log = (flags & RING_LOG != 0).then_some(log);
    Ok(Request::SetVringAddr { ring, addresses: RingAddresses { descriptors, available, used, log } })
}

/// Offset, flags and the bytes. Their number is a field too. A question has as many bytes as the answer will have.
fn config<'a>(body: &mut Body<'a>) -> Result<(u32, u32, &'a [u8]), Invalid> {
    let (offset, size, flags) = (body.u32()?, body.u32()?, body.u32()?);
    let data = body.rest();
    if size == 0 || size > MAX_CONFIG || usize::try_from(size) != Ok(data.len()) {
        return Err(Invalid::Config(size));
    }
    Ok((offset, flags, data))
}

fn inflight(body: &mut Body<'_>) -> Result<InflightLayout, Invalid> {
    let (size, offset, rings, ring_size) = (body.u64()?, body.u64()?, body.u16()?, body.u16()?);
    if body.left() == INFLIGHT_PADDING {
        body.u32()?;
    }
    Ok(InflightLayout { size, offset, rings, ring_size })
}
