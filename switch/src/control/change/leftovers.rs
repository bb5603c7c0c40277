//! What an earlier process of this switch has left on the machine.

use crate::control::attach::Mark;
use crate::control::state::Control;
use crate::host::{Host, Link, Namespace, Netdev};
use crate::model::PortSpec;

/// Removes pairs and taps of ports that are not `kept`.
pub(in crate::control) fn clear_leftovers(control: &Control, kept: &[PortSpec]) {
    let host = &*control.core.host;
    let mark = Mark::of(host);
    let is_kept = |port: &str| kept.iter().any(|spec| spec.name == port);
    let list = |namespace: &Namespace| {
        host.list_in(namespace).unwrap_or_else(|error| {
            tracing::warn!(%error, "leftovers of an earlier process can't be looked for");
            Vec::new()
        })
    };
    let pair_of = |link: &Link| mark.port_of(link).or(mark.is_draft(link).then_some("")).map(str::to_owned);
    let tap_of = |link: &Link| mark.tap_port_of(link).or(mark.is_draft_tap(link).then_some("")).map(str::to_owned);
    let links = list(&Namespace::Here);
    let left: Vec<_> = links.iter().filter(|link| pair_of(link).is_some_and(|port| !is_kept(&port))).collect();
    // A tap is where the far end of its pair is.
    let mut places = vec![Namespace::Here];
    for link in left.iter().filter(|link| link.peer_nsid.is_some()) {
        if let Ok(Some((place, _))) = host.find_peer(link, None)
            && !places.contains(&place)
        {
            places.push(place);
        }
    }
    let taps = places.iter().flat_map(|place| list(place).into_iter().map(move |link| (place, link)));
    for (place, link) in taps {
        if let Some(port) = tap_of(&link).filter(|port| !is_kept(port)) {
            delete(host, &Netdev::of(&link, place.clone()), "a tap", &port);
        }
    }
    for link in left {
        let port = pair_of(link).unwrap_or_default();
        delete(host, &Netdev::here(link), "a veth pair", &port);
    }
}

fn delete(host: &dyn Host, netdev: &Netdev, what: &str, port: &str) {
    match host.delete(netdev) {
        Ok(()) => tracing::info!(ifname = netdev.name, port, "{what} that no port has any more is removed"),
        Err(error) => tracing::warn!(ifname = netdev.name, port, %error, "{what} that no port has stays"),
    }
}
