//! The state of the made-up machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nix::sys::eventfd::EventFd;
use switch::Error;
use switch::host::{
    HostChange, HostUse, Link, Namespace, NamespaceId, Netdev, OtherProgram, QueueCounters, SteerKey, TapState,
};
use switch::io::memory::MemoryKernel;
use switch::model::{LinkMode, MacAddr, Mode, NetdevCounters, PortNo, Steering};
use switch::offload::Exit;

use crate::fate::{Call, Fate, meet};

/// Bytes of the two addresses and of what tells a tag from other types.
const ADDRESSES: usize = 12;
const TAG: [u8; 2] = [0x81, 0x00];

/// A netdev.
#[derive(Debug)]
pub(crate) struct Device {
    /// What does not depend on other netdevs.
    pub link: Link,
    /// `None`: the switch's.
    pub namespace: Option<String>,
    /// The other end of a veth.
    pub peer: Option<u32>,
    pub is_plain: bool,
    /// Whether the host's stack was told not to speak there.
    pub is_silent: bool,
    /// Where all goes that comes in.
    pub redirect: Option<u32>,
    pub host_use: HostUse,
    /// What its driver says of the link.
    pub link_mode: LinkMode,
    /// What the kernel has counted.
    pub counters: NetdevCounters,
    /// A program of somebody else.
    pub other_program: Option<OtherProgram>,
    pub program: Option<Program>,
    /// Shared with each socket that keeps the netdev promiscuous.
    pub promiscuous: Arc<()>,
    /// What was sent beside its queues, and not taken yet.
    pub sent_beside: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Where copies of group-addressed frames go.
    pub group_frames: Option<UnixDatagram>,
    /// By guests. `None`: nothing can be told of any queue.
    pub bound_queues: Option<u32>,
    /// What it takes from programs on other netdevs.
    pub exit: Exit,
}

/// A port's program.
#[derive(Debug)]
pub(crate) struct Program {
    pub id: u32,
    /// `None`: not attached.
    pub mode: Option<Mode>,
    pub steered: Steering,
    pub steering: BTreeSet<SteerKey>,
    /// Of each queue, whether it has a socket, and what was counted.
    pub queues: Vec<(bool, QueueCounters)>,
}

impl Program {
    pub fn counters(&self) -> Vec<QueueCounters> {
        self.queues.iter().map(|(_, counters)| *counters).collect()
    }
}

/// What is kept of a guest's end.
#[derive(Debug)]
pub(crate) struct GuestEnd {
    pub netdev: u32,
    pub mode: Mode,
    /// Of each queue, whether its slot has a socket.
    pub slots: Vec<bool>,
}

/// A subscription: what was said, and a bell that is readable then.
#[derive(Debug)]
pub(crate) struct Watched {
    pub bell: EventFd,
    pub said: Mutex<HostChange>,
}

/// The machine.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub has_everything: bool,
    /// By index, which no two netdevs share in whatever namespaces.
    pub devices: BTreeMap<u32, Device>,
    pub missing: BTreeSet<String>,
    pub fates: BTreeMap<Call, Fate>,
    pub calls: Vec<(Call, String)>,
    /// The kernel's ends of open queues, by netdev and queue.
    pub queues: BTreeMap<(u32, u32), MemoryKernel>,
    pub guest_ends: BTreeMap<PortNo, GuestEnd>,
    /// The host's ends of taps.
    pub taps: BTreeMap<String, UnixDatagram>,
    /// Namespaces that were asked for, with what tells each from others that had its name.
    pub namespaces: BTreeMap<String, u64>,
    last_namespace: u64,
    /// Subscriptions to changes.
    pub watches: Vec<Weak<Watched>>,
    /// Files of ports that outlive a switch.
    pub journals: BTreeMap<String, File>,
    last_index: u32,
    last_program: u32,
}

