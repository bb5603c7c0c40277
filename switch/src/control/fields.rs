//! Checks of single fields. An error names the field, what is wrong with it, and what is possible.

use std::ops::RangeInclusive;

use crate::Error;
use crate::host::MAX_IFNAME;
use crate::model::*;

const NAME_LEN: RangeInclusive<usize> = 1..=128;
const DEPTHS: RangeInclusive<u32> = 64..=32_768;

/// Checks a name as a port can have it.
pub fn check_name(name: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::invalid(format!("name: `{name}` would be taken for a number: add a letter")));
    }
    if NAME_LEN.contains(&name.len())
        && name.chars().all(plain)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "name: `{}` is not a port name: 1 to 128 of the characters A-Z a-z 0-9 . _ : - are expected, a letter or digit first",
        name.escape_default()
    )))
}

/// Checks a port's identity.
pub fn check_uuid(uuid: &str) -> Result<(), Error> {
    if NAME_LEN.contains(&uuid.chars().count()) && !uuid.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Error::invalid(format!("uuid: `{}` is not 1 to 128 printable characters", uuid.escape_default())))
}

/// Checks the depth of a port's rings.
pub fn check_depth(depth: u32) -> Result<(), Error> {
    if depth.is_power_of_two() && DEPTHS.contains(&depth) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "queue_depth: {depth} is not a power of two from {} to {}",
        DEPTHS.start(),
        DEPTHS.end()
    )))
}

/// Checks a netdev's name.
pub fn check_ifname(field: &str, name: &str) -> Result<(), Error> {
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > MAX_IFNAME || name == "." || name == ".." || name.contains(odd) {
        return Err(Error::invalid(format!(
            "{field}: `{}` can't be the name of a netdev: 1 to {MAX_IFNAME} bytes without `/`, `:` and blanks are expected",
            name.escape_default()
        )));
    }
    Ok(())
}

/// Checks an MTU against what the port can carry.
pub fn check_mtu(mtu: u32, max: u32, why: &str) -> Result<(), Error> {
    if (MIN_MTU..=max).contains(&mtu) {
        return Ok(());
    }
    Err(Error::invalid(format!("mtu: {mtu} is out of range, {MIN_MTU} to {max} are possible here: {why}")))
}

/// Checks a VLAN mode.
pub fn check_vlan(vlan: &VlanMode) -> Result<(), Error> {
    let vid = match vlan {
        VlanMode::Access { vid } => Some(*vid),
        VlanMode::Trunk { native, .. } => *native,
    };
    match vid {
        Some(vid) if vid > crate::model::MAX_VID => Err(Error::invalid(format!(
            "vlan: {vid} is not a VLAN: 1 to 4094, or 0 for the untagged segment, are possible"
        ))),
        _ => Ok(()),
    }
}

/// Checks a station's address.
pub fn check_mac(mac: MacAddr) -> Result<(), Error> {
    if mac.is_unicast() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "mac: {mac} is not a unicast address: its first byte must be even, and not all bytes zero"
    )))
}

/// Checks the socket of a vhost-user port, as far as that does not depend on the file system.
pub fn check_vhost(spec: &VhostSpec) -> Result<(), Error> {
    let VhostSpec { socket, role, owner, group, mode } = spec;
    if !socket.starts_with('/') || socket.ends_with('/') || socket.len() > MAX_SOCKET_PATH || socket.contains('\0') {
        let text = format!("vhost.socket: an absolute path of at most {MAX_SOCKET_PATH} bytes is needed");
        return Err(Error::invalid(text));
    }
    let given = [("owner", owner.is_some()), ("group", group.is_some()), ("mode", mode.is_some())];
    if let Some((field, _)) = given.iter().find(|(_, given)| *given && *role == SocketRole::Client) {
        return Err(Error::invalid(format!("vhost.{field}: the front end makes the socket, and says whose it is")));
    }
    let mode = mode.as_deref().map(vhost_user::socket::Access::mode_of).transpose();
    mode.map(drop).map_err(|error| Error::invalid(format!("vhost.{error}")))
}

/// Checks the Soft Patch Panel's name of a port: it says the kind.
pub fn check_spp(spec: &PortSpec) -> Result<(), Error> {
    let Some(name) = &spec.spp else { return Ok(()) };
    let (word, kind) = (spec.kind.spp_word(), spec.kind.name());
    let number = name.strip_prefix(word).and_then(|rest| rest.strip_prefix(':'));
    // As it is written: `phy:01` would be another name of `phy:1`.
    let is_number = |text: &str| text.parse::<u32>().is_ok_and(|no| no <= MAX_END_NO && no.to_string() == text);
    if !number.is_some_and(is_number) {
        return Err(Error::invalid(format!(
            "spp: `{}` is not possible: {word}:0 to {word}:{MAX_END_NO} are, for a {kind} port",
            name.escape_default()
        )));
    }
    if spec.steering == Steering::Shared {
        return Err(Error::invalid("steering: shared is for ports of the bridge; one with `spp` gets all packets"));
    }
    Ok(())
}
