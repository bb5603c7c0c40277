//! Devices under test. Each takes the lab's ports and forwards between them until it is stopped.
//!
//! A [`Device`] is a description that can be started any number of times. A [`Running`] one is a guard: when it is
//! dropped, neither process nor program stays behind.

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

/// A description of something that forwards between the ports of a lab.
pub trait Device: Debug {
    /// Name and set-up, as the report shows it.
    fn name(&self) -> String;

    /// Short name of its kind, for choosing devices: `xswitch`, `floor`, …
    fn kind(&self) -> &'static str;

    /// Ports that it takes. The traffic is between the first two.
    fn ports(&self) -> usize {
        2
    }

    /// Starts it on the ports `p0`, `p1`, … in `lab.switch`. Its own threads, if any, are pinned to `cpu`.
    ///
    /// # Errors
    /// It can't run here. The reason is shown beside the results.
    fn start<'a>(&'a self, lab: &'a Lab, cpu: usize) -> anyhow::Result<Box<dyn Running + 'a>>;

    /// Program and version, as the report shows them.
    fn version(&self) -> Option<(String, String)> {
        None
    }
}

/// A running device. It ends when it is dropped.
pub trait Running: Debug {
    /// Its processes, for memory and idle CPU. A device in the kernel has none.
    fn pids(&self) -> Vec<i32> {
        Vec::new()
    }

    /// Restarts it, if it keeps its configuration by itself. Returns the seconds from the start of its process until
    /// everything is in place.
    ///
    /// # Errors
    /// It does not come back.
    fn restart(&mut self) -> anyhow::Result<Option<f64>> {
        Ok(None)
    }

    /// Replaces its traffic rules. They are in force when this returns.
    ///
    /// # Errors
    /// It has no rules, or refused these.
    fn set_rules(&mut self, _rules: &RuleSet) -> anyhow::Result<()> {
        bail!("it has no traffic rules")
    }
}
