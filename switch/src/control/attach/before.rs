//! Netdevs as they were before a port changed them, and their way back.
//!
//! It is used when a port can't be brought up, and by the next process if one was killed in between.

use crate::Error;
use crate::host::{Host, Link, LinkChange, Namespace, Netdev};
use crate::model::{NetdevBefore, NetdevsBefore};

/// Notes how a netdev is.
pub fn note(host: &dyn Host, link: &Link, namespace: &Namespace) -> NetdevBefore {
    let netdev = Netdev::of(link, namespace.clone());
    NetdevBefore {
        netns: namespace.name().map(str::to_owned),
        ifindex: link.index,
        ifname: link.name.clone(),
        mac: link.mac,
        mtu: link.mtu,
        up: link.up,
        // A netdev that can't tell has none to be turned off either.
        offloads: host.hidden_bytes(&netdev).unwrap_or_default(),
    }
}

/// Makes netdevs again what they were, as far as they are there.
pub fn put_back(host: &dyn Host, before: &NetdevsBefore) {
    let failed = |ifname: &str, error: &Error| tracing::warn!(ifname, %error, "a netdev can't be restored");
    let NetdevsBefore { near, far } = before;
    let here = Netdev { namespace: Namespace::Here, index: near.ifindex, name: near.ifname.clone() };
    let link = match host.look_at(&here) {
        Ok(Some(link)) => link,
        Ok(None) => return,
        Err(error) => return failed(&near.ifname, &error),
    };
    if let Some(far) = far
        && let Err(error) = put_far_back(host, &link, far)
    {
        failed(&far.ifname, &error);
    }
    if let Err(error) = host.change(&here, &change_to(near)) {
        failed(&near.ifname, &error);
    }
}

/// The far end may be in the namespace of its guest by now.
fn put_far_back(host: &dyn Host, near: &Link, before: &NetdevBefore) -> Result<(), Error> {
    let Some((namespace, link)) = host.find_peer(near, None)? else { return Ok(()) };
    let mut netdev = Netdev::of(&link, namespace);
    if netdev.namespace.name() != before.netns.as_deref() {
        let home = before.netns.as_deref().map_or(Ok(Namespace::Here), |name| host.namespace(name))?;
        netdev = host.move_to(&netdev, &home)?;
    }
    host.change(&netdev, &change_to(before))
}

fn change_to(before: &NetdevBefore) -> LinkChange {
    LinkChange {
        mac: Some(before.mac),
        mtu: Some(before.mtu),
        plain: false,
        silent: false,
        offloads: before.offloads.clone(),
        up: Some(before.up),
    }
}
