//! Outside ends: threads that move frames between components and a tap device of the host, or files.
//!
//! A worker and the threads of an end share only two queues, one in each direction. The queues are made elsewhere, and
//! known here as [`ToSwitch`] and [`FromSwitch`]. Workers never wait for a thread here. A thread with trouble outside
//! (a full disk, a deleted tap) reports it in [`OutsideThread::error`]. It goes on taking what components send, so that
//! they go on too.

mod capture;
mod directory;
mod pcap_port;
mod pcap_reader;
mod pcap_writer;
mod state;
mod tap;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use self::capture::Capture;
use self::directory::Directory;
use self::pcap_port::Record;
use self::pcap_reader::PcapReader;
use self::state::State;
use self::tap::{TapDevice, TapSink};
use crate::host::Netdevs;
use crate::io::umem::HEADROOM;
use crate::model::{CapturedFrame, OutsideSpec};
use crate::{Error, ErrorKind};

/// Permissions of new files. Others may not read them, because they hold what guests sent.
const MODE: u32 = 0o640;
/// Bytes of the longest frame, unless the queue knows better. It fits into the largest UMEM chunk, behind its headroom.
const MAX_FRAME: usize = 4096 - HEADROOM as usize;
/// How long a thread waits for frames before it checks for a stop or a flush.
const TAKE_TIMEOUT: Duration = Duration::from_millis(100);

/// The queue towards components.
pub trait ToSwitch: Send {
    /// Offers a frame. False if there is no room at the moment. It may be offered again, or dropped.
    fn offer(&mut self, frame: &[u8]) -> bool;

    /// Bytes of the longest frame that the queue can take. Longer ones are not offered.
    fn max_frame(&self) -> usize {
        MAX_FRAME
    }
}

/// The queue from components.
pub trait FromSwitch: Send {
    /// Takes the waiting frames, oldest first. If there are none, it waits up to `timeout` for the first one.
    fn take(&mut self, timeout: Duration) -> Vec<CapturedFrame>;
}

/// A destination of frames from components.
trait Sink: Send {
    /// Writes frames as far as possible. It is called without frames from time to time, to flush.
    fn write(&mut self, frames: &[CapturedFrame]);

    /// Ends the output. No more frames come.
    fn finish(&mut self);
}

/// Discards frames.
struct Forget;

impl Sink for Forget {
    fn write(&mut self, _: &[CapturedFrame]) {}

    fn finish(&mut self) {}
}

/// The threads of an outside end. A drop stops them as [`OutsideThread::stop`] does.
#[derive(Debug)]
pub struct OutsideThread {
    state: Arc<State>,
    tap: Option<Arc<TapDevice>>,
    threads: Vec<JoinHandle<()>>,
}

