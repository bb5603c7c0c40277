//! XDP programs by BPF links: [`xdp_prog`] in the words of [`crate::host`].

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use xdp_prog::{
    GuestOptions, LoadOptions, Resumed, attached_programs, bpffs_at, driver_features, forget_pins, netdev_family,
};

use super::namespaces::run;
use super::{KernelHost, PinPlace, ethtool};
use crate::host::{
    Attached, FlowTable, GuestEndPlace, GuestProgram, Netdev, OtherProgram, PortProgram, PortSocket, Programs,
    QueueCounters, SteerKey,
};
use crate::io::sys;
use crate::model::{Mode, ModeRequest, PortNo, Steering};
use crate::offload::Exit;
use crate::{Error, ErrorKind};

impl From<xdp_prog::Error> for Error {
    fn from(error: xdp_prog::Error) -> Self {
        let kind = match error.kind() {
            xdp_prog::ErrorKind::Busy => ErrorKind::Busy,
            xdp_prog::ErrorKind::Unsupported => ErrorKind::Unsupported,
            xdp_prog::ErrorKind::Full => ErrorKind::Full,
            xdp_prog::ErrorKind::System => ErrorKind::System,
        };
        Self::new(kind, error.to_string())
    }
}

fn mode(mode: xdp_prog::Mode) -> Mode {
    match mode {
        xdp_prog::Mode::Native => Mode::Native,
        xdp_prog::Mode::Generic => Mode::Generic,
    }
}

fn mode_request(mode: ModeRequest) -> xdp_prog::ModeRequest {
    match mode {
        ModeRequest::Auto => xdp_prog::ModeRequest::Auto,
        ModeRequest::Native => xdp_prog::ModeRequest::Native,
        ModeRequest::Generic => xdp_prog::ModeRequest::Generic,
    }
}

fn attached(attached: xdp_prog::Attached) -> Attached {
    Attached { mode: mode(attached.mode), fallback_reason: attached.fallback_reason }
}

impl PortProgram for xdp_prog::PortProgram {
    fn set_socket(&self, queue: u32, socket: &PortSocket) -> Result<(), Error> {
        Ok(self.set_socket(queue, socket.fd())?)
    }

    fn clear_socket(&self, queue: u32) -> Result<(), Error> {
        Ok(self.clear_socket(queue)?)
    }

    fn attach(&mut self, request: ModeRequest) -> Result<Attached, Error> {
        Ok(attached(self.attach(mode_request(request))?))
    }

    fn is_attached(&self) -> bool {
        self.is_attached()
    }

    fn detach(&mut self) -> Result<(), Error> {
        Ok(self.detach()?)
    }

    fn id(&self) -> u32 {
        self.id()
    }

    fn set_steering(&self, keys: &BTreeSet<SteerKey>) -> Result<(), Error> {
        Ok(self.set_steering(keys)?)
    }

    fn counters(&self) -> Result<Vec<QueueCounters>, Error> {
        Ok(self.counters()?)
    }
}

impl GuestProgram for xdp_prog::GuestProgram {
    fn mode(&self) -> Mode {
        mode(self.mode())
    }

    fn map_path(&self) -> PathBuf {
        self.map_path()
    }

    fn offer(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<bool, Error> {
        Ok(self.offer(queue, socket)?)
    }

    fn withdraw(&self, queue: u32) -> Result<(), Error> {
        Ok(self.withdraw(queue)?)
    }

    fn counters(&self) -> Result<Vec<QueueCounters>, Error> {
        Ok(self.counters()?)
    }

    fn remove(self: Box<Self>) -> Result<(), Error> {
        Ok((*self).remove()?)
    }
}

/// Keeps the host's IPv6 stack from speaking on a guest's end with the guest's address, or lets it speak again.
pub(super) fn silence(ifname: &str, silent: bool) {
    let path = format!("/proc/sys/net/ipv6/conf/{ifname}/disable_ipv6");
    match fs::write(&path, if silent { "1" } else { "0" }) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path, %error, "the host's stack may speak on a guest's end");
        }
        _ => {}
    }
}

/// Whether the kernel takes packets of several buffers, in programs and in AF_XDP sockets (6.6 and later).
pub fn knows_multi_buffer() -> bool {
    static KNOWS: LazyLock<bool> = LazyLock::new(sys::knows_sg);
    *KNOWS
}

/// Why XDP can't follow a flow table on this machine, if it can't.
pub fn why_no_flow_table() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("needs a processor that keeps loads in order, as x86-64 does".to_owned());
    }
    if !knows_multi_buffer() || netdev_family().is_none() {
        return Some("needs kernel 6.6 or later".to_owned());
    }
    xdp_prog::wait_for_programs().err().map(|error| format!("can't be kept in step: {error}"))
}

fn options(pins: &PinPlace, place: &GuestEndPlace<'_>) -> GuestOptions {
    let GuestEndPlace { port, netdev, queues } = *place;
    GuestOptions { ifname: netdev.name.clone(), ifindex: netdev.index, queues, pins: pins.of(port) }
}

