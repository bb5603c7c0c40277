//! The guest's end of a port for a guest that opens AF_XDP sockets itself, QEMU most of all.
//!
//! The guest's process may be an ordinary user's: it is given sockets that are neither bound nor have memory, registers its
//! own memory, and binds them. For each queue the port's pinned XSKMAP has a slot, which the kernel empties when the last
//! copy of its socket is closed. Nothing of this is undone when the daemon ends: the next one takes it up.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::BindToDevice;
use xdp_prog::{GuestOptions, GuestProgram, Resumed, bpffs_at, forget_pins};

use super::netdevs::{Netdevs, expect_link};
use super::ports::LivePort;
use super::{Control, State, Switch, no_port};
use crate::engine::PortNo;
use crate::io::sys;
use crate::model::*;
use crate::{Error, ErrorKind};

/// Where links and maps of guests' ends are pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinPlace {
    /// Where a BPF file system is, or is to be mounted.
    pub mount: PathBuf,
    /// The switch's own directory below it, which no other switch may use. It has no dot (BPF file systems allow none).
    pub instance: String,
}

impl PinPlace {
    fn root(&self) -> PathBuf {
        self.mount.join("xswitch").join(&self.instance)
    }

    fn of(&self, no: PortNo) -> PathBuf {
        self.root().join(no.to_string())
    }
}

/// Sockets for a guest, one a queue, in queue order: not bound, without memory, and in their slots.
#[derive(Debug)]
pub struct GuestSockets {
    /// The sockets.
    pub sockets: Vec<OwnedFd>,
    /// The network namespace of the netdev that they are to be bound to.
    pub netns: OwnedFd,
}

/// The program on a guest's end.
#[derive(Debug)]
pub(super) struct GuestEnd {
    program: GuestProgram,
    mode_reason: Option<String>,
    fresh: bool,
}

impl GuestEnd {
    pub(super) fn info(&self) -> GuestEndInfo {
        let counters = self.program.counters().unwrap_or_default();
        let queue = |(queue, counters): (u32, &xdp_prog::QueueCounters)| GuestQueue {
            queue,
            redirect: counters.redirect,
            drop_no_socket: counters.drop_no_socket,
            drop_unbound: counters.drop_unbound,
        };
        GuestEndInfo {
            mode: mode(self.program.mode()),
            mode_reason: self.mode_reason.clone(),
            map_path: self.program.map_path().display().to_string(),
            queues: (0..).zip(&counters).map(queue).collect(),
        }
    }

    pub(super) fn mode(&self) -> Mode {
        mode(self.program.mode())
    }

    /// Takes the program off and removes what is pinned.
    pub(super) fn remove(self, port: &str) {
        if let Err(error) = self.program.remove() {
            tracing::warn!(port, %error, "the program of its guest's end stays");
        }
    }

    /// Whether it was attached by this daemon, and not found as an earlier one had left it.
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }
}

pub(super) fn mode(mode: xdp_prog::Mode) -> Mode {
    match mode {
        xdp_prog::Mode::Native => Mode::Native,
        xdp_prog::Mode::Generic => Mode::Generic,
    }
}

pub(super) fn mode_request(mode: ModeRequest) -> xdp_prog::ModeRequest {
    match mode {
        ModeRequest::Auto => xdp_prog::ModeRequest::Auto,
        ModeRequest::Native => xdp_prog::ModeRequest::Native,
        ModeRequest::Generic => xdp_prog::ModeRequest::Generic,
    }
}

/// Keeps the host's IPv6 stack from speaking on a guest's end with the guest's address, or lets it speak again.
fn silence(ifname: &str, silent: bool) {
    let path = format!("/proc/sys/net/ipv6/conf/{ifname}/disable_ipv6");
    match fs::write(&path, if silent { "1" } else { "0" }) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path, %error, "the host's stack may speak on a guest's end");
        }
        _ => {}
    }
}

/// What the program of a port's guest's end is for; `None` for a port without one.
fn options(pins: &PinPlace, spec: &PortSpec, netdevs: &Netdevs) -> Result<Option<GuestOptions>, Error> {
    let (PortKind::Guest, Some((place, peer)), Some(no)) = (spec.kind, &netdevs.peer, spec.vport) else {
        return Ok(None);
    };
    let ifindex = place.run(|| Ok(expect_link(peer)?.index))?;
    let queues = spec.queues.unwrap_or(1);
    Ok(Some(GuestOptions { ifname: peer.clone(), ifindex, queues, pins: pins.of(no) }))
}

