//! `capability`: limits for ports, meters, rules and disks, and how many are free.

use ctl_client::Client;
use ctl_types::Capability;
use ctl_types::table::Table;

use crate::print::Printer;

pub(crate) async fn run(client: &Client, printer: &Printer) -> anyhow::Result<()> {
    let answer = client.get("capability").await?;
    printer.show(&answer, |capability: Capability| {
        let mut table = Table::new(&["TABLE", "TOTAL", "FREE"]);
        let Capability { ports, meters, rules, disks, .. } = capability;
        for (name, usage) in [("ports", ports), ("meters", meters), ("rules", rules), ("disks", disks)] {
            table.row([name.to_owned(), usage.total.to_string(), usage.free.to_string()]);
        }
        format!("{}\ndistinct masks of rules: {}\n", table.render(), capability.rule_masks)
    })
}
