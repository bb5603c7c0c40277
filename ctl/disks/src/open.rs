//! Brings a disk up: image, lock, socket, threads. Any step may wait for storage.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ctl_types::DiskSpec;
use disk::disk::{Disk, DiskError};
use disk::image::{Image, Images, Opening};
use disk::store::{FileStore, Store};
use model::{ErrorKind, SocketRole};
use vhost_user::socket::{Access, Place, Role};

use crate::config::DiskSettings;
use crate::error::Error;
use crate::served::Surroundings;
use crate::spec::limit_spec;

/// What tells an image from others: file system and inode, or the device.
pub(crate) type Identity = (u64, u64);

/// How a disk is brought up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// An image that is not there is made. Never of a disk that was served before: its file system may not be mounted.
    pub may_make: bool,
    /// How long to wait for the image's lock.
    pub lock_wait: Duration,
}

/// A disk that was brought up.
#[derive(Debug)]
pub(crate) struct Opened {
    pub disk: Disk,
    pub identity: Identity,
    /// Bytes of the disk.
    pub bytes: u64,
}

/// The image that a step has made, so that it can be taken away again.
pub(crate) type Made = Option<PathBuf>;

/// Brings a disk up. `spec` has its defaults. `made` gets the path of an image that was made, also if a later step
/// fails.
pub(crate) fn open(
    spec: &DiskSpec,
    surroundings: &Surroundings,
    manner: Manner,
    made: &mut Made,
) -> Result<Opened, Error> {
    let settings = &surroundings.settings;
    let path = PathBuf::from(spec.path.as_deref().unwrap_or_default());
    let place = place(spec, settings)?;
    let images = images_for(&path, settings)?;
    let image = image(spec, settings, &images, &path, manner, made)?;
    let looking = |error| Error::io("path", "looking at", &path, &error);
    let mut store = FileStore::new(image).map_err(looking)?;
    let block = spec.block_size.unwrap_or(512);
    if store.properties().offset_align > block && made.is_none() && !store.is_device() {
        // XFS wants whole blocks of its own once a snapshot shares blocks with the image. Its guest has these blocks.
        let (disk, align) = (&spec.name, store.properties().offset_align);
        tracing::warn!(disk, align, block, "the image takes whole blocks only by direct I/O: the page cache is used");
        let how = Opening { read_only: spec.read_only, buffered: true };
        let image = images.open(&path, how).map_err(|error| Error::image("path", &error))?;
        store = FileStore::new(image).map_err(looking)?;
    }
    let identity = store.identity().map_err(|error| Error::io("path", "looking at", &path, &error))?;
    if let Some(other) = (surroundings.taken)(&spec.name, identity, spec.read_only) {
        return Err(Error::busy(format!("path: {} is the image of disk `{other}`", path.display())));
    }
    let has = store.properties().bytes;
    let wanted = spec.size.unwrap_or(has);
    check_bytes(&path, has, wanted, store.is_device(), manner)?;
    if manner.may_make {
        let noted = (surroundings.image_is_there)(&spec.name);
        noted.map_err(|why| Error::system(format!("path: that {} is there can't be noted: {why}", path.display())))?;
    }
    let served = disk_spec(spec, place, manner.lock_wait);
    let disk = Disk::start(served, Arc::new(store)).map_err(|error| match error {
        // All else has been checked: blocks are smaller than those of the storage.
        DiskError::Invalid(why) => Error::invalid(format!("block_size: {why}")),
        error => Error::disk(error, &path),
    })?;
    if wanted > has {
        disk.grow(wanted).map_err(|error| Error::disk(error, &path)).map_err(of_size)?;
    }
    let bytes = disk.info().bytes;
    Ok(Opened { disk, identity, bytes })
}

/// The size that was asked for has to be what there is, or what it can become.
fn check_bytes(path: &Path, has: u64, wanted: u64, is_device: bool, manner: Manner) -> Result<(), Error> {
    let path = path.display();
    if has == 0 {
        return Err(Error::invalid(format!("path: {path} has no bytes")));
    }
    if is_device && wanted > has {
        let text = format!("size: the block device {path} has {has} bytes, less than {wanted}: make it greater first");
        return Err(Error::invalid(text));
    }
    // A disk that was there before has what its image has.
    if wanted < has && manner.may_make {
        let text = format!("size: {path} has {has} bytes already, more than {wanted}, and disks only grow");
        return Err(Error::invalid(text));
    }
    Ok(())
}

