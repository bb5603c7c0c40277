//! Files that outlive the process, as memory that outlives the switch.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use nix::sys::memfd::{MFdFlags, memfd_create};
use switch::Error;
use switch::host::Journals;

use crate::FakeHost;
use crate::fate::Call;
use crate::netdevs::system;

impl Journals for FakeHost {
    fn open_journal(&self, port: &str, bytes: u64) -> Result<Option<File>, Error> {
        let mut state = self.lock();
        state.call(Call::OpenJournal, port)?;
        let mut opened = || {
            let new = || memfd_create(c"journal", MFdFlags::MFD_CLOEXEC).map(File::from);
            let file = state.journals.remove(port).map_or_else(new, Ok)?;
            file.set_len(bytes)?;
            state.journals.insert(port.to_owned(), file.try_clone()?);
            Ok(file)
        };
        opened().map(Some).map_err(|error: std::io::Error| system(&error))
    }

    fn is_journal_in_place(&self, port: &str, file: &File) -> bool {
        let number = |file: &File| file.metadata().map(|file| file.ino()).ok();
        self.lock().journals.get(port).is_some_and(|there| number(there) == number(file))
    }

    fn remove_journal(&self, port: &str) {
        self.lock().journals.remove(port);
    }
}
