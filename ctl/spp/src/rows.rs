//! What the Soft Patch Panel keeps in the state file.

use ctl_service::state::{Row, Table, Tables};

use super::flow::PortRules;
use super::{Instance, Proc};

/// Rows of instances: `spp/TYPE/ID`.
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

/// Removes an instance.
pub fn no_instance(proc: Proc) -> Row {
    Row::remove::<Instances>(&instance_key(proc))
}

/// Rows of the flow rules of a port: `flow/NUMBER`.
#[derive(Debug)]
pub struct FlowRules;

impl Table for FlowRules {
    const NAME: &'static str = "flow";
    type Row = PortRules;

    fn key(row: &PortRules) -> String {
        format!("{:05}", row.port)
    }
}

/// The flow rules of a port; none of them: no row.
pub fn flow_rules(rules: &PortRules) -> Row {
    match rules.rules.is_empty() {
        true => Row::remove::<FlowRules>(&FlowRules::key(rules)),
        false => Row::put::<FlowRules>(rules),
    }
}

/// Kinds of rows that the Soft Patch Panel keeps.
pub fn tables() -> Tables {
    Tables::default().with::<Instances>().with::<FlowRules>()
}
