//! The machine itself, by its kernel: netlink, ethtool, XDP programs, sockets.
//!
//! A call for a netdev of another namespace visits that namespace on a thread of its own, once.

pub mod ethtool;
pub mod links;
pub mod xsk_queues;

mod journals;
mod link_modes;
mod namespaces;
mod packet;
mod pins;
mod programs;
mod redirect;
mod sockets;
mod tun;
mod watch;

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::errno::Errno;

use self::namespaces::run;
pub use self::pins::PinPlace;
pub use self::programs::{knows_multi_buffer, why_no_flow_table};
use self::watch::Watch;
use super::{HostUse, HostWatch, Link, LinkChange, LinkStatus, Namespace, Netdev, Netdevs, Pair, PairSpec, TapPlan};
use crate::io::socket::UmemSharers;
use crate::{Error, ErrorKind};

/// Where a switch keeps what outlives its process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Where guests' ends are pinned. Without it none can be opened for AF_XDP sockets.
    pub pins: Option<PinPlace>,
    /// Directory of the files that say where packed rings of vhost-user guests stand. Without it no such rings are
    /// offered. No other switch may use it.
    pub journals: Option<PathBuf>,
}

/// The real host.
#[derive(Debug, Default)]
pub struct KernelHost {
    places: Places,
    /// Sockets whose UMEM further ones can share.
    sharers: UmemSharers,
}

impl KernelHost {
    /// The host of this machine.
    pub fn new(places: Places) -> Self {
        Self { places, sharers: UmemSharers::default() }
    }
}

/// A netdev that has to be there; in the namespace of the calling thread.
fn expect_link(netdev: &Netdev) -> Result<Link, Error> {
    let gone = || Error::new(ErrorKind::NotFound, format!("there is no netdev {} any more", netdev.name));
    links::find_index(netdev.index)?.ok_or_else(gone)
}

/// Turns off what would leave bytes out of packets that this netdev sends.
fn make_plain(link: &Link) -> Result<(), Error> {
    let ifname = &link.name;
    let left = ethtool::make_plain(link.index).map_err(|errno| {
        let advice = if errno == Errno::EPERM { ": CAP_NET_ADMIN is needed" } else { "" };
        Error::new(ErrorKind::System, format!("turning off the offloads of {ifname}: {errno}{advice}"))
    })?;
    if !left.is_empty() {
        tracing::warn!(
            ifname,
            features = left.join(", "),
            "these offloads can't be turned off: checksums may be wrong"
        );
    }
    Ok(())
}

impl Netdevs for KernelHost {
    fn namespace(&self, name: &str) -> Result<Namespace, Error> {
        namespaces::look_up(name)
    }

    fn instance(&self) -> &str {
        self.places.pins.as_ref().map_or("", |pins| &pins.instance)
    }

    fn find(&self, name: &str) -> Result<Option<Link>, Error> {
        links::find(name)
    }

    fn look_at(&self, netdev: &Netdev) -> Result<Option<Link>, Error> {
        run(&netdev.namespace, || links::find_index(netdev.index))
    }

    fn list(&self) -> Result<Vec<Link>, Error> {
        links::list()
    }

    fn list_in(&self, namespace: &Namespace) -> Result<Vec<Link>, Error> {
        run(namespace, links::list)
    }

    fn find_peer(&self, link: &Link, hint: Option<&Namespace>) -> Result<Option<(Namespace, Link)>, Error> {
        let Some(index) = link.peer.filter(|_| link.is_veth) else { return Ok(None) };
        if link.peer_nsid.is_none() {
            return Ok(links::find_index(index)?.map(|peer| (Namespace::Here, peer)));
        }
        let candidates = hint.map_or_else(namespaces::all, |hint| vec![hint.clone()]);
        for namespace in candidates {
            let Namespace::Named(named) = &namespace else { continue };
            // One that was deleted since has no netdevs any more.
            let Ok(file) = namespaces::open(named) else { continue };
            if links::nsid(file.as_fd())? == link.peer_nsid {
                drop(file);
                let peer = run(&namespace, || links::find_index(index))?;
                return Ok(peer.map(|peer| (namespace, peer)));
            }
        }
        Ok(None)
    }

