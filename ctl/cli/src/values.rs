//! Values and arguments that several commands take.

use clap::Args;
use ctl_client::query;

/// Parses a value by its spelling in the API.
pub(crate) fn word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|error| error.to_string())
}

/// A time in seconds.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|seconds| (0.05..=86_400.0).contains(seconds))
        .ok_or_else(|| "0.05 to 86400 seconds are possible".to_owned())
}

/// A range of a long list.
#[derive(Clone, Copy, Debug, Args)]
pub struct PageArguments {
    /// First number of the range.
    #[arg(long)]
    pub from: Option<u32>,
    /// Maximum number of rows.
    #[arg(long)]
    pub limit: Option<u32>,
}

impl PageArguments {
    /// The range as a query string.
    pub(crate) fn query(self) -> String {
        let text = |number: Option<u32>| number.map(|number| number.to_string());
        query(&[("from", text(self.from)), ("limit", text(self.limit))])
    }
}
