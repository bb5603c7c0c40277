//! What is no request.

use std::io::Read;

use super::*;

#[test]
fn a_header_that_is_none_ends_the_stream() {
    for (header, expected) in [
        ("01000000 00000000 00000000", Malformed::Version(0)),
        ("01000000 02000000 00000000", Malformed::Version(2)),
        ("01000000 03000000 00000000", Malformed::Version(3)),
        ("01000000 05000000 00000000", Malformed::Reply),
        ("01000000 0d000000 00000000", Malformed::Reply),
        ("01000000 01000000 01100000", Malformed::TooLong(4097)),
        ("01000000 01000000 ffffffff", Malformed::TooLong(u32::MAX)),
    ] {
        let header: [u8; HEADER_LEN] = hex(header).try_into().unwrap();
        assert_eq!(Header::of_request(header), Err(expected));
    }
}

#[test]
fn bits_of_the_flags_without_a_meaning_are_ignored() {
    let header: [u8; HEADER_LEN] = hex("01000000 f1ffffff 00100000").try_into().unwrap();
    assert_eq!(Header::of_request(header), Ok(Header { code: 1, need_reply: false, size: 4096 }));
}

#[test]
fn sizes_and_descriptors_that_do_not_fit_are_refused() {
    use Invalid::{Config, Descriptors, Regions, Ring, Size, Unknown, Value};
    // The request's number, its payload and so many zeroes behind, its descriptors.
    for (code, payload, zeroes, count, expected) in [
        (0, "", 0, 0, Unknown(0)),
        (22, "", 320, 0, Unknown(22)),
        (99, "", 0, 3, Unknown(99)),
        (1, "00", 0, 0, Size(1)),
        (1, "", 0, 1, Descriptors(1)),
        (2, "", 0, 0, Size(0)),
        (2, "", 7, 0, Size(7)),
        (2, "", 9, 0, Size(9)),
        (2, "", 8, 1, Descriptors(1)),
        // Regions and descriptors must be as many.
        (5, "01000000 00000000", 0, 1, Size(8)),
        (5, "01000000 00000000", 32, 0, Descriptors(0)),
        (5, "01000000 00000000", 32, 2, Descriptors(2)),
        (5, "01000000 00000000", 64, 1, Size(72)),
        (5, "09000000 00000000", 288, 8, Regions(9)),
        (5, "ffffffff 00000000", 0, 0, Regions(u32::MAX)),
        (6, "", 8, 1, Size(8)),
        (6, "", 16, 2, Descriptors(2)),
        (7, "", 0, 0, Descriptors(0)),
        (8, "00010000 00010000", 0, 0, Ring(256)),
        (9, "", 39, 0, Size(39)),
        (11, "ffffffff 00000000", 0, 0, Ring(u32::MAX)),
        // Bit 8 tells whether there is a descriptor.
        (12, "", 8, 0, Descriptors(0)),
        (12, "00010000 00000000", 0, 1, Descriptors(1)),
        (13, "", 8, 2, Descriptors(2)),
        (14, "00010000 00000000", 0, 8, Descriptors(8)),
        (18, "00000000 02000000", 0, 0, Value { field: "enable", value: 2 }),
        (19, "525400123456", 0, 0, Size(6)),
        (21, "", 0, 0, Descriptors(0)),
        (24, "00000000 04000000 00000000", 0, 0, Config(4)),
        (24, "00000000 01000000 00000000", 2, 0, Config(1)),
        (24, "00000000 00000000 00000000", 0, 0, Config(0)),
        (24, "00000000 01010000 00000000", 257, 0, Config(257)),
        (25, "00000000 01000000 02000000 00", 0, 0, Value { field: "flags", value: 2 }),
        (31, "", 22, 0, Size(22)),
        (31, "", 20, 1, Descriptors(1)),
        (32, "", 20, 0, Descriptors(0)),
        (37, "", 40, 0, Descriptors(0)),
        (37, "", 32, 1, Size(32)),
        (38, "", 40, 2, Descriptors(2)),
    ] {
        let mut bytes = hex(payload);
        bytes.resize(bytes.len() + zeroes, 0);
        assert_eq!(decode(code, &bytes, fds(count)).map(|_| ()), Err(expected), "{code} {payload} {zeroes} {count}");
    }
}

/// The other end of a pipe tells whether all descriptors of this end are closed.
fn is_closed(mut other: std::io::PipeReader) -> bool {
    // It would wait if one were open.
    nix::fcntl::fcntl(&other, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
    matches!(other.read(&mut [0]), Ok(0))
}

#[test]
fn descriptors_of_a_message_with_a_mistake_are_closed() {
    // Unknown, too many, the wrong size, and one that is of no use.
    for (code, zeroes, valid) in [(99, 0, false), (1, 0, false), (7, 1, false), (38, 40, true)] {
        let (reader, writer) = std::io::pipe().unwrap();
        let decoded = decode(code, &vec![0; zeroes], vec![writer.into()]);
        assert_eq!(decoded.is_ok(), valid, "{code}");
        assert!(is_closed(reader), "{code}");
    }
}

#[test]
fn descriptors_before_a_malformed_header_are_closed() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut assembler = Assembler::default();
    let bytes = hex("01000000 02000000 00000000");
    assembler.room().copy_from_slice(&bytes);
    assert_eq!(assembler.advance(bytes.len(), vec![writer.into()]).map(|_| ()), Err(Malformed::Version(2)));
    assert!(is_closed(reader));
}

#[test]
fn a_message_has_at_most_eight_descriptors_however_they_come() {
    let mut assembler = Assembler::default();
    assert!(matches!(assembler.advance(1, fds(8)), Ok(None)));
    assert_eq!(assembler.advance(1, fds(1)).map(|_| ()), Err(Malformed::TooManyDescriptors));
    assert_eq!(Assembler::default().advance(1, fds(9)).map(|_| ()), Err(Malformed::TooManyDescriptors));
}
