//! Captures: copies of the frames of ports.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Switch;
use crate::capture::Tap;
use crate::control::state::{Control, lock};
use crate::model::{CapturedFrame, Direction};
use crate::{Error, ErrorKind};

/// Captures at a time: each costs every frame of its ports a look.
const MAX_CAPTURES: usize = 32;

/// What to capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureRequest {
    /// Names of the ports; empty: all, also those added later.
    pub ports: Vec<String>,
    /// Only this direction; `None`: both.
    pub direction: Option<Direction>,
    /// Bytes kept of each frame, 14–65535.
    pub snaplen: u32,
}

/// A running capture; it ends when this is dropped.
#[derive(Debug)]
pub struct CaptureStream {
    tap: Arc<Tap>,
    control: Arc<Mutex<Control>>,
}

impl CaptureStream {
    /// Waits up to `timeout` for frames and returns those that came, oldest first; an empty vector after a timeout.
    pub fn recv(&mut self, timeout: Duration) -> Vec<CapturedFrame> {
        self.tap.receive(timeout)
    }

    /// Frames that matched and were not captured because the reader was too slow, since the start.
    pub fn missed(&self) -> u64 {
        self.tap.missed()
    }
}

impl Drop for CaptureStream {
    fn drop(&mut self) {
        let mut control = lock(&self.control);
        control.captures.retain(|tap| !Arc::ptr_eq(tap, &self.tap));
        control.publish();
    }
}

impl Switch {
    /// Starts a capture.
    pub fn capture(&self, request: CaptureRequest) -> Result<CaptureStream, Error> {
        if !(14..=65_535).contains(&request.snaplen) {
            return Err(Error::invalid(format!(
                "snaplen: {} is out of range, 14 to 65535 are possible",
                request.snaplen
            )));
        }
        let mut control = self.lock();
        for name in &request.ports {
            control.ports.find(name)?;
        }
        if control.captures.len() >= MAX_CAPTURES {
            return Err(Error::new(ErrorKind::Busy, format!("{MAX_CAPTURES} captures are running: end one first")));
        }
        let tap = Tap::new(request.ports, request.direction, request.snaplen as usize);
        control.captures.push(Arc::clone(&tap));
        control.publish();
        self.core.shared.quiesce();
        Ok(CaptureStream { tap, control: Arc::clone(&self.control) })
    }
}
