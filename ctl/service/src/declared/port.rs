//! Ports of a configuration: what a port becomes that is declared in part, and how it gets there. Pure.
//!
//! A field that the file leaves out has its default. Defaults that a netdev gives stay as they are: `mac`, `mtu`,
//! names, the queues of a NIC. So does the number of a port. If the file named such a field before, and names it no
//! more, address and MTU of a guest become the switch's defaults.
//!
//! A port follows its netdevs when they are renamed or moved, and a NIC's number of queues. So names, namespace and a
//! NIC's queues are compared with the file only if they were edited there.

use switch::model::*;

use super::bond;

/// The port that `wish` means. `is` is the port of that name that there is, and `before` what the file declared before.
/// A port that is new has no number yet, unless `wish` names one.
pub(super) fn complete(wish: &PortSpec, is: Option<&PortSpec>, before: Option<&PortSpec>) -> PortSpec {
    let kind = wish.kind;
    // A port of another kind is another port, but for its number.
    let same = is.filter(|port| port.kind == kind);
    let was = |field: fn(&PortSpec) -> bool| before.is_some_and(field);
    // A name, which the port may have followed.
    let name = |field: fn(&PortSpec) -> &Option<String>| match (same, before) {
        (Some(is), Some(before)) if field(before) == field(wish) => field(is).clone(),
        _ => field(wish).clone(),
    };
    let queues = match (same, before) {
        (Some(is), Some(before)) if !kind.has_guest_netdev() && before.queues == wish.queues => is.queues,
        _ => wish.queues,
    };
    let vport = wish.vport.or_else(|| is?.vport);
    let own_mac = || kind.has_guest_end().then(|| MacAddr::derived_from(wish.uuid()));
    let mac = match same {
        Some(_) if was(|port| port.mac.is_some()) => own_mac(),
        Some(port) => port.mac,
        None => None,
    };
    let mtu = match same {
        Some(_) if was(|port| port.mtu.is_some()) && kind.default_mtu().is_some() => kind.default_mtu(),
        Some(port) => port.mtu,
        None => None,
    };
    PortSpec {
        name: wish.name.clone(),
        uuid: same
            .filter(|port| port.uuid() == wish.uuid())
            .map_or_else(|| wish.uuid.clone(), |port| port.uuid.clone()),
        kind,
        vport,
        ifname: name(|port| &port.ifname).or_else(|| same?.ifname.clone()).or_else(|| kind.default_ifname(vport?)),
        guest_ifname: name(|port| &port.guest_ifname).or_else(|| same?.guest_ifname.clone()),
        netns: name(|port| &port.netns),
        mac: wish.mac.or(mac),
        shared_mac: wish.shared_mac,
        mtu: wish.mtu.or(mtu),
        queues: queues.or(kind.default_queues()).or_else(|| same?.queues),
        queue_depth: wish.queue_depth.or(kind.default_queue_depth()),
        mode: wish.mode,
        steering: wish.steering,
        zero_copy: wish.zero_copy,
        force: wish.force,
        vlan: wish.vlan.clone().or_else(|| Some(kind.default_vlan())),
        isolated: wish.isolated,
        mac_check: wish.mac_check.or(Some(kind.default_mac_check(wish.mac.or(mac).is_some()))),
        fdb_limit: wish.fdb_limit.or(Some(DEFAULT_FDB_LIMIT)),
        // Set by itself when a guest first asks for sockets.
        guest_sockets: wish.guest_sockets || same.is_some_and(|port| port.guest_sockets),
        vhost: wish.vhost.clone(),
        feature_list: wish.feature_list,
        tap: wish.tap.clone().and_then(TapSpec::if_named),
        bond: wish.bond.as_ref().map(|bond| {
            let [is, before] = [same, before].map(|port| port.and_then(|port| port.bond.as_ref()));
            bond::complete(bond, is, before)
        }),
        spp: wish.spp.clone(),
    }
}

