//! Ports: added, removed, changed, listed.

use std::time::Duration;

use super::Switch;
use crate::control::PortChange;
use crate::control::attach::put_back;
use crate::control::change;
use crate::control::report::{self, BoundQueues};
use crate::counters::as_count;
use crate::host::LinkStatus;
use crate::model::*;
use crate::{Error, ErrorKind};

impl Switch {
    /// Adds a port: makes or adopts its netdevs, binds sockets, attaches the XDP program last. On an error nothing
    /// is left.
    pub fn add_port(&self, spec: PortSpec) -> Result<PortInfo, Error> {
        let added = self.add_ports(vec![spec]).pop();
        added.unwrap_or_else(|| Err(Error::new(ErrorKind::System, "a port was neither added nor refused")))
    }

    /// Adds ports as [`Switch::add_port`] does, but several at a time. That saves most of the waiting for the
    /// kernel. Numbers and results go in the order of `specs`, whichever port is ready first. One that fails stops
    /// no other.
    pub fn add_ports(&self, specs: Vec<PortSpec>) -> Vec<Result<PortInfo, Error>> {
        let mut control = self.lock();
        let added = change::add_ports(&mut control, specs, false);
        report::infos_of(&control, added)
    }

    /// Adds ports that were there before, in an earlier process or until their netdevs were lost. They take what their
    /// netdevs have become: other names, other queues. Else it is as [`Switch::add_ports`].
    pub fn restore_ports(&self, specs: Vec<PortSpec>) -> Vec<Result<PortInfo, Error>> {
        let mut control = self.lock();
        let added = change::add_ports(&mut control, specs, true);
        report::infos_of(&control, added)
    }

    /// The netdevs that ports would change if they were added, as they are now; by the ports' names. Ports without
    /// netdevs that are there, and ports that would be refused, are left out.
    pub fn netdevs_before(&self, specs: &[PortSpec]) -> Vec<(String, NetdevsBefore)> {
        change::before(&self.lock(), specs)
    }

    /// Makes netdevs again what they were before a port that was not brought up to its end.
    pub fn put_netdevs_back(&self, before: &NetdevsBefore) {
        put_back(&*self.core.host, before);
    }

    /// Removes a port. It is detached first, its frames come back, and its veth pair goes if the switch made it.
    /// Its meter bindings and its redirect go with it.
    ///
    /// # Errors
    /// `Busy`: another port's frames are redirected to it, or a component has it.
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

    /// Says whether a live port could be changed so. Changes nothing.
    pub fn check_update(&self, name: &str, update: &PortUpdate) -> Result<(), Error> {
        change::check_update(self.lock().ports.find(name)?, update)
    }

    /// Says whether there is what a port needs that is added in the place of another: the netdev of a `phy`, the
    /// namespace of a guest. Changes nothing.
    pub fn check_outside(&self, spec: &PortSpec) -> Result<(), Error> {
        match (spec.kind, &spec.netns) {
            (PortKind::Phy, _) => {
                let ifname = spec.ifname.as_deref().unwrap_or_default();
                let missing = || Error::new(ErrorKind::NotFound, format!("ifname: there is no netdev {ifname} here"));
                self.core.host.find(ifname)?.map(drop).ok_or_else(missing)
            }
            (PortKind::Guest | PortKind::Tap, Some(name)) => self.core.host.namespace(name).map(drop),
            // The place of a socket is looked at when it is made.
            (PortKind::Bond, _) => {
                let missing = |name: &str| {
                    Error::new(ErrorKind::NotFound, format!("bond.members: there is no netdev {name} here"))
                };
                let mut members = spec.bond.iter().flat_map(|bond| &bond.members);
                members.try_for_each(|name| self.core.host.find(name)?.map(drop).ok_or_else(|| missing(name)))
            }
            (PortKind::Guest | PortKind::Tap | PortKind::Vhost, _) => Ok(()),
        }
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

    /// Live `phy` ports by number, or the one of that name, and what driver and kernel say of their links now. `None`:
    /// the netdev is gone.
    ///
    /// # Errors
    /// `System`: the kernel can't be asked.
    pub fn links(&self, name: Option<&str>) -> Result<Vec<(PortInfo, Option<LinkStatus>)>, Error> {
        let control = self.lock();
        let is_meant = |spec: &PortSpec| spec.kind == PortKind::Phy && name.is_none_or(|name| name == spec.name);
        let netdevs = control.ports.iter().filter(|port| is_meant(&port.spec)).filter_map(|port| {
            let netdev = port.attachment.netdev()?.clone();
            Some((report::info(&control, port), netdev))
        });
        let netdevs: Vec<_> = netdevs.collect();
        // A driver may take its time.
        drop(control);
        let look_at = |(info, netdev)| Ok((info, self.core.host.link_status(&netdev)?));
        netdevs.into_iter().map(look_at).collect()
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
        as_count(self.core.settings.capacity.port_slots())
    }

    /// Waits until something has changed on the machine, that long at most; says whether it has. Then ports may have
    /// changed ([`Switch::take_port_changes`]), and one that could not be added may be added now.
    pub fn wait_for_changes(&self, timeout: Duration) -> bool {
        self.core.changes.wait(timeout)
    }

    /// Takes what became of ports without a command, in order.
    pub fn take_port_changes(&self) -> Vec<PortChange> {
        self.core.changes.take()
    }

    /// Makes ports' files that outlive the process again, if somebody has removed them. Returns whether one was made.
    ///
    /// # Errors
    /// `System`: one can't be made. The others are looked at all the same.
    pub fn look_after_files(&self) -> Result<bool, Error> {
        let control = self.lock();
        let mut all = Ok(false);
        for port in control.ports.iter() {
            all = match (all, port.attachment.look_after_files()) {
                (Ok(before), Ok(made)) => Ok(before | made),
                (Err(error), _) | (_, Err(error)) => Err(error),
            };
        }
        all
    }

    /// Removes pairs that an earlier process of this switch made for ports that are not `kept`.
    pub fn clear_leftovers(&self, kept: &[PortSpec]) {
        change::clear_leftovers(&self.lock(), kept);
    }

    /// Keeps numbers, with names and queues, for ports that are configured and not up. Other ports don't get them.
    /// Rules, bindings and redirects may name them.
    pub fn reserve_ports(&self, ports: Vec<(u16, String, u32)>) {
        self.lock().ports.reserve(ports);
    }

    /// Forgets bindings and redirect of a number that was kept for a port.
    ///
    /// # Errors
    /// `Busy`: another port's frames are redirected to it.
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
