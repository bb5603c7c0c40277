//! The netdevs of a port: changed, looked after, taken down.

use crate::Error;
use crate::ErrorKind;
use crate::host::{Host, LinkChange, Namespace, Netdev};

/// The netdevs of a port.
#[derive(Debug)]
pub struct Ends {
    /// The switch's netdev.
    pub near: Netdev,
    /// A veth's other end, where it can be reached.
    pub far: Option<Netdev>,
    /// Whether it is a veth.
    pub is_veth: bool,
    /// Receive queues in use.
    pub channels: u32,
    /// Whether the switch made the pair, now or before a restart.
    pub made: bool,
}

/// How netdevs become again what they were before a port that can't be brought up.
#[derive(Debug)]
pub enum Undo {
    /// The pair was made just now, so nobody else can be using it.
    Delete,
    /// The ends were there. A netdev that was down stays up: a link that comes and goes with each attempt helps nobody.
    Restore {
        /// The near end.
        near: LinkChange,
        /// The far end, with its namespace.
        far: Option<(LinkChange, Namespace)>,
    },
}

impl Undo {
    /// Undoes what was done to `ends`, as far as it can.
    pub fn run(self, host: &dyn Host, ends: Ends) {
        let failed = |ifname: &str, error: Error| tracing::warn!(ifname, %error, "a netdev can't be restored");
        let (near, far) = match self {
            Undo::Delete => return ends.delete(host),
            Undo::Restore { near, far } => (near, far),
        };
        if let Err(error) = host.change(&ends.near, &near) {
            failed(&ends.near.name, error);
        }
        let (Some(mut netdev), Some((change, namespace))) = (ends.far, far) else { return };
        let mut restore = || {
            if netdev.namespace.name() != namespace.name() {
                netdev = host.move_to(&netdev, &namespace)?;
                host.change(&netdev, &LinkChange { up: Some(true), ..LinkChange::default() })?;
            }
            host.change(&netdev, &change)
        };
        if let Err(error) = restore() {
            failed(&netdev.name, error);
        }
    }
}

impl Ends {
    /// Changes the far end, then the near one.
    pub fn change(&self, host: &dyn Host, near: &LinkChange, far: &LinkChange) -> Result<(), Error> {
        if let Some(netdev) = &self.far {
            host.change(netdev, far)?;
        }
        host.change(&self.near, near)
    }

    /// Sets the MTU of both ends, or of none.
    pub fn set_mtu(&self, host: &dyn Host, mtu: u32) -> Result<(), Error> {
        let before = host.look_at(&self.near)?.map_or(mtu, |link| link.mtu);
        let to = |mtu| LinkChange { mtu: Some(mtu), ..LinkChange::default() };
        host.change(&self.near, &to(mtu))?;
        let Some(far) = &self.far else { return Ok(()) };
        let set = host.change(far, &to(mtu));
        if set.is_err() {
            host.change(&self.near, &to(before))?;
        }
        set
    }

    /// Deletes the pair if the switch made it.
    pub fn delete(self, host: &dyn Host) {
        if self.made
            && let Err(error) = host.delete(&self.near)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(ifname = self.near.name, %error, "the veth pair of a deleted port stays");
        }
    }

    /// What would break packets now, in words.
    pub fn problems(&self, host: &dyn Host, mtu: u32) -> Vec<String> {
        let mut problems = Vec::new();
        if self.is_veth && self.far.is_none() {
            problems.push(unreached_peer(&self.near.name));
        }
        match host.look_at(&self.near) {
            Ok(Some(link)) => {
                if !link.up {
                    problems.push(format!("{} is down: `ip link set {} up`", link.name, link.name));
                } else if !link.carrier {
                    problems.push(format!("{} has no carrier: its other end is down or unplugged", link.name));
                }
                if link.mtu != mtu {
                    problems.push(format!(
                        "{} has MTU {} and the port {mtu}: somebody changed it; set it through the port",
                        link.name, link.mtu
                    ));
                }
            }
            Ok(None) => problems.push(format!("{} is gone: delete the port and add it again", self.near.name)),
            Err(error) => problems.push(error.to_string()),
        }
        if let Some(far) = &self.far {
            let name = &far.name;
            match host.hidden_bytes(far) {
                Ok(features) if !features.is_empty() => problems.push(format!(
                    "{name}, the other end, leaves work to a NIC that is not there ({}): its packets will have wrong checksums \
                     or no VLAN tag; `ethtool -K {name} tx off txvlan off` there",
                    features.join(", ")
                )),
                Ok(_) => {}
                Err(error) => problems.push(error.to_string()),
            }
        }
        problems
    }
}

/// What to know of a veth whose other end is in a namespace without a name.
pub fn unreached_peer(ifname: &str) -> String {
    format!(
        "the other end of {ifname} can't be reached: if a kernel stack uses it, turn its offloads off there (`ethtool -K IF tx off \
         txvlan off`), or its packets will have wrong checksums"
    )
}
