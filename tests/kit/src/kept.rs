//! The contents of a state file, with all kinds of rows together.

use ctl_service::state::{Row, Store, Tables};
use ctl_service::*;
use ctl_spp::Instance;
use ctl_spp::flow::PortRules;
use ctl_spp::rows::{self, FlowRules, Instances};
use ctl_types::DiskSpec;
use switch::model::*;

/// All kinds of rows.
pub fn tables() -> Tables {
    ctl_service::tables().and(rows::tables())
}

/// The whole state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Bridge settings, if they were set at run time.
    pub bridge: Option<BridgeSettings>,
    /// `[bridge]` of the configuration file, as last applied.
    pub bridge_configured: Option<BridgeSettings>,
    /// Ports, ordered by name.
    pub ports: Vec<PortSpec>,
    /// Static FDB entries.
    pub fdb: Vec<FdbSpec>,
    /// Meters.
    pub meters: Vec<MeterRecord>,
    /// Bindings of meters to ports.
    pub bindings: Vec<MeterBinding>,
    /// Traffic rules, ordered by index.
    pub rules: Vec<RuleSpec>,
    /// Redirects.
    pub redirects: Vec<RedirectSpec>,
    /// Disks, ordered by name.
    pub disks: Vec<DiskSpec>,
    /// Instances of the Soft Patch Panel.
    pub instances: Vec<Instance>,
    /// Flow rules of its ports.
    pub flow_rules: Vec<PortRules>,
    /// Rows that files have declared.
    pub declared: Vec<DeclaredRow>,
}

impl Kept {
    /// Takes the contents of a store.
    ///
    /// # Errors
    /// Those of the store.
    pub fn load(store: &Store) -> Result<Self, Error> {
        let mut state = store.load()?;
        let kept = Self {
            bridge: state.take::<RunTime>().pop(),
            bridge_configured: state.take::<Configured>().pop(),
            ports: state.take::<Ports>(),
            fdb: state.take::<StaticEntries>(),
            meters: state.take::<Meters>(),
            bindings: state.take::<MeterBindings>(),
            rules: state.take::<Rules>(),
            redirects: state.take::<Redirects>(),
            disks: state.take::<DiskRows>(),
            instances: state.take::<Instances>(),
            flow_rules: state.take::<FlowRules>(),
            declared: state.take::<DeclaredRows>(),
        };
        assert!(state.is_empty(), "a kind of rows is not known here");
        Ok(kept)
    }

    /// The contents as rows to write.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<_> = self.bridge.iter().map(Row::put::<RunTime>).collect();
        rows.extend(self.bridge_configured.iter().map(Row::put::<Configured>));
        rows.extend(self.ports.iter().map(Row::put::<Ports>));
        rows.extend(self.fdb.iter().map(Row::put::<StaticEntries>));
        rows.extend(self.meters.iter().map(Row::put::<Meters>));
        rows.extend(self.bindings.iter().map(Row::put::<MeterBindings>));
        rows.extend(self.rules.iter().map(Row::put::<Rules>));
        rows.extend(self.redirects.iter().map(Row::put::<Redirects>));
        rows.extend(self.disks.iter().map(Row::put::<DiskRows>));
        rows.extend(self.instances.iter().map(Row::put::<Instances>));
        rows.extend(self.flow_rules.iter().map(Row::put::<FlowRules>));
        rows.extend(self.declared.iter().map(Row::put::<DeclaredRows>));
        rows
    }
}
