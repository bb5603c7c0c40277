//! The netdevs of a port: changed, looked after, taken down.

use super::before::put_back;
use super::tap::Tap;
use super::{Followed, OtherQueues, Sight};
use crate::Error;
use crate::ErrorKind;
use crate::host::{Host, Link, LinkChange, Netdev};
use crate::model::{MAX_QUEUES, NetdevsBefore, PortSpec};

/// The netdevs of a port.
#[derive(Debug)]
pub struct Ends {
    /// The switch's netdev.
    pub near: Netdev,
    /// A veth's other end, where it can be reached.
    pub far: Option<Netdev>,
    /// Whether it is a veth.
    pub is_veth: bool,
    /// Receive queues in use.
    pub channels: u32,
    /// Whether the switch made the pair, now or before a restart.
    pub made: bool,
    /// The tap that the far end is joined to.
    pub tap: Option<Tap>,
}

/// How netdevs become again what they were before a port that can't be brought up.
#[derive(Debug)]
pub enum Undo {
    /// The pair was made just now, so nobody else can be using it.
    Delete,
    /// The ends were there.
    Restore(NetdevsBefore),
}

impl Undo {
    /// Undoes what was done to `ends`, as far as it can.
    pub fn run(self, host: &dyn Host, mut ends: Ends) {
        let tap = ends.tap.take();
        match self {
            Undo::Delete => ends.delete(host),
            Undo::Restore(before) => put_back(host, &before),
        }
        if let Some(tap) = tap {
            tap.undo(host);
        }
    }
}

impl Ends {
    /// Changes the far end, then the near one.
    pub fn change(&self, host: &dyn Host, near: &LinkChange, far: &LinkChange) -> Result<(), Error> {
        if let Some(netdev) = &self.far {
            host.change(netdev, far)?;
        }
        host.change(&self.near, near)
    }

    /// Its netdevs, as far as they can be reached.
    pub fn netdevs(&self) -> impl Iterator<Item = &Netdev> {
        std::iter::once(&self.near).chain(&self.far).chain(self.tap.as_ref().map(Tap::netdev))
    }

    /// Sets the MTU of all its netdevs, or of none.
    pub fn set_mtu(&self, host: &dyn Host, mtu: u32) -> Result<(), Error> {
        let before = host.look_at(&self.near)?.map_or(mtu, |link| link.mtu);
        let to = |mtu| LinkChange { mtu: Some(mtu), ..LinkChange::default() };
        let mut done = Vec::new();
        for netdev in self.netdevs() {
            if let Err(error) = host.change(netdev, &to(mtu)) {
                done.into_iter().try_for_each(|netdev| host.change(netdev, &to(before)))?;
                return Err(error);
            }
            done.push(netdev);
        }
        Ok(())
    }

    /// Goes by what was seen of the netdevs.
    pub fn follow(
        &mut self,
        host: &dyn Host,
        spec: &mut PortSpec,
        sight: &Sight<'_>,
        max_mtu: u32,
    ) -> Result<Followed, OtherQueues> {
        let Some(link) = sight.link else {
            let carrier = self.tap.as_mut().map(|tap| tap.look_for_vmm(host));
            return Ok(Followed { carrier, ..Followed::default() });
        };
        let carrier = |ends: &Self| ends.tap.as_ref().map(Tap::carrier);
        let tap_touched = self.tap.as_ref().is_some_and(|tap| tap.is_touched(sight.said));
        let far_touched = self.far.as_ref().is_some_and(|far| sight.said.touches(far.index));
        let moved = self.is_veth && self.far.as_ref().is_some_and(|far| link.peer != Some(far.index));
        if !sight.said.touches(self.near.index) && !far_touched && !moved && !tap_touched {
            return Ok(Followed { carrier: carrier(self), ..Followed::default() });
        }
        let mut changed = false;
        if link.name != self.near.name {
            tracing::info!(port = spec.name, from = self.near.name, to = link.name, "its netdev was renamed");
            self.near.name.clone_from(&link.name);
            spec.ifname = Some(link.name.clone());
            changed = true;
        }
        changed |= self.follow_far(host, spec, link);
        let name = &self.near.name;
        let mut problems = Vec::new();
        let mtu = spec.mtu.unwrap_or(link.mtu);
        if link.mtu != mtu && link.mtu <= max_mtu {
            tracing::info!(port = spec.name, ifname = name, from = mtu, to = link.mtu, "its MTU was changed");
            spec.mtu = Some(link.mtu);
            changed = true;
        } else if link.mtu != mtu {
            problems.push(format!(
                "{name} has MTU {}, and the port can have {max_mtu} at most: larger frames are lost",
                link.mtu
            ));
        }
        // A netdev that is gone by now is seen to be so at the next look.
        if let Some(channels) = host.channels(link).filter(|channels| *channels != self.channels) {
            let why = format!("{name} has {channels} queues now, and had {}", self.channels);
            match channels {
                1..=MAX_QUEUES => return Err(OtherQueues { queues: channels, why }),
                _ => problems.push(format!("{why}: packets of the others are dropped")),
            }
        }
        if !link.up {
            problems.push(format!("{name} is down: `ip link set {name} up`"));
        }
        if let Some(tap) = &mut self.tap {
            changed |= tap.follow(host, spec, self.far.as_ref(), &mut problems);
        }
        Ok(Followed { changed, carrier: carrier(self), netdev_problems: Some(problems), ..Followed::default() })
    }

