//! The tap of a port, which a VMM opens.
//!
//! Behind a tap there is a veth pair. The switch's sockets are on its near end. All that comes in by the tap leaves by
//! the far end, and the other way round; filters in the kernel do that. So the kernel does what a VMM leaves to its
//! host (checksums, segments of large packets) before the switch sees it. And the switch's sockets do not depend on how
//! many queues the VMM has open.
//!
//! Tap and filters stay while the daemon is away. The tap has the port's mark, as the pair has.

use super::account::{group, user};
use super::mark::Mark;
use crate::host::{Host, HostChange, Link, LinkChange, Namespace, Netdev, TapPlan, TapState};
use crate::model::*;
use crate::{Error, ErrorKind};

/// The place for a tap, looked for.
#[derive(Debug)]
pub struct FoundTap {
    /// The port's tap, if it is there.
    there: Option<Link>,
    settings: TapSettings,
}

/// What a tap is made with.
#[derive(Clone, Debug)]
struct TapSettings {
    mark: String,
    draft_name: String,
    multi_queue: bool,
    users: Users,
}

/// Who may open a tap: a user, and the members of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Users {
    owner: Option<u32>,
    group: Option<u32>,
}

impl Users {
    /// # Errors
    /// `Invalid`: there is no such user or group.
    fn of(wish: &TapSpec) -> Result<Self, Error> {
        let owner = wish.owner.as_deref().map(|name| user("tap.owner", name)).transpose()?;
        let group = wish.group.as_deref().map(|name| group("tap.group", name)).transpose()?;
        // The kernel lets anybody open a tap of nobody.
        Ok(Self { owner: owner.or_else(|| group.is_none().then(|| nix::unistd::geteuid().as_raw())), group })
    }
}

impl FoundTap {
    /// Looks for the tap of a port in the namespace where it is to be. Completes `spec` by its name. One that was
    /// renamed is looked for among `links`.
    ///
    /// # Errors
    /// `Invalid`: no such user or group. `Exists`: a netdev of that name is not the port's.
    pub fn find(host: &dyn Host, spec: &mut PortSpec, namespace: &Namespace, links: &[Link]) -> Result<Self, Error> {
        let vport = spec.vport.unwrap_or_default();
        let mark = Mark::of(host);
        let name = spec.guest_ifname.get_or_insert_with(|| format!("xt{vport}"));
        let users = Users::of(&spec.tap.clone().unwrap_or_default())?;
        let settings = TapSettings {
            mark: mark.for_port(&spec.name),
            draft_name: mark.draft_tap_name(vport),
            multi_queue: spec.queues.is_some_and(|queues| queues > 1),
            users,
        };
        let is_own = |link: &&Link| mark.tap_port_of(link) == Some(&spec.name);
        let (named, there) = match namespace {
            Namespace::Here => {
                let named = host.find(name)?;
                let own = named.as_ref().filter(is_own).or_else(|| links.iter().find(is_own)).cloned();
                (named, own)
            }
            Namespace::Named(_) => {
                let links = host.list_in(namespace)?;
                let own = links.iter().find(is_own).cloned();
                (links.into_iter().find(|link| link.name == *name), own)
            }
        };
        match (&there, named) {
            (Some(link), _) => *name = link.name.clone(),
            (None, Some(_)) => {
                let text = format!(
                    "guest_ifname: {name} is there, and this switch has not made it for the port: name another, or delete \
                     it; a tap of somebody else can be a phy port"
                );
                return Err(Error::new(ErrorKind::Exists, text));
            }
            (None, None) => {}
        }
        Ok(Self { there, settings })
    }

    /// The tap, if it is there.
    pub fn link(&self) -> Option<&Link> {
        self.there.as_ref()
    }

    /// Makes the tap if it is not there, and joins it to the far end of the port's pair. On an error a tap that was
    /// made here is deleted.
    pub fn open(self, host: &dyn Host, spec: &PortSpec, far: &Netdev) -> Result<Tap, Error> {
        let Self { there, settings } = self;
        let made = there.is_none();
        let netdev = match there {
            Some(link) => Netdev::of(&link, far.namespace.clone()),
            None => settings.make(host, spec, &far.namespace)?,
        };
        let mut tap = Tap { netdev, settings, made, state: TapState::default(), carrier: false };
        match tap.join(host, far).and_then(|()| tap.set_up(host, spec)) {
            Ok(()) => {
                tap.look(host);
                Ok(tap)
            }
            Err(error) => {
                tap.undo(host);
                Err(error)
            }
        }
    }
}

impl TapSettings {
    fn make(&self, host: &dyn Host, spec: &PortSpec, namespace: &Namespace) -> Result<Netdev, Error> {
        host.make_port_tap(&TapPlan {
            name: spec.guest_ifname.as_deref().unwrap_or_default(),
            draft_name: &self.draft_name,
            namespace,
            multi_queue: self.multi_queue,
            owner: self.users.owner,
            group: self.users.group,
            alias: &self.mark,
        })
    }
}

/// The tap of a live port.
#[derive(Debug)]
pub struct Tap {
    netdev: Netdev,
    settings: TapSettings,
    /// Whether it was made with the port, and not there before.
    made: bool,
    /// As it was last seen.
    state: TapState,
    carrier: bool,
}

impl Tap {
    /// Its netdev.
    pub fn netdev(&self) -> &Netdev {
        &self.netdev
    }

    /// Whether a VMM has it, as far as is known.
    pub fn carrier(&self) -> bool {
        self.carrier
    }

