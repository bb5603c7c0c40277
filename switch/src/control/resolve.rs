//! From a wish to a port: checks a [`PortSpec`], and fills in every default that does not depend on netdevs.

use super::attach::check_bond;
use super::feature_list;
use super::fields::{check_depth, check_ifname, check_mac, check_name, check_spp, check_uuid, check_vhost, check_vlan};
use crate::model::*;
use crate::{Error, ErrorKind};

/// Checks that a port that was resolved is another one than all of `others`.
pub fn check_unique<'a>(spec: &PortSpec, others: impl Iterator<Item = &'a PortSpec> + Clone) -> Result<(), Error> {
    let exists = |text: String| Err(Error::new(ErrorKind::Exists, text));
    if others.clone().any(|port| port.name == spec.name) {
        return exists(format!("name: there is a port `{}` already", spec.name));
    }
    if let Some(port) = others.clone().find(|port| port.uuid() == spec.uuid()) {
        return exists(format!("uuid: `{}` belongs to port `{}`", spec.uuid().escape_default(), port.name));
    }
    for (field, ifname) in ifnames(spec) {
        if let Some(port) = others.clone().find(|port| ifnames(port).any(|(_, other)| other == ifname)) {
            return exists(format!("{field}: {ifname} belongs to port `{}`", port.name));
        }
    }
    let socket = |port: &PortSpec| port.vhost.as_ref().map(|vhost| vhost.socket.clone());
    if let Some(port) = others.clone().find(|port| port.vhost.is_some() && socket(port) == socket(spec)) {
        return exists(format!("vhost.socket: it is that of port `{}`", port.name));
    }
    check_unique_mac(spec, others.clone())?;
    if let Some(spp) = &spec.spp
        && let Some(port) = others.clone().find(|port| port.spp.as_ref() == Some(spp))
    {
        return exists(format!("spp: {spp} is port `{}`", port.name));
    }
    Ok(())
}

/// Netdevs of the switch's namespace that a port names, with the fields.
fn ifnames(spec: &PortSpec) -> impl Iterator<Item = (&'static str, &String)> {
    let members = spec.bond.iter().flat_map(|bond| &bond.members).map(|name| ("bond.members", name));
    spec.ifname.iter().map(|name| ("ifname", name)).chain(members)
}

/// Checks that no other port of the bridge has the address of a port, unless both say that they share it. The same
/// address in VLANs that have nothing in common is another station.
///
/// # Errors
/// `Exists`, with the other port's name.
pub fn check_unique_mac<'a>(spec: &PortSpec, others: impl Iterator<Item = &'a PortSpec>) -> Result<(), Error> {
    let Some(mac) = spec.mac else { return Ok(()) };
    match others.filter(|port| same_station(spec, port)).find(|port| !(spec.shared_mac && port.shared_mac)) {
        None => Ok(()),
        Some(port) => Err(Error::new(
            ErrorKind::Exists,
            format!(
                "mac: {mac} belongs to port `{}`: name another one, or set shared_mac on both if a service moves between them",
                port.name
            ),
        )),
    }
}

/// Whether two ports of the bridge stand for one station: the same address in a VLAN that both carry.
pub fn same_station(one: &PortSpec, other: &PortSpec) -> bool {
    let vlan = |port: &PortSpec| port.vlan.clone().unwrap_or_else(|| port.kind.default_vlan());
    let bridged = one.spp.is_none() && other.spp.is_none();
    one.name != other.name && bridged && one.mac.is_some() && one.mac == other.mac && vlan(one).overlaps(&vlan(other))
}

/// Checks ports that are to be added together, as far as that does not depend on netdevs and on ports that are
/// there. The error names the port.
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

