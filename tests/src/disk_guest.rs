//! A Linux guest with disks of vhost-user-blk, in QEMU.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::Duration;

use crate::guest::{Setup, Vm, qemu};
use crate::wait;

/// Longest time that the guest's commands take to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A disk, as QEMU is told of it.
#[derive(Clone, Copy, Debug)]
pub struct Drive<'a> {
    /// Its socket.
    pub socket: &'a Path,
    /// More options of the device, such as `,num-queues=2`.
    pub device: &'a str,
    /// QEMU makes the socket, and the back end connects.
    pub is_client: bool,
}

impl<'a> Drive<'a> {
    /// A disk whose back end makes the socket.
    pub fn at(socket: &'a Path, device: &'a str) -> Self {
        Self { socket, device, is_client: false }
    }
}

/// The guest. Its disks are vda, vdb, … in their order.
#[derive(Debug)]
pub struct DiskGuest {
    vm: Vm,
    /// Commands that it runs again and again.
    jobs: u32,
}

impl Deref for DiskGuest {
    type Target = Vm;

    fn deref(&self) -> &Vm {
        &self.vm
    }
}

impl DerefMut for DiskGuest {
    fn deref_mut(&mut self) -> &mut Vm {
        &mut self.vm
    }
}

impl DiskGuest {
    /// Starts a guest with one disk, and waits until it is up.
    pub fn launch(socket: &Path, device: &str) -> Self {
        Self::with(Setup::default(), &[Drive::at(socket, device)])
    }

    /// Starts a guest with these disks, and waits until it is up.
    pub fn with(setup: Setup, drives: &[Drive<'_>]) -> Self {
        let mut guest = Self::start(setup, drives);
        guest.wait_ready();
        guest
    }

    /// The same without waiting. `setup` has no memory backend of its own.
    pub fn start(mut setup: Setup, drives: &[Drive<'_>]) -> Self {
        setup.machine = "pc,memory-backend=mem".to_owned();
        let memory = format!("memory-backend-memfd,id=mem,size={}M,share=on", setup.memory);
        let mut args = vec!["-object".to_owned(), memory];
        for (number, drive) in drives.iter().enumerate() {
            let Drive { socket, device, is_client } = drive;
            let role = if *is_client { "server=on" } else { "reconnect-ms=100" };
            args.extend(["-chardev".to_owned(), format!("socket,id=disk{number},path={},{role}", socket.display())]);
            args.extend(["-device".to_owned(), format!("vhost-user-blk-pci,chardev=disk{number}{device}")]);
        }
        setup.args.extend(args.into_iter().map(Into::into));
        Self { vm: Vm::start(qemu(), &setup), jobs: 0 }
    }

    /// Sectors of its first disk, as it sees them now.
    pub fn sectors(&mut self) -> u64 {
        self.sh("cat /sys/block/vda/size").trim().parse().expect("a number")
    }

    /// Checksum of the first `kib` KiB of its first disk, which it reads again.
    pub fn checksum(&mut self, kib: u32) -> String {
        self.sh("sync; echo 3 > /proc/sys/vm/drop_caches");
        self.sh(&format!("dd if=/dev/vda bs=1k count={kib} 2>/dev/null | md5sum | cut -c -32")).trim().to_owned()
    }

    /// Runs a command again and again. It notes a failure by a file `/tmp/failed`.
    pub fn repeat(&mut self, command: &str) {
        self.jobs += 1;
        let job = format!("(while [ ! -e /tmp/stop ]; do {command}; done; touch /tmp/ended{})", self.jobs);
        self.sh(&format!("{job} >/dev/null 2>&1 &"));
    }

    /// Mounts its first disk at `/mnt`, which has an ext4, and writes files with their checksums there again and again.
    pub fn write_files(&mut self) {
        self.sh("modprobe ext4 && mkdir -p /mnt && mount -t ext4 /dev/vda /mnt && echo 0 > /tmp/n");
        self.repeat(
            "n=$(($(cat /tmp/n) + 1)); echo $n > /tmp/n; f=/mnt/f$((n % 20)); \
             seq $n $((n + 20000)) > $f && md5sum $f > $f.sum && sync || touch /tmp/failed",
        );
    }

    /// Waits until one more file is written and durable.
    pub fn writes_on(&mut self) {
        let count = |guest: &mut Self| {
            // It is written anew by each round, so it is empty at times.
            let number = wait::until(PATIENCE, || guest.sh("cat /tmp/n").trim().parse::<u64>().ok());
            number.expect("a number")
        };
        let before = count(self);
        // The one that was in work, and one that began later.
        wait::expect("files are written", PATIENCE, || count(self) > before + 1);
    }

    /// Takes over what runs in a guest that has migrated to here.
    pub fn arrives_from(&mut self, source: DiskGuest) {
        self.jobs = source.jobs;
    }

    /// Stops all commands. None may have failed.
    pub fn stop(&mut self) {
        self.sh("touch /tmp/stop");
        let jobs = self.jobs;
        let ended = |guest: &mut Self| guest.sh("ls /tmp").matches("ended").count() == jobs as usize;
        wait::expect("the commands end", PATIENCE, || ended(self));
        self.sh("[ ! -e /tmp/failed ]");
    }

    /// Stops all commands, and checks the files from the disk.
    pub fn check_files(&mut self) {
        self.stop();
        self.sh("umount /mnt && echo 3 > /proc/sys/vm/drop_caches && mount -t ext4 /dev/vda /mnt");
        self.sh("cat /mnt/*.sum | md5sum -c");
        self.sh("umount /mnt");
        self.sh("! dmesg | grep -iE 'I/O error|EXT4-fs error'");
    }

    /// Lets the guest turn its power off.
    pub fn power_off(self) {
        let status = self.vm.power_off();
        assert!(status.success(), "QEMU ended with {status}");
    }
}
