//! Users and groups that a configuration names.

use nix::unistd::{Group, User};

/// The number of a user, who is named by it or by a name. `None`: there is no such user here.
pub fn user(name: &str) -> Option<u32> {
    number(name, || User::from_name(name).ok().flatten().map(|user| user.uid.as_raw()))
}

/// The number of a group, which is named by it or by a name. `None`: there is no such group here.
pub fn group(name: &str) -> Option<u32> {
    number(name, || Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw()))
}

/// The largest number stands for nobody.
fn number(name: &str, look_up: impl Fn() -> Option<u32>) -> Option<u32> {
    name.parse().ok().or_else(look_up).filter(|number| *number != u32::MAX)
}
