//! Offload features and channels of a netdev, by the ethtool ioctl.
//!
//! A packet that a kernel stack sends over a veth keeps what a real NIC would have added: checksums are partial, VLAN tags lie
//! beside the data, segments are large. XDP sees bytes only, so a receiver behind an AF_XDP switch would get wrong checksums
//! and no tags. The cure is on the sending side: [`make_plain`] turns those offloads off there.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

const GDRVINFO: u32 = 0x03;
const GSTRINGS: u32 = 0x1b;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
const SFEATURES: u32 = 0x3b;
const GCHANNELS: u32 = 0x3c;
const SS_FEATURES: u32 = 4;
const STRING_LEN: usize = 32;

/// `struct ifreq` with a data pointer.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut u32,
    _pad: [u8; 16],
}

/// Hands a command block to the kernel, which reads and writes it in place.
///
/// `block` is as long as the command asks for: each caller sizes it by the command's structure.
fn ioctl(ifname: &str, block: &mut [u32]) -> Result<u32, Errno> {
    let mut request = Request { name: [0; libc::IFNAMSIZ], data: block.as_mut_ptr(), _pad: [0; 16] };
    if ifname.len() >= libc::IFNAMSIZ {
        return Err(Errno::ENODEV);
    }
    request.name[..ifname.len()].copy_from_slice(ifname.as_bytes());
    // SAFETY: no pointers; a non-negative result is a descriptor that nobody else owns.
    let socket = Errno::result(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: see above.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: `request` is an `ifreq` whose data points to a live block, sized by the caller for its command.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, std::ptr::from_mut(&mut request)) };
    Errno::result(result).map(|flags| flags as u32)
}

/// Whether a feature makes packets leave a stack in a form that only metadata explains.
fn hides_bytes(feature: &str) -> bool {
    let Some(kind) = feature.strip_prefix("tx-") else { return false };
    kind.starts_with("checksum-")
        || kind.ends_with("-hw-insert")
        || (kind.ends_with("segmentation") && kind != "generic-segmentation")
        || kind.contains("gso-")
}

fn feature_names(ifname: &str) -> Result<Vec<String>, Errno> {
    let mut info = [GSSET_INFO, 0, 1 << SS_FEATURES, 0, 0];
    ioctl(ifname, &mut info)?;
    let count = info[4] as usize;
    let mut block = vec![0; 3 + count * STRING_LEN / size_of::<u32>()];
    block[..3].copy_from_slice(&[GSTRINGS, SS_FEATURES, count as u32]);
    ioctl(ifname, &mut block)?;
    let bytes: Vec<u8> = block[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    Ok(bytes
        .chunks_exact(STRING_LEN)
        .map(|name| String::from_utf8_lossy(name.split(|&b| b == 0).next().unwrap_or_default()).into_owned())
        .collect())
}

/// Names of the features that hide bytes and are on.
pub fn hidden_bytes(ifname: &str) -> Result<Vec<String>, Errno> {
    let names = feature_names(ifname)?;
    let words = names.len().div_ceil(32);
    // Blocks of four words: available, requested, active, never changed.
    let mut block = vec![0; 2 + 4 * words];
    block[..2].copy_from_slice(&[GFEATURES, words as u32]);
    ioctl(ifname, &mut block)?;
    let is_active = |bit: usize| block[2 + 4 * (bit / 32) + 2] >> (bit % 32) & 1 != 0;
    Ok(names
        .into_iter()
        .enumerate()
        .filter(|(bit, name)| hides_bytes(name) && is_active(*bit))
        .map(|(_, name)| name)
        .collect())
}

/// Turns off every feature that hides bytes; returns those that stay on all the same.
pub fn make_plain(ifname: &str) -> Result<Vec<String>, Errno> {
    let names = feature_names(ifname)?;
    let words = names.len().div_ceil(32);
    // Blocks of two words: valid, requested.
    let mut block = vec![0; 2 + 2 * words];
    block[..2].copy_from_slice(&[SFEATURES, words as u32]);
    for (bit, _) in names.iter().enumerate().filter(|(_, name)| hides_bytes(name)) {
        block[2 + 2 * (bit / 32)] |= 1 << (bit % 32);
    }
    ioctl(ifname, &mut block)?;
    hidden_bytes(ifname)
}

/// Receive queues in use: the netdev's receive and combined channels. `None` if its driver has no channels to tell of.
pub fn rx_channels(ifname: &str) -> Option<u32> {
    // cmd, four maxima, then rx, tx, other, combined.
    let mut block = [GCHANNELS, 0, 0, 0, 0, 0, 0, 0, 0];
    ioctl(ifname, &mut block).ok()?;
    Some(block[5] + block[8]).filter(|&queues| queues > 0)
}

/// Name of the driver.
pub fn driver(ifname: &str) -> io::Result<String> {
    // `struct ethtool_drvinfo` is 196 bytes; the driver's name is the 32 bytes after the command.
    let mut block = [0; 49];
    block[0] = GDRVINFO;
    ioctl(ifname, &mut block)?;
    let bytes: Vec<u8> = block[1..9].iter().flat_map(|word| word.to_ne_bytes()).take_while(|&b| b != 0).collect();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_that_leave_bytes_out_are_told_from_those_that_do_not() {
        for on in ["tx-checksum-ip-generic", "tx-checksum-sctp", "tx-vlan-hw-insert", "tx-vlan-stag-hw-insert"] {
            assert!(hides_bytes(on), "{on}");
        }
        for on in
            ["tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-udp-segmentation", "tx-gso-partial", "tx-gso-list"]
        {
            assert!(hides_bytes(on), "{on}");
        }
        for off in
            ["tx-generic-segmentation", "tx-scatter-gather", "rx-checksum", "rx-vlan-hw-parse", "tx-nocache-copy"]
        {
            assert!(!hides_bytes(off), "{off}");
        }
    }
}