    fn make_pair(&self, spec: &PairSpec<'_>) -> Result<Pair, Error> {
        links::create_veth(spec).map_err(|error| match spec.peer_namespace.name() {
            // The caller has seen that there is none of the other name.
            Some(name) if error.kind() == ErrorKind::Exists => Error::new(
                ErrorKind::Exists,
                format!("guest_ifname: network namespace `{name}` has a netdev {} already", spec.peer),
            ),
            _ => error,
        })?;
        let gone = || Error::new(ErrorKind::NotFound, format!("there is no netdev {} any more", spec.name));
        let made = links::find(spec.draft_name)?.ok_or_else(gone)?;
        let finish = || {
            // The host's stack must not speak to the guest on the switch's end.
            links::silence_ipv6(made.index)?;
            links::set_alias(made.index, spec.alias)?;
            links::rename(made.index, spec.name)?;
            made.peer.ok_or_else(gone)
        };
        let peer = finish().inspect_err(|_| {
            if let Err(error) = links::delete(made.index) {
                tracing::warn!(name = spec.name, %error, "a veth pair that was made in vain stays");
            }
        })?;
        let far = Netdev { namespace: spec.peer_namespace.clone(), index: peer, name: spec.peer.to_owned() };
        let near = Netdev { namespace: Namespace::Here, index: made.index, name: spec.name.to_owned() };
        Ok(Pair { near, far })
    }

    fn change(&self, netdev: &Netdev, change: &LinkChange) -> Result<(), Error> {
        run(&netdev.namespace, || {
            let link = expect_link(netdev)?;
            if let Some(mac) = change.mac.filter(|&mac| mac != link.mac) {
                links::set_mac(link.index, mac)?;
            }
            if let Some(mtu) = change.mtu.filter(|&mtu| mtu != link.mtu) {
                links::set_mtu(link.index, mtu)?;
            }
            if change.plain {
                make_plain(&link)?;
            }
            if change.silent {
                // Without the first one there would be an address again whenever IPv6 is let in.
                links::silence_ipv6(link.index)?;
                programs::silence(&link.name, true);
            }
            if !change.offloads.is_empty() {
                ethtool::turn_on(link.index, &change.offloads).map_err(|errno| {
                    let what = format!("turning the offloads of {} on again: {errno}", link.name);
                    Error::new(ErrorKind::System, what)
                })?;
            }
            match change.up.filter(|&up| up != link.up) {
                Some(true) => links::set_up(link.index),
                Some(false) => links::set_down(link.index),
                None => Ok(()),
            }
        })
    }

    fn move_to(&self, netdev: &Netdev, namespace: &Namespace) -> Result<Netdev, Error> {
        let to = match namespace {
            Namespace::Here => namespaces::current()
                .map_err(|error| Error::new(ErrorKind::System, format!("opening the network namespace: {error}")))?,
            Namespace::Named(named) => namespaces::open(named)?,
        };
        run(&netdev.namespace, || links::move_to(netdev.index, to.as_fd()))?;
        drop(to);
        let moved = run(namespace, || links::find(&netdev.name))?;
        let gone = || Error::new(ErrorKind::NotFound, format!("there is no netdev {} any more", netdev.name));
        Ok(Netdev::of(&moved.ok_or_else(gone)?, namespace.clone()))
    }

    fn delete(&self, netdev: &Netdev) -> Result<(), Error> {
        run(&netdev.namespace, || links::delete(netdev.index))
    }

    fn channels(&self, link: &Link) -> Option<u32> {
        ethtool::rx_channels(link.index).ok().map(|channels| channels.unwrap_or(link.rx_queues))
    }

