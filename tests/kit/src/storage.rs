//! Storage for the state in memory. It outlives its store, and can be full.

use std::io::{Error, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use ctl_service::state::Store;

#[derive(Debug, Default)]
struct Inner {
    bytes: RwLock<Vec<u8>>,
    full: AtomicBool,
    open: AtomicBool,
}

/// The storage. Clones share their contents.
#[derive(Clone, Debug, Default)]
pub struct FakeStorage(Arc<Inner>);

impl FakeStorage {
    /// Opens a store on it.
    ///
    /// # Panics
    /// If it is full, or if another store is open on it. A file can't be opened twice either.
    pub fn store(&self) -> Store {
        let storage = self.clone();
        let open = move || {
            assert!(!storage.0.open.swap(true, Ordering::SeqCst), "the store before still lives");
            Opened(Arc::clone(&storage.0))
        };
        Store::with_backend(crate::tables(), open).expect("room for a store")
    }

    /// Sets whether writes fail.
    pub fn set_full(&self, full: bool) {
        self.0.full.store(full, Ordering::SeqCst);
    }

    /// Its contents.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.bytes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The storage, as opened by a store.
#[derive(Debug)]
struct Opened(Arc<Inner>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.open.store(false, Ordering::SeqCst);
    }
}

impl Opened {
    fn room(&self) -> Result<(), Error> {
        if self.0.full.load(Ordering::SeqCst) { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl redb::StorageBackend for Opened {
    fn len(&self) -> Result<u64, Error> {
        Ok(self.0.bytes.read().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let bytes = self.0.bytes.read().unwrap_or_else(PoisonError::into_inner);
        let from = bytes.get(index(offset)..).and_then(|bytes| bytes.get(..out.len()));
        out.copy_from_slice(from.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        self.room()?;
        self.0.bytes.write().unwrap_or_else(PoisonError::into_inner).resize(index(len), 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), Error> {
        self.room()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.room()?;
        let mut bytes = self.0.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let to = bytes.get_mut(index(offset)..).and_then(|bytes| bytes.get_mut(..data.len()));
        to.ok_or(ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }
}

/// An offset as an index. One that is out of range lies behind all bytes.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