    /// Looks whether a VMM has it, if none had. For a moment when nobody has told anything: the kernel may not tell of
    /// other namespaces. Says whether one has, as far as is known.
    pub fn look_for_vmm(&mut self, host: &dyn Host) -> bool {
        if !self.carrier && matches!(self.netdev.namespace, Namespace::Named(_)) {
            self.look(host);
        }
        self.carrier
    }

    /// What users see of it, as far as is known.
    pub fn info(&self) -> TapInfo {
        info(&self.state, 0)
    }

    /// Whether something was said of it, or of its ties to the far end.
    pub fn is_touched(&self, said: &HostChange) -> bool {
        said.touches(self.netdev.index)
    }

    /// Goes by what has become of it, and repairs what it can. True: `spec` has another name of it.
    pub fn follow(
        &mut self,
        host: &dyn Host,
        spec: &mut PortSpec,
        far: Option<&Netdev>,
        problems: &mut Vec<String>,
    ) -> bool {
        let Some(far) = far else {
            problems.push(format!("nothing gets to {}: the far end of its pair can't be reached", self.netdev.name));
            return false;
        };
        let mut seen = self.look(host);
        if seen.is_none() {
            let again = self.settings.make(host, spec, &far.namespace).map(|netdev| self.netdev = netdev);
            match again.and_then(|()| self.join(host, far)).and_then(|()| self.set_up(host, spec)) {
                Ok(()) => {
                    tracing::warn!(port = spec.name, tap = self.netdev.name, "its tap was gone; it is made again")
                }
                Err(error) => {
                    problems.push(format!("the tap {} is gone, and can't be made again: {error}", self.netdev.name));
                    return false;
                }
            }
            seen = self.look(host);
        }
        let Some(link) = seen else { return false };
        if !link.up {
            problems.push(format!("{} is down: `ip link set {} up`", link.name, link.name));
        }
        if !self.is_joined(host, far) {
            match self.join(host, far) {
                Ok(()) => tracing::warn!(port = spec.name, tap = link.name, "somebody took its filters; they are back"),
                Err(error) => problems.push(format!("nothing gets to {}: {error}", link.name)),
            }
        }
        let renamed = link.name != self.netdev.name;
        if renamed {
            tracing::info!(port = spec.name, from = self.netdev.name, to = link.name, "its tap was renamed");
            self.netdev.name.clone_from(&link.name);
            spec.guest_ifname = Some(link.name);
        }
        renamed
    }

    /// What would break its packets now, in words.
    pub fn problems(&self, host: &dyn Host, far: Option<&Netdev>) -> Vec<String> {
        let name = &self.netdev.name;
        let link = match host.look_at(&self.netdev) {
            Ok(Some(link)) => link,
            Ok(None) => return vec![format!("the tap {name} is gone")],
            Err(error) => return vec![error.to_string()],
        };
        let mut problems = Vec::new();
        if !link.up {
            problems.push(format!("{name} is down: `ip link set {name} up`"));
        }
        if !far.is_some_and(|far| self.is_joined(host, far)) {
            problems
                .push(format!("nothing gets to {name}: its filters are gone (`tc filter show dev {name} ingress`)"));
        }
        if let Some(state) = link.tap
            && (Users { owner: state.owner, group: state.group }) != self.settings.users
        {
            problems.push(format!("{name} belongs to another user or group than the port says: somebody changed it"));
        }
        problems
    }

    /// Has others open it.
    ///
    /// # Errors
    /// `Invalid`: there is no such user or group; `Busy`: a VMM has it. Nothing was changed.
    pub fn give(&mut self, host: &dyn Host, wish: &TapSpec) -> Result<(), Error> {
        let users = Users::of(wish)?;
        if users != self.settings.users {
            host.give_tap(&self.netdev, users.owner, users.group)?;
            self.settings.users = users;
            self.look(host);
        }
        Ok(())
    }

    /// Deletes it.
    pub fn delete(self, host: &dyn Host) {
        if let Err(error) = host.delete(&self.netdev)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(ifname = self.netdev.name, %error, "the tap of a deleted port stays");
        }
    }

    /// Deletes it if it was made with the port.
    pub fn undo(self, host: &dyn Host) {
        if self.made {
            self.delete(host);
        }
    }

    /// Has all packets go from here to the far end of the pair, and back.
    fn join(&self, host: &dyn Host, far: &Netdev) -> Result<(), Error> {
        host.redirect_all(far, &self.netdev)?;
        host.redirect_all(&self.netdev, far)
    }

    fn is_joined(&self, host: &dyn Host, far: &Netdev) -> bool {
        let leads = |from: &Netdev, to: &Netdev| host.redirected_to(from).ok().flatten() == Some(to.index);
        leads(far, &self.netdev) && leads(&self.netdev, far)
    }

    fn set_up(&self, host: &dyn Host, spec: &PortSpec) -> Result<(), Error> {
        host.change(&self.netdev, &LinkChange { mtu: spec.mtu, silent: true, up: Some(true), ..LinkChange::default() })
    }

    fn look(&mut self, host: &dyn Host) -> Option<Link> {
        let seen = host.look_at(&self.netdev).ok().flatten();
        self.carrier = seen.as_ref().is_some_and(|link| link.carrier);
        self.state = seen.as_ref().and_then(|link| link.tap).unwrap_or_default();
        seen
    }
}

/// A tap as its users see it.
pub(in crate::control) fn info(state: &TapState, dropped: u64) -> TapInfo {
    let TapState { owner, group, has_vnet_hdr: vnet_hdr, open_queues, .. } = *state;
    TapInfo { open_queues, vnet_hdr, owner, group, dropped }
}
