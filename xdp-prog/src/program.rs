//! The program of one port: load, sockets, steering set, attach, counters, detach.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle, libbpf_sys};

use crate::attach::{Attached, Mode, ModeRequest, XdpLink, attach};
use crate::counters::QueueCounters;
use crate::error::Error;
use crate::flow_table::FlowTable;
use crate::query;
use crate::skeleton::{OpenPortMaps, OpenPortSkel, PortSkelBuilder};

/// Highest number of queues of a port. The maps have as many slots and rows as the port has queues.
pub const MAX_QUEUES: u32 = 1024;
/// Highest number of stations of a steering set (`MAX_STATIONS` in `bpf/port.bpf.c`).
pub const STATIONS: u32 = 16_384;
/// VID of a key that stands for any VLAN (`XSW_ANY_VID`).
const ANY_VID: u16 = 0xffff;

/// Which packets go to the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steering {
    /// All packets.
    All,
    /// Packets to stations of the steering set.
    Shared,
}

/// A station of the steering set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SteerKey {
    /// Destination address.
    pub mac: [u8; 6],
    /// VID of the outer tag, 0 for untagged. `None` for any VLAN.
    pub vid: Option<u16>,
}

impl SteerKey {
    /// Bytes of the key as `struct xsw_steer_key` has them.
    fn bytes(self) -> [u8; 8] {
        let vid = self.vid.unwrap_or(ANY_VID).to_ne_bytes();
        let m = self.mac;
        [m[0], m[1], m[2], m[3], m[4], m[5], vid[0], vid[1]]
    }
}

/// What a program is loaded for.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Name of the netdev, for messages.
    pub ifname: String,
    /// Index of the netdev in the caller's namespace.
    pub ifindex: u32,
    /// Queues of the port, 1 to [`MAX_QUEUES`].
    pub queues: u32,
    /// Which packets go to the switch.
    pub steering: Steering,
    /// Whether packets may have several buffers (`BPF_F_XDP_HAS_FRAGS`, kernel 5.18 and later).
    pub multi_buffer: bool,
    /// The flow table that it follows, and the number of the port there.
    pub flows: Option<(Arc<FlowTable>, u16)>,
}

/// A loaded program. Dropping it detaches it.
#[derive(Debug)]
pub struct PortProgram {
    options: LoadOptions,
    program: OwnedFd,
    id: u32,
    sockets: MapHandle,
    counters: MapHandle,
    stations: MapHandle,
    /// Content of the map `stations`, so that an update writes only differences.
    steered: Mutex<BTreeSet<SteerKey>>,
    link: Option<(XdpLink, Mode)>,
}

