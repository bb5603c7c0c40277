//! Netdevs, as far as control knows them.

use std::fs::File;

use super::{HostWatch, Namespace};
use crate::Error;
use crate::model::{LinkMode, MacAddr, NetdevCounters};

/// Longest name of a netdev in bytes (`IFNAMSIZ` less the final zero).
pub const MAX_IFNAME: usize = 15;

/// A netdev. Namespace and index say which one it is.
#[derive(Clone, Debug)]
pub struct Netdev {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its index there.
    pub index: u32,
    /// The name that it had when it was found.
    pub name: String,
}

impl Netdev {
    /// A netdev of the switch's own namespace.
    pub fn here(link: &Link) -> Self {
        Self::of(link, Namespace::Here)
    }

    /// The netdev that was found as `link` in that namespace.
    pub fn of(link: &Link, namespace: Namespace) -> Self {
        Self { namespace, index: link.index, name: link.name.clone() }
    }
}

/// A netdev as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index, unique in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Largest MTU that its driver takes now; 0 if it names none.
    pub max_mtu: u32,
    /// Link-layer address.
    pub mac: MacAddr,
    /// Set up by its administrator.
    pub up: bool,
    /// Has carrier and is up.
    pub carrier: bool,
    /// Whether it is one end of a veth pair.
    pub is_veth: bool,
    /// For a veth the index of its peer, in the peer's namespace (`IFLA_LINK`).
    pub peer: Option<u32>,
    /// The identifier that this namespace has for the peer's, if that is another one.
    pub peer_nsid: Option<i32>,
    /// Free text of its administrator.
    pub alias: Option<String>,
    /// Receive queues that it was made with.
    pub rx_queues: u32,
    /// What it is beside, if it is a tap.
    pub tap: Option<TapState>,
    /// Frames that were to leave by it and were dropped by its driver.
    pub tx_dropped: u64,
}

/// What driver and kernel say of a netdev's link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// The netdev.
    pub link: Link,
    /// Speed, duplex and negotiation. All unknown if the driver can't tell.
    pub mode: LinkMode,
    /// What was counted there.
    pub counters: NetdevCounters,
}

/// A tap as the kernel describes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapState {
    /// User that may open it. `None`: any, if nothing else keeps them.
    pub owner: Option<u32>,
    /// Group whose members may open it. `None`: any, if nothing else keeps them.
    pub group: Option<u32>,
    /// Whether it can be opened several times, once a queue.
    pub is_multi_queue: bool,
    /// Whether whoever has it puts virtio-net headers before packets.
    pub has_vnet_hdr: bool,
    /// Queues that are open and in use.
    pub open_queues: u32,
}

/// What a new veth pair is like.
#[derive(Clone, Debug)]
pub struct PairSpec<'a> {
    /// Name of the switch's end.
    pub name: &'a str,
    /// Name that the switch's end has until it is marked by `alias`. Whoever is killed in between leaves it so.
    pub draft_name: &'a str,
    /// Name of the guest's end.
    pub peer: &'a str,
    /// Queues of both ends, each way.
    pub queues: u32,
    /// MTU of both ends.
    pub mtu: u32,
    /// Address of the guest's end.
    pub peer_mac: MacAddr,
    /// Namespace of the guest's end.
    pub peer_namespace: &'a Namespace,
    /// Free text of the switch's end.
    pub alias: &'a str,
}

/// What a new tap of a port is like.
#[derive(Clone, Copy, Debug)]
pub struct TapPlan<'a> {
    /// Its name.
    pub name: &'a str,
    /// Name that it has until it is marked by `alias`. Whoever is killed in between leaves it so.
    pub draft_name: &'a str,
    /// Its namespace.
    pub namespace: &'a Namespace,
    /// Whether a VMM can open it several times, once a queue. A VMM says the same, or can't open it.
    pub multi_queue: bool,
    /// User that may open it.
    pub owner: Option<u32>,
    /// Group whose members may open it.
    pub group: Option<u32>,
    /// Free text.
    pub alias: &'a str,
}

/// Both ends of a veth pair.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The switch's end.
    pub near: Netdev,
    /// The guest's end.
    pub far: Netdev,
}

/// What to change of a netdev. What is so already is left alone, and so is what is `None`, false or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Link-layer address.
    pub mac: Option<MacAddr>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// Turn off the offloads that leave bytes out of packets that it sends: checksums, VLAN tags, segments.
    pub plain: bool,
    /// Keep the host's IPv6 stack from speaking there.
    pub silent: bool,
    /// Turn on these of the offloads again ([`Netdevs::hidden_bytes`]).
    pub offloads: Vec<String>,
    /// Set it up, or down.
    pub up: Option<bool>,
}