impl State {
    /// Notes a call, and lets it meet its fate.
    pub fn call(&mut self, call: Call, netdev: &str) -> Result<(), Error> {
        self.calls.push((call, netdev.to_owned()));
        meet(&mut self.fates, call, netdev)
    }

    /// The netdev of that name in whatever namespace.
    pub fn find(&self, name: &str) -> Option<&Device> {
        self.devices.values().find(|device| device.link.name == name)
    }

    /// The same, to change it.
    pub fn find_mut(&mut self, name: &str) -> Option<&mut Device> {
        self.devices.values_mut().find(|device| device.link.name == name)
    }

    /// The netdev that control means.
    pub fn device(&mut self, netdev: &Netdev) -> Option<&mut Device> {
        if let Namespace::Named(named) = &netdev.namespace
            && self.namespaces.get(named.name()) != Some(&named.inode().1)
        {
            return None;
        }
        let device = self.devices.get_mut(&netdev.index)?;
        (device.namespace.as_deref() == netdev.namespace.name()).then_some(device)
    }

    /// What tells a namespace from others that have had its name. It is made if it is not there.
    pub fn namespace_id(&mut self, name: &str) -> NamespaceId {
        if !self.namespaces.contains_key(name) {
            self.last_namespace += 1;
            self.namespaces.insert(name.to_owned(), self.last_namespace);
        }
        (0, self.namespaces[name])
    }

