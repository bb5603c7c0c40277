//! Where the socket of a port is, and whose it is.

use std::path::{Path, PathBuf};

use vhost_user::socket::{Access, BindError, Listener};

use crate::control::attach::account::{group, user};
use crate::model::{SocketRole, VhostSpec};
use crate::{Error, ErrorKind};

/// Permissions of a socket that asks for none.
const MODE: u32 = 0o660;

/// A place for a socket.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its path.
    pub path: PathBuf,
    /// Which side makes it.
    pub role: SocketRole,
    access: Access,
}

impl Place {
    /// That of a port, if all that it names is there.
    pub fn of(spec: &VhostSpec) -> Result<Self, Error> {
        let path = PathBuf::from(&spec.socket);
        let directory = path.parent().unwrap_or(Path::new("/"));
        if spec.role == SocketRole::Server && !directory.is_dir() {
            let text = format!("vhost.socket: {} is no directory: make it first", directory.display());
            return Err(Error::new(ErrorKind::NotFound, text));
        }
        let owner = spec.owner.as_deref().map(|name| user("vhost.owner", name)).transpose()?;
        let group = spec.group.as_deref().map(|name| group("vhost.group", name)).transpose()?;
        // It was checked when the port was resolved.
        let mode = spec.mode.as_deref().and_then(|mode| u32::from_str_radix(mode, 8).ok()).unwrap_or(MODE);
        Ok(Self { path, role: spec.role, access: Access { owner, group, mode } })
    }

    /// Listens there.
    pub fn listen(&self) -> Result<Listener, Error> {
        Listener::bind(&self.path, self.access).map_err(|error| {
            let kind = match error {
                BindError::InUse(_) | BindError::OtherFile(_) => ErrorKind::Exists,
                BindError::Failed { .. } => ErrorKind::System,
            };
            Error::new(kind, format!("vhost.socket: {error}"))
        })
    }
}
