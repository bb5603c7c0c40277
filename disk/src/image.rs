//! Images by name: which files a disk may be, and how they are made, opened and copied.
//!
//! Files are opened below directories that were configured, by openat2(2) with `RESOLVE_BENEATH` and without symbolic
//! links. So no name leads out of them. A block device is opened by its configured name only.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, ioctl_ficlone, openat, openat2, unlinkat};
use thiserror::Error;

/// Permissions of new images.
const MODE: u32 = 0o600;

/// Where images may be.
#[derive(Debug)]
pub struct Images {
    directories: Vec<(PathBuf, OwnedFd)>,
    devices: Vec<PathBuf>,
}

/// An image that was opened.
#[derive(Debug)]
pub struct Image {
    /// The file or block device.
    pub(crate) fd: OwnedFd,
    /// It was opened for reading only.
    pub(crate) read_only: bool,
    /// The host's page cache is not used.
    pub(crate) direct: bool,
}

/// How an image is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// For reading only.
    pub read_only: bool,
    /// By the host's page cache, even if it could be without.
    pub buffered: bool,
}

/// Why there is no image.
#[derive(Debug, Error)]
pub enum ImageError {
    /// It is not where images may be.
    #[error("{} is in none of the directories for disks, and no block device for them", .0.display())]
    Outside(PathBuf),
    /// A directory can't be opened.
    #[error("the directory {}: {error}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file can't be opened, made or copied.
    #[error("{step} {}: {error}", path.display())]
    Failed {
        /// What was tried.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file system has no copies that share blocks.
    #[error("the file system of {} has no reflinks, so there are no snapshots (XFS and Btrfs have them)", .0.display())]
    NoReflink(PathBuf),
}

impl ImageError {
    fn at(step: &'static str, path: &Path) -> impl Fn(rustix::io::Errno) -> Self {
        move |errno| Self::Failed { step, path: path.to_owned(), error: errno.into() }
    }
}

impl Images {
    /// Images in these directories, and on these block devices.
    ///
    /// # Errors
    /// A directory is not there.
    pub fn new(
        directories: impl IntoIterator<Item = PathBuf>,
        devices: impl IntoIterator<Item = PathBuf>,
    ) -> Result<Self, ImageError> {
        let open = |path: PathBuf| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            match openat(CWD, &path, flags, Mode::empty()) {
                Ok(fd) => Ok((path, fd)),
                Err(errno) => Err(ImageError::Directory { path, error: errno.into() }),
            }
        };
        let directories = directories.into_iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { directories, devices: devices.into_iter().collect() })
    }

    /// The directory that has the path, and the rest of the path.
    fn place<'a>(&self, path: &'a Path) -> Option<(&OwnedFd, &'a Path)> {
        let found = self.directories.iter().find_map(|(directory, fd)| Some((fd, path.strip_prefix(directory).ok()?)));
        found.filter(|(_, rest)| !rest.as_os_str().is_empty())
    }

    fn open_at(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, ImageError> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
        let mode = if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(MODE) } else { Mode::empty() };
        if self.devices.iter().any(|device| device == path) {
            // An exclusive opener: the kernel refuses a device that is mounted, or that another one has so.
            return openat(CWD, path, flags | OFlags::EXCL, Mode::empty()).map_err(ImageError::at("opening", path));
        }
        let (directory, rest) = self.place(path).ok_or_else(|| ImageError::Outside(path.to_owned()))?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(directory, rest, flags, mode, resolve).map_err(ImageError::at("opening", path))
    }

    /// Opens an image, without the host's page cache where the file system can.
    ///
    /// # Errors
    /// It is not where images may be, or can't be opened.
    pub fn open(&self, path: &Path, how: Opening) -> Result<Image, ImageError> {
        let access = if how.read_only { OFlags::RDONLY } else { OFlags::RDWR };
        // A FIFO would wait for its other end.
        let access = access | OFlags::NONBLOCK;
        if !how.buffered {
            match self.open_at(path, access | OFlags::DIRECT) {
                Ok(fd) => return Ok(Image { fd, read_only: how.read_only, direct: true }),
                Err(ImageError::Failed { error, .. }) if error.raw_os_error() == Some(libc::EINVAL) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Image { fd: self.open_at(path, access)?, read_only: how.read_only, direct: false })
    }

    /// Makes an image of zeroes, which takes no space yet. With `allocate` it has its space from the beginning.
    ///
    /// # Errors
    /// A file of that name is there, or the file system refuses. No file is left then.
    pub fn create(&self, path: &Path, bytes: u64, allocate: bool) -> Result<(), ImageError> {
        let fd = self.open_at(path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
        let file = File::from(fd);
        let made = match allocate {
            false => file.set_len(bytes),
            true => {
                rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).map_err(io::Error::from)
            }
        };
        made.and_then(|()| file.sync_all()).map_err(|error| {
            self.remove(path);
            ImageError::Failed { step: "making", path: path.to_owned(), error }
        })
    }

    /// Copies what is in `from` into a new image that shares its blocks. The copy is of one moment. Requests that are
    /// done by then are in it.
    ///
    /// # Errors
    /// The file system has no reflinks, a file of that name is there, or the file system refuses. No file is left then.
    pub fn snapshot(&self, from: impl AsFd, path: &Path) -> Result<(), ImageError> {
        let to = File::from(self.open_at(path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?);
        let failed = |errno: rustix::io::Errno| {
            use rustix::io::Errno;
            self.remove(path);
            match errno {
                Errno::OPNOTSUPP | Errno::XDEV | Errno::NOTTY | Errno::INVAL => ImageError::NoReflink(path.to_owned()),
                errno => ImageError::at("copying to", path)(errno),
            }
        };
        ioctl_ficlone(&to, from).map_err(failed)?;
        to.sync_all().map_err(|error| {
            self.remove(path);
            ImageError::Failed { step: "copying to", path: path.to_owned(), error }
        })
    }

    /// Removes an image, if it is below the directories. What has it open keeps it.
    pub fn remove(&self, path: &Path) {
        if let Some((directory, rest)) = self.place(path) {
            // The parent is opened as the image is, so that no link leads out of the directory.
            let (parent, name) = (rest.parent(), rest.file_name());
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let parent = parent.filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if let (Ok(parent), Some(name)) = (openat2(directory, parent, flags, Mode::empty(), resolve), name) {
                let _ = unlinkat(parent, name, AtFlags::empty());
            }
        }
    }
}
