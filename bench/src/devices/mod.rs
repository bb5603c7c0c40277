//! Devices under test: each takes the lab's ports and forwards between them until it is stopped.
//!
//! A device is a description that can be started any number of times ([`Device`]); what it starts is a guard
//! ([`Running`]): dropped, it leaves neither process nor program behind.

use std::fmt::Debug;

use anyhow::bail;

use crate::lab::Lab;
use crate::rules::RuleSet;

pub mod bridge;
pub mod components;
pub mod devmap;
pub mod forwarder;
pub mod peer;
pub mod process;
pub mod xswitch;

/// Something that forwards between the ports of a lab.
pub trait Device: Debug {
    /// Name and set-up, as the report shows it.
    fn name(&self) -> String;

    /// Short name of its kind, for choosing devices: `xswitch`, `floor`, …
    fn kind(&self) -> &'static str;

    /// Ports that it wants; the traffic is between the first two.
    fn ports(&self) -> usize {
        2
    }

    /// Starts it on the ports `p0`, `p1`, … in `lab.switch`, pinned to `cpu` as far as it has threads of its own.
    ///
    /// # Errors
    /// It can't run here; the reason is shown beside the results.
    fn start<'a>(&'a self, lab: &'a Lab, cpu: usize) -> anyhow::Result<Box<dyn Running + 'a>>;

    /// Program and version, as the report shows them.
    fn version(&self) -> Option<(String, String)> {
        None
    }
}

/// A device that runs; it ends when it is dropped.
pub trait Running: Debug {
    /// Its processes, for memory and idle CPU; none for what is in the kernel.
    fn pids(&self) -> Vec<i32> {
        Vec::new()
    }

    /// Ends it and starts it again with all that it has been told, if it keeps that by itself; seconds from the start of
    /// its process until all is in place.
    ///
    /// # Errors
    /// It does not come back.
    fn restart(&mut self) -> anyhow::Result<Option<f64>> {
        Ok(None)
    }

    /// Replaces its traffic rules. They are in force when this returns.
    ///
    /// # Errors
    /// It has none, or refused them.
    fn set_rules(&mut self, _rules: &RuleSet) -> anyhow::Result<()> {
        bail!("it has no traffic rules")
    }
}