/// What the host itself uses a netdev for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostUse {
    /// Its addresses with their prefixes, link-local ones left out.
    pub addresses: Vec<String>,
    /// Whether a default route leads over it.
    pub default_route: bool,
}

/// Netdevs and their namespaces.
pub trait Netdevs {
    /// The namespace of that name.
    fn namespace(&self, name: &str) -> Result<Namespace, Error>;

    /// What tells this switch from others on the machine.
    fn instance(&self) -> &str;

    /// The netdev of that name in the switch's namespace; `None` if there is none.
    fn find(&self, name: &str) -> Result<Option<Link>, Error>;

    /// A netdev as it is now; `None` if it is gone.
    fn look_at(&self, netdev: &Netdev) -> Result<Option<Link>, Error>;

    /// Every netdev of the switch's namespace.
    fn list(&self) -> Result<Vec<Link>, Error>;

    /// Every netdev of a namespace.
    fn list_in(&self, namespace: &Namespace) -> Result<Vec<Link>, Error>;

    /// The other end of a veth of the switch's namespace: in that namespace, in `hint`, or without a hint in any
    /// that has a name. `None` if it is not there, or `link` is no veth.
    fn find_peer(&self, link: &Link, hint: Option<&Namespace>) -> Result<Option<(Namespace, Link)>, Error>;

    /// Makes a veth pair, both ends down. The host's IPv6 stack does not speak on the near end. On an error nothing
    /// is left.
    fn make_pair(&self, spec: &PairSpec<'_>) -> Result<Pair, Error>;

    /// Changes a netdev. An error may leave some of it changed.
    fn change(&self, netdev: &Netdev, change: &LinkChange) -> Result<(), Error>;

    /// Moves a netdev to another namespace, where it is down; its index may be another one there.
    fn move_to(&self, netdev: &Netdev, namespace: &Namespace) -> Result<Netdev, Error>;

    /// Deletes a netdev; of a veth pair both ends go.
    fn delete(&self, netdev: &Netdev) -> Result<(), Error>;

    /// Receive queues in use. `None` if the netdev is gone.
    fn channels(&self, link: &Link) -> Option<u32>;

    /// What driver and kernel say of a netdev's link now; `None` if it is gone.
    fn link_status(&self, netdev: &Netdev) -> Result<Option<LinkStatus>, Error>;

    /// What the host itself uses a netdev of the switch's namespace for.
    fn host_use(&self, link: &Link) -> Result<HostUse, Error>;

    /// Names of the offloads that leave bytes out of packets that a netdev sends and are on.
    fn hidden_bytes(&self, netdev: &Netdev) -> Result<Vec<String>, Error>;

    /// Lets the host's IPv6 stack speak on a netdev again that a guest's program was on.
    fn let_ipv6_speak(&self, netdev: &Netdev) -> Result<(), Error>;

    /// Makes a tap and sets it up. It goes when the file is closed. A read or write of the file is one frame, and
    /// never waits.
    ///
    /// # Errors
    /// `Invalid`: no name of a netdev; `Busy`: the name is taken; `Denied`: no permission; `Unsupported`: no taps here.
    fn make_tap(&self, ifname: &str) -> Result<File, Error>;

    /// Makes a tap that stays until it is deleted, down. On an error nothing is left.
    ///
    /// # Errors
    /// `Exists`: the name is taken; `Denied`: no permission; `Unsupported`: no taps here.
    fn make_port_tap(&self, plan: &TapPlan<'_>) -> Result<Netdev, Error>;

    /// Has another user and group open a tap, or nobody else than before. Each that is `None` stays as it is.
    ///
    /// # Errors
    /// `Busy`: a VMM has it open; `NotFound`: it is gone; `Denied`: no permission.
    fn give_tap(&self, netdev: &Netdev, owner: Option<u32>, group: Option<u32>) -> Result<(), Error>;

    /// Has all that comes in by a netdev leave by another one of its namespace. The kernel does so until one of both is
    /// deleted, or another call says otherwise.
    ///
    /// # Errors
    /// `Unsupported`: the kernel has no `clsact`, `u32` or `mirred`.
    fn redirect_all(&self, from: &Netdev, to: &Netdev) -> Result<(), Error>;

    /// Index of the netdev that all leaves by that comes in by this one, if there is one.
    fn redirected_to(&self, netdev: &Netdev) -> Result<Option<u32>, Error>;

    /// Subscribes to notifications of what changes.
    ///
    /// # Errors
    /// `System`: the kernel can't be subscribed to.
    fn watch(&self) -> Result<Box<dyn HostWatch>, Error>;
}
