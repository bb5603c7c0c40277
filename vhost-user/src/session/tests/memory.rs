//! The guest's memory.

use std::os::fd::AsFd;
use std::sync::Arc;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::*;
use crate::mapped::MappedMemory;

#[test]
fn a_table_replaces_the_one_before() {
    let mut rig = Rig::new();
    assert_eq!(rig.ok(table(&[(0, 0x1000, MEMORY, 0), (0x1000, 0x1000, 0, 0x1000)])), [Action::MemoryChanged]);
    assert_eq!(rig.session.memory().regions().len(), 2);
    rig.ok(table(&[(0x5000, 0x2000, MEMORY, 0)]));
    assert_eq!(rig.session.memory().regions()[0].address.guest_addr, 0x5000);
    rig.ok(table(&[]));
    assert_eq!(rig.session.memory().regions().len(), 0);
}

#[test]
fn regions_that_are_empty_or_wrap_or_overlap_are_refused() {
    let last = u64::MAX - 0xfff;
    for (regions, words) in [
        (vec![(0, 0, MEMORY, 0)], "no length"),
        (vec![(last, 0x1001, MEMORY, 0)], "beyond the last address"),
        (vec![(0, 0x1001, last, 0)], "beyond the last address"),
        (vec![(0, 0x1001, MEMORY, last)], "beyond the last address"),
        (vec![(0, 0x1000, MEMORY, 0), (0xfff, 0x1000, 0, 0)], "the region at 0xfff overlaps"),
        (vec![(0, 0x1000, 0x8000, 0), (0x9000, 0x1000, 0x7001, 0)], "the region at 0x9000 overlaps"),
        (vec![(0x1000, 0x1000, 0x8000, 0), (0, 0x4000, 0, 0)], "overlaps"),
    ] {
        assert!(Rig::ready().refused(table(&regions), words), "{regions:?}");
    }
    // Neighbours are none of these. Offsets may overlap: QEMU maps a file twice.
    Rig::new().ok(table(&[(0, 0x1000, 0x8000, 0), (0x1000, 0x1000, 0x7000, 0)]));
}

#[test]
fn regions_come_and_go_one_by_one() {
    let mut rig = Rig::new();
    let region = |at: u64| (at * 0x1000, 0x1000, MEMORY + at * 0x1000, 0);
    for at in 0..3 {
        assert_eq!(rig.ok(slot(Code::AddMemReg, region(at))), [Action::MemoryChanged]);
    }
    assert!(rig.refused(slot(Code::AddMemReg, region(3)), "there are 3 regions already"));
    assert!(rig.refused(slot(Code::AddMemReg, region(0)), "overlaps"));
    let kept = rig.session.memory().regions()[2].clone();
    let (guest, size, user, _) = region(1);
    for other in [(guest + 1, size, user, 0), (guest, size - 1, user, 0), (guest, size, user + 1, 0)] {
        assert!(rig.refused(slot(Code::RemMemReg, other), "no region is at"));
    }
    // The offset is not looked at.
    assert_eq!(rig.ok(slot(Code::RemMemReg, (guest, size, user, 99))), [Action::MemoryChanged]);
    assert!(std::sync::Arc::ptr_eq(&rig.session.memory().regions()[1], &kept), "what stays need not be mapped anew");
    rig.ok(slot(Code::AddMemReg, region(3)));
}

#[test]
fn a_ring_runs_on_while_memory_changes_around_it() {
    let mut rig = Rig::ready();
    rig.start(0);
    rig.start(1);
    let more = (MEMORY_SIZE, 0x1000, 0, 0);
    assert_eq!(rig.ok(table(&[(0, MEMORY_SIZE, MEMORY, 0), more])), [Action::MemoryChanged]);
    // The second ring is beyond the end now.
    let [end, ..] = ring_at(1);
    let actions = rig.ok(table(&[(0, end - MEMORY, MEMORY, 0)]));
    assert_eq!(actions, [Action::StopRing(1), Action::MemoryChanged]);
    assert_eq!(rig.session.ring(1).unwrap().base, Some(RingBase(77)));
    let actions = rig.ok(table(&[(0, MEMORY_SIZE, MEMORY, 0)]));
    assert_eq!(actions, [Action::MemoryChanged, Action::StartRing(1)]);
    assert_eq!(
        rig.ok(slot(Code::RemMemReg, (0, MEMORY_SIZE, MEMORY, 0))),
        [Action::StopRing(0), Action::StopRing(1), Action::MemoryChanged]
    );
}

