//! Output of answers: tables for people, JSON for programs.

use std::io::Write;

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Prints answers, as JSON or as text.
#[derive(Debug)]
pub(crate) struct Printer {
    pub(crate) json: bool,
}

impl Printer {
    /// Prints an answer, as a table or as JSON.
    pub(crate) fn show<T: DeserializeOwned>(
        &self,
        answer: &Value,
        table: impl FnOnce(T) -> String,
    ) -> anyhow::Result<()> {
        let text = if self.json {
            format!("{}\n", serde_json::to_string_pretty(answer)?)
        } else {
            table(T::deserialize(answer).context("the daemon's answer is not as expected: are both of one version?")?)
        };
        print(&text)
    }

    /// Prints an answer: `answer` for programs, `text` for people.
    pub(crate) fn done(&self, answer: &Value, text: &str) -> anyhow::Result<()> {
        self.show(answer, |_: Value| format!("{text}\n"))
    }
}

/// Writes to standard output. [`ReaderGone`] if nobody reads it any more.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        result => Ok(result?),
    }
}

/// Standard output has been closed by its reader.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output any more")]
pub struct ReaderGone;
