//! A capture of the fake data plane.

use std::time::Duration;

use ctl_service::Capture;
use switch::model::CapturedFrame;

/// A capture that never gets a frame.
pub(crate) struct Nothing;

impl Capture for Nothing {
    fn receive(&mut self, timeout: Duration) -> Vec<CapturedFrame> {
        std::thread::sleep(timeout.min(Duration::from_millis(1)));
        Vec::new()
    }

    fn missed(&self) -> u64 {
        0
    }
}