#[test]
fn memory_is_found_by_the_front_end_s_addresses() {
    let mut rig = Rig::new();
    rig.ok(table(&[(0, 0x1000, 0x1_0000, 0), (0x1000, 0x1000, u64::MAX - 0x1000, 0)]));
    let has = |at, len| rig.session.memory().has(at, len);
    assert!(has(0x1_0000, 0x1000) && has(0x1_0fff, 1) && has(0x1_1000, 0));
    assert!(!has(0x1_0000, 0x1001) && !has(0xffff, 2) && !has(0x1_1000, 1) && !has(0x1_0000, u64::MAX));
    assert!(has(u64::MAX - 0x1000, 0x1000) && !has(u64::MAX, 1) && !has(u64::MAX, u64::MAX));
}

/// A region of a file that has `bytes`, added.
fn add(rig: &mut Rig, file: &OwnedFd, region: Region) {
    let payload = [vec![0; 8], region_bytes(&region)].concat();
    let fds = vec![file.as_fd().try_clone_to_owned().unwrap()];
    let request = decode(Code::AddMemReg.number(), &payload, fds);
    rig.ok(Message { code: Code::AddMemReg.number(), need_reply: false, size: payload.len(), request });
}

#[test]
#[cfg_attr(miri, ignore = "maps files")]
fn what_stays_in_the_table_stays_mapped() {
    let file = memfd_create(c"guest", MFdFlags::MFD_CLOEXEC).unwrap();
    nix::unistd::ftruncate(&file, 0x4000).unwrap();
    let region = |at: u64| (0x10_0000 + at * 0x1000, 0x1000, MEMORY + at * 0x1000, at * 0x1000);
    let (mut rig, mut mapped) = (Rig::new(), MappedMemory::default());
    add(&mut rig, &file, region(0));
    add(&mut rig, &file, region(1));
    mapped.follow_table(&rig.session).unwrap();
    let before = Arc::clone(mapped.guest());
    before.write(0x10_0000, b"stays").unwrap();
    assert_eq!(mapped.region_at(MEMORY + 0x1fff).unwrap().address.guest_addr, 0x10_1000);
    assert!(mapped.region_at(MEMORY + 0x2000).is_none() && mapped.region_at(MEMORY - 1).is_none());
    rig.ok(slot(Code::RemMemReg, region(1)));
    add(&mut rig, &file, region(2));
    mapped.follow_table(&rig.session).unwrap();
    let start = |memory: &crate::memory::GuestMemory| memory.slice(0x10_0000, 1).unwrap().as_ptr();
    assert_eq!(start(mapped.guest()), start(&before), "it is not mapped anew");
    let mut bytes = [0; 5];
    mapped.guest().read(0x10_0000, &mut bytes).unwrap();
    assert_eq!(&bytes, b"stays");
    assert!(mapped.guest().slice(0x10_1000, 1).is_err() && mapped.guest().slice(0x10_2000, 1).is_ok());
    assert!(before.slice(0x10_1000, 1).is_ok(), "who still uses it has it");
    // What can't be mapped changes nothing.
    rig.ok(slot(Code::RemMemReg, region(0)));
    rig.ok(slot(Code::AddMemReg, region(3)));
    assert!(mapped.follow_table(&rig.session).is_err(), "no memory");
    assert!(mapped.guest().slice(0x10_0000, 1).is_ok() && mapped.regions().len() == 2);
}
