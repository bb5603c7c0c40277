//! Answers to command lines, and which lines are comments.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The answer to a command line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Answer {
    /// For people, as SPP's CLI prints it. Each line ends with a newline.
    pub text: String,
    /// For programs: what was asked for, or the instance after the change. `null` if there is neither.
    pub value: Value,
}

/// Byte order mark. Some editors put it at the beginning of a file.
pub const BOM: char = '\u{feff}';

/// Whether SPP ignores a line: it is empty, or a comment with `#` or `//`.
pub fn is_comment(line: &str) -> bool {
    let line = line.trim_start_matches(BOM).trim();
    line.is_empty() || line.starts_with('#') || line.starts_with("//")
}
