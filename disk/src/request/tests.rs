//! Requests in any layout, against a model that has their bytes in one piece.

use std::sync::Arc;

use proptest::prelude::*;
use vhost_user::driver::{Buffer, Driver, GUEST, memory};
use vhost_user::memory::GuestMemory;
use vhost_user::ring::{Position, Queue, Request, RingFeatures, RingSetup};

use super::*;

const CAPACITY: u64 = 1 << 20;

/// A chain with these bytes to read and so much room to write, in pieces of these lengths.
fn taken(readable: &[u8], room: u32, cuts: &[u32]) -> (Arc<GuestMemory>, Request, u64) {
    let memory = memory(1 << 20).unwrap();
    let features = RingFeatures::default();
    let setup = RingSetup { size: 128, descriptors: 0, available: 0, used: 0, features, chain_limit: 128 };
    let start = Position::start(features);
    let mut driver = Driver::new(&memory, GUEST, setup, start);
    let (from, to) = (driver.end() + 3, driver.end() + (256 << 10));
    memory.write(from, readable).unwrap();
    let mut buffers = Vec::new();
    let mut cuts = cuts.iter().copied();
    for (base, len, writable) in [(from, readable.len() as u32, false), (to, room, true)] {
        let mut at = 0;
        while at < len {
            let part = if buffers.len() > 60 { len - at } else { cuts.next().unwrap_or(len).clamp(1, len - at) };
            buffers.push(Buffer { guest: base + u64::from(at), len: part, writable });
            at += part;
        }
    }
    assert!(driver.add(&buffers, 0, false));
    driver.publish();
    let mut queue = Queue::new(&memory, driver.setup(), start).unwrap();
    let mut request = Request::new(&memory);
    assert!(queue.pop(&mut request).unwrap());
    (memory, request, to)
}

/// What virtio 1.2, 5.2.6 says of a request, read another way than in `parse`.
fn model(readable: &[u8], room: u32, rules: &Rules) -> Result<(Command, Vec<Range>), Refused> {
    let io_error = Err(Refused::Status(Status::IoError));
    let unsupported = Err(Refused::Status(Status::Unsupported));
    if room == 0 {
        return Err(Refused::NoStatus);
    }
    if readable.len() < 16 {
        return io_error;
    }
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte));
    let (kind, sector, data) = (number(&readable[..4]), number(&readable[8..16]), &readable[16..]);
    let fits = |sector: u128, len: u128| {
        let block = u128::from(rules.block);
        let fits = (sector * 512).is_multiple_of(block) && len.is_multiple_of(block);
        fits && sector * 512 + len <= u128::from(rules.capacity)
    };
    let at = (sector * 512) as u64;
    let plain = |command| Ok((command, Vec::new()));
    match kind {
        0 if fits(sector, u128::from(room - 1)) => plain(Command::Read { at, len: room - 1 }),
        1 if !rules.read_only && fits(sector, data.len() as u128) => {
            plain(Command::Write { at, len: data.len() as u32 })
        }
        0 | 1 => io_error,
        4 => plain(Command::Flush),
        8 => plain(Command::Identify),
        11 | 13 if rules.features >> if kind == 11 { 13 } else { 14 } & 1 == 0 => unsupported,
        11 | 13 if rules.read_only || data.is_empty() || !data.len().is_multiple_of(16) || data.len() > 256 => io_error,
        11 | 13 => {
            let most = if kind == 11 { 1 << 21 } else { 1 << 17 };
            let mut ranges = Vec::new();
            for segment in data.chunks(16) {
                let (sector, count, flags) = (number(&segment[..8]), number(&segment[8..12]), number(&segment[12..]));
                if flags > u128::from(kind == 13) {
                    return unsupported;
                }
                if count > most || !fits(sector, count * 512) {
                    return io_error;
                }
                ranges.push(Range { at: (sector * 512) as u64, len: (count * 512) as u64, unmap: flags == 1 });
            }
            ranges.retain(|range| range.len > 0);
            Ok((if kind == 11 { Command::Discard } else { Command::WriteZeroes }, ranges))
        }
        _ => unsupported,
    }
}

