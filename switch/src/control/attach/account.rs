//! Users and groups that a port's spec names.

use vhost_user::socket::account;

use crate::Error;

/// The number of a user, who is named by it or by a name. `field` is what errors name.
pub fn user(field: &str, name: &str) -> Result<u32, Error> {
    account::user(name).ok_or_else(|| missing(field, name))
}

/// The number of a group, which is named by it or by a name. `field` is what errors name.
pub fn group(field: &str, name: &str) -> Result<u32, Error> {
    account::group(name).ok_or_else(|| missing(field, name))
}

fn missing(field: &str, name: &str) -> Error {
    Error::invalid(format!("{field}: there is no `{}` here", name.escape_default()))
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
