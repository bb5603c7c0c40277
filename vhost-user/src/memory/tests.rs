use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use proptest::prelude::*;

use super::*;

const PAGE: u64 = 4096;

fn memfd(size: u64) -> File {
    let file = File::from(memfd_create(c"guest", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap());
    file.set_len(size).unwrap();
    file
}

fn spec(guest: u64, size: u64) -> RegionAddress {
    RegionAddress { guest_addr: guest, size, user_addr: guest + (0x7f << 40), mmap_offset: 0 }
}

fn heap(regions: &[(u64, u64)]) -> Result<GuestMemory, MemoryError> {
    GuestMemory::of_heap(regions.iter().map(|(guest, size)| spec(*guest, *size)))
}

#[test]
fn bytes_are_found_by_both_addresses_and_only_where_regions_are() {
    let memory = heap(&[(0x10_0000, 0x1000), (0x1000, 0x2000), (0x3000, 0x1000)]).unwrap();
    let user = |guest| guest + (0x7f << 40);
    memory.write(0x1ffe, &[1, 2, 3, 4]).unwrap();
    assert_eq!(memory.slice(0x2000, 2).unwrap().read_array(), Some([3, 4]));
    assert_eq!(memory.user_slice(user(0x1fff), 2).unwrap().read_array(), Some([2, 3]));
    assert_eq!(memory.user_slice(user(0x1fff), 2).unwrap().guest(), 0x1fff);
    for (guest, len) in [(0xfff, 1), (0x1000, 0), (0x2fff, 2), (0x3fff, 2), (0x4000, 1), (0x10_1000, 1), (u64::MAX, 9)]
    {
        assert_eq!(memory.slice(guest, len).unwrap_err(), MemoryError::Guest { guest, len: len.into() });
        let user = user(guest & 0xff_ffff);
        assert_eq!(memory.user_slice(user, len).unwrap_err(), MemoryError::User { user, len: len.into() });
    }
    // Regions that follow each other are read and written as one, but no slice reaches over the border.
    memory.write(0x2ffe, &[5, 6, 7, 8]).unwrap();
    let mut bytes = [0; 4];
    memory.read(0x2ffe, &mut bytes).unwrap();
    assert_eq!(bytes, [5, 6, 7, 8]);
    assert_eq!(memory.read(0x3ffe, &mut bytes), Err(MemoryError::Guest { guest: 0x3ffe, len: 4 }));
    assert_eq!(memory.write(u64::MAX, &bytes), Err(MemoryError::Guest { guest: u64::MAX, len: 4 }));
    assert_eq!(GuestMemory::default().read(0, &mut bytes), Err(MemoryError::Guest { guest: 0, len: 4 }));
}

proptest! {
    /// The oracle goes through all regions, with wide integers.
    #[test]
    fn a_lookup_finds_what_a_search_finds(
        asked in prop::collection::vec((0_u64..0x9000, prop_oneof![0_u32..3, 0_u32..0x3000, any::<u32>()]), 1..40),
    ) {
        let regions = [(0x1000, 0x1000), (0x2000, 0x800), (0x5000, 0x2000)];
        let memory = heap(&regions).unwrap();
        let mut lookup = memory.lookup(7);
        for (guest, len) in asked {
            let end = u128::from(guest) + u128::from(len);
            let has = |(start, size): &&(u64, u64)| *start <= guest && guest < start + size;
            let region = regions.iter().find(has);
            let whole = region.is_some_and(|(start, size)| len > 0 && end <= u128::from(start + size));
            let found = lookup.find(guest, len).map(|slice| (slice.guest(), slice.len()));
            prop_assert_eq!(found, whole.then_some((guest, len as usize)));
            let most = region.map(|(start, size)| (start + size - guest).min(len.into()));
            let found = lookup.find_start(guest, len).map(|slice| (slice.guest(), slice.len() as u64));
            prop_assert_eq!(found, most.filter(|most| *most > 0).map(|most| (guest, most)));
        }
    }
}

#[test]
fn regions_that_overlap_or_overflow_are_refused() {
    assert_eq!(heap(&[(0x1000, 0x1001), (0x2000, 1)]).unwrap_err(), MemoryError::Overlap { guest: 0x2000 });
    assert_eq!(heap(&[(0x2000, 1), (0x1000, 0x1001)]).unwrap_err(), MemoryError::Overlap { guest: 0x2000 });
    assert_eq!(heap(&[(0x1000, 9), (0x1000, 1)]).unwrap_err(), MemoryError::Overlap { guest: 0x1000 });
    assert!(heap(&[(0x1000, 0x1000), (0x2000, 1), (0, 0x1000)]).is_ok());
    assert_eq!(heap(&[(0, 0)]).unwrap_err(), MemoryError::Empty);
    let wrong = RegionAddress { guest_addr: u64::MAX - 1, size: 2, user_addr: 0, mmap_offset: 0 };
    assert_eq!(GuestMemory::of_heap([wrong]).unwrap_err(), MemoryError::Overflow { size: 2 });
    let wrong = RegionAddress { user_addr: u64::MAX, ..spec(0, 1) };
    assert_eq!(GuestMemory::of_heap([wrong]).unwrap_err(), MemoryError::Overflow { size: 1 });
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_guest_has_as_many_regions_as_qemu_has_slots() {
    let many: Vec<_> = (0..=MAX_REGIONS as u64).map(|n| (n * 2, 1)).collect();
    assert!(heap(&many[1..]).is_ok());
    assert_eq!(heap(&many).unwrap_err(), MemoryError::TooMany);
}

#[test]
fn sets_with_and_without_a_region_share_the_others() {
    let (low, high) = (spec(0, 0x1000), spec(0x2000, 0x1000));
    let both = GuestMemory::of_heap([low, high]).unwrap();
    let one = both.without(&RegionAddress { mmap_offset: 77, ..low }).unwrap();
    assert_eq!(one.regions().collect::<Vec<_>>(), [&high]);
    one.write(0x2000, b"shared").unwrap();
    drop(one);
    assert_eq!(both.slice(0x2000, 6).unwrap().read_array(), Some(*b"shared"));
    let error = MemoryError::NoRegion { guest: 0, size: 0x1000 };
    assert_eq!(both.without(&RegionAddress { user_addr: 0, ..low }).unwrap_err(), error);
}

#[test]
#[cfg_attr(miri, ignore = "maps files")]
fn a_file_is_mapped_where_it_says_and_shared() {
    let file = memfd(4 * PAGE);
    // The offset is no multiple of a page, as that of a region on huge pages.
    let specs = [
        RegionAddress { mmap_offset: 0x300, ..spec(0x1000, 0x1d00) },
        RegionAddress { mmap_offset: 3 * PAGE, ..spec(0x10_0000, 0x1000) },
    ];
    let memory = GuestMemory::of_files(specs.map(|spec| (&file, spec))).unwrap();
    memory.write(0x1001, b"here").unwrap();
    memory.write(0x10_0ffc, b"last").unwrap();
    let mut bytes = [0; 4];
    nix::sys::uio::pread(&file, &mut bytes, 0x301).unwrap();
    assert_eq!(&bytes, b"here");
    nix::sys::uio::pwrite(&file, b"back", 4 * 4096 - 4).unwrap();
    assert_eq!(memory.slice(0x10_0ffc, 4).unwrap().read_array(), Some(*b"back"));
    let short = RegionAddress { mmap_offset: 3 * PAGE, ..spec(0, 0x1001) };
    let error = MemoryError::FileTooShort { file: 4 * PAGE, end: 4 * PAGE + 1 };
    assert_eq!(GuestMemory::of_files([(&file, short)]).unwrap_err(), error);
    let here = File::open(".").unwrap();
    assert!(GuestMemory::of_files([(&here, spec(0, 1))]).is_err());
}

#[test]
#[cfg_attr(miri, ignore = "maps files")]
fn a_guest_that_shrinks_its_file_gets_zeroes_and_is_told_from_others() {
    let (shrinking, other) = (memfd(4 * PAGE), memfd(PAGE));
    let memory = GuestMemory::of_files([(&shrinking, spec(0, 4 * PAGE))]).unwrap();
    let grown = memory.with(other.as_fd(), spec(0x10_0000, PAGE)).unwrap();
    let neighbour = GuestMemory::of_files([(&other, spec(0, PAGE))]).unwrap();
    memory.write(0, b"first").unwrap();
    memory.write(3 * PAGE, b"last").unwrap();
    neighbour.write(0, b"safe").unwrap();
    let words = memory.slice(2 * PAGE, 4096).unwrap().atomics::<AtomicU64>().unwrap();
    words[0].store(7, Ordering::Relaxed);
    assert!(!memory.is_broken());
    shrinking.set_len(PAGE).unwrap();
    assert_eq!(memory.slice(0, 5).unwrap().read_array(), Some(*b"first"), "this page is still there");
    assert!(!memory.is_broken());
    // A read, an atomic access and a write find zeroes instead of death.
    assert_eq!(memory.slice(3 * PAGE, 4).unwrap().read_array(), Some([0; 4]));
    assert!(memory.is_broken() && grown.is_broken());
    assert_eq!(words[0].fetch_add(1, Ordering::Relaxed), 0);
    memory.write(PAGE, &[1; 4096]).unwrap();
    assert_eq!(memory.slice(PAGE, 2).unwrap().read_array(), Some([1; 2]));
    assert_eq!(nix::sys::stat::fstat(&shrinking).unwrap().st_size, 4096, "the file is out of the game");
    assert_eq!(neighbour.slice(0, 4).unwrap().read_array(), Some(*b"safe"));
    assert!(!neighbour.is_broken());
}

#[test]
#[cfg_attr(miri, ignore = "maps files")]
fn faults_of_several_threads_in_several_guests_are_all_survived() {
    let guests: Vec<_> = (0..200)
        .map(|_| {
            let file = memfd(2 * PAGE);
            (GuestMemory::of_files([(&file, spec(0, 2 * PAGE))]).unwrap(), file)
        })
        .collect();
    for (_, file) in &guests {
        file.set_len(0).unwrap();
    }
    let touch = |guests: &[(GuestMemory, File)]| {
        for (memory, _) in guests {
            assert_eq!(memory.slice(PAGE, 1).unwrap().read_array(), Some([0]));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| touch(&guests));
        scope.spawn(|| touch(&guests));
        // Mappings come and go in the list meanwhile.
        for _ in 0..200 {
            let file = memfd(PAGE);
            drop(GuestMemory::of_files([(&file, spec(0, PAGE))]).unwrap());
        }
    });
    assert!(guests.iter().all(|(memory, _)| memory.is_broken()));
}

/// Name of the variable that makes the test below touch memory of nobody's.
const FAULT: &str = "XSWITCH_TEST_FAULT";

#[test]
#[cfg_attr(miri, ignore = "starts a process")]
fn a_fault_in_memory_of_nobody_ends_the_process_as_before() {
    use std::os::unix::process::ExitStatusExt;
    let file = memfd(PAGE);
    if std::env::var_os(FAULT).is_some() {
        // Installs the handler. Then a private mapping of a file without pages is touched.
        let _memory = GuestMemory::of_files([(&file, spec(0, PAGE))]).unwrap();
        faults::touch_unguarded(memfd(0).into());
        return;
    }
    let name = std::thread::current().name().unwrap().to_owned();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args([&name, "--exact", "--nocapture"]).env(FAULT, "").stdout(std::process::Stdio::null());
    assert_eq!(child.status().unwrap().signal(), Some(nix::libc::SIGBUS));
}

#[test]
fn the_log_has_each_page_that_was_written_and_nothing_beyond_its_end() {
    let log = DirtyLog::of_heap(2);
    assert_eq!(log.end(), 16 * PAGE);
    log.mark(0x1fff, 2);
    log.mark(5 * PAGE, 0);
    log.mark(9 * PAGE, PAGE);
    assert_eq!(log.marked(), [1, 2, 9]);
    log.mark(15 * PAGE + 1, 1 << 40);
    log.mark(u64::MAX - 1, u64::MAX);
    log.mark(16 * PAGE, 1);
    assert_eq!(log.marked(), [1, 2, 9, 15]);
}

#[test]
#[cfg_attr(miri, ignore = "maps files")]
fn the_log_is_a_file_that_may_shrink_too() {
    let file = memfd(2 * PAGE);
    let log = DirtyLog::of_file(file.as_fd(), PAGE, PAGE).unwrap();
    log.mark(3 * PAGE, 1);
    let mut byte = [0];
    nix::sys::uio::pread(&file, &mut byte, 4096).unwrap();
    assert_eq!(byte, [8]);
    file.set_len(0).unwrap();
    log.mark(0, 1);
    assert!(log.is_broken());
    let sealed: OwnedFd = memfd(PAGE).into();
    nix::fcntl::fcntl(&sealed, nix::fcntl::FcntlArg::F_ADD_SEALS(nix::fcntl::SealFlag::F_SEAL_WRITE)).unwrap();
    let error = DirtyLog::of_file(sealed.as_fd(), 0, PAGE).unwrap_err();
    assert_eq!(error, MemoryError::Refused { call: "mmap", errno: Errno::EPERM });
}
