//! A file that is only read, under changes that are kept in memory.
//!
//! redb writes to a file that it opens, even to one that it then refuses. So a state file is first opened through an
//! overlay, repaired there if need be, and looked at. The file itself is touched only if all is well. Memory is taken
//! by changed pages only.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// Size of the pieces that are kept in memory, in bytes.
const PAGE: u64 = 4096;

/// The file and the changes over it.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    changes: Mutex<Changes>,
}

/// What differs from the file.
#[derive(Debug)]
struct Changes {
    /// Length with the changes.
    len: u64,
    /// Bytes at the beginning that are still those of the file, as far as no page has replaced them.
    kept: u64,
    /// Replaced pages by number.
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    /// Opens a file for reading.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file, changes: Mutex::new(Changes { len, kept: len, pages: BTreeMap::new() }) })
    }

    fn lock(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes without the replaced pages: those of the file, then zeros.
    fn below(&self, kept: u64, offset: u64, out: &mut [u8]) -> Result<()> {
        let (old, new) = out.split_at_mut(index(kept.saturating_sub(offset)).min(out.len()));
        new.fill(0);
        if old.is_empty() { Ok(()) } else { self.file.read_exact_at(old, offset) }
    }
}

/// An offset or length as an index. One that is out of range is behind all bytes.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// The end of a piece of storage, if it is within `len`.
fn end(offset: u64, bytes: usize, len: u64) -> Result<u64> {
    let end = offset.checked_add(bytes as u64).filter(|end| *end <= len);
    end.ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))
}

impl StorageBackend for Overlay {
    fn len(&self) -> Result<u64> {
        Ok(self.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let changes = self.lock();
        let end = end(offset, out.len(), changes.len)?;
        self.below(changes.kept, offset, out)?;
        for (no, page) in changes.pages.range(offset / PAGE..end.div_ceil(PAGE)) {
            let (from, to) = (offset.max(no * PAGE), end.min((no + 1) * PAGE));
            let piece = &page[index(from - no * PAGE)..index(to - no * PAGE)];
            out[index(from - offset)..index(to - offset)].copy_from_slice(piece);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut changes = self.lock();
        changes.kept = changes.kept.min(len);
        changes.pages.split_off(&len.div_ceil(PAGE));
        if let Some(page) = changes.pages.get_mut(&(len / PAGE)) {
            page[index(len % PAGE)..].fill(0);
        }
        changes.len = len;
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut changes = self.lock();
        let end = end(offset, data.len(), changes.len)?;
        for no in offset / PAGE..end.div_ceil(PAGE) {
            if !changes.pages.contains_key(&no) {
                let mut page = vec![0; index(PAGE)];
                self.below(changes.kept, no * PAGE, &mut page)?;
                changes.pages.insert(no, page);
            }
            let (from, to) = (offset.max(no * PAGE), end.min((no + 1) * PAGE));
            if let Some(page) = changes.pages.get_mut(&no) {
                let piece = &mut page[index(from - no * PAGE)..index(to - no * PAGE)];
                piece.copy_from_slice(&data[index(from - offset)..index(to - offset)]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..20_000_u64, proptest::collection::vec(any::<u8>(), 0..6000))
                .prop_map(|(at, data)| Step::Write(at, data)),
            (0..20_000_u64).prop_map(Step::SetLen),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn an_overlay_reads_like_a_changed_file_and_leaves_the_file(
            len in 0..20_000_usize, steps in proptest::collection::vec(step(), 0..12)
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("file");
            let whole: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
            std::fs::write(&path, &whole).unwrap();
            let (overlay, mut model) = (Overlay::open(&path).unwrap(), whole.clone());
            for step in steps {
                match step {
                    Step::Write(at, data) => {
                        let fits = index(at) + data.len() <= model.len();
                        prop_assert_eq!(overlay.write(at, &data).is_ok(), fits);
                        if fits {
                            model[index(at)..][..data.len()].copy_from_slice(&data);
                        }
                    }
                    Step::SetLen(len) => {
                        overlay.set_len(len).unwrap();
                        model.resize(index(len), 0);
                    }
                }
                prop_assert_eq!(overlay.len().unwrap(), model.len() as u64);
                for start in [0, model.len() / 3, model.len() / 2] {
                    let mut read = vec![1; model.len() - start];
                    overlay.read(start as u64, &mut read).unwrap();
                    prop_assert_eq!(&read, &model[start..]);
                }
                prop_assert!(overlay.read(model.len() as u64, &mut [0]).is_err());
            }
            prop_assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
    }
}
