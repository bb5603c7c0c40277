//! Offload features and channels of a netdev, by the ethtool ioctl.
//!
//! A packet that a kernel stack sends over a veth lacks what a real NIC would add. Its checksums are partial, its VLAN
//! tag lies beside the data, and its segments are large. XDP sees bytes only. A receiver behind an AF_XDP switch would
//! get wrong checksums and no tags.
//!
//! So [`make_plain`] turns those offloads off at the sender.
#![allow(unsafe_code, reason = "system calls")]

use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::net::if_::{if_indextoname, if_nametoindex};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::host::MAX_IFNAME;

const GDRVINFO: u32 = 0x03;
const GSTRINGS: u32 = 0x1b;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
const SFEATURES: u32 = 0x3b;
const GCHANNELS: u32 = 0x3c;
const SS_FEATURES: u32 = 4;
/// Renames during one call after which it is given up.
const RENAMES: u32 = 8;
const STRING_LEN: usize = 32;
/// `u32` words of a name (`ETH_GSTRING_LEN`).
const STRING_WORDS: usize = STRING_LEN / size_of::<u32>();

/// Words of a block that the kernel reads or writes. The command is in the block's first word. `None` for an unknown
/// command.
///
/// Lengths follow the structures in `include/uapi/linux/ethtool.h`. The kernel writes all strings that it has, not as
/// many as it is asked for (`ethtool_get_strings`). The set of features is fixed when the kernel is built, so its size
/// does not change.
fn words_of(block: &[u32]) -> Option<usize> {
    let count = |words: usize| block.get(1).map(|&blocks| words.saturating_mul(blocks as usize));
    Some(match *block.first()? {
        GDRVINFO => 49,
        GCHANNELS => 9,
        // Two words hold the mask of wanted sets. One word for each wanted set follows.
        GSSET_INFO => 4 + block.get(2..4)?.iter().map(|mask| mask.count_ones() as usize).sum::<usize>(),
        GSTRINGS if block.get(1) == Some(&SS_FEATURES) => 3 + STRING_WORDS.saturating_mul(*block.get(2)? as usize),
        GFEATURES => count(4)?.saturating_add(2),
        SFEATURES => count(2)?.saturating_add(2),
        _ => return None,
    })
}

/// Hands a command block to the kernel, which reads and writes it in place.
///
/// The kernel takes a name, and the netdev may be renamed at any moment. So the name is looked up before and after.
///
/// # Errors
/// EINVAL if the block is too short for its command, or the command is unknown here. ENODEV if the netdev is gone.
fn ioctl(ifindex: u32, block: &mut [u32]) -> Result<(), Errno> {
    let asked = block.to_vec();
    for _ in 0..RENAMES {
        let name = if_indextoname(ifindex).map_err(|_| Errno::ENODEV)?;
        let name = name.to_string_lossy();
        block.copy_from_slice(&asked);
        let done = ioctl_by_name(&name, block);
        if if_nametoindex(&*name) == Ok(ifindex) {
            return done;
        }
    }
    Err(Errno::ENODEV)
}

/// The same by the name of the moment.
fn ioctl_by_name(ifname: &str, block: &mut [u32]) -> Result<(), Errno> {
    if words_of(block).is_none_or(|words| block.len() < words) {
        return Err(Errno::EINVAL);
    }
    if ifname.len() > MAX_IFNAME {
        return Err(Errno::ENODEV);
    }
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(ifname.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let data = libc::__c_anonymous_ifr_ifru { ifru_data: block.as_mut_ptr().cast() };
    let mut request = libc::ifreq { ifr_name: name, ifr_ifru: data };
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None::<SockProtocol>)?;
    // SAFETY: `request` is an `ifreq` whose data points to a live block. The kernel reads and writes as many words of
    // it as `words_of` says for its command, and the check above has found them there.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, std::ptr::from_mut(&mut request)) };
    Errno::result(result).map(drop)
}

/// Whether a feature lets packets leave a stack in a form that only metadata explains.
fn hides_bytes(feature: &str) -> bool {
    let Some(kind) = feature.strip_prefix("tx-") else { return false };
    kind.starts_with("checksum-")
        || kind.ends_with("-hw-insert")
        || (kind.ends_with("segmentation") && kind != "generic-segmentation")
        || kind.contains("gso-")
}