/// Checks that a port asks for nothing that its kind has not.
fn check_kind(spec: &PortSpec) -> Result<(), Error> {
    if spec.steering == Steering::Shared && !spec.kind.may_share_netdev() {
        return Err(Error::invalid(
            "steering: shared is for phy and bond ports; a guest port gets all packets of its pair",
        ));
    }
    feature_list::check(spec)?;
    check_bond(spec)?;
    if spec.kind == PortKind::Vhost {
        return check_vhost_kind(spec);
    }
    if spec.vhost.is_some() {
        return Err(Error::invalid("vhost: a socket is for vhost ports"));
    }
    if spec.tap.is_some() && spec.kind != PortKind::Tap {
        return Err(Error::invalid("tap: its owner and group are for tap ports"));
    }
    if spec.kind == PortKind::Tap
        && let Some(queues) = spec.queues.filter(|queues| *queues > MAX_TAP_QUEUES)
    {
        let text = format!("queues: {queues} is out of range, 1 to {MAX_TAP_QUEUES} are possible: a tap has no more");
        return Err(Error::invalid(text));
    }
    let given = [
        ("guest_ifname", spec.guest_ifname.is_some() && !spec.kind.has_guest_netdev()),
        ("netns", spec.netns.is_some() && !spec.kind.has_guest_netdev()),
        ("guest_sockets", spec.guest_sockets && !spec.kind.has_guest_end()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(Error::invalid(format!("{field}: only guest ports have a guest's end"))),
        None => Ok(()),
    }
}

/// The same of a vhost-user port, which has no netdevs.
fn check_vhost_kind(spec: &PortSpec) -> Result<(), Error> {
    let Some(vhost) = &spec.vhost else {
        return Err(Error::invalid("vhost.socket: a vhost port needs the path of a socket"));
    };
    let given = [
        ("ifname", spec.ifname.is_some()),
        ("guest_ifname", spec.guest_ifname.is_some()),
        ("netns", spec.netns.is_some()),
        ("tap", spec.tap.is_some()),
        ("guest_sockets", spec.guest_sockets),
        ("force", spec.force),
        ("mode", spec.mode != ModeRequest::Auto),
        ("zero_copy", spec.zero_copy == ZeroCopy::On),
        ("queue_depth", spec.queue_depth.is_some()),
    ];
    if let Some((field, _)) = given.iter().find(|(_, given)| *given) {
        return Err(Error::invalid(format!("{field}: a vhost port has no netdev, and its guest makes the rings")));
    }
    if let Some(queues) = spec.queues.filter(|queues| *queues > MAX_VHOST_PAIRS) {
        return Err(Error::invalid(format!(
            "queues: {queues} is out of range, 1 to {MAX_VHOST_PAIRS} are possible: vhost-user counts 256 rings"
        )));
    }
    check_vhost(vhost)
}

/// Checks everything that does not depend on netdevs, and fills in what does not either. `taken` tells which port
/// numbers are. There can be `slots` ports.
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
        None => (0..PortNo::MAX).take(slots).find(|&no| !taken(no)).ok_or_else(|| {
            Error::new(ErrorKind::Full, format!("vport: all {slots} port numbers are taken: delete a port first"))
        })?,
    };
    spec.vport = Some(vport);
    check_kind(&spec)?;
    let kind = spec.kind;
    spec.ifname = spec.ifname.take().or_else(|| kind.default_ifname(vport));
    if spec.ifname.is_none() && kind.has_netdev() {
        let text = format!("ifname: a {} port needs the name of an existing netdev", kind.name());
        return Err(Error::invalid(text));
    }
    spec.queues = spec.queues.or(kind.default_queues());
    spec.mac_check.get_or_insert(kind.default_mac_check(spec.mac.is_some()));
    spec.vlan.get_or_insert_with(|| kind.default_vlan());
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
    spec.queue_depth = spec.queue_depth.or(kind.default_queue_depth());
    spec.queue_depth.map_or(Ok(()), check_depth)?;
    if spec.mac_check == Some(true) && !kind.has_guest_end() && spec.mac.is_none() {
        return Err(Error::invalid(format!(
            "mac_check: a {} port has no address of its own to check against unless `mac` names one",
            kind.name()
        )));
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
            ("queues", |s| s.queues = Some(MAX_QUEUES + 1)),
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