/// The change of a live port from `is` to `to`. `None`: it has to be deleted and added anew.
pub(super) fn update(is: &PortSpec, to: &PortSpec) -> Option<PortUpdate> {
    fn new<T: Clone + PartialEq>(is: &Option<T>, to: &Option<T>) -> Option<T> {
        if is == to { None } else { to.clone() }
    }
    let flag = |is: bool, to: bool| (is != to).then_some(to);
    let update = PortUpdate {
        mtu: new(&is.mtu, &to.mtu),
        mac: new(&is.mac, &to.mac),
        no_mac: !is.kind.has_guest_end() && is.mac.is_some() && to.mac.is_none(),
        shared_mac: flag(is.shared_mac, to.shared_mac),
        vlan: new(&is.vlan, &to.vlan),
        isolated: flag(is.isolated, to.isolated),
        mac_check: new(&is.mac_check, &to.mac_check),
        fdb_limit: new(&is.fdb_limit, &to.fdb_limit),
        queue_depth: new(&is.queue_depth, &to.queue_depth),
        guest_sockets: flag(is.guest_sockets, to.guest_sockets),
        tap: new_tap(is, to),
        bond: is.bond.as_ref().zip(to.bond.as_ref()).and_then(|(is, to)| bond::update(is, to)),
        queues: None,
    };
    is_same(&updated(is, &update), to).then_some(update)
}

/// Whether both are the same port, of bonds by what they mean.
fn is_same(one: &PortSpec, other: &PortSpec) -> bool {
    match (&one.bond, &other.bond) {
        (Some(bond), Some(is)) => {
            bond::is_same(bond, is) && PortSpec { bond: Some(is.clone()), ..one.clone() } == *other
        }
        _ => one == other,
    }
}

/// Who is to open the tap of a live port, if it is others than before and the kernel can do that.
fn new_tap(is: &PortSpec, to: &PortSpec) -> Option<TapSpec> {
    let [from, wish] = [is, to].map(|port| port.tap.clone().unwrap_or_default());
    (is.kind == PortKind::Tap && is.tap != to.tap && from.can_become(&wish)).then_some(wish)
}

