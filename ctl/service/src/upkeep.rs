//! The daemon's own files and sockets: whether they are in their places, and what it means if not.
//!
//! A clean-up, a mount or a mistake may remove them while the daemon runs. Their owners look twice a second, make them
//! again, and note here what they found. `doctor`, metrics and the service manager are told from here.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ctl_types::{Check, Status};

/// Period of looking at them.
pub const PERIOD: Duration = Duration::from_millis(500);

/// A file, a socket or a directory of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Why it is not usable, if it is not.
    pub missing: Option<String>,
    /// Times that it was removed or replaced, and made again.
    pub repairs: u64,
    /// When it was last made again.
    pub last: Option<Instant>,
}

/// All parts by name, such as `state_file`. Any thread may note and read.
#[derive(Debug, Default)]
pub struct Upkeep(Mutex<BTreeMap<&'static str, Part>>);

impl Upkeep {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Part>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a look at a part: whether it had to be made again, or why that failed. Logs what is new.
    pub fn note(&self, name: &'static str, path: &Path, look: Result<bool, impl Display>) {
        let mut parts = self.lock();
        let part = parts.entry(name).or_default();
        let (path, title) = (path.display(), name.replace('_', " "));
        match look {
            Ok(made) => {
                if made {
                    part.repairs += 1;
                    part.last = Some(Instant::now());
                    tracing::warn!("{title} {path} was removed or replaced; it was made again");
                } else if part.missing.is_some() {
                    tracing::info!("{title} {path} is usable again");
                }
                part.missing = None;
            }
            Err(why) => {
                let why = why.to_string();
                if part.missing.as_ref() != Some(&why) {
                    tracing::error!("{title} {path} is gone or can't be written: {why}");
                    part.missing = Some(why);
                }
            }
        }
    }

    /// All parts that were noted.
    pub fn parts(&self) -> BTreeMap<&'static str, Part> {
        self.lock().clone()
    }

    /// A line for the service manager: what is missing, or that all is well.
    pub fn summary(&self) -> String {
        let parts = self.lock();
        let missing: Vec<_> = parts.iter().filter_map(|(name, part)| Some((name, part.missing.as_ref()?))).collect();
        match missing.first() {
            None => "running".to_owned(),
            Some((name, why)) => {
                let more = match missing.len() {
                    1 => String::new(),
                    parts => format!(" (and {} more)", parts - 1),
                };
                format!("degraded: {} is gone or can't be written: {why}{more}", name.replace('_', " "))
            }
        }
    }

    /// Checks for `doctor`: of these parts, and of the log.
    pub fn checks(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        for (name, part) in self.parts() {
            let title = name.replace('_', " ");
            if let Some(why) = part.missing {
                let advice = match name {
                    "state_file" | "state_directory" => {
                        "changes are refused until it can be written; it is tried twice a second"
                    }
                    _ => "it is tried twice a second; if it can't be made again, restart the daemon",
                };
                checks.push(Check::bad(Status::Fail, title, format!("gone or can't be written: {why}"), advice));
            } else if let Some(last) = part.last {
                let (times, ago) = (part.repairs, last.elapsed().as_secs());
                let text = format!("was removed or replaced, and made again; {times} times, last {ago} s ago");
                checks.push(Check::bad(Status::Warn, title, text, "find out what removes it, and leave it out there"));
            }
        }
        if checks.is_empty() {
            checks.push(Check::ok("own files", "state file, locks and sockets are in their places"));
        }
        checks.push(match ctl_stdio::lost_lines() {
            0 => Check::ok("log", "no line was lost"),
            lost => {
                let text = format!("{lost} lines were lost: standard error was full, slow or gone");
                Check::bad(
                    Status::Warn,
                    "log",
                    text,
                    "make room for the log, or give the daemon another standard error",
                )
            }
        });
        checks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_until_it_is_back() {
        let upkeep = Upkeep::default();
        let note = |look: Result<bool, &str>| upkeep.note("state_file", Path::new("/x"), look);
        let status = || upkeep.checks()[0].status;
        note(Ok(false));
        assert_eq!((status(), upkeep.summary().as_str()), (Status::Ok, "running"));
        note(Err("no space"));
        note(Err("no space"));
        assert_eq!(status(), Status::Fail);
        assert!(upkeep.summary().contains("state file is gone or can't be written: no space"), "{}", upkeep.summary());
        note(Ok(true));
        assert_eq!((status(), upkeep.parts()["state_file"].repairs), (Status::Warn, 1));
        assert_eq!(upkeep.summary(), "running");
        note(Ok(false));
        assert_eq!(status(), Status::Warn, "it is told later too");
    }
}
