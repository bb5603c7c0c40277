//! Made-up netdevs.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};
use switch::host::{
    HostChange, HostUse, HostWatch, Link, LinkChange, LinkStatus, Namespace, Netdev, Netdevs, Pair, PairSpec, TapPlan,
    TapState,
};
use switch::{Error, ErrorKind};

use crate::FakeHost;
use crate::fate::Call;
use crate::state::{Device, State, Watched};

fn not_found(text: String) -> Error {
    Error::new(ErrorKind::NotFound, text)
}

pub(crate) fn gone(netdev: &Netdev) -> Error {
    not_found(format!("there is no netdev {} any more", netdev.name))
}

pub(crate) fn system(error: &std::io::Error) -> Error {
    Error::new(ErrorKind::System, error.to_string())
}

/// A descriptor that stands for a namespace.
pub(crate) fn namespace_file() -> Result<OwnedFd, Error> {
    File::open("/proc/self/ns/net").map(OwnedFd::from).map_err(|error| system(&error))
}

/// A namespace that has no name on the made-up host.
pub(crate) const UNNAMED: &str = "(unnamed)";

fn is_for_pairs(name: &str) -> bool {
    ["xs", "xg", "xf", "xt"].iter().any(|begin| name.starts_with(begin))
}

impl State {
    fn find_here(&mut self, name: &str) -> Option<&Device> {
        let is_it = |device: &&Device| device.link.name == name && device.namespace.is_none();
        if self.has_everything
            && !self.devices.values().any(|device| is_it(&device))
            && !self.missing.contains(name)
            && !is_for_pairs(name)
        {
            self.add_nic(name, 1);
        }
        self.devices.values().find(is_it)
    }

    fn is_there(&self, name: &str, namespace: Option<&str>) -> bool {
        self.devices.values().any(|device| device.link.name == name && device.namespace.as_deref() == namespace)
    }
}

impl Netdevs for FakeHost {
    fn namespace(&self, name: &str) -> Result<Namespace, Error> {
        let mut state = self.lock();
        if state.missing.contains(name) {
            let text = format!("netns: network namespace `{name}` can't be opened: make it with `ip netns add {name}`");
            return Err(not_found(text));
        }
        Ok(Namespace::named(name, state.namespace_id(name)))
    }

    fn instance(&self) -> &str {
        "made-up"
    }

    fn find(&self, name: &str) -> Result<Option<Link>, Error> {
        let mut state = self.lock();
        let index = state.find_here(name).map(|device| device.link.index);
        Ok(index.and_then(|index| state.devices.get(&index)).map(|device| state.link(device)))
    }

    fn look_at(&self, netdev: &Netdev) -> Result<Option<Link>, Error> {
        let mut state = self.lock();
        let index = state.device(netdev).map(|device| device.link.index);
        Ok(index.and_then(|index| state.devices.get(&index)).map(|device| state.link(device)))
    }

    fn list(&self) -> Result<Vec<Link>, Error> {
        let state = self.lock();
        let here = state.devices.values().filter(|device| device.namespace.is_none());
        Ok(here.map(|device| state.link(device)).collect())
    }

    fn list_in(&self, namespace: &Namespace) -> Result<Vec<Link>, Error> {
        let state = self.lock();
        let inside = state.devices.values().filter(|device| device.namespace.as_deref() == namespace.name());
        Ok(inside.map(|device| state.link(device)).collect())
    }

    fn find_peer(&self, link: &Link, hint: Option<&Namespace>) -> Result<Option<(Namespace, Link)>, Error> {
        let mut state = self.lock();
        let Some(peer) = link.peer.and_then(|peer| state.devices.get(&peer)) else { return Ok(None) };
        let found = state.link(peer);
        let namespace = match (peer.namespace.clone(), hint) {
            (None, _) => Namespace::Here,
            (Some(name), Some(hint)) if hint.name() != Some(name.as_str()) => return Ok(None),
            (Some(name), _) if name == UNNAMED => return Ok(None),
            (Some(name), _) => {
                let id = state.namespace_id(&name);
                Namespace::named(name, id)
            }
        };
        Ok(Some((namespace, found)))
    }

    fn make_pair(&self, spec: &PairSpec<'_>) -> Result<Pair, Error> {
        let mut state = self.lock();
        state.call(Call::MakePair, spec.name)?;
        if state.missing.contains(spec.name) {
            return Err(not_found(format!("ifname: there is no netdev {} here", spec.name)));
        }
        let namespace = spec.peer_namespace.name();
        if state.is_there(spec.name, None) || state.is_there(spec.peer, namespace) {
            return Err(Error::new(
                ErrorKind::Exists,
                format!("making veth pair {} and {}: a netdev of that name is there already", spec.name, spec.peer),
            ));
        }
        let [near, far] = state.add_pair((spec.name, None), (spec.peer, namespace), spec.queues);
        for index in [near, far] {
            if let Some(device) = state.devices.get_mut(&index) {
                device.link.mtu = spec.mtu;
            }
        }
        if let Some(device) = state.devices.get_mut(&far) {
            device.link.mac = spec.peer_mac;
        }
        if let Some(device) = state.devices.get_mut(&near) {
            device.link.alias = Some(spec.alias.to_owned());
        }
        Ok(Pair {
            near: Netdev { namespace: Namespace::Here, index: near, name: spec.name.to_owned() },
            far: Netdev { namespace: spec.peer_namespace.clone(), index: far, name: spec.peer.to_owned() },
        })
    }

