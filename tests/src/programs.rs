//! Paths of the programs that tests and the bench start: beside their own.

use std::path::PathBuf;

/// Cargo's directory of programs: `target/<profile>`.
fn dir() -> PathBuf {
    let own = std::env::current_exe().expect("a program knows its path");
    let dir = own.parent().expect("a program is in a directory");
    // Test binaries are one level below, in `deps`.
    if dir.ends_with("deps") { dir.parent().expect("deps is in target/<profile>").to_owned() } else { dir.to_owned() }
}

fn checked(path: PathBuf, made_by: &str) -> PathBuf {
    assert!(path.exists(), "{} is missing: `{made_by}` makes it", path.display());
    path
}

/// Path of a built program. If it is missing, panics with the command that makes it.
pub fn path(name: &str, made_by: &str) -> PathBuf {
    checked(dir().join(name), made_by)
}

/// `xswitchd` or `xswitch`. `XSWITCH_BIN_DIR` says where they are, if not beside the tests.
pub fn product(name: &str) -> PathBuf {
    let dir = std::env::var_os("XSWITCH_BIN_DIR").map_or_else(dir, PathBuf::from);
    checked(dir.join(name), "cargo build -p xswitchd -p xswitch")
}

/// A program of the workspace `tests/xsk`.
pub fn xsk(name: &str) -> PathBuf {
    path(name, if cfg!(debug_assertions) { "make xsk" } else { "make xsk PROFILE=release" })
}
