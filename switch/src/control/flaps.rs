//! Addresses that flap: what is told of them. Workers find them, and have no time to tell.

use std::time::{Duration, Instant};

use super::state::Control;
use crate::model::{HeldAddress, MacAddr};

/// Time between two lines of the log.
const PERIOD: Duration = Duration::from_secs(10);
/// Addresses that a line names.
const NAMED: usize = 4;

/// Addresses that are held at a port now.
pub(super) fn held(control: &Control) -> Vec<HeldAddress> {
    let name = |no| control.ports.name_of(no);
    let held = control.fdb.held().into_iter();
    held.map(|held| HeldAddress { mac: held.mac, vlan: held.vid, port: name(held.port), other: name(held.other) })
        .collect()
}

/// Tells the log of addresses that are held. Each is told once, as long as it is held time and again, and a line is
/// for all that there are.
#[derive(Debug, Default)]
pub(super) struct FlapLog {
    told_at: Option<Instant>,
    /// Holds that the last line was about.
    holds: u64,
    told: Vec<(MacAddr, u16)>,
}

impl FlapLog {
    /// To be called about once a second.
    pub fn tell(&mut self, control: &Control) {
        let holds = control.fdb.holds();
        if holds == self.holds || self.told_at.is_some_and(|at| at.elapsed() < PERIOD) {
            return;
        }
        let held = held(control);
        let is_new = |held: &&HeldAddress| !self.told.contains(&(held.mac, held.vlan));
        let new: Vec<_> = held.iter().filter(is_new).collect();
        if !new.is_empty() {
            let named = new.iter().take(NAMED).map(|held| format!("{} ({} and {})", held.mac, held.port, held.other));
            let more = new.len().saturating_sub(NAMED);
            tracing::warn!(
                addresses = named.collect::<Vec<_>>().join(", "),
                more,
                "addresses flap between ports and are held at the first one: look for a loop, or for an address that two \
                 stations have"
            );
            self.told_at = Some(Instant::now());
        }
        self.holds = holds;
        self.told = held.iter().map(|held| (held.mac, held.vlan)).collect();
    }
}
