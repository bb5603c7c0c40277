//! Nothing on a frame's path allocates.

use std::hint::black_box;

use bench::micro::allocations::{CountingAllocator, count};
use bench::micro::steps::cases;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Runs of a step before it is watched. Buffers have their final size by then.
const WARM_UP: usize = 4;

#[test]
fn no_step_allocates_once_it_is_warm() {
    let before = count();
    drop(black_box(Box::new(1)));
    assert_eq!(count() - before, 1, "allocations are not counted");
    for case in cases() {
        let mut step = case.make();
        for _ in 0..WARM_UP {
            step.prepare();
            step.run();
        }
        for _ in 0..8 {
            step.prepare();
            let before = count();
            step.run();
            assert_eq!(count() - before, 0, "{case:?}");
        }
    }
}