    /// Deletes a namespace, with the netdevs in it.
    pub fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
        let inside = self.devices.values().filter(|device| device.namespace.as_deref() == Some(name));
        let inside: Vec<_> = inside.map(|device| device.link.index).collect();
        inside.into_iter().for_each(|index| self.remove(index));
        self.say(None);
    }

    /// Says that a netdev has changed, or that anything may have.
    pub fn say(&mut self, netdev: Option<u32>) {
        self.watches.retain(|watch| {
            let Some(watch) = watch.upgrade() else { return false };
            let mut said = watch.said.lock().unwrap_or_else(PoisonError::into_inner);
            match netdev {
                Some(index) => drop(said.netdevs.insert(index)),
                None => said.anything = true,
            }
            watch.bell.write(1).is_ok()
        });
    }

    pub fn next_program(&mut self) -> u32 {
        self.last_program += 1;
        self.last_program
    }

    fn add(&mut self, name: &str, namespace: Option<&str>, queues: u32) -> u32 {
        self.last_index += 1;
        let index = self.last_index;
        let [.., b2, b1, b0] = index.to_be_bytes();
        let link = Link {
            index,
            name: name.to_owned(),
            mtu: 1500,
            max_mtu: 0,
            mac: MacAddr::new([2, 0xfa, 0, b2, b1, b0]),
            up: false,
            carrier: false,
            is_veth: false,
            peer: None,
            peer_nsid: None,
            alias: None,
            rx_queues: queues,
            tap: None,
            tx_dropped: 0,
        };
        let device = Device {
            link,
            namespace: namespace.map(str::to_owned),
            peer: None,
            is_plain: false,
            is_silent: false,
            redirect: None,
            host_use: HostUse::default(),
            link_mode: LinkMode::default(),
            counters: NetdevCounters::default(),
            other_program: None,
            program: None,
            promiscuous: Arc::default(),
            sent_beside: Arc::default(),
            group_frames: None,
            bound_queues: Some(0),
            exit: Exit::None,
        };
        self.devices.insert(index, device);
        self.say(Some(index));
        index
    }

    pub fn add_nic(&mut self, name: &str, queues: u32) {
        self.add(name, None, queues);
    }

    /// Adds both ends of a pair, each with its namespace; returns their indices.
    pub fn add_pair(&mut self, near: (&str, Option<&str>), far: (&str, Option<&str>), queues: u32) -> [u32; 2] {
        let ends = [near, far].map(|(name, namespace)| self.add(name, namespace, queues));
        for [end, other] in [ends, [ends[1], ends[0]]] {
            if let Some(device) = self.devices.get_mut(&end) {
                device.link.is_veth = true;
                device.peer = Some(other);
            }
        }
        ends
    }

    /// Adds a persistent tap that nobody has open.
    pub fn add_tap(&mut self, name: &str, namespace: Option<&str>, tap: TapState) -> u32 {
        let index = self.add(name, namespace, 1);
        if let Some(device) = self.devices.get_mut(&index) {
            device.link.tap = Some(tap);
        }
        index
    }

    /// Adds a netdev on top of another one.
    pub fn add_on_top(&mut self, name: &str, lower: &str) {
        let below = self.find(lower).map(|device| device.link.index);
        let index = self.add(name, None, 1);
        if let Some(device) = self.devices.get_mut(&index) {
            device.peer = below;
        }
    }

    /// The kernel lets go of the sockets of a netdev.
    pub fn unbind(&mut self, index: u32) {
        for (_, kernel) in self.queues.range((index, 0)..=(index, u32::MAX)) {
            kernel.remove();
        }
        self.queues.retain(|(netdev, _), _| *netdev != index);
    }

    /// Deletes a netdev; of a pair both ends go.
    pub fn remove(&mut self, index: u32) {
        let Some(device) = self.devices.remove(&index) else { return };
        self.unbind(index);
        self.guest_ends.retain(|_, end| end.netdev != index);
        self.say(Some(index));
        if let Some(peer) = device.peer.filter(|_| device.link.is_veth) {
            self.remove(peer);
        }
    }

    /// A netdev as others see it.
    pub fn link(&self, device: &Device) -> Link {
        let mut link = device.link.clone();
        let peer = device.peer.and_then(|peer| self.devices.get(&peer));
        let is_open = link.tap.is_none_or(|tap| tap.open_queues > 0);
        link.carrier = link.up && is_open && peer.is_none_or(|peer| peer.link.up);
        link.peer = device.peer;
        link.peer_nsid = peer.filter(|peer| peer.namespace != device.namespace).map(|_| 0);
        link
    }

    /// The kernel's end of a queue.
    pub fn queue(&mut self, name: &str, queue: u32) -> Option<&mut MemoryKernel> {
        let index = self.find(name)?.link.index;
        self.queues.get_mut(&(index, queue))
    }

    /// Changes a netdev, and says so; its peer's carrier may change with it.
    pub fn alter(&mut self, name: &str, change: impl FnOnce(&mut Device)) {
        let Some(device) = self.find_mut(name) else { return };
        change(device);
        let ends = [Some(device.link.index), device.peer];
        ends.into_iter().flatten().for_each(|index| self.say(Some(index)));
    }

    /// A frame comes in by a netdev: the program says what becomes of it.
    pub fn receive(&mut self, name: &str, queue: u32, frame: &[u8]) -> bool {
        let Some(device) = self.find_mut(name) else { return false };
        let index = device.link.index;
        let Some(program) = device.program.as_mut().filter(|program| program.mode.is_some()) else { return false };
        let to_us = program.steered == Steering::All || is_steered(&program.steering, frame);
        let Some((has_socket, counters)) = program.queues.get_mut(queue as usize) else { return false };
        if !to_us {
            counters.pass += 1;
            return false;
        }
        if !*has_socket {
            counters.drop_no_socket += 1;
            return false;
        }
        counters.redirect += 1;
        self.queues.get_mut(&(index, queue)).is_some_and(|kernel| kernel.receive(frame))
    }
}

/// Whether a frame is for a station of the steering set.
fn is_steered(keys: &BTreeSet<SteerKey>, frame: &[u8]) -> bool {
    let Some(mac) = frame.first_chunk::<6>() else { return false };
    let vid = match frame.get(ADDRESSES..ADDRESSES + 4) {
        Some(&[t1, t0, high, low]) if [t1, t0] == TAG => u16::from_be_bytes([high & 0x0f, low]),
        _ => 0,
    };
    [Some(vid), None].iter().any(|&vid| keys.contains(&SteerKey { mac: *mac, vid }))
}
