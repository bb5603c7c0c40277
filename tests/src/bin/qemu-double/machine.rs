//! The machine: netdevs, devices and the frames between them, whether the command line, QMP or the test asks for it.

use std::net::Ipv4Addr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::Mac;

use super::netdev::{Netdev, Sent};
use super::options::{AfXdp, BACKENDS, Params, Sockets, has_af_xdp};
use super::stack::Nic;
use super::xsk;

/// Time that a guest takes to release a device.
const UNPLUG: Duration = Duration::from_millis(50);

/// An error, as QMP reports it.
#[derive(Debug)]
pub struct Failure {
    /// Error class.
    pub class: &'static str,
    /// Description in words.
    pub desc: String,
}

impl From<String> for Failure {
    fn from(desc: String) -> Self {
        Self { class: "GenericError", desc }
    }
}

impl Failure {
    /// The error for an unknown name.
    pub fn not_found(id: &str) -> Self {
        Self { class: "DeviceNotFound", desc: format!("Device '{id}' not found") }
    }
}

/// Named descriptors that a netdev can take.
pub type NamedFds = Vec<(String, OwnedFd)>;

/// A device in a slot.
#[derive(Debug)]
pub struct Device {
    id: Option<String>,
    params: Params,
    /// Index of its netdev.
    netdev: usize,
    /// Number of queues that the guest uses: one unless the device has `mq=on`.
    pairs: usize,
    nic: Nic,
    /// Set once the device is asked to go: to the time when it goes, or to `None` if the guest never releases it.
    unplug: Option<Option<Instant>>,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Machine {
    /// Indices stay valid. A deleted netdev leaves `None`.
    netdevs: Vec<Option<Netdev>>,
    devices: Vec<Device>,
    /// IPv4 addresses by netdev. Without a netdev the first device is meant.
    addresses: Vec<(Option<String>, Ipv4Addr)>,
    /// Events that no monitor has got yet.
    pub events: Vec<Value>,
    macs: u8,
}

/// An event as QMP sends it.
pub fn event(name: &str, data: Value) -> Value {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let timestamp = json!({ "seconds": now.as_secs(), "microseconds": now.subsec_micros() });
    let mut event = json!({ "timestamp": timestamp, "event": name });
    if !data.is_null() {
        event["data"] = data;
    }
    event
}

impl Machine {
    fn find(&self, id: &str) -> Option<usize> {
        self.netdevs.iter().position(|netdev| netdev.as_ref().is_some_and(|it| it.id == id && !it.deleted))
    }

    fn peer(&self, netdev: usize) -> Option<usize> {
        self.devices.iter().position(|device| device.netdev == netdev)
    }

    /// Makes a netdev. `named` holds the monitor's descriptors. A command line has only numbers.
    pub fn netdev_add(&mut self, params: &Params, named: Option<&mut NamedFds>) -> Result<(), Failure> {
        let backend = params.required("type")?;
        if !BACKENDS.contains(&backend) || (backend == "af-xdp" && !has_af_xdp()) {
            return Err(format!("Parameter 'type' does not accept value '{backend}'").into());
        }
        let id = params.required("id")?;
        if !id.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err("Parameter 'id' expects an identifier".to_owned().into());
        }
        if self.find(id).is_some() {
            return Err(format!("Duplicate ID '{id}' for netdev").into());
        }
        let netdev = if backend == "af-xdp" {
            let options = AfXdp::new(params)?;
            let fds = self.sockets(&options, named)?;
            Netdev::open(id, &options, fds)?
        } else {
            Netdev::idle(id)
        };
        match self.netdevs.iter().position(Option::is_none) {
            Some(place) => self.netdevs[place] = Some(netdev),
            None => self.netdevs.push(Some(netdev)),
        }
        Ok(())
    }

