//! Made-up programs.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

use switch::host::{
    Attached, FlowTable, GuestEndPlace, GuestProgram, Netdev, OtherProgram, PortProgram, PortSocket, Programs,
    QueueCounters, SteerKey,
};
use switch::model::{Mode, ModeRequest, PortNo, Steering};
use switch::offload::Exit;
use switch::{Error, ErrorKind};

use crate::FakeHost;
use crate::fate::Call;
use crate::netdevs::gone;
use crate::state::{GuestEnd, Program};

fn mode(request: ModeRequest) -> Mode {
    match request {
        ModeRequest::Auto | ModeRequest::Native => Mode::Native,
        ModeRequest::Generic => Mode::Generic,
    }
}

/// Control's hold of a port's program.
#[derive(Debug)]
struct Held {
    host: FakeHost,
    netdev: Netdev,
    id: u32,
}

impl Held {
    /// Does something with the program, if it is there still.
    fn with<T>(&self, call: Option<Call>, work: impl FnOnce(&mut Program) -> T) -> Result<T, Error> {
        let mut state = self.host.lock();
        if let Some(call) = call {
            state.call(call, &self.netdev.name)?;
        }
        // A link is its netdev's, in whatever namespace that is by now.
        let device = state.devices.get_mut(&self.netdev.index).ok_or_else(|| gone(&self.netdev))?;
        let program = device.program.as_mut().filter(|program| program.id == self.id);
        program.map(work).ok_or_else(|| gone(&self.netdev))
    }

    fn set(&self, call: Option<Call>, queue: u32, there: bool) -> Result<(), Error> {
        self.with(call, |program| {
            if let Some((has_socket, _)) = program.queues.get_mut(queue as usize) {
                *has_socket = there;
            }
        })
    }
}

impl PortProgram for Held {
    fn set_socket(&self, queue: u32, _: &PortSocket) -> Result<(), Error> {
        self.set(Some(Call::SetSocket), queue, true)
    }

    fn clear_socket(&self, queue: u32) -> Result<(), Error> {
        self.set(None, queue, false)
    }

    fn attach(&mut self, request: ModeRequest) -> Result<Attached, Error> {
        let mode = mode(request);
        self.with(Some(Call::Attach), |_| ())?;
        if let Some(other) = self.host.lock().device(&self.netdev).and_then(|device| device.other_program.clone()) {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("{} has another XDP program: {}", self.netdev.name, other.text),
            ));
        }
        self.with(None, |program| program.mode = Some(mode))?;
        Ok(Attached { mode, fallback_reason: None })
    }

    fn is_attached(&self) -> bool {
        self.with(None, |program| program.mode.is_some()).unwrap_or(false)
    }

    fn detach(&mut self) -> Result<(), Error> {
        self.with(Some(Call::Detach), |program| program.mode = None)
    }

    fn id(&self) -> u32 {
        self.id
    }

    fn set_steering(&self, keys: &BTreeSet<SteerKey>) -> Result<(), Error> {
        self.with(Some(Call::SetSteering), |program| program.steering.clone_from(keys))
    }

    fn counters(&self) -> Result<Vec<QueueCounters>, Error> {
        self.with(None, |program| program.counters())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.host.lock();
        if let Some(device) = state.devices.get_mut(&self.netdev.index) {
            device.program.take_if(|program| program.id == self.id);
        }
    }
}

/// Control's hold of the program on a guest's end.
#[derive(Debug)]
struct HeldGuestEnd {
    host: FakeHost,
    port: PortNo,
    mode: Mode,
}

impl HeldGuestEnd {
    /// Does something with the slot of a queue.
    fn slot<T: Default>(&self, queue: u32, work: impl FnOnce(&mut bool) -> T) -> T {
        let mut state = self.host.lock();
        let end = state.guest_ends.get_mut(&self.port);
        end.and_then(|end| end.slots.get_mut(queue as usize)).map(work).unwrap_or_default()
    }
}

impl GuestProgram for HeldGuestEnd {
    fn mode(&self) -> Mode {
        self.mode
    }

    fn map_path(&self) -> PathBuf {
        PathBuf::from(format!("/sys/fs/bpf/xswitch/fake/{}/sockets", self.port))
    }

    /// A slot takes any socket at any time: these sockets are closed without anybody's notice.
    fn offer(&self, queue: u32, _: BorrowedFd<'_>) -> Result<bool, Error> {
        Ok(self.slot(queue, |has_socket| {
            *has_socket = true;
            true
        }))
    }

    fn withdraw(&self, queue: u32) -> Result<(), Error> {
        self.slot(queue, |has_socket| *has_socket = false);
        Ok(())
    }

