//! Replies to bytes.

use super::*;

#[test]
fn replies_are_as_the_specification_has_them() {
    let none = "0000000000000000 0000000000000000 00000000";
    for (reply, header, payload) in [
        (Reply::number(1, 0x1_7000_8000), "01000000 05000000 08000000", "0080007001000000"),
        (Reply::acknowledgement(18, true), "12000000 05000000 08000000", "0000000000000000"),
        (Reply::acknowledgement(5, false), "05000000 05000000 08000000", "0100000000000000"),
        (Reply::ring_base(3, 0x8001_8002), "0b000000 05000000 08000000", "03000000 02800180"),
        (Reply::config(8, 1, &[1, 2]), "18000000 05000000 0e000000", "08000000 02000000 01000000 0102"),
        (Reply::no_config(), "18000000 05000000 00000000", ""),
        (Reply::inflight(None, 20), "1f000000 05000000 14000000", none),
        (Reply::inflight(None, 24), "1f000000 05000000 18000000", "0000000000000000 0000000000000000 0000000000000000"),
        // A question that was too short is answered all the same.
        (Reply::inflight(None, 0), "1f000000 05000000 14000000", none),
    ] {
        assert_eq!(reply.bytes, [hex(header), hex(payload)].concat(), "{header}");
        assert!(reply.fd.is_none(), "{header}");
    }
}

#[test]
fn a_record_of_requests_in_flight_goes_with_its_descriptor() {
    let layout = InflightLayout { size: 4096, offset: 512, rings: 2, ring_size: 128 };
    let reply = Reply::inflight(Some(InflightRegion { layout, fd: fds(1).remove(0) }), 24);
    let expected = "1f000000 05000000 18000000  0010000000000000 0002000000000000 0200 8000 00000000";
    assert_eq!(reply.bytes, hex(expected));
    assert!(reply.fd.is_some());
}

#[test]
fn a_change_of_the_configuration_space_is_told_without_a_wish_for_a_reply() {
    assert_eq!(config_change(), hex("02000000 01000000 00000000"));
}