/// A port after a change.
fn updated(is: &PortSpec, update: &PortUpdate) -> PortSpec {
    let update = update.clone();
    PortSpec {
        mtu: update.mtu.or(is.mtu),
        mac: if update.no_mac { None } else { update.mac.or(is.mac) },
        shared_mac: update.shared_mac.unwrap_or(is.shared_mac),
        vlan: update.vlan.or_else(|| is.vlan.clone()),
        isolated: update.isolated.unwrap_or(is.isolated),
        mac_check: update.mac_check.or(is.mac_check),
        fdb_limit: update.fdb_limit.or(is.fdb_limit),
        queue_depth: update.queue_depth.or(is.queue_depth),
        guest_sockets: update.guest_sockets.unwrap_or(is.guest_sockets),
        tap: update.tap.map_or_else(|| is.tap.clone(), TapSpec::if_named),
        bond: match update.bond {
            Some(update) => is.bond.as_ref().map(|bond| bond::updated(bond, &update)),
            None => is.bond.clone(),
        },
        ..is.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guest port as the switch has it.
    fn live() -> PortSpec {
        let spec = PortSpec { vport: Some(3), ..PortSpec::new("vm1", PortKind::Guest) };
        PortSpec {
            guest_ifname: Some("xg3".into()),
            mac: Some(MacAddr::derived_from("vm1")),
            mtu: Some(1500),
            ..complete(&spec, None, None)
        }
    }

    fn wish() -> PortSpec {
        PortSpec::new("vm1", PortKind::Guest)
    }

    #[test]
    fn a_port_as_declared_stays_as_it_is() {
        let live = live();
        assert_eq!(live.ifname.as_deref(), Some("xs3"));
        assert_eq!(complete(&wish(), Some(&live), Some(&wish())), live);
        assert_eq!(update(&live, &live), Some(PortUpdate::default()));
    }

    #[test]
    fn fields_that_the_file_leaves_out_have_their_defaults() {
        let mode = VlanMode::Access { vid: 20 };
        let changed = PortSpec {
            vlan: Some(mode),
            isolated: true,
            mac_check: Some(false),
            fdb_limit: Some(7),
            queue_depth: Some(64),
            ..live()
        };
        assert_eq!(complete(&wish(), Some(&changed), None), live());
        // What the netdev gives stays, and so do sockets that a guest has opened.
        let other =
            PortSpec { mac: Some(MacAddr::new([2, 0, 0, 0, 0, 9])), mtu: Some(1400), guest_sockets: true, ..live() };
        assert_eq!(complete(&wish(), Some(&other), Some(&wish())), other);
        // Not if the file had named them.
        let named = PortSpec { mac: other.mac, mtu: other.mtu, ..wish() };
        let plain = PortSpec { guest_sockets: true, ..live() };
        assert_eq!(complete(&wish(), Some(&other), Some(&named)), plain);
    }

    #[test]
    fn a_field_is_changed_in_operation_or_the_port_is_made_anew() {
        type Change = fn(&mut PortSpec);
        let in_operation: [Change; 9] = [
            |port| port.shared_mac = true,
            |port| port.mtu = Some(1400),
            |port| port.mac = Some(MacAddr::new([2, 0, 0, 0, 0, 9])),
            |port| port.vlan = Some(VlanMode::Access { vid: 20 }),
            |port| port.isolated = true,
            |port| port.mac_check = Some(false),
            |port| port.fdb_limit = Some(7),
            |port| port.queue_depth = Some(64),
            |port| port.guest_sockets = true,
        ];
        for change in in_operation {
            let mut to = live();
            change(&mut to);
            let update = update(&live(), &to).unwrap();
            assert_ne!(update, PortUpdate::default());
            assert_eq!(updated(&live(), &update), to);
        }
        // Of a tap, or a guest by vhost-user, the switch need not know the address.
        let mac = Some(MacAddr::new([2, 0, 0, 0, 0, 9]));
        let tap = PortSpec { kind: PortKind::Tap, mac, mac_check: Some(true), ..live() };
        let bare = PortSpec { mac: None, mac_check: Some(false), ..tap.clone() };
        let to = complete(
            &PortSpec { mac_check: None, ..PortSpec::new("vm1", PortKind::Tap) },
            Some(&tap),
            Some(&PortSpec { mac, ..PortSpec::new("vm1", PortKind::Tap) }),
        );
        assert_eq!((to.mac, to.mac_check), (None, Some(false)));
        let change = update(&tap, &bare).unwrap();
        assert!(change.no_mac);
        assert_eq!(updated(&tap, &change), bare);
        // The owner of a tap, but not whether it has a group.
        let spec = |owner: Option<&str>, group: Option<&str>| {
            let tap = TapSpec { owner: owner.map(str::to_owned), group: group.map(str::to_owned) };
            let tap = Some(tap).filter(|tap| *tap != TapSpec::default());
            PortSpec { kind: PortKind::Tap, tap, ..live() }
        };
        let (nobody, both) = ((None, None), (Some("a"), Some("g")));
        for (from, to, in_operation) in [
            (nobody, (Some("a"), None), true),
            ((Some("a"), None), nobody, true),
            ((Some("a"), None), (Some("b"), None), true),
            ((None, Some("g")), (None, Some("h")), true),
            (both, (Some("b"), Some("h")), true),
            ((Some("a"), None), both, false),
            (both, nobody, false),
            (nobody, (None, Some("g")), false),
            ((None, Some("g")), (Some("a"), None), false),
        ] {
            let (is, to) = (spec(from.0, from.1), spec(to.0, to.1));
            let update = update(&is, &to);
            assert_eq!(update.is_some(), in_operation, "{from:?}");
            assert!(update.is_none_or(|update| updated(&is, &update) == to && update != PortUpdate::default()));
        }
        let anew: [Change; 12] = [
            |port| port.uuid = Some("x".into()),
            |port| port.kind = PortKind::Phy,
            |port| port.vport = Some(9),
            |port| port.ifname = Some("eth1".into()),
            |port| port.guest_ifname = Some("eth1".into()),
            |port| port.netns = Some("n".into()),
            |port| port.queues = Some(2),
            |port| port.mode = ModeRequest::Generic,
            |port| port.steering = Steering::Shared,
            |port| port.zero_copy = ZeroCopy::Off,
            |port| port.spp = Some("vhost:0".into()),
            |port| port.mac = None,
        ];
        for change in anew {
            let mut to = live();
            change(&mut to);
            assert_eq!(update(&live(), &to), None, "{to:?}");
        }
    }

    #[test]
    fn what_a_port_has_followed_stays_until_the_file_is_edited() {
        let wish = PortSpec { netns: Some("n".into()), ifname: Some("x0".into()), ..wish() };
        let is = PortSpec { netns: Some("m".into()), ifname: Some("x1".into()), ..live() };
        assert_eq!(complete(&wish, Some(&is), Some(&wish)), is);
        let edited = PortSpec { netns: Some("o".into()), ..wish.clone() };
        let to = complete(&edited, Some(&is), Some(&wish));
        assert_eq!((to.netns.as_deref(), to.ifname.as_deref()), (Some("o"), Some("x1")));
        let to = complete(&wish, Some(&is), None);
        assert_eq!((to.netns, to.ifname), (wish.netns, wish.ifname));
        let nic = PortSpec { ifname: Some("x0".into()), queues: Some(4), ..PortSpec::new("up", PortKind::Phy) };
        let is = PortSpec { queues: Some(2), ..complete(&nic, None, None) };
        assert_eq!(complete(&nic, Some(&is), Some(&nic)).queues, Some(2));
        assert_eq!(complete(&PortSpec { queues: Some(8), ..nic.clone() }, Some(&is), Some(&nic)).queues, Some(8));
    }

    #[test]
    fn a_bond_changes_members_and_options_in_operation() {
        let bond = |members: &[&str], options: &[(&str, &str)]| {
            let members = members.iter().map(|name| (*name).to_owned()).collect();
            let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            PortSpec { bond: Some(BondSpec { members, options }), ..PortSpec::new("up", PortKind::Bond) }
        };
        let wish = bond(&["eth1", "eth2"], &[("mode", "4")]);
        let is = PortSpec { vport: Some(3), mtu: Some(1500), ..complete(&wish, None, None) };
        assert_eq!(is.queues, Some(DEFAULT_BOND_QUEUES));
        let same = bond(&["eth2", "eth1"], &[("mode", "802.3ad")]);
        assert_eq!(complete(&same, Some(&is), Some(&wish)), is);
        let to = complete(&bond(&["eth2", "eth3"], &[("mode", "4"), ("min_links", "1")]), Some(&is), Some(&wish));
        let change = update(&is, &to).unwrap();
        assert_eq!(PortUpdate { bond: None, ..change.clone() }, PortUpdate::default());
        assert_eq!(updated(&is, &change), to);
        // The way back, although the switch keeps the option with its default.
        assert!(update(&to, &is).is_some_and(|back| back.bond.is_some()));
        let other = complete(&bond(&["eth1", "eth2"], &[("mode", "1")]), Some(&is), Some(&wish));
        assert_eq!(update(&is, &other), None);
    }

    #[test]
    fn a_port_of_another_kind_keeps_only_its_number() {
        let phy = PortSpec { ifname: Some("eth1".into()), ..PortSpec::new("vm1", PortKind::Phy) };
        let to = complete(&phy, Some(&live()), Some(&wish()));
        assert_eq!((to.vport, to.ifname.as_deref(), to.mac, to.guest_ifname), (Some(3), Some("eth1"), None, None));
    }
}
