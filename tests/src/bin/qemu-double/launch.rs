//! How the process was started: its user, privileges, limits and descriptors, for tests.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};
use serde_json::{Map, Value, json};

/// Facts taken before the program opens or changes anything.
#[derive(Debug)]
pub struct Launch {
    known: Value,
}

/// Open descriptors, each with what it is.
pub fn descriptors() -> Map<String, Value> {
    let listing = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let own = format!("/proc/{}/fd", std::process::id());
    let described = listing.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
        Some((entry.file_name().to_string_lossy().into_owned(), target))
    });
    described.filter(|(_, target)| *target != own).map(|(fd, target)| (fd, target.into())).collect()
}

impl Launch {
    /// Takes the facts.
    pub fn look() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_default().trim().to_owned()
        };
        let numbers = |name: &str| -> Vec<u64> {
            field(name).split_whitespace().filter_map(|number| number.parse().ok()).collect()
        };
        let first = |name: &str| numbers(name).first().copied();
        let link = |path: &str| fs::read_link(path).map(|path| path.to_string_lossy().into_owned()).ok();
        let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap_or((0, 0));
        let known = json!({
            "pid": std::process::id(),
            "ppid": first("PPid"),
            "uid": first("Uid"),
            "gid": first("Gid"),
            "uids": numbers("Uid"),
            "gids": numbers("Gid"),
            "groups": numbers("Groups"),
            "cap_inh": field("CapInh"),
            "cap_prm": field("CapPrm"),
            "cap_eff": field("CapEff"),
            "cap_bnd": field("CapBnd"),
            "cap_amb": field("CapAmb"),
            "no_new_privs": first("NoNewPrivs"),
            "seccomp": first("Seccomp"),
            "sig_blk": field("SigBlk"),
            "sig_ign": field("SigIgn"),
            "memlock": soft,
            "memlock_max": hard,
            "fds": descriptors(),
            "netns": link("/proc/self/ns/net"),
            "cwd": link("/proc/self/cwd"),
            "args": std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>(),
        });
        Self { known }
    }

    /// All facts, and the descriptors open at this moment.
    pub fn report(&self) -> Value {
        let mut report = self.known.clone();
        report["open_fds"] = descriptors().into();
        report
    }
}
