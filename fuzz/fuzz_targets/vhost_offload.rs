//! Fuzzes what a guest leaves to be done with a packet: any header in front of any bytes. What passes the checks can be
//! done without a panic, and within bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vhost_user::net::{Cutter, NetHeader, OffloadRules, fill_checksum, replace_ip_length, restore_ip_length};

fuzz_target!(|input: (u64, [u8; 12], u16, Vec<u8>)| {
    let (features, header, more, mut start) = input;
    let len = start.len() + usize::from(more);
    let header = NetHeader::of_bytes(header);
    let rules = OffloadRules::of_bits(features);
    let Ok(offload) = rules.check(&header, &start, len) else { return };
    let _ = rules.lets_pass(&offload);
    if let Some(checksum) = offload.checksum {
        assert!(usize::from(checksum.start) + usize::from(checksum.offset) + 2 <= len);
        let again = offload.header();
        assert_eq!((again.csum_start, again.csum_offset), (header.csum_start, header.csum_offset));
        fill_checksum(&mut start.clone(), checksum);
    }
    let Some(gso) = offload.gso else { return };
    let payload = len - usize::from(gso.payload);
    let before = start.clone();
    let length = replace_ip_length(&mut start, &gso, gso.size.into());
    restore_ip_length(&mut start, &gso, length);
    assert_eq!(start, before);
    let cutter = Cutter::new(&start, gso, payload).expect("headers that were checked");
    let (part, mut headers) = (vec![7; gso.size.into()], vec![0; gso.payload.into()]);
    let mut end = 0;
    for segment in 0..cutter.segments() {
        let range = cutter.range(segment);
        assert!(range.start == end && !range.is_empty());
        end = range.end;
        cutter.write_headers(segment, &part[..range.len()], &mut headers);
    }
    assert_eq!(end, payload);
});
