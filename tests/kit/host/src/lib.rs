//! A made-up host: netdevs, programs and sockets that are values in memory, over queues in memory.
//!
//! A real [`Switch`] runs on it, without a kernel and without privileges. A test looks at what control has made of
//! the netdevs, lets frames come in by them, and takes what was sent. It can take netdevs away, and say which calls
//! fail ([`Fate`]).

mod fate;
mod journals;
mod netdevs;
mod programs;
mod sockets;
mod state;

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use switch::host::{HostUse, Link, OtherProgram, QueueCounters, SteerKey, TapState};
use switch::model::{BridgeSettings, DataplaneSettings, HugePages, LinkMode, MacAddr, Mode, NetdevCounters, PortNo};
use switch::{Error, Switch};

pub use self::fate::{Call, Fate};
use self::state::{Device, State};

/// Settings of a small switch: one worker and 64 MiB of packet memory, of which only what is used takes room.
pub fn small_settings() -> DataplaneSettings {
    DataplaneSettings { frames: 16_384, huge_pages: HugePages::Off, ..DataplaneSettings::default() }
}

/// The made-up host. Clones are the same host. It outlives the switches on it, as a machine does.
#[derive(Clone, Debug, Default)]
pub struct FakeHost {
    state: Arc<Mutex<State>>,
}

impl FakeHost {
    /// A host without netdevs.
    pub fn new() -> Self {
        Self::default()
    }

    /// A host that has every NIC that is asked for, with one queue. Only names of netdevs that the switch makes
    /// are free: `xs…`, `xg…`, `xf…` and `xt…`.
    pub fn with_everything() -> Self {
        let host = Self::new();
        host.lock().has_everything = true;
        host
    }

    /// Starts a switch with [`small_settings`] on it.
    ///
    /// # Panics
    /// If that fails.
    pub fn start(&self) -> Switch {
        self.start_with(&small_settings())
    }

    /// Starts a switch on it.
    ///
    /// # Panics
    /// If that fails.
    pub fn start_with(&self, settings: &DataplaneSettings) -> Switch {
        self.try_start(settings, BridgeSettings::default()).expect("a switch starts on a made-up host")
    }

    /// Starts a switch on it.
    ///
    /// # Errors
    /// Those of [`Switch::start_on`].
    pub fn try_start(&self, settings: &DataplaneSettings, bridge: BridgeSettings) -> Result<Switch, Error> {
        Switch::start_on(Arc::new(self.clone()), settings, bridge)
    }

    /// Adds a NIC with that many queues; it is down.
    pub fn add_nic(&self, name: &str, queues: u32) {
        self.lock().add_nic(name, queues);
    }

    /// Adds a veth pair with that many queues, as an administrator makes it. Both ends are in the switch's
    /// namespace, and down.
    pub fn add_pair(&self, name: &str, peer: &str, queues: u32) {
        self.lock().add_pair((name, None), (peer, None), queues);
    }

    /// Adds a tap that nobody has open, as an administrator makes it.
    pub fn add_tap(&self, name: &str) {
        self.lock().add_tap(name, None, TapState::default());
    }

    /// Says that a VMM has opened so many queues of a tap, or has closed them.
    pub fn open_tap(&self, name: &str, queues: u32) {
        self.lock().alter(name, |device| {
            if let Some(tap) = &mut device.link.tap {
                (tap.open_queues, tap.has_vnet_hdr) = (queues, queues > 0);
            }
        });
    }

    /// Takes the filter of a netdev away that redirects what comes in, as somebody else does.
    pub fn take_redirect_off(&self, name: &str) {
        self.lock().alter(name, |device| device.redirect = None);
    }

    /// Name of the netdev that all leaves by that comes in by this one.
    pub fn redirected_to(&self, name: &str) -> Option<String> {
        let state = self.lock();
        Some(state.devices.get(&state.find(name)?.redirect?)?.link.name.clone())
    }

    /// Whether the host's stack was told not to speak on a netdev.
    pub fn is_silent(&self, name: &str) -> bool {
        self.look(name, |device| device.is_silent).unwrap_or(false)
    }

