//! Fuzzes rings of vhost-user: arbitrary bytes as the memory of a guest, with its ring anywhere in it, while the device
//! works and the guest goes on writing. Nothing panics, and a burst is bounded.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use vhost_user::driver::{GUEST, USER, memory};
use vhost_user::memory::{DirtyLog, GuestMemory};
use vhost_user::net::{
    Cutter, HeaderFormat, NetHeader, Offload, OffloadRules, deliver, fill_checksum, read_header, replace_ip_length,
    restore_ip_length,
};
use vhost_user::ring::inflight::{InflightRegion, TrackedQueue};
use vhost_user::ring::{
    Burst, F_EVENT_IDX, F_IN_ORDER, F_INDIRECT, F_PACKED, Position, Queue, Request, RingError, RingFeatures, RingLog,
    RingSetup, Scratch,
};

/// Bytes of the guest's memory.
const BYTES: u64 = 8192;
const CHAIN_LIMIT: u16 = 30;
const FORMAT: HeaderFormat = HeaderFormat { len: 12, mergeable: true };

/// The input, byte by byte.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn word(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes([self.byte()?, self.byte()?]))
    }
}

fn setup(input: &mut Input<'_>) -> Option<RingSetup> {
    let bits = input.byte()?;
    let all = [F_INDIRECT, F_EVENT_IDX, F_PACKED, F_IN_ORDER].into_iter().enumerate();
    let features = all.filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, feature)| feature).sum();
    let mut user = || Some(USER + u64::from(input.word()? & 0x1ff0));
    let (descriptors, available, used) = (user()?, user()?, user()?);
    let size = u32::from(input.byte()?);
    let features = RingFeatures::of_bits(features);
    Some(RingSetup { size, descriptors, available, used, features, chain_limit: CHAIN_LIMIT })
}

/// Reads all of a packet, whatever it is.
fn receive(mut burst: Burst<'_>) -> Result<usize, RingError> {
    let mut bytes = [0; 2048];
    while let Some(chain) = burst.chain(0) {
        assert!(chain.readable().len() + chain.writable().len() <= CHAIN_LIMIT.into());
        let mut reader = chain.reader();
        if let Some(header) = read_header(&mut reader, FORMAT) {
            let left = reader.left();
            let count = reader.read(&mut bytes);
            assert_eq!(count, left.min(bytes.len()));
            if let Ok(offload) = OffloadRules::of_bits(u64::MAX).check(&header, &bytes[..count], left) {
                finish(&mut bytes[..count], left, offload);
            }
        }
        burst.advance(0);
    }
    burst.finish()
}

/// Does what a header leaves to be done, as a device does that has the beginning of a packet of `len` bytes.
fn finish(start: &mut [u8], len: usize, offload: Offload) {
    if let Some(gso) = offload.gso {
        let payload = len - usize::from(gso.payload);
        let cutter = Cutter::new(start, gso, payload).expect("headers that were checked");
        assert!(cutter.segments() <= 1366);
        let (part, mut headers) = (vec![7; gso.size.into()], vec![0; gso.payload.into()]);
        for segment in 0..cutter.segments() {
            let range = cutter.range(segment);
            assert!(!range.is_empty() && range.end <= payload);
            cutter.write_headers(segment, &part[..range.len()], &mut headers);
        }
        let before = replace_ip_length(start, &gso, gso.size.into());
        restore_ip_length(start, &gso, before);
    } else if let Some(checksum) = offload.checksum {
        fill_checksum(start, checksum);
    }
}

