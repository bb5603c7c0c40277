//! Changes of a live port: all that are asked for, or none.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::depth::set_rings;
use super::supply::Supply;
use super::{steer, unique};
use crate::control::attach::{RingOptions, no_guest_end};
use crate::control::core::Core;
use crate::control::fields::{check_depth, check_mac, check_mtu, check_vlan};
use crate::control::ports::LivePort;
use crate::control::state::Control;
use crate::model::*;
use crate::{Error, ErrorKind};

/// Changes a live port, or nothing.
pub(in crate::control) fn update_port(control: &mut Control, name: &str, update: PortUpdate) -> Result<PortNo, Error> {
    let core = Arc::clone(&control.core);
    check_address(control, control.ports.find(name)?, &update)?;
    let supply = Supply::of(control);
    let port = control.ports.find_mut(name)?;
    check_update(port, &update)?;
    let no = port.shared.no;
    change_outside(&core, port, &update, &supply)?;
    change_policy(port, update);
    steer::look_up_host(control);
    control.publish();
    steer::forget_host(control);
    steer::steer(control);
    Ok(no)
}

/// Refuses an address that is the host's, or another port's in the same VLAN.
fn check_address(control: &Control, port: &LivePort, update: &PortUpdate) -> Result<(), Error> {
    update.mac.map_or(Ok(()), |mac| control.host_addresses.check(mac))?;
    if update.mac.is_none() && update.vlan.is_none() && update.shared_mac.is_none() {
        return Ok(());
    }
    let spec = &port.spec;
    let changed = PortSpec {
        mac: new_mac(spec, update),
        vlan: update.vlan.clone().or_else(|| spec.vlan.clone()),
        shared_mac: update.shared_mac.unwrap_or(spec.shared_mac),
        ..spec.clone()
    };
    unique::check_mac(&changed, control.ports.iter().map(|port| &port.spec))
}

/// The address that a port has after a change.
fn new_mac(spec: &PortSpec, update: &PortUpdate) -> Option<MacAddr> {
    if update.no_mac { None } else { update.mac.or(spec.mac) }
}

/// Refuses what can't be, before anything is changed.
pub(in crate::control) fn check_update(port: &LivePort, update: &PortUpdate) -> Result<(), Error> {
    let spec = &port.spec;
    if let Some(queues) = update.queues.filter(|&queues| Some(queues) != spec.queues) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "queues: a live port keeps its {} queues and can't have {queues}: delete it and add it anew",
                port.queues()
            ),
        ));
    }
    if !spec.kind.has_netdevs() && update.queue_depth.is_some() {
        return Err(Error::invalid(format!("queue_depth: the guest of a {} port makes the rings", spec.kind.name())));
    }
    if update.guest_sockets == Some(true) && !spec.kind.has_guest_end() {
        return Err(no_guest_end(&spec.name, spec.kind));
    }
    if let Some(tap) = &update.tap {
        check_tap(spec, tap)?;
    }
    if let Some(bond) = &update.bond {
        port.attachment.check_bond_update(spec, bond)?;
    }
    update.queue_depth.map_or(Ok(()), check_depth)?;
    if let Some(mtu) = update.mtu.filter(|&mtu| Some(mtu) != spec.mtu) {
        let (max, why) = port.attachment.max_mtu();
        check_mtu(mtu, max, why)?;
    }
    update.mac.filter(|&mac| Some(mac) != spec.mac).map_or(Ok(()), check_mac)?;
    update.vlan.as_ref().map_or(Ok(()), check_vlan)?;
    if update.fdb_limit == Some(0) {
        return Err(Error::invalid("fdb_limit: 0 is out of range, at least 1 is needed"));
    }
    if update.no_mac && spec.kind.has_guest_end() {
        return Err(Error::invalid(format!("no_mac: the guest of a {} port always has an address", spec.kind.name())));
    }
    if update.no_mac && update.mac.is_some() {
        return Err(Error::invalid("no_mac: it can't take the address away that `mac` gives"));
    }
    let is_checked = update.mac_check.unwrap_or(update.no_mac && spec.mac_check == Some(true));
    if is_checked && new_mac(spec, update).is_none() {
        return Err(Error::invalid(
            "mac_check: the port would have no address to check against: name one as `mac`, or set `mac_check` to false",
        ));
    }
    Ok(())
}