    fn link_status(&self, netdev: &Netdev) -> Result<Option<LinkStatus>, Error> {
        run(&netdev.namespace, || {
            let Some((link, counters)) = links::find_with_counters(netdev.index)? else { return Ok(None) };
            // It may have gone in between.
            Ok(link_modes::read(netdev.index).map(|mode| LinkStatus { link, mode, counters }))
        })
    }

    fn host_use(&self, link: &Link) -> Result<HostUse, Error> {
        links::host_use(link.index)
    }

    fn hidden_bytes(&self, netdev: &Netdev) -> Result<Vec<String>, Error> {
        run(&netdev.namespace, || {
            let link = expect_link(netdev)?;
            ethtool::hidden_bytes(link.index).map_err(|errno| {
                Error::new(
                    ErrorKind::System,
                    format!("the offloads of {}, the other end, can't be read: {errno}", netdev.name),
                )
            })
        })
    }

    fn let_ipv6_speak(&self, netdev: &Netdev) -> Result<(), Error> {
        run(&netdev.namespace, || {
            programs::silence(&netdev.name, false);
            Ok(())
        })
    }

    fn make_tap(&self, ifname: &str) -> Result<File, Error> {
        let file = tun::create_tap(ifname)?;
        let link = links::find(ifname)?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("tap {ifname} was gone at once: somebody deletes or renames netdevs"),
            )
        })?;
        links::set_up(link.index)?;
        Ok(file)
    }

    fn make_port_tap(&self, plan: &TapPlan<'_>) -> Result<Netdev, Error> {
        run(plan.namespace, || {
            // Whoever is killed before the tap is marked has left a draft. One in a namespace that nobody has looked at
            // since is found here.
            if let Some(draft) = links::find(plan.draft_name)?.filter(|link| link.tap.is_some()) {
                links::delete(draft.index)?;
            }
            tun::create_persistent_tap(plan.draft_name, plan.multi_queue, plan.owner, plan.group)?;
            let gone = || Error::new(ErrorKind::NotFound, format!("tap {} was gone at once", plan.name));
            let made = links::find(plan.draft_name)?.ok_or_else(gone)?;
            let finish = || {
                links::silence_ipv6(made.index)?;
                links::set_alias(made.index, plan.alias)?;
                links::rename(made.index, plan.name)
            };
            finish().inspect_err(|_| {
                if let Err(error) = links::delete(made.index) {
                    tracing::warn!(name = plan.name, %error, "a tap that was made in vain stays");
                }
            })?;
            Ok(Netdev { namespace: plan.namespace.clone(), index: made.index, name: plan.name.to_owned() })
        })
    }

    fn give_tap(&self, netdev: &Netdev, owner: Option<u32>, group: Option<u32>) -> Result<(), Error> {
        run(&netdev.namespace, || {
            let found = links::find_index(netdev.index)?.and_then(|link| Some((link.tap?, link.name)));
            let Some((state, name)) = found else {
                return Err(Error::new(ErrorKind::NotFound, format!("the tap {} is gone", netdev.name)));
            };
            // One of several queues could be opened beside a VMM, which would lose packets.
            if state.open_queues > 0 {
                return Err(tun::in_use(&name));
            }
            tun::give_tap(&name, state.is_multi_queue, (state.owner, state.group), (owner, group))
        })
    }

    fn redirect_all(&self, from: &Netdev, to: &Netdev) -> Result<(), Error> {
        run(&from.namespace, || redirect::redirect_all(from.index, to.index))
    }

    fn redirected_to(&self, netdev: &Netdev) -> Result<Option<u32>, Error> {
        run(&netdev.namespace, || redirect::target(netdev.index))
    }

    fn watch(&self) -> Result<Box<dyn HostWatch>, Error> {
        Ok(Box::new(Watch::new()?))
    }
}
