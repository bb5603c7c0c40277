//! Rings, and a socket over them.

use std::hint::black_box;
use std::sync::Arc;

use switch::io::ring::{Consumer, Desc, Producer, pair};
use switch::io::socket::XskSocket;
use switch::io::umem::{Frame, FrameCache};

use super::{BURSTS, Case, nothing};
use crate::micro::bed::{Kernel, socket, umem};
use crate::micro::fixtures::BURST;

const GROUP: &str = "rings";
const FRAMES: usize = BURSTS * BURST;

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

struct Socket {
    socket: XskSocket,
    kernel: Kernel,
    cache: FrameCache,
    frames: Vec<Frame>,
}

impl Socket {
    fn new() -> Self {
        let umem = umem();
        let (kernel, mut socket) = socket(&umem);
        let mut cache = FrameCache::new(Arc::clone(&umem));
        socket.refill(&mut cache);
        Self { socket, kernel, cache, frames: Vec::with_capacity(FRAMES) }
    }

    fn before_receive(&mut self) {
        self.frames.drain(..).for_each(|frame| self.cache.put(frame));
        self.kernel.deliver(FRAMES);
    }

    fn receive(&mut self) {
        for _ in 0..BURSTS {
            self.socket.receive(&mut self.frames, BURST);
            self.socket.refill(&mut self.cache);
        }
    }

    fn before_send(&mut self) {
        self.frames.extend(std::iter::from_fn(|| self.cache.take()).take(FRAMES));
    }

    fn send(&mut self) {
        for _ in 0..BURSTS {
            let sent = self.socket.send(BURST, &mut self.frames.drain(..BURST));
            debug_assert_eq!(sent, BURST);
            self.socket.flush();
            // The kernel's part is a loop over the burst of few instructions; it is in what is measured.
            self.kernel.transmit();
            self.socket.reap(&mut self.cache);
        }
    }
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(GROUP, "push, submit, pop, release", FRAMES, || pair(2048), nothing, through_a_ring),
        Case::new(GROUP, "socket: receive and refill", FRAMES, Socket::new, Socket::before_receive, Socket::receive),
        Case::new(GROUP, "socket: send, flush, reap", FRAMES, Socket::new, Socket::before_send, Socket::send),
    ]
}
