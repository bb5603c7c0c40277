//! From a wish to a port: checks a [`PortSpec`] and fills in every default. Pure; what only the kernel can tell comes in.

use std::ops::RangeInclusive;

use crate::engine::tables::check_capacity;
use crate::io::netdev::MAX_IFNAME;
use crate::io::umem::HEADROOM;
use crate::model::*;
use crate::{Error, ErrorKind};

/// Bytes of an Ethernet header and one VLAN tag: what a frame has beside its MTU's worth.
const L2_OVERHEAD: u32 = 14 + 4;
const NAME_LEN: RangeInclusive<usize> = 1..=128;
const DEPTHS: RangeInclusive<u32> = 64..=32_768;
const DEFAULT_FDB_LIMIT: u32 = 4096;

/// Largest MTU that fits a UMEM frame with headroom, header and tag, in bytes.
pub fn frame_mtu(frame_size: u32) -> u32 {
    frame_size - HEADROOM - L2_OVERHEAD
}

/// Checks the settings that are fixed at start.
pub fn check_settings(settings: &DataplaneSettings) -> Result<(), Error> {
    let DataplaneSettings { workers, cpus, frames, frame_size, spin_us, spin_max_us, .. } = settings;
    if !(1..=64).contains(workers) {
        return Err(Error::invalid(format!("workers: {workers} is out of range, 1 to 64 are possible")));
    }
    check_capacity(&settings.capacity)?;
    if !cpus.is_empty() && cpus.len() != *workers {
        return Err(Error::invalid(format!(
            "cpus: {} given for {workers} workers: name one for each worker, or none to let them run anywhere",
            cpus.len()
        )));
    }
    if !frames.is_power_of_two() || !(1024..=1_048_576).contains(frames) {
        return Err(Error::invalid(format!("frames: {frames} is not a power of two from 1024 to 1048576")));
    }
    if ![2048, 4096].contains(frame_size) {
        return Err(Error::invalid(format!("frame_size: {frame_size} is neither 2048 nor 4096")));
    }
    for (field, us) in [("spin_us", spin_us), ("spin_max_us", spin_max_us)] {
        if *us > 1_000_000 {
            return Err(Error::invalid(format!("{field}: {us} is out of range, 0 to 1000000 are possible")));
        }
    }
    Ok(())
}

/// Checks the settings of the bridge.
pub fn check_bridge(bridge: &BridgeSettings) -> Result<(), Error> {
    if !(16..=1_000_000).contains(&bridge.fdb_limit) {
        return Err(Error::invalid(format!(
            "fdb_limit: {} is out of range, 16 to 1000000 are possible",
            bridge.fdb_limit
        )));
    }
    if !(1..=1_000_000).contains(&bridge.fdb_ageing_seconds) {
        return Err(Error::invalid(format!(
            "fdb_ageing_seconds: {} is out of range, 1 to 1000000 are possible",
            bridge.fdb_ageing_seconds
        )));
    }
    Ok(())
}

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

/// Checks the Soft Patch Panel's name of a port: it says the kind.
pub fn check_spp(spec: &PortSpec) -> Result<(), Error> {
    let Some(name) = &spec.spp else { return Ok(()) };
    let (word, kind) = match spec.kind {
        PortKind::Phy => ("phy", "phy"),
        PortKind::Guest => ("vhost", "guest"),
    };
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

/// Checks that a port that was resolved is another one than all of `others`.
pub fn check_unique<'a>(spec: &PortSpec, others: impl Iterator<Item = &'a PortSpec> + Clone) -> Result<(), Error> {
    let exists = |text: String| Err(Error::new(ErrorKind::Exists, text));
    if others.clone().any(|port| port.name == spec.name) {
        return exists(format!("name: there is a port `{}` already", spec.name));
    }
    if let Some(port) = others.clone().find(|port| port.uuid() == spec.uuid()) {
        return exists(format!("uuid: `{}` belongs to port `{}`", spec.uuid().escape_default(), port.name));
    }
    if let Some(port) = others.clone().find(|port| port.ifname == spec.ifname) {
        let ifname = port.ifname.as_deref().unwrap_or_default();
        return exists(format!("ifname: {ifname} belongs to port `{}`", port.name));
    }
    if let Some(spp) = &spec.spp
        && let Some(port) = others.clone().find(|port| port.spp.as_ref() == Some(spp))
    {
        return exists(format!("spp: {spp} is port `{}`", port.name));
    }
    Ok(())
}

/// Checks ports that are to be added together, as far as that does not depend on netdevs and on ports that are there. The error
/// names the port.
pub fn check_ports(specs: &[PortSpec], slots: usize) -> Result<(), Error> {
    let mut resolved: Vec<PortSpec> = Vec::with_capacity(specs.len());
    for spec in specs {
        // A number that the switch chooses is none that a port asks for.
        let asked = |no| spec.vport.is_none() && specs.iter().any(|port| port.vport == Some(no));
        let taken = |no| asked(no) || resolved.iter().any(|port| port.vport == Some(no));
        let one = resolve(spec.clone(), slots, taken);
        let one = one.and_then(|one| check_unique(&one, resolved.iter()).map(|()| one));
        let name = spec.name.escape_default();
        resolved.push(one.map_err(|error| Error::new(error.kind(), format!("port `{name}`: {error}")))?);
    }
    Ok(())
}