    fn change(&self, netdev: &Netdev, change: &LinkChange) -> Result<(), Error> {
        let mut state = self.lock();
        state.call(Call::Change, &netdev.name)?;
        let device = state.device(netdev).ok_or_else(|| gone(netdev))?;
        device.is_plain |= change.plain;
        device.is_plain &= change.offloads.is_empty();
        device.is_silent |= change.silent;
        let link = &mut device.link;
        link.mac = change.mac.unwrap_or(link.mac);
        link.mtu = change.mtu.unwrap_or(link.mtu);
        link.up = change.up.unwrap_or(link.up);
        state.say(Some(netdev.index));
        Ok(())
    }

    fn move_to(&self, netdev: &Netdev, namespace: &Namespace) -> Result<Netdev, Error> {
        let mut state = self.lock();
        state.call(Call::MoveTo, &netdev.name)?;
        let device = state.device(netdev).ok_or_else(|| gone(netdev))?;
        device.namespace = namespace.name().map(str::to_owned);
        device.link.up = false;
        state.say(Some(netdev.index));
        Ok(Netdev { namespace: namespace.clone(), ..netdev.clone() })
    }

    fn delete(&self, netdev: &Netdev) -> Result<(), Error> {
        let mut state = self.lock();
        state.call(Call::Delete, &netdev.name)?;
        let index = state.device(netdev).ok_or_else(|| gone(netdev))?.link.index;
        state.remove(index);
        Ok(())
    }

    fn channels(&self, link: &Link) -> Option<u32> {
        Some(self.lock().devices.get(&link.index)?.link.rx_queues)
    }

    fn link_status(&self, netdev: &Netdev) -> Result<Option<LinkStatus>, Error> {
        let mut state = self.lock();
        let index = state.device(netdev).map(|device| device.link.index);
        let device = index.and_then(|index| state.devices.get(&index));
        Ok(device.map(|device| LinkStatus {
            link: state.link(device),
            mode: device.link_mode,
            counters: device.counters,
        }))
    }

    fn host_use(&self, link: &Link) -> Result<HostUse, Error> {
        Ok(self.lock().devices.get(&link.index).map(|device| device.host_use.clone()).unwrap_or_default())
    }

    fn hidden_bytes(&self, netdev: &Netdev) -> Result<Vec<String>, Error> {
        let mut state = self.lock();
        let device = state.device(netdev).ok_or_else(|| gone(netdev))?;
        Ok(if device.is_plain { Vec::new() } else { vec!["tx-checksum-ip-generic".to_owned()] })
    }

    fn let_ipv6_speak(&self, _: &Netdev) -> Result<(), Error> {
        Ok(())
    }

    fn make_tap(&self, ifname: &str) -> Result<File, Error> {
        let mut state = self.lock();
        state.call(Call::MakeTap, ifname)?;
        let (ours, hosts) = UnixDatagram::pair().map_err(|error| system(&error))?;
        ours.set_nonblocking(true).map_err(|error| system(&error))?;
        state.taps.insert(ifname.to_owned(), hosts);
        Ok(File::from(OwnedFd::from(ours)))
    }

    fn make_port_tap(&self, plan: &TapPlan<'_>) -> Result<Netdev, Error> {
        let mut state = self.lock();
        state.call(Call::MakePortTap, plan.name)?;
        let namespace = plan.namespace.name();
        if state.is_there(plan.name, namespace) {
            return Err(Error::new(ErrorKind::Exists, format!("making tap {}: there is one already", plan.name)));
        }
        let &TapPlan { owner, group, multi_queue: is_multi_queue, .. } = plan;
        let tap = TapState { owner, group, is_multi_queue, ..TapState::default() };
        let index = state.add_tap(plan.name, namespace, tap);
        if let Some(device) = state.devices.get_mut(&index) {
            device.link.alias = Some(plan.alias.to_owned());
        }
        Ok(Netdev { namespace: plan.namespace.clone(), index, name: plan.name.to_owned() })
    }

    fn give_tap(&self, netdev: &Netdev, owner: Option<u32>, group: Option<u32>) -> Result<(), Error> {
        let mut state = self.lock();
        state.call(Call::GiveTap, &netdev.name)?;
        let device = state.device(netdev).ok_or_else(|| gone(netdev))?;
        let tap = device.link.tap.as_mut().ok_or_else(|| gone(netdev))?;
        if tap.open_queues > 0 {
            return Err(Error::new(ErrorKind::Busy, format!("tap: a VMM has {} open", netdev.name)));
        }
        (tap.owner, tap.group) = (owner.or(tap.owner), group.or(tap.group));
        state.say(Some(netdev.index));
        Ok(())
    }

    fn redirect_all(&self, from: &Netdev, to: &Netdev) -> Result<(), Error> {
        let mut state = self.lock();
        state.call(Call::Redirect, &from.name)?;
        state.device(to).ok_or_else(|| gone(to))?;
        state.device(from).ok_or_else(|| gone(from))?.redirect = Some(to.index);
        state.say(Some(from.index));
        Ok(())
    }

    fn redirected_to(&self, netdev: &Netdev) -> Result<Option<u32>, Error> {
        Ok(self.lock().device(netdev).ok_or_else(|| gone(netdev))?.redirect)
    }

    fn watch(&self) -> Result<Box<dyn HostWatch>, Error> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let bell = EventFd::from_flags(flags).map_err(|errno| system(&errno.into()))?;
        let watched = Arc::new(Watched { bell, said: Mutex::default() });
        self.lock().watches.push(Arc::downgrade(&watched));
        Ok(Box::new(Watch(watched)))
    }
}

/// A subscription to changes.
#[derive(Debug)]
struct Watch(Arc<Watched>);

impl HostWatch for Watch {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.bell.as_fd()
    }

    fn take(&mut self) -> HostChange {
        let _ = self.0.bell.read();
        std::mem::take(&mut self.0.said.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