/// Opens the guest's end of a port that is brought up, if it is to be open: what an earlier daemon has left there goes on.
pub(super) fn bring_up(state: &State, spec: &PortSpec, netdevs: &Netdevs) -> Result<Option<GuestEnd>, Error> {
    if !spec.guest_sockets {
        return Ok(None);
    }
    match resume(state, spec, netdevs)? {
        Some(end) => Ok(Some(end)),
        None => attach(state, spec, netdevs).map(Some),
    }
}

fn resume(state: &State, spec: &PortSpec, netdevs: &Netdevs) -> Result<Option<GuestEnd>, Error> {
    let Some(pins) = &state.pins else { return Ok(None) };
    bpffs_at(&pins.mount)?;
    let resumed = options(pins, spec, netdevs).and_then(|options| {
        let (Some(options), Some((place, _))) = (options, &netdevs.peer) else { return Ok(None) };
        place.run(|| {
            silence(&options.ifname, true);
            Ok(GuestProgram::resume(&options)?)
        })
    });
    let Some(Resumed { program, replace_failed }) = resumed? else { return Ok(None) };
    if let Some(error) = replace_failed {
        tracing::warn!(port = spec.name, %error, "the program of an earlier version goes on at its guest's end");
    }
    Ok(Some(GuestEnd { program, mode_reason: None, fresh: false }))
}

/// Closes the guest's end of a port: a kernel stack there gets its packets again.
pub(super) fn close(port: &mut LivePort) {
    port.spec.guest_sockets = false;
    let Some(end) = port.guest_end.take() else { return };
    end.remove(&port.spec.name);
    give_back(&port.netdevs);
}

/// Lets a kernel stack speak on a guest's end again.
pub(super) fn give_back(netdevs: &Netdevs) {
    let Some((place, peer)) = &netdevs.peer else { return };
    let spoken = place.run(|| {
        silence(peer, false);
        Ok(())
    });
    if let Err(error) = spoken {
        tracing::warn!(peer, %error, "IPv6 stays off on a guest's end");
    }
}

/// Forgets what is pinned for a number.
pub(super) fn forget(state: &State, no: PortNo) {
    let Some(pins) = &state.pins else { return };
    if let Err(error) = forget_pins(&pins.of(no)) {
        tracing::warn!(vport = no, %error, "what was pinned for a port that is gone stays");
    }
}

pub(super) fn open<'a>(state: &State, port: &'a mut LivePort) -> Result<&'a GuestEnd, Error> {
    // Not `get_or_insert_with`: opening may fail.
    if port.guest_end.is_none() {
        port.guest_end = Some(attach(state, &port.spec, &port.netdevs)?);
        port.spec.guest_sockets = true;
    }
    port.guest_end.as_ref().ok_or_else(|| no_port(&port.spec.name))
}

fn attach(state: &State, spec: &PortSpec, netdevs: &Netdevs) -> Result<GuestEnd, Error> {
    let unsupported = |why: String| Error::new(ErrorKind::Unsupported, why);
    let name = &spec.name;
    let pins = state.pins.as_ref().ok_or_else(|| unsupported("this switch pins nothing".to_owned()))?;
    let options = options(pins, spec, netdevs)?;
    let (Some(options), Some((place, _))) = (options, &netdevs.peer) else {
        return Err(unsupported(format!("port `{name}` is a phy: only guest ports have an end for a guest's sockets")));
    };
    bpffs_at(&pins.mount)?;
    let (program, attached) = place.run(|| {
        silence(&options.ifname, true);
        Ok(GuestProgram::attach(&options, mode_request(spec.mode))?)
    })?;
    if let Some(reason) = &attached.fallback_reason {
        tracing::warn!(port = name, reason, "its guest's end is in generic mode");
    }
    Ok(GuestEnd { program, mode_reason: attached.fallback_reason, fresh: true })
}

