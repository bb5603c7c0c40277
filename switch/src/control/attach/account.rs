//! Users and groups that a port's spec names.

use nix::unistd::{Group, User};

use crate::Error;

/// The number of a user, who is named by it or by a name. `field` is what errors name.
pub fn user(field: &str, name: &str) -> Result<u32, Error> {
    let by_name = || User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
    number(field, name, by_name)
}

/// The number of a group, which is named by it or by a name. `field` is what errors name.
pub fn group(field: &str, name: &str) -> Result<u32, Error> {
    let by_name = || Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
    number(field, name, by_name)
}

fn number(field: &str, name: &str, look_up: impl Fn() -> Option<u32>) -> Result<u32, Error> {
    // The largest number stands for nobody.
    let found = name.parse().ok().or_else(look_up).filter(|number| *number != u32::MAX);
    found.ok_or_else(|| Error::invalid(format!("{field}: there is no `{}` here", name.escape_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_named_by_a_name_or_a_number() {
        assert_eq!((user("f", "root"), group("f", "root"), user("f", "12345")), (Ok(0), Ok(0), Ok(12345)));
        for name in ["", "no such user", "4294967295", "-1"] {
            assert!(user("tap.owner", name).unwrap_err().to_string().starts_with("tap.owner: "), "{name}");
        }
    }
}
