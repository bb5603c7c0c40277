//! The two queues of an outside end, as its threads have them.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Receiver;

use super::live::LiveOutside;
use crate::Error;
use crate::control::core::Core;
use crate::control::gate::FrameGate;
use crate::io::umem::{Frame, HEADROOM, MOST_CHUNKS};
use crate::model::{CapturedFrame, OutsideSpec};
use crate::outside::{FromSwitch, OutsideThread, ToSwitch};
use crate::worker::ends::{OutsideEnd, Ring};
use crate::worker::shared::Shared;

/// Frames that a thread takes at once at most.
const BATCH: usize = 1024;
/// Bytes kept of a frame if nothing says how many: all.
const WHOLE: usize = u16::MAX as usize;

/// Opens an outside end.
pub fn open(core: &Core, no: u32, spec: OutsideSpec) -> Result<LiveOutside, Error> {
    let (end, to, from) = queues(core, no, &spec);
    let thread = OutsideThread::start(&spec, &*core.host, Box::new(to), Box::new(from))?;
    Ok(LiveOutside { spec, end: Arc::new(end), thread })
}

/// Makes the queues of an outside end.
pub fn queues(core: &Core, no: u32, spec: &OutsideSpec) -> (OutsideEnd, ToComponents, FromComponents) {
    let snaplen = match spec {
        OutsideSpec::Capture(files) => files.snaplen as usize,
        OutsideSpec::Tap { .. } | OutsideSpec::Pcap { .. } => WHOLE,
    };
    let (end, queue) = OutsideEnd::new(no, snaplen);
    let (shared, gate, ring) = (Arc::clone(&core.shared), Arc::clone(&core.gate), Arc::clone(&end.input));
    (end, ToComponents { shared, gate, ring, frames: Vec::new() }, FromComponents { queue })
}

/// Towards components.
pub struct ToComponents {
    shared: Arc<Shared>,
    gate: Arc<FrameGate>,
    ring: Arc<Ring>,
    /// Empty between two frames.
    frames: Vec<Frame>,
}

impl ToSwitch for ToComponents {
    fn offer(&mut self, frame: &[u8]) -> bool {
        if self.ring.is_full() || frame.len() > self.max_frame() {
            return false;
        }
        // As for frames that packet sockets bring: an audit that closes the gate finds each frame in the cache or
        // in the ring.
        let mut cache = self.gate.pass();
        let Some(taken) = cache.write_packet(frame) else { return false };
        self.frames.push(taken);
        self.ring.put(&mut self.frames);
        let fits = self.frames.is_empty();
        self.frames.drain(..).for_each(|frame| cache.put(frame));
        drop(cache);
        self.shared.wake_reader(&self.ring);
        fits
    }

    fn max_frame(&self) -> usize {
        (self.shared.umem.frame_size() - HEADROOM) as usize * MOST_CHUNKS
    }
}

/// From components.
pub struct FromComponents {
    queue: Receiver<CapturedFrame>,
}

impl FromSwitch for FromComponents {
    fn take(&mut self, timeout: Duration) -> Vec<CapturedFrame> {
        let first = self.queue.recv_timeout(timeout).ok();
        first.into_iter().chain(self.queue.try_iter()).take(BATCH).collect()
    }
}