/// Checks everything that does not depend on netdevs, and fills in what does not either. `taken` tells which port numbers are.
/// There can be `slots` ports.
pub fn resolve(mut spec: PortSpec, slots: usize, taken: impl Fn(u16) -> bool) -> Result<PortSpec, Error> {
    check_name(&spec.name)?;
    spec.uuid.as_deref().map_or(Ok(()), check_uuid)?;
    check_spp(&spec)?;
    let vport = match spec.vport {
        Some(no) if usize::from(no) >= slots => {
            return Err(Error::invalid(format!("vport: {no} is out of range, 0 to {} are possible", slots - 1)));
        }
        Some(no) if taken(no) => {
            return Err(Error::new(
                ErrorKind::Exists,
                format!("vport: {no} belongs to another port: name a free one, or none"),
            ));
        }
        Some(no) => no,
        None => (0..slots as u16).find(|&no| !taken(no)).ok_or_else(|| {
            Error::new(ErrorKind::Full, format!("vport: all {slots} port numbers are taken: delete a port first"))
        })?,
    };
    spec.vport = Some(vport);
    match spec.kind {
        PortKind::Guest => {
            if spec.steering == Steering::Shared {
                return Err(Error::invalid(
                    "steering: shared is for phy ports; a guest port gets all packets of its pair",
                ));
            }
            spec.ifname.get_or_insert_with(|| format!("xs{vport}"));
            spec.queues.get_or_insert(1);
            spec.mac_check.get_or_insert(true);
            spec.vlan.get_or_insert(VlanMode::Access { vid: 0 });
        }
        PortKind::Phy => {
            for (field, given) in [
                ("guest_ifname", spec.guest_ifname.is_some()),
                ("netns", spec.netns.is_some()),
                ("guest_sockets", spec.guest_sockets),
            ] {
                if given {
                    return Err(Error::invalid(format!("{field}: only guest ports have a guest's end")));
                }
            }
            if spec.ifname.is_none() {
                return Err(Error::invalid("ifname: a phy port needs the name of an existing netdev"));
            }
            spec.mac_check.get_or_insert(false);
            spec.vlan.get_or_insert_with(|| VlanMode::Trunk { native: Some(0), tagged: VlanSet::all() });
        }
    }
    for (field, name) in [("ifname", &spec.ifname), ("guest_ifname", &spec.guest_ifname)] {
        name.as_ref().map_or(Ok(()), |name| check_ifname(field, name))?;
    }
    if spec.guest_ifname.is_some() && spec.guest_ifname == spec.ifname {
        return Err(Error::invalid("guest_ifname: the two ends of a pair can't have the same name"));
    }
    spec.mac.map_or(Ok(()), check_mac)?;
    spec.vlan.as_ref().map_or(Ok(()), check_vlan)?;
    if let Some(queues) = spec.queues
        && !(1..=MAX_QUEUES).contains(&queues)
    {
        return Err(Error::invalid(format!("queues: {queues} is out of range, 1 to {MAX_QUEUES} are possible")));
    }
    check_depth(*spec.queue_depth.get_or_insert(DEFAULT_QUEUE_DEPTH))?;
    if spec.mac_check == Some(true) && spec.kind == PortKind::Phy && spec.mac.is_none() {
        return Err(Error::invalid(
            "mac_check: a phy port has no address of its own to check against unless `mac` names one",
        ));
    }
    if *spec.fdb_limit.get_or_insert(DEFAULT_FDB_LIMIT) == 0 {
        return Err(Error::invalid("fdb_limit: 0 is out of range, at least 1 is needed"));
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest() -> PortSpec {
        PortSpec::new("vm1", PortKind::Guest)
    }

    #[test]
    fn a_guest_gets_the_lowest_free_number_and_safe_defaults() {
        let spec = resolve(guest(), MAX_PORTS, |no| no < 3).unwrap();
        assert_eq!((spec.vport, spec.ifname.as_deref(), spec.queues), (Some(3), Some("xs3"), Some(1)));
        assert_eq!((spec.mac_check, spec.vlan), (Some(true), Some(VlanMode::Access { vid: 0 })));
    }

    #[test]
    fn ports_that_are_added_together_are_checked_against_each_other() {
        let phy =
            |name: &str, ifname: &str| PortSpec { ifname: Some(ifname.into()), ..PortSpec::new(name, PortKind::Phy) };
        let numbered = |spec: PortSpec, no| PortSpec { vport: Some(no), ..spec };
        let named = |spec: PortSpec, spp: &str| PortSpec { spp: Some(spp.into()), ..spec };
        let (auto, vm2) = (guest(), PortSpec::new("vm2", PortKind::Guest));
        let good =
            [auto.clone(), numbered(vm2.clone(), 0), named(phy("p0", "x0"), "phy:0"), named(phy("p1", "x1"), "phy:1")];
        check_ports(&good, MAX_PORTS).unwrap();
        for (ports, text) in [
            (vec![auto.clone(), auto.clone()], "port `vm1`: name: "),
            (vec![phy("p0", "x0"), phy("p1", "x0")], "port `p1`: ifname: x0 belongs to port `p0`"),
            (vec![numbered(auto.clone(), 3), numbered(vm2.clone(), 3)], "port `vm2`: vport: 3 "),
            (
                vec![named(phy("p0", "x0"), "phy:0"), named(phy("p1", "x1"), "phy:0")],
                "port `p1`: spp: phy:0 is port `p0`",
            ),
            (vec![auto.clone(), named(vm2.clone(), "vhost:-1")], "port `vm2`: spp: `vhost:-1`"),
            (vec![auto.clone(), PortSpec { uuid: Some("vm1".into()), ..vm2.clone() }], "port `vm2`: uuid: `vm1`"),
        ] {
            let error = check_ports(&ports, MAX_PORTS).unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }

    #[test]
    fn settings_out_of_range_are_refused_and_the_field_is_named() {
        type Change = fn(&mut DataplaneSettings);
        let cases: [(&str, Change); 8] = [
            ("workers", |s| s.workers = 0),
            ("workers", |s| s.workers = 65),
            ("cpus", |s| s.cpus = vec![0, 1]),
            ("frames", |s| s.frames = 512),
            ("frames", |s| s.frames = 3000),
            ("frame_size", |s| s.frame_size = 1024),
            ("spin_us", |s| s.spin_us = 1_000_001),
            ("spin_max_us", |s| s.spin_max_us = 1_000_001),
        ];
        for (field, change) in cases {
            let mut settings = DataplaneSettings::default();
            assert!(check_settings(&settings).is_ok());
            change(&mut settings);
            let error = check_settings(&settings).unwrap_err();
            assert!(error.to_string().starts_with(&format!("{field}: ")), "{field}: {error}");
        }
    }

    #[test]
    fn bad_values_are_refused_and_the_field_is_named() {
        type Change = fn(&mut PortSpec);
        let cases: [(&str, Change); 17] = [
            ("uuid", |s| s.uuid = Some(String::new())),
            ("uuid", |s| s.uuid = Some("x".repeat(129))),
            ("name", |s| s.name = "a/b".into()),
            ("name", |s| s.name.clear()),
            ("name", |s| s.name = "7".into()),
            ("vport", |s| s.vport = Some(1024)),
            ("steering", |s| s.steering = Steering::Shared),
            ("ifname", |s| s.ifname = Some("a name that is far too long".into())),
            ("guest_ifname", |s| s.guest_ifname = Some("a b".into())),
            ("guest_ifname", |s| (s.ifname, s.guest_ifname) = (Some("x".into()), Some("x".into()))),
            ("mac", |s| s.mac = Some(MacAddr::BROADCAST)),
            ("vlan", |s| s.vlan = Some(VlanMode::Access { vid: 4095 })),
            ("queues", |s| s.queues = Some(65)),
            ("queue_depth", |s| s.queue_depth = Some(1000)),
            ("fdb_limit", |s| s.fdb_limit = Some(0)),
            ("ifname", |s| s.kind = PortKind::Phy),
            ("netns", |s| (s.kind, s.netns) = (PortKind::Phy, Some("n".into()))),
        ];
        for (field, change) in cases {
            let mut spec = guest();
            change(&mut spec);
            let error = resolve(spec, MAX_PORTS, |_| false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert!(error.to_string().starts_with(&format!("{field}: ")), "{field}: {error}");
        }
    }

    #[test]
    fn an_spp_name_fits_the_kind() {
        let phy = || PortSpec { ifname: Some("x0".into()), ..PortSpec::new("p", PortKind::Phy) };
        let named =
            |spec: PortSpec, name: &str| resolve(PortSpec { spp: Some(name.into()), ..spec }, MAX_PORTS, |_| false);
        assert!(named(guest(), "vhost:0").is_ok() && named(phy(), "phy:1023").is_ok());
        for (spec, name) in [
            (guest(), "phy:0"),
            (phy(), "vhost:0"),
            (phy(), "phy:1024"),
            (phy(), "phy:01"),
            (phy(), "phy:+1"),
            (phy(), "phy0"),
            (phy(), "phy:"),
            (PortSpec { steering: Steering::Shared, ..phy() }, "phy:0"),
        ] {
            assert_eq!(named(spec, name).unwrap_err().kind(), ErrorKind::Invalid, "{name}");
        }
    }

    #[test]
    fn a_full_switch_and_a_taken_number_are_told_apart() {
        assert_eq!(resolve(guest(), 256, |_| true).unwrap_err().kind(), ErrorKind::Full);
        let wish = PortSpec { vport: Some(7), ..guest() };
        assert_eq!(resolve(wish, MAX_PORTS, |no| no == 7).unwrap_err().kind(), ErrorKind::Exists);
    }
}