    fn counters(&self) -> Result<Vec<QueueCounters>, Error> {
        let state = self.host.lock();
        let queues = state.guest_ends.get(&self.port).map_or(0, |end| end.slots.len());
        Ok(vec![QueueCounters::default(); queues])
    }

    fn remove(self: Box<Self>) -> Result<(), Error> {
        self.host.lock().guest_ends.remove(&self.port);
        Ok(())
    }
}

impl FakeHost {
    fn hold_guest_end(&self, port: PortNo, mode: Mode) -> Box<dyn GuestProgram> {
        Box::new(HeldGuestEnd { host: self.clone(), port, mode })
    }
}

impl Programs for FakeHost {
    fn knows_multi_buffer(&self) -> bool {
        true
    }

    fn has_multi_buffer(&self, _: &Netdev) -> bool {
        true
    }

    fn make_flow_table(&self, slots: u32) -> Result<Arc<FlowTable>, Error> {
        Ok(Arc::new(FlowTable::detached(slots)?))
    }

    fn exit_of(&self, netdev: &Netdev) -> Exit {
        self.lock().device(netdev).map_or(Exit::None, |device| device.exit)
    }

    fn open_exit(&self, far: &Netdev) -> Result<(), Error> {
        let mut state = self.lock();
        let peer = state.device(far).ok_or_else(|| gone(far))?.peer;
        if let Some(near) = peer.and_then(|peer| state.devices.get_mut(&peer)) {
            near.exit = Exit::Long;
        }
        Ok(())
    }

    fn set_exit(&self, table: &FlowTable, port: PortNo, netdev: Option<&Netdev>) -> Result<(), Error> {
        Ok(table.set_exit(port, netdev.map(|netdev| netdev.index))?)
    }

    fn load_program(
        &self,
        netdev: &Netdev,
        queues: u32,
        steered: Steering,
        _flows: Option<(&Arc<FlowTable>, PortNo)>,
    ) -> Result<Box<dyn PortProgram>, Error> {
        let mut state = self.lock();
        state.call(Call::LoadProgram, &netdev.name)?;
        let id = state.next_program();
        let device = state.device(netdev).ok_or_else(|| gone(netdev))?;
        if device.program.is_some() {
            let text = format!("{}: another XDP program is on it", netdev.name);
            return Err(Error::new(ErrorKind::Busy, text));
        }
        let queues = (0..queues).map(|_| (false, QueueCounters::default())).collect();
        device.program = Some(Program { id, mode: None, steered, steering: BTreeSet::new(), queues });
        Ok(Box::new(Held { host: self.clone(), netdev: netdev.clone(), id }))
    }

    fn check_no_program(&self, netdev: &Netdev) -> Result<(), Error> {
        match self.programs_on(netdev)?.first() {
            Some(other) => {
                let text = format!("{} has another XDP program: {}", netdev.name, other.text);
                Err(Error::new(ErrorKind::Busy, text))
            }
            None => Ok(()),
        }
    }

    fn programs_on(&self, netdev: &Netdev) -> Result<Vec<OtherProgram>, Error> {
        let mut state = self.lock();
        let device = state.device(netdev).ok_or_else(|| gone(netdev))?;
        let program = device.program.as_ref().filter(|program| program.mode.is_some());
        let other =
            |program: &Program| OtherProgram { id: program.id, text: format!("`xsw_port` (id {})", program.id) };
        Ok(program.map(other).into_iter().chain(device.other_program.clone()).collect())
    }

    fn resume_guest_end(&self, place: &GuestEndPlace<'_>) -> Result<Option<Box<dyn GuestProgram>>, Error> {
        let mut state = self.lock();
        let Some(end) = state.guest_ends.get(&place.port) else { return Ok(None) };
        if end.netdev != place.netdev.index {
            state.guest_ends.remove(&place.port);
            return Ok(None);
        }
        Ok(Some(self.hold_guest_end(place.port, end.mode)))
    }

    fn attach_guest_end(
        &self,
        place: &GuestEndPlace<'_>,
        request: ModeRequest,
    ) -> Result<(Box<dyn GuestProgram>, Attached), Error> {
        let mut state = self.lock();
        state.call(Call::AttachGuestEnd, &place.netdev.name)?;
        let netdev = state.device(place.netdev).ok_or_else(|| gone(place.netdev))?.link.index;
        let mode = mode(request);
        let slots = vec![false; place.queues as usize];
        state.guest_ends.insert(place.port, GuestEnd { netdev, mode, slots });
        Ok((self.hold_guest_end(place.port, mode), Attached { mode, fallback_reason: None }))
    }

    fn kept_guest_ends(&self) -> Vec<PortNo> {
        self.guest_ends()
    }

    fn forget_guest_end(&self, port: PortNo) -> Result<(), Error> {
        self.lock().guest_ends.remove(&port);
        Ok(())
    }
}
