//! Disks for tests, in this process.
#![allow(clippy::unwrap_used, reason = "tests fail by a panic")]
#![allow(dead_code, reason = "each test uses a part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::client::{Guest, GuestSpec};
use disk::disk::{Disk, DiskError, DiskSpec};
use disk::image::{Images, Opening};
use disk::limits::LimitSpec;
use disk::store::{FileStore, Store};
use tempfile::TempDir;
use vhost_user::socket::{Access, Place, Role};

pub const SECTOR: usize = 512;
pub const MIB: u64 = 1 << 20;

/// A directory with an image.
pub struct ImagePlace {
    pub images: Images,
    /// A file system that was mounted there. It goes before the directory does.
    mount: Option<Mount>,
    pub directory: TempDir,
}

struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

impl ImagePlace {
    /// An image of so many bytes. It lies on a real file system, which has O_DIRECT.
    pub fn new(bytes: u64) -> Self {
        Self::within(Path::new(env!("CARGO_TARGET_TMPDIR")), bytes)
    }

    /// The same on a file system in memory, of that size.
    pub fn on_tmpfs(size: &str, bytes: u64) -> Self {
        let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (none, options) = (None::<&str>, format!("size={size}"));
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(none, directory.path(), Some("tmpfs"), flags, Some(options.as_str())).unwrap();
        let mount = Some(Mount(directory.path().to_path_buf()));
        Self::of(directory, mount, bytes)
    }

    pub fn within(parent: &Path, bytes: u64) -> Self {
        Self::of(TempDir::new_in(parent).unwrap(), None, bytes)
    }

    fn of(directory: TempDir, mount: Option<Mount>, bytes: u64) -> Self {
        let images = Images::new([directory.path().to_path_buf()], []).unwrap();
        let place = Self { images, mount, directory };
        place.images.create(&place.image(), bytes, false).unwrap();
        place
    }

    pub fn image(&self) -> PathBuf {
        self.directory.path().join("disk.img")
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("disk.sock")
    }

    pub fn spec(&self) -> DiskSpec {
        DiskSpec {
            name: "disk-of-a-test".to_owned(),
            serial: "disk-of-a-test".to_owned(),
            max_queue: 4,
            queue_depth: 256,
            block: 512,
            read_only: false,
            place: Place {
                path: self.socket(),
                role: Role::Server,
                access: Access { owner: None, group: None, mode: 0o600 },
            },
            threads: 1,
            cpus: Vec::new(),
            limits: LimitSpec::default(),
            paused: false,
            shared_storage: false,
            lock_wait: disk::disk::LOCK_WAIT,
        }
    }

    pub fn store(&self, how: Opening) -> Arc<dyn Store> {
        Arc::new(FileStore::new(self.images.open(&self.image(), how).unwrap()).unwrap())
    }

    /// The image for reading only.
    pub fn reader(&self) -> Arc<dyn Store> {
        self.store(Opening { read_only: true, buffered: false })
    }

    pub fn start(&self, change: impl FnOnce(&mut DiskSpec)) -> Disk {
        self.try_start(change).unwrap()
    }

    pub fn try_start(&self, change: impl FnOnce(&mut DiskSpec)) -> Result<Disk, DiskError> {
        let mut spec = self.spec();
        change(&mut spec);
        let how = Opening { read_only: spec.read_only, buffered: false };
        Disk::start(spec, self.store(how))
    }

    pub fn guest(&self, spec: GuestSpec) -> Guest {
        let mut guest = Guest::new(spec);
        guest.connect(&self.socket());
        guest
    }
}

/// Bytes that tell where they belong.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (seed.wrapping_mul(0x9e37_79b9).wrapping_add(at.wrapping_mul(31)) >> 3) as u8).collect()
}
