//! A numbered stream between two guests, of which nothing may be lost while something else goes on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::Guest;
use crate::packet::Frame;

/// Time between two frames.
const PACE: Duration = Duration::from_micros(500);
/// Longest time that a frame takes.
const PATIENCE: Duration = Duration::from_secs(3);
/// Number of the stream in its frames.
const STREAM: u32 = 7;

/// Sends 2,000 frames a second from `a` to `b` while `work` runs. `work` is told whether frames still come in order,
/// and ends if they don't.
///
/// # Panics
/// If a frame was lost, or came out of order.
pub fn while_streaming(a: &Guest, b: &Guest, work: impl FnOnce(&dyn Fn() -> bool)) {
    let (from, to) = (a.raw(), b.raw());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let send = scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                from.send(&Frame::ethernet(a.mac, b.mac).stream(STREAM, number, 60));
                number += 1;
                std::thread::sleep(PACE);
            }
            number
        });
        let receive = scope.spawn(|| {
            let mut expected = 0;
            while let Some(frame) = to.recv_if(PATIENCE, |frame| frame.mark().is_some()) {
                let (_, number) = frame.mark().expect("a mark");
                assert_eq!(number, expected, "frames of the stream are lost");
                expected += 1;
            }
            expected
        });
        work(&|| !receive.is_finished());
        stop.store(true, Ordering::Relaxed);
        let sent = send.join().expect("the sender ends");
        assert_eq!(receive.join().expect("each frame came, in order"), sent);
    });
}
