//! Rings, and a queue over them.

use std::hint::black_box;
use std::sync::Arc;

use switch::io::backend::Backend;
use switch::io::memory::MemoryKernel;
use switch::io::queue_rings::RingMemory;
use switch::io::ring::{Consumer, Desc, Producer, pair};
use switch::io::umem::{Frame, FrameCache};
use switch::model::OWN_UMEM_FRAMES;

use super::{BURSTS, Case, nothing};
use crate::micro::bed::{SHARED, Wire, queue, umem};
use crate::micro::fixtures::BURST;

const GROUP: &str = "rings";
const FRAMES: usize = BURSTS * BURST;
/// Frames that a queue with memory of its own can have received.
const OWN_FRAMES: usize = OWN_UMEM_FRAMES as usize / 2;

fn through_a_ring((producer, consumer): &mut (Producer<Desc>, Consumer<Desc>)) {
    for _ in 0..BURSTS {
        for addr in 0..BURST as u64 {
            black_box(producer.push(Desc { addr, len: 60, options: 0 }));
        }
        producer.submit();
        while let Some(desc) = consumer.pop() {
            black_box(desc);
        }
        consumer.release();
    }
}

struct Queue {
    backend: Backend,
    kernel: MemoryKernel,
    cache: FrameCache,
    frames: Vec<Frame>,
    /// Bursts that it can have received.
    bursts: usize,
}

impl Queue {
    fn new(memory: RingMemory) -> Self {
        let umem = umem();
        let bursts = match memory {
            RingMemory::Shared { .. } => BURSTS,
            RingMemory::Own => OWN_FRAMES / BURST,
        };
        let (mut backend, kernel) = queue(&umem, memory);
        let mut cache = FrameCache::new(Arc::clone(&umem));
        backend.refill(&mut cache);
        Self { backend, kernel, cache, frames: Vec::with_capacity(FRAMES), bursts }
    }

    fn before_receive(&mut self) {
        self.frames.drain(..).for_each(|frame| self.cache.put(frame));
        Wire::receive(&mut self.kernel, FRAMES, None);
    }

    fn receive(&mut self) {
        for _ in 0..self.bursts {
            self.backend.receive(&mut self.frames, BURST, &mut self.cache);
            self.backend.refill(&mut self.cache);
        }
    }

    fn before_send(&mut self) {
        self.frames.extend(std::iter::from_fn(|| self.cache.take()).take(FRAMES));
    }

    fn send(&mut self) {
        for _ in 0..BURSTS {
            // The last ones: no frame moves up.
            let rest = self.frames.len() - BURST;
            let sent = self.backend.send(BURST, &mut self.frames.drain(rest..), &mut self.cache);
            debug_assert_eq!(sent, BURST);
            self.backend.flush();
            // The kernel's part is a loop of few instructions over the burst. It is part of what is measured.
            Wire::transmit(&mut self.kernel);
            self.backend.reap(&mut self.cache);
        }
    }
}

fn shared() -> Queue {
    Queue::new(SHARED)
}

fn own() -> Queue {
    Queue::new(RingMemory::Own)
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(GROUP, "push, submit, pop, release", FRAMES, || pair(2048), nothing, through_a_ring),
        Case::new(GROUP, "socket: receive and refill", FRAMES, shared, Queue::before_receive, Queue::receive),
        Case::new(GROUP, "socket: send, flush, reap", FRAMES, shared, Queue::before_send, Queue::send),
        Case::new(GROUP, "own memory: receive and refill", OWN_FRAMES, own, Queue::before_receive, Queue::receive),
        Case::new(GROUP, "own memory: send, flush, reap", FRAMES, own, Queue::before_send, Queue::send),
    ]
}
