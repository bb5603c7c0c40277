//! The client: keeps each queue at its depth.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use disk::client::{Guest, Task};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tests::random::Random;

use super::Case;
use super::servers::Server;
use crate::results::DiskSample;

/// Does what a case says for so long, and gives figures. Sleeps while there is nothing to do. `seed` is not zero.
///
/// # Panics
/// A request fails, or the server hangs.
pub(super) fn run(guest: &mut Guest, case: &Case, server: &Server, span: Duration, seed: u64) -> DiskSample {
    let per = u64::from(case.bytes) / 512;
    let places = guest.sectors() / per;
    let (mut random, mut next) = (Random(seed), 0);
    let mut task = || {
        let place = if case.sequential { next } else { random.below(places) };
        next = (next + 1) % places;
        let sector = place * per;
        if case.write { Task::write_again(sector, case.bytes) } else { Task::read(sector, case.bytes) }
    };
    let mut began = vec![vec![Instant::now(); usize::from(case.depth)]; guest.queues.len()];
    let mut latencies: Vec<u32> = Vec::with_capacity(1 << 20);
    let start = Instant::now();
    let cpu = server.cpu_seconds();
    let mut stopping = false;
    loop {
        let mut idle = true;
        for (at, queue) in guest.queues.iter_mut().enumerate() {
            while let Some((number, status)) = queue.collect(|_| None) {
                assert_eq!(status, 0, "a request has failed");
                let took = began[at][usize::from(number)].elapsed().as_nanos();
                latencies.push(u32::try_from(took).unwrap_or(u32::MAX));
                idle = false;
            }
            if !stopping {
                while let Some(number) = queue.add(&task()) {
                    began[at][usize::from(number)] = Instant::now();
                    idle = false;
                }
                queue.publish();
            }
        }
        stopping |= start.elapsed() >= span;
        if stopping && guest.queues.iter().all(|queue| queue.in_flight() == 0) {
            break;
        }
        if !idle {
            continue;
        }
        let mut ready = false;
        guest.queues.iter_mut().for_each(|queue| ready |= queue.enable_calls());
        if !ready {
            let calls: Vec<BorrowedFd<'_>> = guest.queues.iter().map(|queue| queue.call()).collect();
            let mut fds: Vec<_> = calls.into_iter().map(|call| PollFd::new(call, PollFlags::POLLIN)).collect();
            let most = PollTimeout::try_from(Duration::from_secs(5)).unwrap_or(PollTimeout::MAX);
            assert!(poll(&mut fds, most).is_ok_and(|count| count > 0), "the back end hangs");
        }
        guest.queues.iter_mut().for_each(|queue| queue.take_call());
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu = (server.cpu_seconds() - cpu).max(0.0);
    latencies.sort_unstable();
    let count = latencies.len();
    let at = |part: usize| latencies.get(count * part / 100).map_or(0.0, |ns| f64::from(*ns) / 1e3);
    DiskSample { per_second: count as f64 / seconds, cpu: cpu * 1e6 / count.max(1) as f64, p50: at(50), p99: at(99) }
}