    /// The given sockets, one for each queue.
    fn sockets(&self, options: &AfXdp, named: Option<&mut NamedFds>) -> Result<Vec<Option<OwnedFd>>, String> {
        let Sockets::Given(given) = &options.sockets else { return Ok((0..options.queues).map(|_| None).collect()) };
        let mut fds: Vec<Option<OwnedFd>> = Vec::new();
        let mut taken: Vec<i32> =
            self.netdevs.iter().flatten().flat_map(|it| it.queues.iter().map(|q| q.fd())).collect();
        let mut named = named;
        for (index, name) in given.iter().enumerate() {
            if let Some(named) = &mut named
                && !name.starts_with(|c: char| c.is_ascii_digit())
            {
                let place = named.iter().position(|(known, _)| known == name);
                let place = place.ok_or_else(|| format!("File descriptor named '{name}' has not been found"))?;
                fds.push(Some(named.remove(place).1));
                continue;
            }
            let number: i32 = name
                .parse()
                .ok()
                .filter(|number| *number >= 0)
                .ok_or_else(|| format!("Invalid file descriptor number '{name}'"))?;
            // libxdp reads 0 as none and opens a socket.
            if number == 0 {
                fds.push(None);
                continue;
            }
            let failed = |errno: i32| {
                let reason = xsk::text(&std::io::Error::from_raw_os_error(errno));
                format!("failed to create umem for {} queue_index: {index}: {reason}", options.ifname)
            };
            if taken.contains(&number) {
                return Err(failed(libc::EBUSY));
            }
            // SAFETY: the call takes no pointers.
            if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
                return Err(failed(libc::EBADF));
            }
            taken.push(number);
            // SAFETY: it is open, and no other netdev has it. The starter of this process gave it away by naming it.
            fds.push(Some(unsafe { OwnedFd::from_raw_fd(number) }));
        }
        Ok(fds)
    }

    /// Deletes a netdev. If a device has it, only its name goes. Its sockets are closed when the device goes.
    pub fn netdev_del(&mut self, id: &str) -> Result<(), Failure> {
        let place = self.find(id).ok_or_else(|| Failure::not_found(id))?;
        if self.peer(place).is_none() {
            self.netdevs[place] = None;
        } else if let Some(netdev) = &mut self.netdevs[place] {
            netdev.deleted = true;
        }
        Ok(())
    }

    /// Plugs a device. Devices without a netdev are ignored.
    pub fn device_add(&mut self, params: &Params) -> Result<(), Failure> {
        let driver = params.required("driver")?.to_owned();
        let id = params.text("id")?.map(str::to_owned);
        if let Some(id) = &id
            && self.devices.iter().any(|device| device.id.as_ref() == Some(id))
        {
            return Err(format!("Duplicate device ID '{id}'").into());
        }
        let Some(name) = params.text("netdev")?.map(str::to_owned) else { return Ok(()) };
        let netdev = self.find(&name).ok_or_else(|| format!("Property '{driver}.netdev' can't find value '{name}'"))?;
        if self.peer(netdev).is_some() {
            return Err(format!("Property '{driver}.netdev' can't take value '{name}', it's in use").into());
        }
        let mac = match params.text("mac")? {
            Some(mac) => mac.parse().map_err(|_| format!("Property '{driver}.mac' doesn't take value '{mac}'"))?,
            None => {
                self.macs += 1;
                Mac([0x52, 0x54, 0, 0x12, 0x34, 0x55 + self.macs])
            }
        };
        let queues = self.netdevs[netdev].as_ref().map_or(0, |netdev| netdev.queues.len());
        let pairs = if params.flag("mq")?.unwrap_or(false) { queues } else { 1 };
        let mut nic = Nic::new(mac);
        let mut addresses = self.addresses.iter();
        nic.ip = addresses
            .find(|(wanted, _)| wanted.as_ref().map_or(self.devices.is_empty(), |wanted| *wanted == name))
            .map(|(_, ip)| *ip);
        self.devices.push(Device { id, params: params.clone(), netdev, pairs, nic, unplug: None });
        Ok(())
    }

    /// Asks the guest to release a device.
    pub fn device_del(&mut self, id: &str) -> Result<(), Failure> {
        let device = self.devices.iter_mut().find(|device| device.id.as_deref() == Some(id));
        let device = device.ok_or_else(|| Failure::not_found(id))?;
        if device.unplug.is_some() {
            return Err(format!("Device {id} is already in the process of unplug").into());
        }
        let kept = std::env::var_os("QEMU_DOUBLE_KEEP_DEVICE").is_some();
        device.unplug = Some((!kept).then(|| Instant::now() + UNPLUG));
        Ok(())
    }

    /// Gives the guest an IPv4 address on a netdev's device, at once or when that device comes.
    pub fn address(&mut self, netdev: Option<&str>, ip: Ipv4Addr) {
        self.addresses.push((netdev.map(str::to_owned), ip));
        if let Some((nic, _)) = self.nic(netdev) {
            nic.ip = Some(ip);
        }
    }

    /// The device of a netdev, or the first one.
    pub fn nic(&mut self, netdev: Option<&str>) -> Option<(&mut Nic, Option<&Netdev>)> {
        let place = match netdev {
            Some(id) => {
                let netdev = self.find(id)?;
                self.peer(netdev)?
            }
            None => 0,
        };
        let device = self.devices.get_mut(place)?;
        Some((&mut device.nic, self.netdevs[device.netdev].as_ref()))
    }

    /// All devices, with the parameters that they were made with.
    pub fn nics(&self) -> Value {
        self.devices.iter().map(|device| Value::Object(device.params.values().clone())).collect()
    }

    /// Devices with an id, in the form of `qom-list`.
    pub fn peripherals(&self) -> Value {
        let named = self.devices.iter().filter_map(|device| Some((device.id.as_ref()?, device.params.values())));
        let child = |driver: &Value| format!("child<{}>", driver.as_str().unwrap_or_default());
        named.map(|(id, params)| json!({ "name": id, "type": child(&params["driver"]) })).collect()
    }

    /// Netdevs without a device.
    pub fn lonely(&self) -> Vec<String> {
        let netdevs = self.netdevs.iter().enumerate();
        let lonely = netdevs.filter(|(place, _)| self.peer(*place).is_none());
        lonely.filter_map(|(_, netdev)| Some(netdev.as_ref()?.id.clone())).collect()
    }

    /// Sockets that the main loop polls, with the events. A socket without events must be left out, because `poll` on
    /// it makes the kernel send.
    pub fn polls(&self) -> Vec<libc::pollfd> {
        let queues = self.netdevs.iter().flatten().flat_map(|netdev| &netdev.queues);
        let polled = queues.filter(|queue| queue.read_poll || queue.write_poll);
        let events =
            |read: bool, write: bool| (if read { libc::POLLIN } else { 0 }) | (if write { libc::POLLOUT } else { 0 });
        polled
            .map(|queue| libc::pollfd { fd: queue.fd(), events: events(queue.read_poll, queue.write_poll), revents: 0 })
            .collect()
    }

    /// Handles what `poll` has found.
    pub fn dispatch(&mut self, found: &[libc::pollfd]) {
        for (place, netdev) in self.netdevs.iter_mut().enumerate() {
            let Some(netdev) = netdev else { continue };
            let mut device = self.devices.iter_mut().find(|device| device.netdev == place);
            let deleted = netdev.deleted;
            for (index, queue) in netdev.queues.iter_mut().enumerate() {
                let Some(poll) = found.iter().find(|poll| poll.fd == queue.fd()) else { continue };
                if poll.revents & (libc::POLLIN | libc::POLLERR | libc::POLLHUP) != 0 && queue.read_poll {
                    queue.readable(|frame| match &mut device {
                        // Frames are lost without a guest or with the link down. A queue that the guest does not use
                        // takes none.
                        Some(device) if !deleted && index >= device.pairs => Err(frame),
                        Some(device) if !deleted => {
                            device.nic.receive(frame);
                            Ok(())
                        }
                        _ => Ok(()),
                    });
                }
                if poll.revents & (libc::POLLOUT | libc::POLLERR) != 0 && queue.write_poll {
                    queue.writable();
                }
            }
        }
    }

    /// Sends the guests' frames, and unplugs devices whose time has come.
    pub fn advance(&mut self) {
        for device in &mut self.devices {
            let netdev = self.netdevs[device.netdev].as_mut().filter(|netdev| !netdev.deleted);
            let Some(queue) = netdev.and_then(|netdev| netdev.queues.first_mut()) else {
                device.nic.outbox.clear();
                continue;
            };
            while let Some(frame) = device.nic.outbox.front() {
                if queue.send(frame) == Sent::Full {
                    break;
                }
                device.nic.outbox.pop_front();
            }
        }
        let now = Instant::now();
        let due = |device: &Device| matches!(device.unplug, Some(Some(at)) if at <= now);
        while let Some(place) = self.devices.iter().position(due) {
            let device = self.devices.remove(place);
            if self.netdevs[device.netdev].as_ref().is_some_and(|netdev| netdev.deleted) {
                self.netdevs[device.netdev] = None;
            }
            let path = format!("/machine/peripheral/{}", device.id.as_deref().unwrap_or_default());
            self.events.push(event("DEVICE_DELETED", json!({ "path": format!("{path}/virtio-backend") })));
            self.events.push(event("DEVICE_DELETED", json!({ "device": device.id, "path": path })));
        }
    }

    /// Time when the next device must be unplugged.
    pub fn next(&self) -> Option<Instant> {
        self.devices.iter().filter_map(|device| device.unplug.flatten()).min()
    }
}
