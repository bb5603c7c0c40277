//! What the machine does by itself to netdevs of ports, and what an earlier daemon has left there.

use serde::{Deserialize, Serialize};
use switch::PortChange;
use switch::model::{NetdevsBefore, PortSpec};

use crate::error::Error;
use crate::ports::Ports;
use crate::state::{Row, Table};
use crate::{Failed, Inner, Service};

/// Rows of netdevs that a port is about to take, by the key `unfinished/NAME`. A row is there from before the netdevs
/// are changed until the port is in the state file. What a daemon was killed over is undone by the next one.
#[derive(Debug)]
pub struct Unfinished;

/// A port that is about to take netdevs, and how they were.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UnfinishedPort {
    port: String,
    before: NetdevsBefore,
}

impl Table for Unfinished {
    const NAME: &'static str = "unfinished";
    type Row = UnfinishedPort;

    fn key(row: &UnfinishedPort) -> String {
        row.port.clone()
    }
}

impl Service {
    /// Takes what became of ports since the last call. It costs next to nothing if that is nothing.
    pub(super) fn take_changes(&self, inner: &mut Inner) {
        let changes = self.dataplane.take_port_changes();
        if changes.is_empty() {
            return;
        }
        for change in changes {
            match change {
                // One that was deleted meanwhile is nobody's any more.
                PortChange::Lost { spec, .. } if inner.ports.iter().all(|port| port.name != spec.name) => {}
                PortChange::Lost { spec, why } => {
                    self.end_lease(&spec.name);
                    if !inner.failed.iter().any(|port| port.name == spec.name) {
                        let name = spec.name.clone();
                        inner.failed.push(Failed { name, why: why.clone(), lost: Some(why) });
                    }
                    self.note(inner, *spec);
                }
                PortChange::Followed(spec) => self.note(inner, *spec),
            }
        }
        self.reserve(&inner.ports, &inner.failed);
    }

    /// Notes what a port has become, also in the state file.
    fn note(&self, inner: &mut Inner, spec: PortSpec) {
        let Some(port) = inner.ports.iter_mut().find(|port| port.name == spec.name && **port != spec) else { return };
        if let Err(error) = self.store.write(&[Row::put::<Ports>(&spec)]) {
            tracing::error!(port = spec.name, %error, "what the port has become is not kept");
        }
        *port = spec;
    }

    /// Has ports follow what has changed on the machine, and tries again those that are not up. Waits for a change,
    /// that long at most.
    pub fn follow(&self, timeout: std::time::Duration) -> bool {
        let changed = self.dataplane.wait_for_changes(timeout);
        if changed {
            self.retry();
        }
        changed
    }

    /// Notes the netdevs that ports are about to take.
    pub(super) fn begin(&self, specs: &[PortSpec]) -> Result<Vec<String>, Error> {
        let before = self.dataplane.netdevs_before(specs);
        let row =
            |(port, before): &(String, NetdevsBefore)| UnfinishedPort { port: port.clone(), before: before.clone() };
        let rows: Vec<_> = before.iter().map(row).map(|row| Row::put::<Unfinished>(&row)).collect();
        if !rows.is_empty() {
            self.store.write(&rows)?;
        }
        Ok(before.into_iter().map(|(port, _)| port).collect())
    }

    /// Forgets them.
    pub(super) fn end(&self, begun: &[String]) {
        let rows: Vec<_> = begun.iter().map(|port| Row::remove::<Unfinished>(port)).collect();
        if !rows.is_empty()
            && let Err(error) = self.store.write(&rows)
        {
            tracing::warn!(%error, "the next daemon looks at netdevs that are as they should be");
        }
    }

    /// Undoes what an earlier daemon was killed over, and removes pairs that no port has.
    pub(super) fn clear_away(&self, unfinished: &[UnfinishedPort]) -> Result<(), Error> {
        let ports = self.lock().ports.clone();
        for UnfinishedPort { port, before } in unfinished {
            if ports.iter().all(|spec| spec.name != *port) {
                tracing::info!(port, ifname = before.near.ifname, "netdevs of an unfinished port are put back");
                self.dataplane.put_netdevs_back(before);
            }
        }
        if !unfinished.is_empty() {
            self.store.write(&[Row::clear::<Unfinished>()])?;
        }
        self.dataplane.clear_leftovers(&ports);
        Ok(())
    }
}
