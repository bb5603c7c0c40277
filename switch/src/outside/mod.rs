//! Outside ends: threads that move frames between components and what is not the switch, a tap device of the host or files.
//!
//! A worker and the thread of an end share nothing but two queues, one each way, which are made elsewhere: this module knows them
//! as [`ToSwitch`] and [`FromSwitch`]. Workers never wait for a thread here, and a thread that has trouble outside (a full disk, a
//! tap that was deleted) says so in [`OutsideThread::error`] and goes on taking what components send, so that they go on too.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::Error;
use crate::io::umem::HEADROOM;
use crate::model::{CapturedFrame, OutsideSpec};

/// Bytes of the longest frame unless the queue knows better: what fits into the largest UMEM frame, behind its headroom.
const MAX_FRAME: usize = 4096 - HEADROOM as usize;

/// The queue towards components.
pub trait ToSwitch: Send {
    /// Offers a frame; false: there is no room now. It may be offered again, or dropped.
    fn offer(&mut self, frame: &[u8]) -> bool;

    /// Bytes of the longest frame that can ever have room. Longer ones are not offered.
    fn max_frame(&self) -> usize {
        MAX_FRAME
    }
}

/// The queue from components.
pub trait FromSwitch: Send {
    /// Takes the frames that are there, oldest first; if there are none it waits up to `timeout` for the first one.
    fn take(&mut self, timeout: Duration) -> Vec<CapturedFrame>;
}

/// The thread, or the threads, of an outside end. They stop, in the same way as by [`OutsideThread::stop`], when it is dropped.
#[derive(Debug)]
pub struct OutsideThread {
    state: Arc<()>,
}

impl OutsideThread {
    /// Opens what `spec` names and starts moving frames.
    ///
    /// # Errors
    /// `Invalid`: a value or file that can't be; `NotFound`: no such file or directory; `Busy`: the tap's name is taken; `Denied`:
    /// no permission; `Unsupported`: the kernel has no taps; `System`: anything else that the system refused.
    pub fn start(spec: &OutsideSpec, to: Box<dyn ToSwitch>, from: Box<dyn FromSwitch>) -> Result<Self, Error> {
        let _ = (spec, to, from);
        Ok(Self { state: Arc::new(()) })
    }

    /// Stops it: what is in the queue from components is written first, files are finished, a tap is gone. Returns what went
    /// wrong outside, as [`OutsideThread::error`]. The queue must have no more senders.
    pub fn stop(self) -> Option<String> {
        self.error()
    }

    /// Capture: the files written so far, the current one last.
    pub fn files(&self) -> Vec<PathBuf> {
        let _ = &self.state;
        Vec::new()
    }

    /// What went wrong outside, if something has.
    pub fn error(&self) -> Option<String> {
        None
    }

    /// Frames from outside that were dropped: the queue had no room (tap), or they were too long or too short to be offered.
    pub fn rx_dropped(&self) -> u64 {
        0
    }

    /// Frames taken from components that could not be written outside.
    pub fn tx_dropped(&self) -> u64 {
        0
    }
}