fn take(port: &LivePort) -> Result<GuestSockets, Error> {
    let queues = port.shared.queues.len() as u32;
    let Some((place, peer)) = port.netdevs.peer.clone() else { return Err(no_port(&port.spec.name)) };
    let closed = || Error::new(ErrorKind::Busy, format!("the guest's end of port `{}` is not open", port.spec.name));
    let end = port.guest_end.as_ref().ok_or_else(closed)?;
    let refused = |errno: Errno| {
        let advice = if errno == Errno::EPERM { ": CAP_NET_RAW is needed" } else { "" };
        Error::new(ErrorKind::System, format!("opening an AF_XDP socket for {peer}: {errno}{advice}"))
    };
    // A socket belongs to the namespace that it is opened in, and can be bound to no netdev of another.
    let (sockets, netns) = place.run(|| {
        let sockets = (0..queues).map(|_| own_socket(&peer)).collect::<Result<Vec<_>, _>>().map_err(refused)?;
        let netns = fs::File::open("/proc/thread-self/ns/net");
        Ok((sockets, netns.map_err(|error| io_error("opening the network namespace of", Path::new(&peer), &error))?))
    })?;
    for (queue, socket) in (0..).zip(&sockets) {
        if !end.program.offer(queue, socket.as_fd())? {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("queue {queue} of {peer} has a guest's socket: end the process that has it"),
            ));
        }
    }
    Ok(GuestSockets { sockets, netns: netns.into() })
}

/// A socket that can be bound to that netdev only: whoever gets it may not send on others. Only a privileged process could lift
/// that (kernel 6.6 and later heed it, `xsk_bind` in `net/xdp/xsk.c`; earlier ones let it be bound anywhere in the namespace).
fn own_socket(ifname: &str) -> Result<OwnedFd, Errno> {
    let socket = sys::socket()?;
    setsockopt(&socket, BindToDevice, &ifname.into())?;
    Ok(socket)
}

fn io_error(doing: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(ErrorKind::System, format!("{doing} {}: {error}", path.display()))
}

impl Switch {
    /// Opens the guest's end of a port for a guest's own AF_XDP sockets, if it is not open yet: attaches a program there, and
    /// pins it with its XSKMAP. It stays open until the port is deleted.
    ///
    /// # Errors
    /// `Unsupported` for a phy port, `Busy` if somebody else's XDP program is there.
    pub fn open_guest_end(&self, name: &str) -> Result<GuestEndInfo, Error> {
        let mut control = self.state.lock();
        open(&self.state, control.find_mut(name)?).map(GuestEnd::info)
    }

    /// Opens sockets for a guest, which are in their slots already.
    ///
    /// # Errors
    /// `Busy` if the guest's end is not open, or has a guest's sockets.
    pub fn guest_sockets(&self, name: &str) -> Result<GuestSockets, Error> {
        take(self.state.lock().find(name)?)
    }

    /// Puts sockets that a guest has, in queue order, into their slots, should they have been lost from there; says whether
    /// all are in.
    pub fn return_guest_sockets(&self, name: &str, sockets: &[OwnedFd]) -> Result<bool, Error> {
        let mut control = self.state.lock();
        let Some(end) = &control.find_mut(name)?.guest_end else { return Ok(false) };
        let mut all = true;
        for (queue, socket) in (0..).zip(sockets) {
            all &= end.program.offer(queue, socket.as_fd())?;
        }
        Ok(all)
    }

    /// Takes sockets for a guest that were never bound out of their slots, though somebody may still have them.
    ///
    /// # Errors
    /// The system's.
    pub fn withdraw_guest_sockets(&self, name: &str) -> Result<(), Error> {
        let mut control = self.state.lock();
        let port = control.find_mut(name)?;
        let Some(end) = &port.guest_end else { return Ok(()) };
        (0..port.shared.queues.len() as u32).try_for_each(|queue| Ok(end.program.withdraw(queue)?))
    }

    /// Removes what is pinned for numbers of ports whose guest's end is not open, and that none is kept for.
    pub fn forget_stale_pins(&self) {
        let control = self.state.lock();
        let Some(root) = self.state.pins.as_ref().map(PinPlace::root) else { return };
        let Ok(entries) = fs::read_dir(root) else { return };
        for entry in entries.flatten() {
            let no = entry.file_name().to_str().and_then(|name| name.parse::<PortNo>().ok());
            if no.is_none_or(|no| control.needs_pins(no)) {
                continue;
            }
            tracing::info!(pins = %entry.path().display(), "what was pinned for a port that is gone is removed");
            if let Err(error) = forget_pins(&entry.path()) {
                tracing::warn!(%error, "what was pinned for a port that is gone stays");
            }
        }
    }
}

impl Control {
    fn find_mut(&mut self, name: &str) -> Result<&mut LivePort, Error> {
        self.ports.values_mut().find(|port| port.spec.name == name).ok_or_else(|| no_port(name))
    }

    fn needs_pins(&self, no: PortNo) -> bool {
        let open = self.ports.get(&no).is_some_and(|port| port.guest_end.is_some());
        open || self.reserved.contains_key(&no)
    }
}
