//! Each request, from bytes.

use super::*;

/// Whole messages: header, payload, descriptors, what is asked for.
const REQUESTS: &[(&str, usize, &str)] = &[
    ("01000000 01000000 00000000", 0, "GetFeatures"),
    ("02000000 01000000 08000000  0080007001000000", 0, "SetFeatures(6174048256)"),
    ("03000000 01000000 00000000", 0, "SetOwner"),
    ("04000000 01000000 00000000", 0, "ResetOwner"),
    (
        "05000000 01000000 48000000  02000000 00000000 \
         0000000000000000 0000008000000000 000000e0ff7f0000 0000000000000000 \
         0000000001000000 0000004000000000 00000060ff7f0000 0000008000000000",
        2,
        "SetMemTable([MemoryRegion { address: RegionAddress { guest_addr: 0, size: 2147483648, \
         user_addr: 140736951484416, mmap_offset: 0 }, fd: FD }, \
         MemoryRegion { address: RegionAddress { guest_addr: 4294967296, size: 1073741824, \
         user_addr: 140734804000768, mmap_offset: 2147483648 }, fd: FD }])",
    ),
    ("05000000 01000000 08000000  00000000 00000000", 0, "SetMemTable([])"),
    (
        "06000000 01000000 10000000  0010000000000000 0020000000000000",
        1,
        "SetLogBase(Some(LogRegion { size: 4096, offset: 8192, fd: FD }))",
    ),
    ("06000000 01000000 10000000  0010000000000000 0020000000000000", 0, "SetLogBase(None)"),
    ("06000000 01000000 08000000  0010000000000000", 0, "SetLogBase(None)"),
    ("07000000 01000000 00000000", 1, "SetLogFd(FD)"),
    ("08000000 01000000 08000000  03000000 00010000", 0, "SetVringNum { ring: 3, num: 256 }"),
    (
        "09000000 01000000 28000000  02000000 01000000 \
         0010000000000000 0030000000000000 0020000000000000 00400000 00000000",
        0,
        "SetVringAddr { ring: 2, addresses: RingAddresses { descriptors: 4096, available: 8192, used: 12288, \
         log: Some(16384) } }",
    ),
    (
        "09000000 01000000 28000000  02000000 00000000 \
         0010000000000000 0030000000000000 0020000000000000 00400000 00000000",
        0,
        "SetVringAddr { ring: 2, addresses: RingAddresses { descriptors: 4096, available: 8192, used: 12288, \
         log: None } }",
    ),
    ("0a000000 01000000 08000000  01000000 34120080", 0, "SetVringBase { ring: 1, base: 2147488308 }"),
    ("0b000000 01000000 08000000  ff000000 00000000", 0, "GetVringBase { ring: 255 }"),
    ("0c000000 01000000 08000000  0500000000000000", 1, "SetVringKick { ring: 5, fd: Some(FD) }"),
    ("0c000000 01000000 08000000  0501000000000000", 0, "SetVringKick { ring: 5, fd: None }"),
    ("0d000000 01000000 08000000  ff00000000000000", 1, "SetVringCall { ring: 255, fd: Some(FD) }"),
    ("0d000000 01000000 08000000  ff01000000000000", 0, "SetVringCall { ring: 255, fd: None }"),
    ("0e000000 01000000 08000000  0000000000000000", 1, "SetVringErr { ring: 0, fd: Some(FD) }"),
    ("0e000000 01000000 08000000  0001000000000000", 0, "SetVringErr { ring: 0, fd: None }"),
    ("0f000000 01000000 00000000", 0, "GetProtocolFeatures"),
    ("10000000 01000000 08000000  bf0c010000000000", 0, "SetProtocolFeatures(68799)"),
    ("11000000 01000000 00000000", 0, "GetQueueNum"),
    ("12000000 01000000 08000000  02000000 01000000", 0, "SetVringEnable { ring: 2, on: true }"),
    ("12000000 01000000 08000000  02000000 00000000", 0, "SetVringEnable { ring: 2, on: false }"),
    ("13000000 01000000 08000000  525400123456 0000", 0, "SendRarp([82, 84, 0, 18, 52, 86])"),
    ("14000000 01000000 08000000  dc05000000000000", 0, "NetSetMtu(1500)"),
    ("15000000 01000000 00000000", 1, "SetBackendReqFd(FD)"),
    (
        "18000000 01000000 10000000  08000000 04000000 00000000 00000000",
        0,
        "GetConfig { offset: 8, size: 4, flags: 0 }",
    ),
    (
        "19000000 01000000 0d000000  20000000 01000000 00000000 01",
        0,
        "SetConfig { offset: 32, migration: false, data: [1] }",
    ),
    (
        "19000000 01000000 0e000000  20000000 02000000 01000000 01ff",
        0,
        "SetConfig { offset: 32, migration: true, data: [1, 255] }",
    ),
    (
        "1f000000 01000000 14000000  0000000000000000 0000000000000000 0200 8000",
        0,
        "GetInflightFd(InflightLayout { size: 0, offset: 0, rings: 2, ring_size: 128 })",
    ),
    (
        // As QEMU sends it: compilers round the description up.
        "1f000000 01000000 18000000  0000000000000000 0000000000000000 0200 8000 00000000",
        0,
        "GetInflightFd(InflightLayout { size: 0, offset: 0, rings: 2, ring_size: 128 })",
    ),
    (
        "20000000 01000000 18000000  0010000000000000 0002000000000000 0200 8000 00000000",
        1,
        "SetInflightFd(InflightRegion { layout: InflightLayout { size: 4096, offset: 512, rings: 2, \
         ring_size: 128 }, fd: FD })",
    ),
    ("22000000 01000000 00000000", 0, "ResetDevice"),
    ("24000000 01000000 00000000", 0, "GetMaxMemSlots"),
    (
        "25000000 01000000 28000000  0000000000000000 \
         0000000001000000 0010000000000000 0000002000000000 0030000000000000",
        1,
        "AddMemReg(MemoryRegion { address: RegionAddress { guest_addr: 4294967296, size: 4096, \
         user_addr: 536870912, mmap_offset: 12288 }, fd: FD })",
    ),
    (
        "26000000 01000000 28000000  0000000000000000 \
         0000000001000000 0010000000000000 0000002000000000 0030000000000000",
        0,
        "RemMemReg(RegionAddress { guest_addr: 4294967296, size: 4096, user_addr: 536870912, mmap_offset: 12288 })",
    ),
    (
        // Older front ends send a descriptor. It is closed.
        "26000000 01000000 28000000  0000000000000000 \
         0000000001000000 0010000000000000 0000002000000000 0030000000000000",
        1,
        "RemMemReg(RegionAddress { guest_addr: 4294967296, size: 4096, user_addr: 536870912, mmap_offset: 12288 })",
    ),
    ("27000000 01000000 08000000  0f00000000000000", 0, "SetStatus(15)"),
    ("28000000 01000000 00000000", 0, "GetStatus"),
];

