//! Ports and tables as a configuration file declares them, and what a file would change.

use std::fmt;

use model::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::DiskSpec;

/// Ports and tables of a switch, by the sections of the configuration file. Rows have the field names of the API.
///
/// A file need not have all fields of a port. An export has them all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SwitchConfig {
    /// `[bridge]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<BridgeSettings>,
    /// `[[port]]`.
    #[serde(rename = "port", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortSpec>,
    /// `[[fdb]]`: static FDB entries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fdb: Vec<FdbSpec>,
    /// `[[meter]]`.
    #[serde(rename = "meter", skip_serializing_if = "Vec::is_empty")]
    pub meters: Vec<MeterConfig>,
    /// `[[binding]]`: bindings of meters to ports.
    #[serde(rename = "binding", skip_serializing_if = "Vec::is_empty")]
    pub bindings: Vec<MeterBinding>,
    /// `[[rule]]`.
    #[serde(rename = "rule", skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleSpec>,
    /// `[[redirect]]`.
    #[serde(rename = "redirect", skip_serializing_if = "Vec::is_empty")]
    pub redirects: Vec<RedirectSpec>,
    /// `[[disk]]`.
    #[serde(rename = "disk", skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskSpec>,
}

/// A meter of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(from = "MeterFields")]
pub struct MeterConfig {
    /// The meter.
    #[serde(flatten)]
    pub spec: MeterSpec,
    /// Whether it applies to what the vport of its number sends, as long as no binding and no rule names it. Default:
    /// true. It is false for a meter that was bound or named by a rule before.
    #[serde(skip_serializing_if = "is_true")]
    pub implicit: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_true(value: &bool) -> bool {
    *value
}

const fn yes() -> bool {
    true
}

/// The fields of [`MeterConfig`]. serde refuses unknown fields only where nothing is flattened.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MeterFields {
    id: u32,
    rate: u32,
    #[serde(default, rename = "type")]
    kind: MeterType,
    burst: Option<u32>,
    #[serde(default)]
    mode: MeterMode,
    peak_rate: Option<u32>,
    peak_burst: Option<u32>,
    #[serde(default)]
    color_aware: bool,
    yellow_dscp: Option<u8>,
    #[serde(default = "yes")]
    implicit: bool,
}

impl From<MeterFields> for MeterConfig {
    fn from(fields: MeterFields) -> Self {
        let MeterFields { id, rate, kind, burst, mode, peak_rate, peak_burst, color_aware, yellow_dscp, implicit } =
            fields;
        let spec = MeterSpec { id, rate, kind, burst, mode, peak_rate, peak_burst, color_aware, yellow_dscp };
        Self { spec, implicit }
    }
}

/// A configuration to compare with, or to apply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ConfigRequest {
    /// What it declares.
    pub config: SwitchConfig,
    /// Whether rows that it does not declare are removed, whoever made them.
    #[serde(default)]
    pub prune: bool,
    /// Absolute path of the file. Rows that this file declared before and does not declare any more are removed.
    /// Absent: the rows belong to no file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// A section of the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ConfigSection {
    /// Settings of the bridge.
    Bridge,
    /// Ports.
    Port,
    /// Static FDB entries.
    Fdb,
    /// Meters.
    Meter,
    /// Bindings of meters to ports.
    Binding,
    /// Traffic rules.
    Rule,
    /// Redirects.
    Redirect,
    /// Disks.
    Disk,
}

impl ConfigSection {
    /// Its name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            ConfigSection::Bridge => "bridge",
            ConfigSection::Port => "port",
            ConfigSection::Fdb => "fdb",
            ConfigSection::Meter => "meter",
            ConfigSection::Binding => "binding",
            ConfigSection::Rule => "rule",
            ConfigSection::Redirect => "redirect",
            ConfigSection::Disk => "disk",
        }
    }
}

/// What is done to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ConfigAction {
    /// It is added.
    Add,
    /// It is changed in operation.
    Change,
    /// It is deleted and added anew, because a field can't be changed in operation.
    Replace,
    /// It is removed.
    Remove,
}

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FieldChange {
    /// Name of the field.
    pub field: String,
    /// Its value now. Absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// Its value then. Absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

/// A row that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ConfigChange {
    /// Its section.
    pub section: ConfigSection,
    /// The row in its section: a port's name, `VLAN/MAC`, a number, `VPORT/DIRECTION`. Empty for the bridge.
    pub key: String,
    /// What is done to it.
    pub action: ConfigAction,
    /// Fields that differ.
    pub fields: Vec<FieldChange>,
    /// Whether the row is as the file declared it before, and was changed or deleted at run time since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub run_time: bool,
}

impl fmt::Display for ConfigChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.section.name())?;
        if !self.key.is_empty() {
            write!(f, " {}", self.key)?;
        }
        f.write_str(match self.action {
            ConfigAction::Add => " added",
            ConfigAction::Change => " changed",
            ConfigAction::Replace => " deleted and added anew",
            ConfigAction::Remove => " removed",
        })?;
        if matches!(self.action, ConfigAction::Change | ConfigAction::Replace) {
            for (at, field) in self.fields.iter().enumerate() {
                write!(f, "{} {field}", if at == 0 { ":" } else { "," })?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.field)?;
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => write!(f, "{from} -> {to}"),
            (Some(from), None) => write!(f, "{from} -> (none)"),
            (None, Some(to)) => write!(f, "(none) -> {to}"),
            (None, None) => Ok(()),
        }
    }
}

/// What differs, or what was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ConfigChanges {
    /// The rows, in the order of the sections.
    pub changes: Vec<ConfigChange>,
    /// What stays or does not work yet, with the reason.
    pub warnings: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_is_read_as_it_is_written_and_unknown_fields_are_refused() {
        for implicit in [true, false] {
            let meter = MeterConfig { spec: MeterSpec::new(7, 1000), implicit };
            let text = serde_json::to_string(&meter).unwrap();
            assert_eq!(text.contains("implicit"), !implicit);
            assert_eq!(serde_json::from_str::<MeterConfig>(&text).unwrap(), meter);
        }
        let error = serde_json::from_str::<MeterConfig>(r#"{"id":1,"rate":2,"bust":3}"#).unwrap_err();
        assert!(error.to_string().contains("bust"), "{error}");
    }
}