/// Refuses to give a tap to whom it can't be given, or what is no tap.
fn check_tap(spec: &PortSpec, to: &TapSpec) -> Result<(), Error> {
    if spec.kind != PortKind::Tap {
        return Err(Error::invalid(format!("tap: a {} port has none", spec.kind.name())));
    }
    if spec.tap.clone().unwrap_or_default().can_become(to) {
        return Ok(());
    }
    let text = "tap: a live tap gets another owner for its owner and another group for its group, and neither loses nor gains \
                one: delete the port and add it anew";
    Err(Error::new(ErrorKind::Unsupported, text))
}

/// A change that was made outside, with what there was before.
enum Done {
    Opened,
    Rings(RingOptions),
    Mtu(Option<u32>),
    Tap(TapSpec),
}

impl Done {
    fn undo(self, core: &Core, port: &mut LivePort) {
        let (what, undone) = match self {
            Done::Opened => {
                port.close_guest_end();
                return;
            }
            Done::Rings(before) => ("the depth of its rings", set_rings(core, port, before)),
            Done::Tap(before) => ("the owner of its tap", port.attachment.give_tap(&before)),
            Done::Mtu(before) => ("its MTU", before.map_or(Ok(()), |mtu| port.attachment.set_mtu(mtu))),
        };
        if let Err(error) = undone {
            tracing::error!(port = port.spec.name, %error, "{what} can't be restored");
        }
    }
}

/// Changes what a port has outside: guest's end, queues, MTU, the guest's address. On an error all is as it was.
fn change_outside(core: &Core, port: &mut LivePort, update: &PortUpdate, supply: &Supply) -> Result<(), Error> {
    let mut done = Vec::new();
    let changed = change_each(core, port, update, supply, &mut done);
    match changed {
        // Only this can't fail, and can't be undone.
        Ok(()) if update.guest_sockets == Some(false) => port.close_guest_end(),
        Ok(()) => {}
        Err(_) => done.into_iter().rev().for_each(|done: Done| done.undo(core, port)),
    }
    changed
}

fn change_each(
    core: &Core,
    port: &mut LivePort,
    update: &PortUpdate,
    supply: &Supply,
    done: &mut Vec<Done>,
) -> Result<(), Error> {
    if update.guest_sockets == Some(true) && !port.is_open_to_guests() {
        port.open_guest_end()?;
        done.push(Done::Opened);
    }
    if let Some(depth) = update.queue_depth.filter(|&depth| Some(depth) != port.spec.queue_depth) {
        let before = port.rings;
        set_rings(core, port, RingOptions { depth, memory: supply.retake(before.memory, port.queues(), depth) })?;
        done.push(Done::Rings(before));
    }
    if let Some(mtu) = update.mtu.filter(|&mtu| Some(mtu) != port.spec.mtu) {
        port.attachment.set_mtu(mtu)?;
        done.push(Done::Mtu(port.spec.mtu));
    }
    if let Some(tap) = &update.tap {
        port.attachment.give_tap(tap)?;
        done.push(Done::Tap(port.spec.tap.clone().unwrap_or_default()));
    }
    if let Some(mac) = update.mac.filter(|&mac| Some(mac) != port.spec.mac) {
        port.attachment.set_guest_mac(mac)?;
    }
    // Last, because it undoes itself.
    if let Some(bond) = &update.bond {
        port.attachment.update_bond(&mut port.spec, bond, port.rings)?;
    }
    Ok(())
}

/// Changes what the next view says of a port.
fn change_policy(port: &mut LivePort, update: PortUpdate) {
    let mac = new_mac(&port.spec, &update);
    let PortUpdate { mtu, shared_mac, vlan, isolated, mac_check, fdb_limit, guest_sockets, tap, .. } = update;
    let spec = &mut port.spec;
    spec.mtu = mtu.or(spec.mtu);
    port.shared.mtu.store(spec.mtu.unwrap_or(DEFAULT_MTU), Ordering::Relaxed);
    spec.mac = mac;
    spec.shared_mac = shared_mac.unwrap_or(spec.shared_mac);
    spec.vlan = vlan.or(spec.vlan.take());
    spec.isolated = isolated.unwrap_or(spec.isolated);
    spec.mac_check = mac_check.or(spec.mac_check);
    spec.fdb_limit = fdb_limit.or(spec.fdb_limit);
    spec.guest_sockets = guest_sockets.unwrap_or(spec.guest_sockets);
    spec.tap = tap.map_or(spec.tap.take(), TapSpec::if_named);
}