#[test]
fn every_request_is_read_as_the_specification_has_it() {
    let mut seen = std::collections::BTreeSet::new();
    for (bytes, count, expected) in REQUESTS {
        let bytes = hex(bytes);
        let mut assembler = Assembler::default();
        let message = all_of(&mut assembler, &bytes, fds(*count)).pop().expect("a message");
        let request = message.request.unwrap_or_else(|error| panic!("{expected}: {error}"));
        assert_eq!(words(&request), *expected);
        assert!(!message.need_reply, "{expected}");
        assert_eq!(message.size, bytes.len() - HEADER_LEN, "{expected}");
        seen.insert(message.code);
    }
    assert_eq!(seen, Code::ALL.iter().map(|code| code.number()).collect(), "each code has a row");
}

#[test]
fn a_wish_for_an_acknowledgement_is_kept() {
    for (flags, wish) in [("01000000", false), ("09000000", true)] {
        let bytes = hex(&format!("03000000 {flags} 00000000"));
        let message = all_of(&mut Assembler::default(), &bytes, vec![]).pop().expect("a message");
        assert_eq!(message.need_reply, wish);
    }
}

#[test]
fn codes_have_the_specifications_names() {
    assert_eq!(Code::of(5).map(Code::name), Some("SET_MEM_TABLE"));
    assert_eq!(Code::of(40).map(|code| code.to_string()), Some("GET_STATUS".to_owned()));
    for unknown in [0, 22, 23, 26, 30, 33, 35, 41, u32::MAX] {
        assert_eq!(Code::of(unknown), None, "{unknown}");
    }
}

#[test]
fn protocol_features_are_named_by_their_bits() {
    let names: Vec<_> = features::protocol_names(features::MQ | features::STATUS | 1 << 63).collect();
    assert_eq!(names, ["MQ", "STATUS"]);
    for (bit, name) in [
        (features::LOG_SHMFD, "LOG_SHMFD"),
        (features::RARP, "RARP"),
        (features::REPLY_ACK, "REPLY_ACK"),
        (features::MTU, "MTU"),
        (features::BACKEND_REQ, "BACKEND_REQ"),
        (features::CONFIG, "CONFIG"),
        (features::INFLIGHT_SHMFD, "INFLIGHT_SHMFD"),
        (features::RESET_DEVICE, "RESET_DEVICE"),
        (features::CONFIGURE_MEM_SLOTS, "CONFIGURE_MEM_SLOTS"),
    ] {
        assert_eq!(features::protocol_names(bit).collect::<Vec<_>>(), [name]);
    }
}