    /// Looks where a veth's other end is now, and how it is. True: it is elsewhere, or has another name.
    fn follow_far(&mut self, host: &dyn Host, spec: &mut PortSpec, link: &Link) -> bool {
        if !self.is_veth {
            return false;
        }
        let as_before = self.far.as_ref().and_then(|far| {
            let seen = host.look_at(far).ok().flatten()?;
            (Some(seen.index) == link.peer).then(|| (far.namespace.clone(), seen))
        });
        let found = as_before.or_else(|| host.find_peer(link, None).ok().flatten());
        let Some((namespace, seen)) = found else {
            let was_there = self.far.take();
            if let Some(far) = &was_there {
                tracing::info!(port = spec.name, peer = far.name, "{}", unreached_peer(&self.near.name));
            }
            return was_there.is_some();
        };
        let netdev = Netdev::of(&seen, namespace);
        let is_same = |far: &Netdev| far.namespace == netdev.namespace && far.name == netdev.name;
        let changed = !self.far.as_ref().is_some_and(is_same);
        if changed && spec.kind.has_guest_end() {
            let place = netdev.namespace.name().unwrap_or("the switch's namespace");
            tracing::info!(port = spec.name, peer = netdev.name, place, "its guest's end was renamed or moved");
            spec.guest_ifname = Some(netdev.name.clone());
            spec.netns = netdev.namespace.name().map(str::to_owned);
        }
        if host.hidden_bytes(&netdev).is_ok_and(|features| !features.is_empty()) {
            let plain = LinkChange { plain: true, ..LinkChange::default() };
            match host.change(&netdev, &plain) {
                Ok(()) => tracing::info!(port = spec.name, peer = netdev.name, "its offloads are turned off again"),
                Err(error) => tracing::warn!(port = spec.name, peer = netdev.name, %error, "its offloads are on"),
            }
        }
        self.far = Some(netdev);
        changed
    }

    /// Deletes the pair if the switch made it, and the tap.
    pub fn delete(self, host: &dyn Host) {
        if let Some(tap) = self.tap {
            tap.delete(host);
        }
        if self.made
            && let Err(error) = host.delete(&self.near)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(ifname = self.near.name, %error, "the veth pair of a deleted port stays");
        }
    }

    /// What would break packets now, in words.
    pub fn problems(&self, host: &dyn Host, mtu: u32) -> Vec<String> {
        let mut problems = Vec::new();
        if self.is_veth && self.far.is_none() {
            problems.push(unreached_peer(&self.near.name));
        }
        match host.look_at(&self.near) {
            Ok(Some(link)) => {
                if !link.up {
                    problems.push(format!("{} is down: `ip link set {} up`", link.name, link.name));
                } else if !link.carrier {
                    problems.push(format!("{} has no carrier: its other end is down or unplugged", link.name));
                }
                if link.tap.is_some_and(|tap| tap.has_vnet_hdr) {
                    problems.push(format!(
                        "{} is a tap whose VMM may leave checksums and segments out, and such packets are sent on as they are: \
                         use a tap port, or turn these offloads off in the guest",
                        link.name
                    ));
                }
                if link.mtu != mtu {
                    problems.push(format!(
                        "{} has MTU {} and the port {mtu}: somebody changed it; set it through the port",
                        link.name, link.mtu
                    ));
                }
            }
            Ok(None) => {
                problems.push(format!("{} is gone: the port is taken up again when it is back", self.near.name))
            }
            Err(error) => problems.push(error.to_string()),
        }
        if let Some(tap) = &self.tap {
            problems.extend(tap.problems(host, self.far.as_ref()));
        }
        if let Some(far) = &self.far {
            let name = &far.name;
            match host.hidden_bytes(far) {
                Ok(features) if !features.is_empty() => problems.push(format!(
                    "{name}, the other end, leaves work to a NIC that is not there ({}): its packets will have wrong checksums \
                     or no VLAN tag; `ethtool -K {name} tx off txvlan off` there",
                    features.join(", ")
                )),
                Ok(_) => {}
                Err(error) => problems.push(error.to_string()),
            }
        }
        problems
    }
}

/// What to know of a veth whose other end is in a namespace without a name.
pub fn unreached_peer(ifname: &str) -> String {
    format!(
        "the other end of {ifname} can't be reached: if a kernel stack uses it, turn its offloads off there (`ethtool -K IF tx off \
         txvlan off`), or its packets will have wrong checksums"
    )
}