    /// Adds a netdev on top of another one, as a VLAN or a macvlan is.
    pub fn add_on_top(&self, name: &str, lower: &str) {
        self.lock().add_on_top(name, lower);
    }

    /// Gives a NIC that many queues. It is made if it is not there.
    pub fn set_queues(&self, name: &str, queues: u32) {
        let mut state = self.lock();
        match state.find_mut(name) {
            Some(device) => {
                device.link.rx_queues = queues;
                state.say(None);
            }
            None => state.add_nic(name, queues),
        }
    }

    /// Takes a netdev or namespace away and says that there is none of that name, or that there may be one again.
    pub fn set_missing(&self, name: &str, missing: bool) {
        let mut state = self.lock();
        if missing {
            state.missing.insert(name.to_owned());
            if let Some(index) = state.find(name).map(|device| device.link.index) {
                state.remove(index);
            }
            state.remove_namespace(name);
        } else {
            state.missing.remove(name);
            state.say(None);
        }
    }

    /// Deletes a netdev, of a pair both ends. Another of that name can be made.
    pub fn delete_netdev(&self, name: &str) {
        let mut state = self.lock();
        if let Some(index) = state.find(name).map(|device| device.link.index) {
            state.remove(index);
        }
    }

    /// Gives a netdev another name.
    pub fn rename(&self, name: &str, to: &str) {
        self.lock().alter(name, |device| device.link.name = to.to_owned());
    }

    /// Moves a netdev to another namespace, where it is down. `None`: one that has no name.
    pub fn move_netdev(&self, name: &str, namespace: Option<&str>) {
        let mut state = self.lock();
        if let Some(namespace) = namespace {
            state.namespace_id(namespace);
        }
        let to = namespace.unwrap_or(netdevs::UNNAMED).to_owned();
        if let Some(index) = state.find(name).map(|device| device.link.index) {
            state.unbind(index);
        }
        state.alter(name, |device| {
            device.namespace = Some(to);
            device.link.up = false;
        });
    }

    /// Moves a netdev back to the switch's namespace, where it is down.
    pub fn move_back(&self, name: &str) {
        self.lock().alter(name, |device| {
            device.namespace = None;
            device.link.up = false;
        });
    }

    /// Sets a netdev up or down.
    pub fn set_up(&self, name: &str, up: bool) {
        self.lock().alter(name, |device| device.link.up = up);
    }

    /// Sets the MTU of a netdev, as somebody else does.
    pub fn set_mtu(&self, name: &str, mtu: u32) {
        self.lock().alter(name, |device| device.link.mtu = mtu);
    }

    /// Sets the address of a netdev, as somebody else does.
    pub fn set_mac(&self, name: &str, mac: MacAddr) {
        self.lock().alter(name, |device| device.link.mac = mac);
    }

    /// Turns the offloads of a netdev on that leave bytes out of packets.
    pub fn set_offloads(&self, name: &str) {
        self.lock().alter(name, |device| device.is_plain = false);
    }

    /// Takes the switch's program off a netdev, as somebody else does. Nobody is told.
    pub fn take_program_off(&self, name: &str) {
        if let Some(program) = self.lock().find_mut(name).and_then(|device| device.program.as_mut()) {
            program.mode = None;
        }
    }

    /// Puts a program of somebody else on a netdev, or takes it off. Nobody is told.
    pub fn set_other_program(&self, name: &str, id: Option<u32>) {
        let other = id.map(|id| OtherProgram { id, text: format!("`theirs` (id {id}, native mode)") });
        if let Some(device) = self.lock().find_mut(name) {
            device.other_program = other;
        }
    }

    /// What the netdev's driver says of its link, and what the kernel has counted there.
    pub fn set_link(&self, name: &str, mode: LinkMode, counters: NetdevCounters) {
        self.lock().alter(name, |device| (device.link_mode, device.counters) = (mode, counters));
    }

    /// Says what the host uses a netdev for.
    pub fn set_host_use(&self, name: &str, host_use: HostUse) {
        self.lock().alter(name, |device| device.host_use = host_use);
    }

    /// Says how calls of a kind go from now on.
    pub fn set_fate(&self, call: Call, fate: Fate) {
        self.lock().fates.insert(call, fate);
    }