fn feature_names(ifindex: u32) -> Result<Vec<String>, Errno> {
    let mut info = [GSSET_INFO, 0, 1 << SS_FEATURES, 0, 0];
    ioctl(ifindex, &mut info)?;
    let count = info[4];
    let mut block = vec![0; 3 + count as usize * STRING_WORDS];
    block[..3].copy_from_slice(&[GSTRINGS, SS_FEATURES, count]);
    ioctl(ifindex, &mut block)?;
    let bytes: Vec<u8> = block[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    Ok(bytes
        .chunks_exact(STRING_LEN)
        .map(|name| String::from_utf8_lossy(name.split(|&b| b == 0).next().unwrap_or_default()).into_owned())
        .collect())
}

/// An empty command block for so many features. Each 32 features take `words` words.
fn feature_block(command: u32, features: usize, words: usize) -> Result<Vec<u32>, Errno> {
    let blocks = features.div_ceil(32);
    let mut block = vec![0; 2 + words * blocks];
    block[..2].copy_from_slice(&[command, u32::try_from(blocks).map_err(|_| Errno::EOVERFLOW)?]);
    Ok(block)
}

/// Names of active features that hide bytes.
pub fn hidden_bytes(ifindex: u32) -> Result<Vec<String>, Errno> {
    let names = feature_names(ifindex)?;
    // Four words for each 32 features: available, requested, active, never changed.
    let mut block = feature_block(GFEATURES, names.len(), 4)?;
    ioctl(ifindex, &mut block)?;
    let is_active = |bit: usize| block[2 + 4 * (bit / 32) + 2] >> (bit % 32) & 1 != 0;
    Ok(names
        .into_iter()
        .enumerate()
        .filter(|(bit, name)| hides_bytes(name) && is_active(*bit))
        .map(|(_, name)| name)
        .collect())
}

/// Turns off every feature that hides bytes. Returns the names of those that stay on.
pub fn make_plain(ifindex: u32) -> Result<Vec<String>, Errno> {
    set_features(ifindex, false, hides_bytes)?;
    hidden_bytes(ifindex)
}

/// Turns on the features of these names, as far as the netdev has them.
pub fn turn_on(ifindex: u32, names: &[String]) -> Result<(), Errno> {
    set_features(ifindex, true, |feature| names.iter().any(|name| name == feature))
}

/// Turns off the features of these names.
pub fn turn_off(ifindex: u32, names: &[String]) -> Result<(), Errno> {
    set_features(ifindex, false, |feature| names.iter().any(|name| name == feature))
}

fn set_features(ifindex: u32, on: bool, is_meant: impl Fn(&str) -> bool) -> Result<(), Errno> {
    let names = feature_names(ifindex)?;
    // Two words for each 32 features: valid, requested.
    let mut block = feature_block(SFEATURES, names.len(), 2)?;
    for (bit, _) in names.iter().enumerate().filter(|(_, name)| is_meant(name)) {
        let at = 2 + 2 * (bit / 32);
        block[at] |= 1 << (bit % 32);
        block[at + 1] |= u32::from(on) << (bit % 32);
    }
    ioctl(ifindex, &mut block)
}

/// Receive queues in use: the netdev's receive and combined channels. `None` if the driver does not report channels.
///
/// # Errors
/// ENODEV if the netdev is gone.
pub fn rx_channels(ifindex: u32) -> Result<Option<u32>, Errno> {
    // `struct ethtool_channels`: cmd, four maxima, then rx, tx, other, combined.
    let mut block = [GCHANNELS, 0, 0, 0, 0, 0, 0, 0, 0];
    match ioctl(ifindex, &mut block) {
        Ok(()) => Ok(Some(block[5] + block[8]).filter(|&queues| queues > 0)),
        Err(Errno::ENODEV) => Err(Errno::ENODEV),
        Err(_) => Ok(None),
    }
}

/// Name of the netdev's driver.
pub fn driver(ifindex: u32) -> io::Result<String> {
    // `struct ethtool_drvinfo` has 196 bytes. The driver's name is the 32 bytes after the command.
    let mut block = [0; 49];
    block[0] = GDRVINFO;
    ioctl(ifindex, &mut block)?;
    let bytes: Vec<u8> = block[1..9].iter().flat_map(|word| word.to_ne_bytes()).take_while(|&b| b != 0).collect();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_too_short_for_their_command_never_get_to_the_kernel() {
        let refused = |block: &[u32]| ioctl(1, &mut block.to_vec()) == Err(Errno::EINVAL);
        let exact: [&[u32]; 6] = [
            &[GDRVINFO; 49],
            &[GCHANNELS; 9],
            &[GSSET_INFO, 0, 0b101, 0, 0, 0],
            &[&[GSTRINGS, SS_FEATURES, 2][..], &[0; 16]].concat(),
            &[&[GFEATURES, 2][..], &[0; 8]].concat(),
            &[&[SFEATURES, 2][..], &[0; 4]].concat(),
        ];
        for block in exact {
            assert_eq!(words_of(block), Some(block.len()));
            assert!((0..block.len()).all(|len| refused(&block[..len])), "{block:?}");
        }
        // Counts beyond any block, other strings, and an unknown command.
        for block in [[GFEATURES, u32::MAX, 0], [GSTRINGS, SS_FEATURES, u32::MAX], [GSTRINGS, 1, 0], [2, 0, 0]] {
            assert!(refused(&block), "{block:?}");
        }
    }

    #[test]
    fn a_netdev_that_is_gone_is_told_from_one_without_channels() {
        assert_eq!(rx_channels(1), Ok(None));
        assert_eq!(rx_channels(0x7fff_fff0), Err(Errno::ENODEV));
    }

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