/// One step of the device or the guest. None at the end of the input.
fn step(
    input: &mut Input<'_>,
    memory: &GuestMemory,
    queue: &mut Queue,
    scratch: &mut Scratch,
    request: &mut Request,
) -> Option<Result<(), RingError>> {
    let most = |burst: &Burst<'_>, queue: u16| assert!(burst.len() <= usize::from(queue).min(64));
    let size = queue.size();
    Some(match input.byte()? % 9 {
        0 => queue.burst(scratch, 64).and_then(|burst| {
            most(&burst, size);
            receive(burst).map(drop)
        }),
        1 => {
            let len = usize::from(input.word()? % 4096);
            // The rest of the packet may be anywhere, also in the ring or in the buffer that it goes to.
            let at = GUEST + u64::from(input.word()?) % BYTES;
            let rest = memory.slice(at, input.byte()?.into()).unwrap_or_default();
            queue.burst(scratch, 64).and_then(|mut burst| {
                most(&burst, size);
                let packet = [7; 4096];
                let (one, two) = packet[..len].split_at(len / 3);
                let _ = deliver(&mut burst, FORMAT, NetHeader::PLAIN, &[one, two], rest);
                burst.finish().map(drop)
            })
        }
        2 => queue.pop(request).map(drop),
        3 => {
            queue.complete(request, input.word()?.into());
            queue.publish();
            queue.needs_call();
            Ok(())
        }
        4 => queue.enable_kicks().map(drop),
        5 => {
            queue.disable_kicks();
            Ok(())
        }
        6 => {
            // Chains are held while the guest goes on writing.
            let held = queue.burst(scratch, 64).and_then(|mut burst| {
                while burst.chain(0).is_some_and(|chain| chain.reader().rest().is_some()) {
                    burst.advance(0);
                }
                burst.hold()
            });
            let at = GUEST + u64::from(input.word()?) % (BYTES - 8);
            memory.write(at, &[input.byte()?; 8]).expect("in the memory");
            held.and_then(|count| queue.release(scratch, count).map(|released| assert_eq!(released, count)))
        }
        _ => {
            let at = GUEST + u64::from(input.word()?) % (BYTES - 8);
            let bytes = [input.byte()?, input.byte()?, input.byte()?, input.byte()?];
            memory.write(at, &bytes).expect("in the memory");
            Ok(())
        }
    })
}

/// The same ring with requests that outlive the device, whatever the region has.
fn tracked(input: &mut Input<'_>, memory: &Arc<GuestMemory>, setup: &RingSetup) -> Option<()> {
    let packed = setup.features.packed;
    let size = u16::try_from(setup.size).ok()?;
    let (region, _file) = InflightRegion::create(1, size, packed).ok()?;
    for _ in 0..3 {
        let Ok(mut queue) = TrackedQueue::new(memory, setup, &region, 0, input.word()?.into()) else { break };
        for _ in 0..input.byte()? % 16 {
            let mut request = Request::new(memory);
            if queue.pop(&mut request) != Ok(true) {
                break;
            }
            if input.byte()? % 2 == 0 {
                queue.complete(&mut request, 9);
            }
            if input.byte()? % 2 == 0 {
                queue.publish();
            }
        }
    }
    Some(())
}

fn run(input: &mut Input<'_>) -> Option<()> {
    let setup = setup(input)?;
    let memory = memory(BYTES).expect("memory");
    let length = usize::from(input.word()?) % BYTES as usize;
    let (first, rest) = input.0.split_at(length.min(input.0.len()));
    input.0 = rest;
    memory.write(GUEST, first).expect("in the memory");
    let position = Position { available: input.word()?, used: input.word()? };
    let Ok(mut queue) = Queue::new(&memory, &setup, position) else { return tracked(input, &memory, &setup) };
    if input.byte()? % 2 == 0 {
        let log = Arc::new(DirtyLog::of_heap(usize::from(input.byte()?) + 1));
        queue.set_log(Some(RingLog { log, used: Some(u64::from(input.word()?) << 4) }));
    }
    let (mut scratch, mut request) = (Scratch::default(), Request::new(&memory));
    loop {
        if step(input, &memory, &mut queue, &mut scratch, &mut request)?.is_err() {
            // The owner would end the session here.
            return tracked(input, &memory, &setup);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let _ = run(&mut Input(data));
});