    /// Calls that changed something, in order, with the netdev that they were for.
    pub fn calls(&self) -> Vec<(Call, String)> {
        self.lock().calls.clone()
    }

    /// Names of the netdevs that there are, in whatever namespace.
    pub fn netdevs(&self) -> Vec<String> {
        self.lock().devices.values().map(|device| device.link.name.clone()).collect()
    }

    /// A netdev as it is, in whatever namespace.
    pub fn link(&self, name: &str) -> Option<Link> {
        let state = self.lock();
        state.find(name).map(|device| state.link(device))
    }

    /// The namespace that a netdev is in; `None`: the switch's.
    pub fn namespace_of(&self, name: &str) -> Option<String> {
        self.lock().find(name)?.namespace.clone()
    }

    /// Whether the offloads of a netdev were turned off that leave bytes out of packets.
    pub fn is_plain(&self, name: &str) -> bool {
        self.look(name, |device| device.is_plain).unwrap_or(false)
    }

    /// Whether a netdev takes frames for all addresses.
    pub fn is_promiscuous(&self, name: &str) -> bool {
        self.look(name, |device| Arc::strong_count(&device.promiscuous) > 1).unwrap_or(false)
    }

    /// Mode of the switch's program on a netdev, if one is attached.
    pub fn attached(&self, name: &str) -> Option<Mode> {
        self.look(name, |device| device.program.as_ref()?.mode)?
    }

    /// The steering set of the program on a netdev.
    pub fn steering(&self, name: &str) -> BTreeSet<SteerKey> {
        self.look(name, |device| device.program.as_ref().map(|program| program.steering.clone()))
            .flatten()
            .unwrap_or_default()
    }

    /// What the program on a netdev counted, by queue.
    pub fn counters(&self, name: &str) -> Vec<QueueCounters> {
        let counters = |device: &Device| device.program.as_ref().map(|program| program.counters());
        self.look(name, counters).flatten().unwrap_or_default()
    }

    /// Lets a frame come in by a queue of a netdev. False: it did not get to the switch, as the program counts it,
    /// or for lack of room.
    pub fn receive(&self, name: &str, queue: u32, frame: &[u8]) -> bool {
        self.lock().receive(name, queue, frame)
    }

    /// What was sent by a queue of a netdev since it was last asked for, in order.
    pub fn sent(&self, name: &str, queue: u32) -> Vec<Vec<u8>> {
        self.lock().queue(name, queue).map(|kernel| kernel.transmit()).unwrap_or_default()
    }

    /// What was sent by a netdev beside its queues since it was last asked for, in order.
    pub fn sent_beside(&self, name: &str) -> Vec<Vec<u8>> {
        let sent = self.look(name, |device| std::sync::Arc::clone(&device.sent_beside)).unwrap_or_default();
        std::mem::take(&mut sent.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Lets a group-addressed frame come in by a netdev that is shared with the host. False: nobody copies such frames.
    pub fn receive_group(&self, name: &str, frame: &[u8]) -> bool {
        let sent = self.look(name, |device| device.group_frames.as_ref().map(|socket| socket.send(frame)));
        matches!(sent, Some(Some(Ok(_))))
    }

    /// The host's end of a tap that the switch has made: a datagram is a frame.
    pub fn tap(&self, name: &str) -> Option<UnixDatagram> {
        self.lock().taps.get(name)?.try_clone().ok()
    }

    /// Ports whose guests' ends are open, also without a switch.
    pub fn guest_ends(&self) -> Vec<PortNo> {
        self.lock().guest_ends.keys().copied().collect()
    }

    /// Says that a guest has bound so many queues of its netdev; `None`: nothing can be told of its queues from now on.
    pub fn set_bound_queues(&self, name: &str, bound: Option<u32>) {
        if let Some(device) = self.lock().find_mut(name) {
            device.bound_queues = bound;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look<T>(&self, name: &str, look: impl FnOnce(&Device) -> T) -> Option<T> {
        self.lock().find(name).map(look)
    }
}

/// Waits for something that another thread does.
///
/// # Panics
/// If it takes longer than five seconds.
pub fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}
