//! Lines, and their answers.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a line is answered with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Answer {
    /// For people, as SPP's CLI prints it; lines end with a newline.
    pub text: String,
    /// For programs: what was asked for, or the instance after the change; `null`: there is none.
    pub value: Value,
}

/// What some editors begin a file with.
pub const BOM: char = '\u{feff}';

/// Whether a line is only for people, as SPP sees it.
pub fn is_comment(line: &str) -> bool {
    let line = line.trim_start_matches(BOM).trim();
    line.is_empty() || line.starts_with('#') || line.starts_with("//")
}
