//! A driver and a device on two threads, which sleep when there is nothing to do. A notification that is missed lets
//! the test hang.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::*;

/// Chains of a run.
const CHAINS: u64 = if cfg!(miri) { 40 } else { 60_000 };
/// A thread that sleeps for so long has missed a notification.
const TOO_LONG: Duration = Duration::from_secs(60);

struct Bell(EventFd);

impl Bell {
    fn new() -> Self {
        Self(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).unwrap())
    }

    fn ring(&self) {
        self.0.write(1).unwrap();
    }

    fn wait(&self, what: &str) {
        let timeout = PollTimeout::try_from(TOO_LONG).unwrap();
        let ready = poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout).unwrap();
        assert_eq!(ready, 1, "{what} was missed");
        self.0.read().unwrap();
    }
}

/// The device adds one to each number, and writes it back. Number 0 ends it.
fn device(memory: &Arc<GuestMemory>, setup: &RingSetup, kick: &Bell, call: &Bell) {
    let (mut scratch, start) = (Scratch::default(), Position::start(setup.features));
    let mut queue = Queue::new(memory, setup, start).unwrap();
    let mut expected = 1;
    loop {
        queue.disable_kicks();
        loop {
            let mut burst = queue.burst(&mut scratch, 16).unwrap();
            if burst.is_empty() {
                break;
            }
            while let Some(chain) = burst.chain(0) {
                let number = u64::from_le_bytes(chain.reader().read_array().unwrap());
                chain.writer().write(&(number + 1).to_le_bytes());
                burst.advance(8);
                if number == 0 {
                    burst.finish().unwrap();
                    call.ring();
                    return;
                }
                assert_eq!(number, expected);
                expected += 1;
            }
            burst.finish().unwrap();
            if queue.needs_call() {
                call.ring();
            }
        }
        if !queue.enable_kicks().unwrap() {
            kick.wait("a kick");
        }
    }
}

fn driver(mut driver: Driver, memory: &GuestMemory, room: u64, kick: &Bell, call: &Bell) {
    let (mut next, mut back) = (1, 1);
    let buffers = |number: u64| {
        let guest = room + number % 256 * 16;
        [Buffer { guest, len: 8, writable: false }, Buffer { guest: guest + 8, len: 8, writable: true }]
    };
    while back <= CHAINS {
        driver.disable_calls();
        while next <= CHAINS && next < back + 200 && driver.add(&buffers(next), next, false) {
            memory.write(buffers(next)[0].guest, &next.to_le_bytes()).unwrap();
            next += 1;
            // Bursts of one to seven.
            if next % 7 == next / 7 % 7 && driver.publish() {
                kick.ring();
            }
        }
        if driver.publish() {
            kick.ring();
        }
        let mut some = false;
        while let Some(used) = driver.collect() {
            assert_eq!((used.token, used.len), (back, Some(8)));
            let mut bytes = [0; 8];
            memory.read(buffers(back)[1].guest, &mut bytes).unwrap();
            assert_eq!(u64::from_le_bytes(bytes), back + 1);
            back += 1;
            some = true;
        }
        if !some && back <= CHAINS && !driver.enable_calls() {
            call.wait("a call");
        }
    }
    memory.write(room, &[0; 8]).unwrap();
    assert!(driver.add(&buffers(0), 0, false));
    driver.publish();
    kick.ring();
}

#[test]
#[cfg_attr(miri, ignore = "waits for descriptors")]
fn no_chain_and_no_notification_is_lost_between_threads() {
    for features in KINDS {
        for features in [features, features | F_IN_ORDER] {
            let memory = memory(BYTES).unwrap();
            let start = Position::start(RingFeatures::of_bits(features));
            // A packed ring need not be a power of two.
            let size = if features & F_PACKED == 0 { 64 } else { 61 };
            let guest = Driver::new(&memory, GUEST, shape(size, features), start);
            let (setup, room) = (*guest.setup(), guest.end());
            let (kick, call) = (Bell::new(), Bell::new());
            std::thread::scope(|scope| {
                scope.spawn(|| device(&memory, &setup, &kick, &call));
                driver(guest, &memory, room, &kick, &call);
            });
        }
    }
}