impl OutsideThread {
    /// Opens what `spec` names, and starts moving frames. A tap is made in the network namespace of the calling thread.
    ///
    /// # Errors
    /// - `Invalid`: a value or a file is not valid.
    /// - `NotFound`: no such file or directory.
    /// - `Busy`: the tap's name is taken.
    /// - `Denied`: no permission.
    /// - `Unsupported`: the kernel has no taps.
    /// - `System`: the system refused for another reason.
    pub fn start(
        spec: &OutsideSpec,
        host: &dyn Netdevs,
        to: Box<dyn ToSwitch>,
        from: Box<dyn FromSwitch>,
    ) -> Result<Self, Error> {
        let state = Arc::new(State::default());
        let mut this = Self { state: Arc::clone(&state), tap: None, threads: Vec::new() };
        let sink: Box<dyn Sink> = match spec {
            OutsideSpec::Tap { ifname } => {
                let tap = Arc::new(TapDevice::create(host, ifname)?);
                this.tap = Some(Arc::clone(&tap));
                let (reader, state) = (Arc::clone(&tap), Arc::clone(&state));
                this.spawn("xs-tap-in", move || reader.read(to, &state))?;
                Box::new(TapSink::new(tap, Arc::clone(&this.state)))
            }
            OutsideSpec::Pcap { rx, tx } => {
                let reader = rx.as_deref().map(|path| PcapReader::open(path).map(|reader| (path.to_owned(), reader)));
                let reader = reader.transpose()?;
                let sink: Box<dyn Sink> = match tx {
                    Some(path) => Box::new(Record::open(path, rx.as_deref(), Arc::clone(&state))?),
                    None => Box::new(Forget),
                };
                if let Some((path, reader)) = reader {
                    this.spawn("xs-pcap-in", move || pcap_port::play(&path, reader, to, &state))?;
                }
                sink
            }
            OutsideSpec::Capture(files) => Box::new(Capture::open(files, state)?),
        };
        let state = Arc::clone(&this.state);
        this.spawn("xs-outside", move || drain(from, sink, &state))?;
        Ok(this)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let thread = Builder::new().name(name.to_owned()).spawn(work);
        let thread = thread.map_err(|error| Error::new(ErrorKind::System, format!("starting a thread: {error}")))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Stops the end. The queue from components is written out first, files are completed, and a tap goes. The queue
    /// must have no more senders. Returns what went wrong outside, as [`OutsideThread::error`].
    pub fn stop(mut self) -> Option<String> {
        self.join();
        self.error()
    }

    fn join(&mut self) {
        self.state.stop();
        if let Some(tap) = &self.tap {
            tap.wake();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.tap = None;
    }

    /// Files of a capture so far. The current one comes last. `.tmp` follows its name on disk until it is complete.
    pub fn files(&self) -> Vec<PathBuf> {
        self.state.files()
    }

    /// What went wrong outside, if something has.
    pub fn error(&self) -> Option<String> {
        self.state.error()
    }

    /// Frames from outside that were dropped. A tap's frame found no room in the queue, or a frame was too long or too
    /// short.
    pub fn rx_dropped(&self) -> u64 {
        self.state.rx_dropped.load(Ordering::Relaxed)
    }

    /// Frames taken from components that could not be written outside.
    pub fn tx_dropped(&self) -> u64 {
        self.state.tx_dropped.load(Ordering::Relaxed)
    }
}

impl Drop for OutsideThread {
    fn drop(&mut self) {
        self.join();
    }
}

/// Moves frames from components to `sink`, until a stop is asked for and the queue is empty.
fn drain(mut from: Box<dyn FromSwitch>, mut sink: Box<dyn Sink>, state: &State) {
    loop {
        // The flag is read before the queue, so frames sent before the stop are still taken.
        let stopping = state.stopping();
        let frames = from.take(if stopping { Duration::ZERO } else { TAKE_TIMEOUT });
        if stopping && frames.is_empty() {
            return sink.finish();
        }
        sink.write(&frames);
    }
}

/// Checks that captures can be written to the directory `path`, which must lie in `within` if that is given.
///
/// # Errors
/// - `NotFound`: there is no such directory.
/// - `Invalid`: it is no directory.
/// - `Denied`: it is not below `within`, or not accessible.
pub fn check_directory(path: &Path, within: Option<&Path>) -> Result<(), Error> {
    Directory::open(path, within).map(drop).map_err(|error| directory_error(path, within, &error))
}

/// An error of a capture's directory.
fn directory_error(path: &Path, within: Option<&Path>, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotADirectory => Error::invalid(format!("directory: {} is no directory", path.display())),
        io::ErrorKind::NotFound => {
            let text = format!("directory: {} is not there: make it, or name another", path.display());
            Error::new(ErrorKind::NotFound, text)
        }
        io::ErrorKind::CrossesDevices => {
            let root = within.unwrap_or(path).display();
            Error::new(ErrorKind::Denied, format!("directory: {} is not below {root}", path.display()))
        }
        _ => file_error("opening", path, error),
    }
}

/// An error of a file: what was being done with it, why it failed, and what to do.
fn file_error(doing: &str, path: &Path, error: &io::Error) -> Error {
    let (kind, advice) = match error.kind() {
        _ if error.raw_os_error() == Some(libc::ELOOP) => (ErrorKind::Denied, ": it is a link, which is not followed"),
        io::ErrorKind::NotFound => (ErrorKind::NotFound, ""),
        io::ErrorKind::PermissionDenied => (ErrorKind::Denied, ": the daemon's user must be allowed to"),
        _ => (ErrorKind::System, ""),
    };
    Error::new(kind, format!("{doing} {}: {error}{advice}", path.display()))
}
