//! A device that looks at no frame.

use switch::io::frame_rings::Rings;
use switch::io::memory::KernelRings;
use switch::io::umem::HEADROOM;

use super::{Bed, DEPTH, Device, FILL, FRAME_LEN, FRAME_SIZE, Traffic, Wire};
use crate::micro::fixtures::BURST;

/// In place of a worker: moves descriptors from ring to ring.
#[derive(Debug)]
pub struct PassThrough {
    from: Rings,
    to: Rings,
}

/// The same, with the kernel around it.
pub fn pass_through() -> Bed<PassThrough> {
    let (from, mut from_rings) = KernelRings::pair(DEPTH);
    let (to, to_rings) = KernelRings::pair(DEPTH);
    for index in 0..FILL {
        assert!(from_rings.fill.push(u64::from(index * FRAME_SIZE)));
    }
    from_rings.fill.submit();
    Bed::new(PassThrough { from: from_rings, to: to_rings }, vec![from, to])
}

impl Device for PassThrough {
    type Wire = KernelRings;

    fn turn(&mut self) {
        while let Some(addr) = self.to.completion.pop() {
            let pushed = self.from.fill.push(addr - u64::from(HEADROOM));
            debug_assert!(pushed);
        }
        self.to.completion.release();
        self.from.fill.submit();
        for _ in 0..BURST {
            let Some(desc) = self.from.rx.pop() else { break };
            let pushed = self.to.tx.push(desc);
            debug_assert!(pushed);
        }
        self.from.rx.release();
        self.to.tx.submit();
    }
}

/// Descriptors only: there are no frames behind them.
impl Wire for KernelRings {
    fn receive(&mut self, count: usize, _: Option<&mut Traffic>) {
        KernelRings::receive(self, count, |_| FRAME_LEN as u32);
    }

    fn transmit(&mut self) -> usize {
        KernelRings::transmit(self, |_| {})
    }
}
