//! What a thread may reach: what it has open, and nothing else.
//!
//! A thread that serves a guest gives up all access to files by name, and to networks (Landlock). It works on
//! descriptors that it was given. Its io_uring takes only operations of a disk on registered files
//! ([`crate::uring::Ring`]).

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope,
};
use tracing::warn;

/// What is known of Landlock here. Older kernels have less of it.
const KNOWN: ABI = ABI::V6;

fn nothing() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()
}

fn apply(name: &str, rules: Result<RulesetCreated, RulesetError>) -> bool {
    match rules.and_then(RulesetCreated::restrict_self) {
        Ok(status) => status.ruleset != RulesetStatus::NotEnforced,
        Err(error) => {
            warn!(disk = name, %error, "the disk's thread is not confined");
            false
        }
    }
}

/// The calling thread opens nothing any more. Says whether the kernel enforces anything of it.
pub fn to_nothing(name: &str) -> bool {
    apply(name, nothing())
}

/// The calling thread, and those that it starts, make and remove sockets in that directory, and open nothing else.
pub fn to_sockets_in(name: &str, directory: &Path) -> bool {
    let rules = || {
        let in_directory = AccessFs::MakeSock | AccessFs::RemoveFile | AccessFs::ReadDir;
        let rules = nothing()?;
        match PathFd::new(directory) {
            Ok(fd) => rules.add_rule(PathBeneath::new(fd, in_directory)),
            // Nothing can be made there. A client needs no directory: it connects.
            Err(_) => Ok(rules),
        }
    };
    apply(name, rules())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::TcpStream;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_confined_thread_opens_nothing_and_others_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let confined = || {
            assert!(to_nothing("test"), "the kernel has Landlock");
            let denied = |error: std::io::Error| assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
            denied(File::open(&path).unwrap_err());
            denied(File::create(directory.path().join("new")).unwrap_err());
            denied(TcpStream::connect("127.0.0.1:1").unwrap_err());
        };
        std::thread::scope(|scope| scope.spawn(confined).join().unwrap());
        assert!(File::open(&path).is_ok());
    }

    #[test]
    fn the_thread_of_a_socket_makes_sockets_in_its_directory_only() {
        let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let confined = || {
            assert!(to_sockets_in("test", directory.path()), "the kernel has Landlock");
            let socket = directory.path().join("socket");
            drop(UnixListener::bind(&socket).unwrap());
            std::fs::remove_file(&socket).unwrap();
            assert!(UnixListener::bind(other.path().join("socket")).is_err());
            assert!(File::create(directory.path().join("file")).is_err());
        };
        std::thread::scope(|scope| scope.spawn(confined).join().unwrap());
    }
}
