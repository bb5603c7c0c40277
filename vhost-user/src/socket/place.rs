//! Where a socket is, which side makes it, and whose it is.

use std::path::PathBuf;

use thiserror::Error;

use super::account;
use super::file::Access;
use super::listener::{BindError, Listener};

/// Permissions of a socket for which none are said.
const MODE: u32 = 0o660;

/// Which side makes the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The device makes it, and front ends connect.
    Server,
    /// The front end makes it, and the device connects.
    Client,
}

/// A place for a socket.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its path.
    pub path: PathBuf,
    /// Which side makes it.
    pub role: Role,
    /// Who may connect to a server.
    pub access: Access,
}

impl Place {
    /// Listens there.
    ///
    /// # Errors
    /// Those of [`Listener::bind`].
    pub fn listen(&self) -> Result<Listener, BindError> {
        Listener::bind(&self.path, self.access)
    }
}

/// What of a socket's owner, group and permissions can't be. The texts begin with the field.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AccessError {
    /// There is no such user.
    #[error("owner: there is no user `{}` here", .0.escape_default())]
    Owner(String),
    /// There is no such group.
    #[error("group: there is no group `{}` here", .0.escape_default())]
    Group(String),
    /// They are no permissions.
    #[error("mode: `{}` is no permissions in octal, 0 to 777", .0.escape_default())]
    Mode(String),
}

impl Access {
    /// What a configuration says: a user and a group by name or number, and permissions in octal. Without a user it is
    /// that of this process, without a group what the directory gives, without permissions 660. Names are looked up on
    /// this machine.
    ///
    /// # Errors
    /// The first one that can't be.
    pub fn named(owner: Option<&str>, group: Option<&str>, mode: Option<&str>) -> Result<Self, AccessError> {
        let user = |name: &str| account::user(name).ok_or_else(|| AccessError::Owner(name.to_owned()));
        let gid = |name: &str| account::group(name).ok_or_else(|| AccessError::Group(name.to_owned()));
        Ok(Self {
            owner: owner.map(user).transpose()?,
            group: group.map(gid).transpose()?,
            mode: mode.map_or(Ok(MODE), Self::mode_of)?,
        })
    }

    /// Permissions in octal.
    ///
    /// # Errors
    /// They are none.
    pub fn mode_of(text: &str) -> Result<u32, AccessError> {
        let bits = Some(text).filter(|text| !text.starts_with('+')).and_then(|text| u32::from_str_radix(text, 8).ok());
        bits.filter(|bits| *bits <= 0o777).ok_or_else(|| AccessError::Mode(text.to_owned()))
    }
}
