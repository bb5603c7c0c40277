//! Control on a made-up host: ports come up, carry frames, change, fail and go.

mod fail;
mod guests;
mod observe;
mod ports;
mod rig;
mod steering;
mod update;