impl PortProgram {
    /// Loads the program and its maps, without attaching it.
    ///
    /// # Errors
    /// [`Error::Queues`] if the number of queues is out of range. [`Error::Load`] otherwise, which says what to do
    /// about missing capabilities or an old kernel.
    pub fn load(options: &LoadOptions) -> Result<Self, Error> {
        if !(1..=MAX_QUEUES).contains(&options.queues) {
            return Err(Error::Queues { ifname: options.ifname.clone(), queues: options.queues, max: MAX_QUEUES });
        }
        let failed =
            |error: &libbpf_rs::Error| Error::Load { ifname: options.ifname.clone(), why: explain_load_error(error) };
        let mut storage = MaybeUninit::uninit();
        let mut open = PortSkelBuilder::default().open(&mut storage).map_err(|error| failed(&error))?;
        if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
            rodata.queue_count = options.queues;
            rodata.steer_shared = options.steering == Steering::Shared;
        }
        if options.multi_buffer {
            // It reads the Ethernet header and a tag, which are in a packet's first buffer.
            open.progs.xswitch_port.set_flags(libbpf_sys::BPF_F_XDP_HAS_FRAGS);
        }
        follow_flows(&mut open, options.flows.as_ref()).map_err(|error| failed(&error))?;
        open.maps.sockets.set_max_entries(options.queues).map_err(|error| failed(&error))?;
        open.maps.counters.set_max_entries(options.queues).map_err(|error| failed(&error))?;
        if options.steering == Steering::All {
            // The program looks up nothing, and the map's buckets would take half a megabyte.
            open.maps.stations.set_max_entries(1).map_err(|error| failed(&error))?;
        }
        let skeleton = open.load().map_err(|error| failed(&error))?;
        let handles = || -> libbpf_rs::Result<_> {
            Ok((
                MapHandle::try_from(&skeleton.maps.sockets)?,
                MapHandle::try_from(&skeleton.maps.counters)?,
                MapHandle::try_from(&skeleton.maps.stations)?,
            ))
        };
        let (sockets, counters, stations) = handles().map_err(|error| failed(&error))?;
        // The skeleton and libbpf's object go at the end of this function. Only the descriptors are needed later.
        let program = skeleton.progs.xswitch_port.as_fd().try_clone_to_owned();
        let program = program.map_err(|error| Error::system("keeping the XDP program", &error))?;
        let id = query::info(&program).map_err(|errno| Error::system("asking for the XDP program's id", &errno))?.id;
        let options = options.clone();
        Ok(Self { options, program, id, sockets, counters, stations, steered: Mutex::default(), link: None })
    }

    /// Puts the AF_XDP socket of a queue into the map. The kernel removes it when the socket is closed.
    pub fn set_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), Error> {
        let value = socket.as_raw_fd().to_ne_bytes();
        self.sockets.update(&queue.to_ne_bytes(), &value, MapFlags::ANY).map_err(|error| {
            Error::system(
                format!("putting the socket of {} queue {queue} into the XSKMAP", self.options.ifname),
                &error,
            )
        })
    }

    /// Removes the socket of a queue from the map, if there is one.
    pub fn clear_socket(&self, queue: u32) -> Result<(), Error> {
        match self.sockets.delete(&queue.to_ne_bytes()) {
            Err(error) if error.kind() != libbpf_rs::ErrorKind::NotFound => Err(Error::system(
                format!("taking the socket of {} queue {queue} out of the XSKMAP", self.options.ifname),
                &error,
            )),
            _ => Ok(()),
        }
    }

    /// Whether it is on its netdev. Another process can detach the link, and the link ends with the netdev.
    pub fn is_attached(&self) -> bool {
        self.link.as_ref().is_some_and(|(link, _)| link.is_attached())
    }

    /// Attaches the program. A link that was detached by somebody else is forgotten.
    ///
    /// # Errors
    /// - [`Error::Attached`]: it is attached already.
    /// - [`Error::Foreign`]: another program is on the netdev.
    /// - [`Error::Attach`]: the mode can't be had, with the reason.
    pub fn attach(&mut self, request: ModeRequest) -> Result<Attached, Error> {
        if let Some(mode) = self.mode().filter(|_| self.is_attached()) {
            return Err(Error::Attached { ifname: self.options.ifname.clone(), mode });
        }
        let (link, attached) = attach(self.program.as_fd(), self.options.ifindex, &self.options.ifname, request)?;
        self.link = Some((link, attached.mode));
        Ok(attached)
    }

    /// Detaches the program, if it is attached.
    pub fn detach(&mut self) -> Result<(), Error> {
        self.link.take().map_or(Ok(()), |(link, _)| link.detach())
    }

    /// Mode in force, if attached.
    pub fn mode(&self) -> Option<Mode> {
        self.link.as_ref().map(|(_, mode)| *mode)
    }

    /// BPF program id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Makes `keys` the steering set. Additions come before removals, so that a station in both sets never misses a
    /// packet.
    ///
    /// # Errors
    /// [`Error::SteeringFull`] above [`STATIONS`] keys. Nothing is changed then.
    pub fn set_steering(&self, keys: &BTreeSet<SteerKey>) -> Result<(), Error> {
        let mut steered = self.steered.lock().unwrap_or_else(PoisonError::into_inner);
        // The map has room for two full sets (`bpf/port.bpf.c`), so additions can come first even then.
        if keys.len() > STATIONS as usize {
            return Err(Error::SteeringFull { ifname: self.options.ifname.clone(), max: STATIONS });
        }
        let failed = |error: &libbpf_rs::Error| Error::system(format!("steering on {}", self.options.ifname), error);
        for key in keys.difference(&steered.clone()) {
            self.stations.update(&key.bytes(), &[1], MapFlags::ANY).map_err(|error| failed(&error))?;
            steered.insert(*key);
        }
        for key in steered.clone().difference(keys) {
            match self.stations.delete(&key.bytes()) {
                Err(error) if error.kind() != libbpf_rs::ErrorKind::NotFound => return Err(failed(&error)),
                _ => steered.remove(key),
            };
        }
        Ok(())
    }

    /// Counters of each queue, summed over CPUs.
    pub fn counters(&self) -> Result<Vec<QueueCounters>, Error> {
        QueueCounters::read(&self.counters, self.options.queues, &self.options.ifname)
    }
}

/// Has a program follow a flow table, or none. Without one its maps are not even made.
fn follow_flows(open: &mut OpenPortSkel<'_>, table: Option<&(Arc<FlowTable>, u16)>) -> libbpf_rs::Result<()> {
    let shared = table.and_then(|(table, port)| Some((table.constants(), *port, table.maps()?)));
    let OpenPortMaps { flows, flow_control, flow_exits, rodata_data, .. } = &mut open.maps;
    let maps = [flows, flow_control, flow_exits];
    let Some(((buckets, cookie, seeds), port, shared)) = shared else {
        return maps.into_iter().try_for_each(|map| map.set_autocreate(false));
    };
    if let Some(rodata) = rodata_data.as_deref_mut() {
        rodata.flow_buckets = buckets;
        rodata.flow_port = port.into();
        rodata.flow_cookie = cookie;
        rodata.flow_seeds = seeds;
    }
    maps.into_iter().zip(shared).try_for_each(|(map, shared)| map.reuse_fd(shared))
}

pub(crate) fn explain_load_error(error: &libbpf_rs::Error) -> String {
    use libbpf_rs::ErrorKind;
    let advice = match error.kind() {
        ErrorKind::PermissionDenied => {
            "; CAP_BPF and CAP_NET_ADMIN (or CAP_SYS_ADMIN) are needed, and no container or lockdown that forbids bpf()"
        }
        ErrorKind::OutOfMemory => "; memory, or on kernels before 5.11 RLIMIT_MEMLOCK, is too small",
        ErrorKind::InvalidInput => "; the kernel is too old: 5.10 or later with CONFIG_XDP_SOCKETS and BPF is needed",
        _ => "",
    };
    format!("{error:#}{advice}")
}
