//! A storm: broadcasts of a third guest, beside a load between the near and the far one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tests::raw::RawSocket;
use tests::{Frame, Mac};

use crate::cpu;
use crate::lab::Lab;
use crate::number::whole;

/// The guest's end of the third port.
const END: &str = "g2";
/// EtherType for local experiments (IEEE 802). The ends' programs count such packets apart.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// Bytes of a broadcast without FCS.
const LEN: usize = 60;
/// How often a paced storm looks what is due.
const PACE: Duration = Duration::from_micros(200);
/// From this rate on it is as fast as the guest can.
pub const FULL_SPEED: f64 = 1e6;

/// A storm that rages until it is dropped.
#[derive(Debug)]
pub struct Storm {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Storm {
    /// Broadcasts, `pps` a second, from a station that is no other guest's. It is on the generator's CPU.
    ///
    /// # Errors
    /// The lab has no third guest.
    pub fn start(lab: &Lab, pps: f64) -> anyhow::Result<Self> {
        ensure!(lab.ports > 2, "a storm needs a third port");
        let socket = RawSocket::open(&lab.far, END);
        let mut frame = Frame::ethernet(Mac::stranger(1), Mac::BROADCAST);
        frame.0.extend(ETHERTYPE);
        frame.0.resize(LEN, 0);
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let rage = move || {
            cpu::pin(0, cpu::GENERATOR);
            let (start, mut sent) = (Instant::now(), 0);
            while !is_over.load(Ordering::Relaxed) {
                let due = if pps >= FULL_SPEED { sent + 64 } else { whole(start.elapsed().as_secs_f64() * pps) };
                while sent < due {
                    // A full queue is what a storm meets.
                    let _ = socket.try_send(&frame);
                    sent += 1;
                }
                if pps < FULL_SPEED {
                    std::thread::sleep(PACE);
                }
            }
        };
        let thread = std::thread::Builder::new().name("storm".to_owned()).spawn(rage).context("a thread")?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It has nothing to say: a panic of it was printed.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