fn sector() -> impl Strategy<Value = u64> {
    let end = CAPACITY / 512;
    prop_oneof![6 => 0..=end + 2, 2 => (0..=end / 8).prop_map(|block| block * 8), 1 => any::<u64>()]
}

fn segment() -> impl Strategy<Value = Vec<u8>> {
    let count = prop_oneof![8 => 0_u32..24, 1 => any::<u32>()];
    (sector(), count, prop_oneof![8 => 0_u32..2, 1 => any::<u32>()]).prop_map(|(sector, count, flags)| {
        [sector.to_le_bytes().to_vec(), count.to_le_bytes().to_vec(), flags.to_le_bytes().to_vec()].concat()
    })
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => prop::collection::vec(segment(), 0..18).prop_map(|segments| segments.concat()),
        3 => (0_usize..20).prop_map(|sectors| vec![7; sectors * 512]),
        1 => prop::collection::vec(any::<u8>(), 0..100),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]
    #[test]
    fn a_request_means_the_same_in_any_layout(
        kind in prop_oneof![9 => prop::sample::select(vec![0_u32, 1, 4, 8, 11, 13]), 1 => any::<u32>()],
        sector in sector(),
        data in data(),
        header in prop_oneof![9 => Just(16_usize), 1 => 0_usize..16],
        room in prop_oneof![4 => (0_u32..20).prop_map(|sectors| sectors * 512 + 1), 1 => 0_u32..40],
        cuts in prop::collection::vec(prop_oneof![1_u32..30, 500_u32..600], 0..80),
        block in prop::sample::select(vec![512_u32, 4096]),
        read_only: bool,
        features in prop::sample::select(vec![0_u64, 1 << 13, 1 << 14, 3 << 13]),
    ) {
        let rules = Rules { capacity: CAPACITY, block, read_only, features };
        let mut readable = [kind.to_le_bytes().to_vec(), vec![0xaa; 4], sector.to_le_bytes().to_vec()].concat();
        readable.truncate(header);
        if header == 16 {
            readable.extend_from_slice(&data);
        }
        prop_assume!(!readable.is_empty() || room > 0);
        let (memory, request, to) = taken(&readable, room, &cuts);
        let chain = request.chain().unwrap();
        let mut ranges = vec![Range { at: 1, len: 1, unmap: true }];
        let parsed = parse(&chain, &rules, &mut ranges);
        let expected = model(&readable, room, &rules);
        match (parsed, expected) {
            (Ok(command), Ok((expected, of_model))) => {
                prop_assert_eq!(command, expected);
                prop_assert_eq!(&ranges, &of_model);
            }
            (Err(refused), Err(expected)) => prop_assert_eq!(refused, expected),
            other => prop_assert!(false, "{:?}", other),
        }
        // Data is where it is, and status and name are at the end and the beginning of what is written.
        let mut seen = Vec::new();
        super::data(&chain, false, 0, readable.len().saturating_sub(16), |slice| {
            let mut bytes = vec![0; slice.len()];
            slice.read(&mut bytes);
            seen.extend(bytes);
        });
        prop_assert_eq!(&seen[..], readable.get(16..).unwrap_or_default());
        let (from, len) = ((room / 3) as usize, (room / 2) as usize);
        let mut filled = 0;
        super::data(&chain, true, from, len.min(room as usize - from), |slice| {
            filled += slice.write(&vec![0x5a; slice.len()]);
        });
        answer(&chain, Status::Unsupported);
        identify(&chain, b"0123456789abcdefghij");
        let mut wrote = vec![0; room as usize];
        memory.read(to, &mut wrote).unwrap();
        let mut of_model = vec![0; room as usize];
        of_model[from..][..filled].fill(0x5a);
        prop_assert_eq!(filled, len.min(room as usize - from));
        if let Some(last) = of_model.last_mut() {
            *last = 2;
        }
        let name = (room.saturating_sub(1) as usize).min(20);
        of_model[..name].copy_from_slice(&b"0123456789abcdefghij"[..name]);
        prop_assert_eq!(wrote, of_model);
    }
}
