//! A file or a block device.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, StatxFlags, fstatvfs, ioctl_blkpbszget, ioctl_blksszget, statx};

use super::channel::{FileChannel, Missing};
use super::lock::{lock, unlock};
use super::{Channel, Properties, Store};
use crate::image::Image;
use crate::uring::Ring;

/// Alignment that any device takes, where the kernel does not tell.
const PAGE: u32 = 4096;

/// A disk's bytes in a file or on a block device.
#[derive(Debug)]
pub struct FileStore {
    file: File,
    kind: Kind,
    read_only: bool,
    direct: bool,
    memory_align: u32,
    offset_align: u32,
    physical_block: u32,
    optimal_io: u32,
    missing: Arc<Missing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Device,
}

impl FileStore {
    /// The bytes of an image that was opened.
    ///
    /// # Errors
    /// It is neither a file nor a block device, or can't be asked what it is.
    pub fn new(image: Image) -> io::Result<Self> {
        let Image { fd, read_only, direct } = image;
        let file = File::from(fd);
        let meta = file.metadata()?;
        let kind = match meta.file_type() {
            kind if kind.is_file() => Kind::File,
            kind if kind.is_block_device() => Kind::Device,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a file nor a block device")),
        };
        let asked = statx(&file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok();
        let asked = asked.filter(|known| known.stx_mask & StatxFlags::DIOALIGN.bits() != 0);
        let asked = asked.filter(|known| known.stx_dio_offset_align > 0);
        let (logical, physical) = match kind {
            Kind::Device => (ioctl_blksszget(&file)?, ioctl_blkpbszget(&file)?),
            Kind::File => (PAGE, PAGE),
        };
        let (memory, offset) = match (direct, asked) {
            (false, _) => (1, 1),
            (true, Some(known)) => (known.stx_dio_mem_align, known.stx_dio_offset_align),
            (true, None) => (logical, logical),
        };
        Ok(Self {
            file,
            kind,
            read_only,
            direct,
            memory_align: memory.max(1).next_power_of_two(),
            offset_align: offset.max(1).next_power_of_two(),
            physical_block: physical,
            optimal_io: 0,
            missing: Arc::default(),
        })
    }

    /// What tells it from other files and devices: the file system's device and the inode, or the device itself and 0.
    /// Two names of one file have the same.
    ///
    /// # Errors
    /// The file can't be asked.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        let meta = self.file.metadata()?;
        Ok(match self.kind {
            Kind::File => (meta.dev(), meta.ino()),
            Kind::Device => (meta.rdev(), 0),
        })
    }

    /// It is a block device.
    pub fn is_device(&self) -> bool {
        self.kind == Kind::Device
    }

    fn bytes(&self) -> u64 {
        match self.kind {
            Kind::File => self.file.metadata().map_or(0, |meta| meta.len()),
            // The place of this description is used for nothing else.
            Kind::Device => (&self.file).seek(SeekFrom::End(0)).unwrap_or(0),
        }
    }
}

impl Store for FileStore {
    fn properties(&self) -> Properties {
        Properties {
            bytes: self.bytes(),
            memory_align: self.memory_align,
            offset_align: self.offset_align,
            physical_block: self.physical_block,
            optimal_io: self.optimal_io,
            direct: self.direct,
            discard: !self.read_only,
        }
    }

    fn channel(&self, ring: &mut Ring) -> io::Result<Box<dyn Channel>> {
        let file = ring.register(self.file.as_fd())?;
        Ok(Box::new(FileChannel::new(file, Arc::clone(&self.missing))))
    }

    fn grow(&self, bytes: u64) -> io::Result<()> {
        let has = self.bytes();
        if bytes < has {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it would become smaller"));
        }
        match self.kind {
            Kind::File => {
                self.file.set_len(bytes)?;
                self.file.sync_all()
            }
            Kind::Device if bytes == has => Ok(()),
            Kind::Device => {
                let text = format!("the block device has {has} bytes: make it greater first");
                Err(io::Error::new(io::ErrorKind::InvalidInput, text))
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        if self.read_only { Ok(()) } else { self.file.sync_data() }
    }

    fn own(&self, most: Duration) -> io::Result<()> {
        lock(self.file.as_fd(), self.read_only, most)
    }

    fn disown(&self) {
        unlock(self.file.as_fd());
    }

    fn free(&self) -> Option<u64> {
        let found = fstatvfs(&self.file).ok().filter(|_| self.kind == Kind::File)?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn file(&self) -> Option<BorrowedFd<'_>> {
        (self.kind == Kind::File).then(|| self.file.as_fd())
    }
}
