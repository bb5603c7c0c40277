//! Where the socket of a port is, and whose it is.

use std::path::{Path, PathBuf};

use vhost_user::socket::{Access, BindError, Place, Role};

use crate::model::{SocketRole, VhostSpec};
use crate::{Error, ErrorKind};

/// The place of a port's socket, if all that it names is there.
pub fn place_of(spec: &VhostSpec) -> Result<Place, Error> {
    let path = PathBuf::from(&spec.socket);
    let directory = path.parent().unwrap_or(Path::new("/"));
    let role = match spec.role {
        SocketRole::Server => Role::Server,
        SocketRole::Client => Role::Client,
    };
    if role == Role::Server && !directory.is_dir() {
        let text = format!("vhost.socket: {} is no directory: make it first", directory.display());
        return Err(Error::new(ErrorKind::NotFound, text));
    }
    let access = Access::named(spec.owner.as_deref(), spec.group.as_deref(), spec.mode.as_deref());
    let access = access.map_err(|error| Error::invalid(format!("vhost.{error}")))?;
    Ok(Place { path, role, access })
}

/// Why a port's socket can't be made.
pub fn bind_error(error: &BindError) -> Error {
    let kind = match error {
        BindError::InUse(_) | BindError::OtherFile(_) => ErrorKind::Exists,
        BindError::Failed { .. } => ErrorKind::System,
    };
    Error::new(kind, format!("vhost.socket: {error}"))
}
