//! Captures in a series of files, with the names that SPP's `spp_pcap` gives.
//!
//! The name of an incomplete file ends in `.tmp`. A file gets its final name when it is complete, so that readers who
//! wait for that name find whole files. No file is ever replaced: a number that is taken is skipped.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::directory::Directory;
use super::pcap_writer::PcapWriter;
use super::state::{State, Way};
use super::{Sink, directory_error, file_error};
use crate::Error;
use crate::model::{CaptureFiles, CapturedFrame, Compression};

/// Lowest value of `limit`, in bytes.
const MIN_LIMIT: u64 = 1 << 20;

/// A file that is being written.
struct Current {
    writer: PcapWriter,
    temporary: String,
    name: String,
}

/// A capture that runs.
pub struct Capture {
    spec: CaptureFiles,
    directory: Directory,
    number: u32,
    /// `None` after a failure. Frames are dropped then.
    current: Option<Current>,
    state: Arc<State>,
}

impl Capture {
    /// Begins the first file.
    pub fn open(spec: &CaptureFiles, state: Arc<State>) -> Result<Self, Error> {
        let directory = check(spec)?;
        let mut this = Self { spec: spec.clone(), directory, number: 0, current: None, state };
        this.begin_file().map_err(|(path, error)| file_error("making", &path, &error))?;
        Ok(this)
    }

    /// Begins the file with the next free number.
    fn begin_file(&mut self) -> Result<(), (PathBuf, io::Error)> {
        self.directory.check_room().map_err(|error| (self.spec.directory.clone(), error))?;
        loop {
            self.number = self.number.saturating_add(1);
            let name = format!("{}.{}.pcap{}", self.spec.stem, self.number, suffix(self.spec.compression));
            let temporary = format!("{name}.tmp");
            if self.directory.has(&name) {
                continue;
            }
            let file = match self.directory.create(&temporary) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                file => file,
            };
            let writer = file.and_then(|file| PcapWriter::new(file, self.spec.compression, self.spec.snaplen));
            let writer = writer.map_err(|error| (self.directory.path_of(&temporary), error))?;
            self.state.add_file(self.directory.path_of(&name));
            self.current = Some(Current { writer, temporary, name });
            return Ok(());
        }
    }

    fn write_frame(&mut self, frame: &CapturedFrame) {
        if self.current.as_ref().is_some_and(|current| current.writer.written() >= self.spec.limit) {
            self.next_file();
        }
        let Some(current) = &mut self.current else {
            self.state.tx_dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if let Err(error) = current.writer.write(frame) {
            self.state.tx_dropped.fetch_add(1, Ordering::Relaxed);
            self.give_up(&error);
        }
    }

    fn next_file(&mut self) {
        let next = self.finish_file().and_then(|()| self.begin_file());
        if let Err((path, error)) = next {
            self.fail(&path, &error);
        }
    }

    /// Completes the current file, if there is one, and gives it its final name.
    fn finish_file(&mut self) -> Result<(), (PathBuf, io::Error)> {
        let Some(Current { writer, temporary, name }) = self.current.take() else { return Ok(()) };
        let named = writer.finish().and_then(|()| self.directory.rename(&temporary, &name));
        named.map_err(|error| (self.directory.path_of(&temporary), error))
    }

    /// Stops writing, and leaves the current file as it is.
    fn give_up(&mut self, error: &io::Error) {
        if let Some(Current { writer, temporary, .. }) = self.current.take() {
            writer.abandon();
            self.fail(&self.directory.path_of(&temporary), error);
        }
    }

    fn fail(&self, path: &Path, error: &io::Error) {
        let text = format!("the capture has stopped: writing {}: {error}; start it again", path.display());
        self.state.set_error(Way::Out, Some(text));
    }
}

impl Sink for Capture {
    fn write(&mut self, frames: &[CapturedFrame]) {
        for frame in frames {
            self.write_frame(frame);
        }
        if let Some(current) = &mut self.current
            && let Err(error) = current.writer.flush_if_due()
        {
            self.give_up(&error);
        }
    }

    fn finish(&mut self) {
        if let Err((path, error)) = self.finish_file() {
            self.fail(&path, &error);
        }
    }
}

/// Ending of file names.
fn suffix(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "",
        Compression::Lz4 => ".lz4",
        Compression::Zstd => ".zst",
    }
}

/// Checks the specification, and opens the capture's directory.
fn check(spec: &CaptureFiles) -> Result<Directory, Error> {
    let CaptureFiles { directory, within, stem, limit, snaplen, .. } = spec;
    if stem.is_empty() || stem.len() > 200 || stem.contains(['/', '\0']) {
        return Err(Error::invalid(format!("stem: `{stem}` can't begin a file's name: 1–200 bytes without `/` can")));
    }
    if *limit < MIN_LIMIT {
        return Err(Error::invalid(format!("limit: {limit} bytes are too few: at least {MIN_LIMIT}")));
    }
    if !(14..=65_535).contains(snaplen) {
        return Err(Error::invalid(format!("snaplen: {snaplen} is not within 14–65535")));
    }
    Directory::open(directory, within.as_deref()).map_err(|error| directory_error(directory, within.as_deref(), &error))
}