/// An error of growing, of the field `size`.
pub(crate) fn of_size(error: Error) -> Error {
    let text = error.to_string();
    if text.starts_with("size: ") { error } else { Error::new(error.kind(), format!("size: {text}")) }
}

/// Opens the directory that has the path, or knows the device. Others may be gone.
pub(crate) fn images_for(path: &Path, settings: &DiskSettings) -> Result<Images, Error> {
    let directory = settings.directories.iter().filter(|directory| path.starts_with(directory));
    let directory = directory.max_by_key(|directory| directory.components().count());
    directory.into_iter().try_for_each(|directory| make_own(directory, settings, 0o750))?;
    Images::new(directory.cloned(), settings.devices.clone()).map_err(|error| Error::image("path", &error))
}

/// Makes a directory of the daemon's own, if it is not there.
fn make_own(directory: &Path, settings: &DiskSettings, mode: u32) -> Result<(), Error> {
    if !settings.made.contains(directory) || directory.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(mode).create(directory);
    made.map_err(|error| Error::io("disks", "making the directory", directory, &error))
}

fn image(
    spec: &DiskSpec,
    settings: &DiskSettings,
    images: &Images,
    path: &Path,
    manner: Manner,
    made: &mut Made,
) -> Result<Image, Error> {
    let how = Opening { read_only: spec.read_only, buffered: spec.buffered };
    let error = match images.open(path, how).map_err(|error| Error::image("path", &error)) {
        Ok(image) => return Ok(image),
        Err(error) => error,
    };
    let is_device = settings.devices.iter().any(|device| device == path);
    if error.kind() != ErrorKind::NotFound || !manner.may_make || is_device || spec.read_only {
        return Err(error);
    }
    let size = spec.size.unwrap_or(settings.default_size);
    images.create(path, size, spec.allocate).map_err(|error| Error::image("path", &error))?;
    *made = Some(path.to_owned());
    images.open(path, how).map_err(|error| Error::image("path", &error))
}

/// Takes an image away that was made for a disk which does not come.
pub(crate) fn take_away(made: &mut Made, settings: &DiskSettings) {
    if let Some(path) = made.take()
        && let Ok(images) = images_for(&path, settings)
    {
        images.remove(&path);
    }
}

fn place(spec: &DiskSpec, settings: &DiskSettings) -> Result<Place, Error> {
    let path = PathBuf::from(spec.socket.as_deref().unwrap_or_default());
    if path.parent() == Some(&settings.socket_directory) {
        make_own(&settings.socket_directory, settings, 0o755)?;
    }
    let access = Access::named(spec.owner.as_deref(), spec.group.as_deref(), spec.mode.as_deref());
    let access = access.map_err(|error| Error::invalid(error.to_string()))?;
    let role = match spec.role {
        SocketRole::Server => Role::Server,
        SocketRole::Client => Role::Client,
    };
    Ok(Place { path, role, access })
}

fn disk_spec(spec: &DiskSpec, place: Place, lock_wait: Duration) -> disk::disk::DiskSpec {
    let small = |number: Option<u32>| u16::try_from(number.unwrap_or(1)).unwrap_or(u16::MAX);
    disk::disk::DiskSpec {
        name: spec.name.clone(),
        serial: spec.serial.clone().unwrap_or_else(|| spec.name.clone()),
        max_queue: small(spec.queues),
        queue_depth: small(spec.queue_depth),
        block: spec.block_size.unwrap_or(512),
        read_only: spec.read_only,
        place,
        threads: small(spec.threads),
        cpus: spec.cpus.clone(),
        limits: limit_spec(&spec.limits),
        paused: spec.is_paused(),
        shared_storage: spec.shared_storage,
        lock_wait,
    }
}

/// Why the file at `path` is not the image that was opened, if it is not.
pub(crate) fn is_gone(path: &Path, identity: Identity) -> Option<String> {
    // A device may be named by a link.
    let found = if identity.1 == 0 { std::fs::metadata(path) } else { std::fs::symlink_metadata(path) };
    match found {
        Ok(meta) if (meta.dev(), meta.ino()) == identity || (meta.rdev(), 0) == identity => None,
        Ok(_) => Some(format!(
            "path: {} is another file now: the guest goes on with the one that was removed",
            path.display()
        )),
        Err(error) => Some(format!(
            "path: {}: {error}: the guest goes on with the file that was there, which is lost when the disk ends",
            path.display()
        )),
    }
}