impl Programs for KernelHost {
    fn knows_multi_buffer(&self) -> bool {
        knows_multi_buffer()
    }

    fn has_multi_buffer(&self, netdev: &Netdev) -> bool {
        let features = run(&netdev.namespace, || Ok(driver_features(netdev.index)?));
        features.is_ok_and(|features| features.multi_buffer)
    }

    fn load_program(
        &self,
        netdev: &Netdev,
        queues: u32,
        steering: Steering,
        flows: Option<(&Arc<FlowTable>, PortNo)>,
    ) -> Result<Box<dyn PortProgram>, Error> {
        let options = LoadOptions {
            ifname: netdev.name.clone(),
            ifindex: netdev.index,
            queues,
            steering: match steering {
                Steering::All => xdp_prog::Steering::All,
                Steering::Shared => xdp_prog::Steering::Shared,
            },
            multi_buffer: knows_multi_buffer(),
            flows: flows.map(|(table, port)| (Arc::clone(table), port)),
        };
        Ok(Box::new(xdp_prog::PortProgram::load(&options)?))
    }

    fn make_flow_table(&self, slots: u32) -> Result<Arc<FlowTable>, Error> {
        if let Some(why) = why_no_flow_table() {
            return Err(Error::new(ErrorKind::Unsupported, format!("the flow table {why}")));
        }
        Ok(Arc::new(FlowTable::new(slots)?))
    }

    fn exit_of(&self, netdev: &Netdev) -> Exit {
        match run(&netdev.namespace, || Ok(driver_features(netdev.index)?)) {
            Ok(features) if features.takes_long_redirects => Exit::Long,
            Ok(features) if features.takes_redirects => Exit::Short,
            _ => Exit::None,
        }
    }

    fn open_exit(&self, far: &Netdev) -> Result<(), Error> {
        run(&far.namespace, || {
            let gro = ["rx-gro".to_owned()];
            // Turned on while the netdev was down it has no effect.
            let done = ethtool::turn_off(far.index, &gro).and_then(|()| ethtool::turn_on(far.index, &gro));
            done.map_err(|errno| Error::new(ErrorKind::System, format!("turning GRO of {} on: {errno}", far.name)))
        })
    }

    fn set_exit(&self, table: &FlowTable, port: PortNo, netdev: Option<&Netdev>) -> Result<(), Error> {
        match netdev {
            None => Ok(table.set_exit(port, None)?),
            Some(netdev) => run(&netdev.namespace, || Ok(table.set_exit(port, Some(netdev.index))?)),
        }
    }

    fn check_no_program(&self, netdev: &Netdev) -> Result<(), Error> {
        run(&netdev.namespace, || match attached_programs(netdev.index)?.into_iter().next() {
            Some(program) => Err(xdp_prog::Error::Foreign { ifname: netdev.name.clone(), program }.into()),
            None => Ok(()),
        })
    }

    fn programs_on(&self, netdev: &Netdev) -> Result<Vec<OtherProgram>, Error> {
        let programs = run(&netdev.namespace, || Ok(attached_programs(netdev.index)?))?;
        Ok(programs.iter().map(|program| OtherProgram { id: program.id, text: program.to_string() }).collect())
    }

    fn resume_guest_end(&self, place: &GuestEndPlace<'_>) -> Result<Option<Box<dyn GuestProgram>>, Error> {
        let Some(pins) = &self.places.pins else { return Ok(None) };
        bpffs_at(&pins.mount)?;
        let options = options(pins, place);
        let resumed = run(&place.netdev.namespace, || {
            silence(&options.ifname, true);
            Ok(xdp_prog::GuestProgram::resume(&options)?)
        });
        let Some(Resumed { program, replace_failed }) = resumed? else { return Ok(None) };
        if let Some(error) = replace_failed {
            let ifname = &options.ifname;
            tracing::warn!(ifname, %error, "the program of an earlier version goes on at a guest's end");
        }
        Ok(Some(Box::new(program)))
    }

    fn attach_guest_end(
        &self,
        place: &GuestEndPlace<'_>,
        request: ModeRequest,
    ) -> Result<(Box<dyn GuestProgram>, Attached), Error> {
        let nothing = || Error::new(ErrorKind::Unsupported, "this switch pins nothing");
        let pins = self.places.pins.as_ref().ok_or_else(nothing)?;
        bpffs_at(&pins.mount)?;
        let options = options(pins, place);
        let (program, attachment) = run(&place.netdev.namespace, || {
            silence(&options.ifname, true);
            let attached = xdp_prog::GuestProgram::attach(&options, mode_request(request));
            Ok(attached.inspect_err(|_| silence(&options.ifname, false))?)
        })?;
        Ok((Box::new(program), attached(attachment)))
    }

    fn kept_guest_ends(&self) -> Vec<PortNo> {
        self.places.pins.as_ref().map(PinPlace::ports).unwrap_or_default()
    }

    fn forget_guest_end(&self, port: PortNo) -> Result<(), Error> {
        let Some(pins) = &self.places.pins else { return Ok(()) };
        Ok(forget_pins(&pins.of(port))?)
    }
}
