//! Ports: added, removed, changed, listed.

use super::Switch;
use crate::control::change;
use crate::control::report::{self, BoundQueues};
use crate::model::*;
use crate::{Error, ErrorKind};

impl Switch {
    /// Adds a port: makes or adopts its netdevs, binds sockets, attaches the XDP program last. On an error nothing is left.
    pub fn add_port(&self, spec: PortSpec) -> Result<PortInfo, Error> {
        let added = self.add_ports(vec![spec]).pop();
        added.unwrap_or_else(|| Err(Error::new(ErrorKind::System, "a port was neither added nor refused")))
    }

    /// Adds ports as [`Switch::add_port`] does, but several at a time, which saves most of the waiting for the kernel. What one
    /// gets does not depend on which is ready first: numbers go in the order of `specs`, and so do the results. One that fails
    /// stops none of the others.
    pub fn add_ports(&self, specs: Vec<PortSpec>) -> Vec<Result<PortInfo, Error>> {
        let mut control = self.lock();
        let added = change::add_ports(&mut control, specs);
        report::infos_of(&control, added)
    }

    /// Removes a port: detaches first, brings its frames back, removes the veth pair if the switch made it. Its meter bindings
    /// and its redirect go with it. `Busy` if what would go to another port is redirected to it, or a component has it.
    pub fn del_port(&self, name: &str) -> Result<(), Error> {
        let mut control = self.lock();
        let no = control.ports.find(name)?.shared.no;
        control.tables.check_port_unused(no)?;
        control.components.check_port_unused(name)?;
        control.tables.forget_port(no);
        let remains = change::remove_ports(&mut control, &[no]);
        drop(control);
        remains.into_iter().for_each(|remains| remains.remove());
        Ok(())
    }

    /// Changes a live port. On an error nothing is changed.
    pub fn update_port(&self, name: &str, update: PortUpdate) -> Result<PortInfo, Error> {
        let mut control = self.lock();
        change::update_port(&mut control, name, update)?;
        Ok(report::info(&control, control.ports.find(name)?))
    }

    /// Live ports, by number.
    pub fn ports(&self) -> Vec<PortInfo> {
        let control = self.lock();
        let mut infos = report::infos(&control);
        let bound = BoundQueues::of(&control.core, control.ports.iter());
        drop(control);
        bound.fill(&mut infos);
        infos
    }

    /// The same but for `active_queues`, which takes a look into each guest's namespace.
    pub fn ports_in_brief(&self) -> Vec<PortInfo> {
        report::infos(&self.lock())
    }

    /// Numbers and names of live ports.
    pub fn port_names(&self) -> Vec<(u16, String)> {
        self.lock().ports.iter().map(|port| (port.shared.no, port.spec.name.clone())).collect()
    }

    /// One live port.
    pub fn port(&self, name: &str) -> Result<PortInfo, Error> {
        let control = self.lock();
        let port = control.ports.find(name)?;
        let mut info = report::info(&control, port);
        let bound = BoundQueues::of(&control.core, [port]);
        drop(control);
        bound.fill(std::slice::from_mut(&mut info));
        Ok(info)
    }

    /// Ports that there can be.
    pub fn port_slots(&self) -> u32 {
        self.core.settings.capacity.ports.min(MAX_PORTS as u32)
    }

    /// Keeps numbers, with their names and queues, for ports that are configured and could not be brought up: other ports
    /// don't get them, and rules, bindings and redirects may name them.
    pub fn reserve_ports(&self, ports: Vec<(u16, String, u32)>) {
        self.lock().ports.reserve(ports);
    }

    /// Forgets bindings and redirect of a number that was kept for a port; `Busy` if what would go elsewhere is redirected to
    /// it.
    pub fn forget_port(&self, no: u16) -> Result<(), Error> {
        let mut control = self.lock();
        control.tables.check_port_unused(no)?;
        control.tables.forget_port(no);
        control.ports.free(no);
        if let Err(error) = control.core.host.forget_guest_end(no) {
            tracing::warn!(vport = no, %error, "what was pinned for a port that is gone stays");
        }
        control.publish_meters();
        control.publish_redirects();
        Ok(())
    }
}
