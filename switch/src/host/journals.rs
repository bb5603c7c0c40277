//! Files of ports that outlive the process.

use std::fs::File;

use crate::Error;

/// Where rings of guests stand while there is no process: see [`vhost_user::ring::Journal`].
pub trait Journals {
    /// Opens a port's file of at least so many bytes, or makes it with zeroes. `None` if nothing outlives the process
    /// here.
    ///
    /// # Errors
    /// `System`: the file can't be made, or there is no room for it.
    fn open_journal(&self, port: &str, bytes: u64) -> Result<Option<File>, Error>;

    /// Whether a port's file is still that one.
    fn is_journal_in_place(&self, port: &str, file: &File) -> bool;

    /// Removes a port's file, if there is one.
    fn remove_journal(&self, port: &str);
}
