//! Fuzzes requests of a disk: chains of any shape with any bytes. What is accepted is within the disk, and has its
//! data.
#![no_main]

use disk::request::{Command, Range, Refused, Rules, Status, answer, data, identify, parse};
use libfuzzer_sys::fuzz_target;
use vhost_user::driver::{Buffer, Driver, GUEST, memory};
use vhost_user::ring::{Position, Queue, Request, RingFeatures, RingSetup};

const CAPACITY: u64 = 1 << 20;

fn check(range: Range) {
    assert!(
        range.at + range.len <= CAPACITY && range.at.is_multiple_of(512) && range.len.is_multiple_of(512),
        "{range:?}"
    );
}

fuzz_target!(|input: &[u8]| {
    let Some((head, bytes)) = input.split_first_chunk::<24>() else { return };
    let memory = memory(1 << 18).expect("memory");
    let features = RingFeatures::default();
    let setup = RingSetup { size: 32, descriptors: 0, available: 0, used: 0, features, chain_limit: 64 };
    let start = Position::start(features);
    let mut driver = Driver::new(&memory, GUEST, setup, start);
    let at = driver.end();
    memory.write(at, &bytes[..bytes.len().min(4096)]).expect("room");
    // Lengths of up to sixteen buffers, of which the last ones are written.
    let writable_from = usize::from(head[0] % 17);
    let mut buffers = Vec::new();
    let mut next = at;
    for (number, byte) in head[8..].iter().enumerate() {
        let long = if head[1] >> (number % 8) & 1 == 1 { 512 } else { 1 };
        let len = u32::from(*byte) * long + 1;
        buffers.push(Buffer { guest: next, len, writable: number >= writable_from });
        // They may overlap.
        next += u64::from(*byte % 64);
    }
    buffers.truncate(usize::from(head[2] % 16) + 1);
    assert!(driver.add(&buffers, 0, false));
    driver.publish();
    let mut queue = Queue::new(&memory, driver.setup(), start).expect("a queue");
    let mut request = Request::new(&memory);
    if queue.pop(&mut request) != Ok(true) {
        return;
    }
    let chain = request.chain().expect("a chain");
    let block = if head[3] & 1 == 0 { 512 } else { 4096 };
    let rules = Rules { capacity: CAPACITY, block, read_only: head[3] & 2 != 0, features: u64::from(head[4]) << 10 };
    let mut ranges = Vec::new();
    let count = |is_read, len: u32| {
        let mut sum = 0;
        data(&chain, is_read, 0, len as usize, |slice| sum += slice.len());
        assert_eq!(sum, len as usize);
    };
    match parse(&chain, &rules, &mut ranges) {
        Ok(Command::Read { at, len }) => {
            check(Range { at, len: len.into(), unmap: false });
            count(true, len);
        }
        Ok(Command::Write { at, len }) => {
            assert!(!rules.read_only);
            check(Range { at, len: len.into(), unmap: false });
            count(false, len);
        }
        Ok(Command::Discard | Command::WriteZeroes) => {
            assert!(!rules.read_only && ranges.len() <= 16);
            ranges.iter().copied().for_each(check);
        }
        Ok(Command::Identify) => identify(&chain, &[b'x'; 20]),
        Ok(Command::Flush) => {}
        Err(Refused::NoStatus) => assert_eq!(chain.writable_len(), 0),
        Err(Refused::Status(status)) => assert_ne!(status, Status::Ok),
    }
    answer(&chain, Status::IoError);
});
