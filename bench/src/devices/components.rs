//! xswitch with components of the Soft Patch Panel. Frames go through them instead of the bridge.
//!
//! The measured direction is from the near guest to the far one. A forward component serves the other direction.

use std::sync::Arc;

use anyhow::ensure;
use serde_json::json;
use tests::{Daemon, Options};

use super::{Device, Running};
use crate::lab::Lab;
use crate::load::{Side, station};
use crate::names;

/// The component that frames go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A forward component.
    Forward,
    /// A classifier with an entry for the far guest's station, between others.
    Classifier,
    /// A merge component of the port and a ring without senders.
    Merge,
    /// A classifier, a ring, and a merge component.
    Chain,
}

/// The device.
#[derive(Clone, Copy, Debug)]
pub struct Components {
    /// The component that frames go through.
    pub kind: Kind,
}

/// Entries of a classifier's table that no frame matches.
const OTHERS: u32 = 126;

impl Components {
    fn lines(self) -> Vec<String> {
        let mut lines = vec![
            "vf 1; component start back 0 forward".to_owned(),
            "vf 1; port add phy:1 rx back".to_owned(),
            "vf 1; port add phy:0 tx back".to_owned(),
        ];
        let mut component = |name: &str, kind: &str, ports: &[&str]| {
            lines.push(format!("vf 1; component start {name} 0 {kind}"));
            lines.extend(ports.iter().map(|port| format!("vf 1; port add {port} {name}")));
        };
        match self.kind {
            Kind::Forward => component("there", "forward", &["phy:0 rx", "phy:1 tx"]),
            Kind::Merge => component("there", "merge", &["phy:0 rx", "ring:0 rx", "phy:1 tx"]),
            Kind::Classifier => component("there", "classifier", &["phy:0 rx", "phy:1 tx", "ring:0 tx"]),
            Kind::Chain => {
                component("there", "classifier", &["phy:0 rx", "ring:0 tx", "ring:1 tx"]);
                component("on", "merge", &["ring:0 rx", "ring:1 rx", "phy:1 tx"]);
            }
        }
        let (to, other) = match self.kind {
            Kind::Classifier => ("phy:1", "ring:0"),
            _ => ("ring:0", "ring:1"),
        };
        if matches!(self.kind, Kind::Classifier | Kind::Chain) {
            let add = |mac: String, port: &str| format!("vf 1; classifier_table add mac {mac} {port}");
            lines.push(add(station(Side::Far, 1), to));
            lines.extend((0..OTHERS).map(|n| add(station(Side::Far, 1000 + n), other)));
        }
        lines
    }
}

impl Device for Components {
    fn name(&self) -> String {
        let name = match self.kind {
            Kind::Forward => names::FORWARD,
            Kind::Classifier => names::CLASSIFIER,
            Kind::Merge => names::MERGE,
            Kind::Chain => names::CHAIN,
        };
        name.to_owned()
    }

    fn kind(&self) -> &'static str {
        "components"
    }

    fn start<'a>(&'a self, lab: &'a Lab, cpu: usize) -> anyhow::Result<Box<dyn Running + 'a>> {
        let config = format!(
            "cpus = [{cpu}]\n[metrics]\nlisten = \"\"\n[spp]\nlisten = \"\"\n[[spp.process]]\ntype = \"vf\"\nclient_id = 1\n"
        );
        let daemon = Daemon::within(Arc::clone(&lab.switch), &Options { workers: 1, frames: 65_536, config });
        let call = |target: &str, body: serde_json::Value| -> anyhow::Result<()> {
            let (status, answer) = daemon.call("POST", target, &body);
            ensure!((200..300).contains(&status), "POST {target} {body}: {status} {answer}");
            Ok(())
        };
        for (number, ifname) in lab.port_names().iter().enumerate() {
            call("ports", json!({ "name": ifname, "kind": "phy", "ifname": ifname, "spp": format!("phy:{number}") }))?;
        }
        self.lines().into_iter().try_for_each(|line| call("spp/commands", json!({ "line": line })))?;
        Ok(Box::new(Panel { daemon }))
    }
}

#[derive(Debug)]
struct Panel {
    daemon: Daemon,
}

impl Running for Panel {
    fn pids(&self) -> Vec<i32> {
        vec![self.daemon.pid()]
    }
}
