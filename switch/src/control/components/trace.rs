//! Traces through components.

use std::sync::Arc;

use super::live::Live;
use crate::control::core::Core;
use crate::model::{OutsideSpec, TraceReport};
use crate::worker::component;
use crate::worker::view::PortShared;

/// Tells what would happen to a frame that came in by a queue of a port of components.
pub fn trace(core: &Core, live: &Live, port: &Arc<PortShared>, queue: u32, frame: &[u8]) -> TraceReport {
    let outside = |no: u32| match live.outside.get(&no).map(|outside| &outside.spec) {
        Some(OutsideSpec::Tap { ifname }) => format!("tap {ifname}"),
        Some(OutsideSpec::Pcap { tx: Some(file), .. }) => format!("file {}", file.display()),
        Some(OutsideSpec::Pcap { tx: None, .. }) => "no file".to_owned(),
        Some(OutsideSpec::Capture(files)) => format!("capture {}", files.directory.join(&files.stem).display()),
        None => format!("outside end {no}"),
    };
    let (set, view) = (core.shared.components.in_force(), core.shared.view.load_full());
    let context = component::TraceContext { set: &set, view: &view, now_ns: core.shared.now_ns(), outside: &outside };
    component::trace(&context, port, queue, frame)
}
