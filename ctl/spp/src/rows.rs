//! Rows of the state file: instances and flow rules.

use ctl_service::state::{Row, Table, Tables};

use super::flow::PortRules;
use super::{Instance, Proc};

/// Rows of instances, by type and number: `spp/TYPE/ID`.
#[derive(Debug)]
pub struct Instances;

impl Table for Instances {
    const NAME: &'static str = "spp";
    type Row = Instance;

    fn key(row: &Instance) -> String {
        instance_key(row.proc)
    }
}

fn instance_key(proc: Proc) -> String {
    format!("{}/{:05}", proc.kind.word(), proc.id)
}

/// The row that removes an instance.
pub fn no_instance(proc: Proc) -> Row {
    Row::remove::<Instances>(&instance_key(proc))
}

/// Rows of flow rules, one for each port: `flow/NUMBER`.
#[derive(Debug)]
pub struct FlowRules;

impl Table for FlowRules {
    const NAME: &'static str = "flow";
    type Row = PortRules;

    fn key(row: &PortRules) -> String {
        format!("{:05}", row.port)
    }
}

/// The row of a port's flow rules. A port without rules has no row.
pub fn flow_rules(rules: &PortRules) -> Row {
    match rules.rules.is_empty() {
        true => Row::remove::<FlowRules>(&FlowRules::key(rules)),
        false => Row::put::<FlowRules>(rules),
    }
}

/// The tables of the Soft Patch Panel, for opening the state file.
pub fn tables() -> Tables {
    Tables::default().with::<Instances>().with::<FlowRules>()
}
