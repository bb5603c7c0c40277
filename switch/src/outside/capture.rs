//! Captures in files one after another, named as SPP's `spp_pcap` names them.
//!
//! While a file is written its name ends in `.tmp`; it gets its own name when it is complete, so that whoever waits for
//! files of that name finds whole ones. No file is ever replaced: a number that is taken is passed over.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::pcap_writer::PcapWriter;
use super::state::{State, Way};
use super::{MODE, Sink, file_error};
use crate::model::{CaptureFiles, CapturedFrame, Compression};
use crate::{Error, ErrorKind};

/// Least value of `limit`.
const MIN_LIMIT: u64 = 1 << 20;

/// A file that is being written.
struct Current {
    writer: PcapWriter,
    temporary: PathBuf,
    path: PathBuf,
}

/// A capture that runs.
pub struct Capture {
    spec: CaptureFiles,
    number: u32,
    /// `None`: something went wrong, and frames are dropped.
    current: Option<Current>,
    state: Arc<State>,
}

impl Capture {
    /// Begins the first file.
    pub fn open(spec: &CaptureFiles, state: Arc<State>) -> Result<Self, Error> {
        check(spec)?;
        let mut this = Self { spec: spec.clone(), number: 0, current: None, state };
        this.begin_file().map_err(|(path, error)| file_error("making", &path, &error))?;
        Ok(this)
    }

    /// Begins the file of the next number that is free.
    fn begin_file(&mut self) -> Result<(), (PathBuf, io::Error)> {
        loop {
            self.number = self.number.saturating_add(1);
            let name = format!("{}.{}.pcap{}", self.spec.stem, self.number, suffix(self.spec.compression));
            let path = self.spec.directory.join(&name);
            let temporary = self.spec.directory.join(name + ".tmp");
            if fs::symlink_metadata(&path).is_ok() {
                continue;
            }
            let file = match OpenOptions::new().write(true).create_new(true).mode(MODE).open(&temporary) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                file => file,
            };
            let writer = file.and_then(|file| PcapWriter::new(file, self.spec.compression, self.spec.snaplen));
            let writer = writer.map_err(|error| (temporary.clone(), error))?;
            self.state.add_file(path.clone());
            self.current = Some(Current { writer, temporary, path });
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

    /// Completes the current file, if there is one, and names it.
    fn finish_file(&mut self) -> Result<(), (PathBuf, io::Error)> {
        let Some(Current { writer, temporary, path }) = self.current.take() else { return Ok(()) };
        writer.finish().and_then(|()| rename(&temporary, &path)).map_err(|error| (temporary, error))
    }

    /// Leaves the current file as it is.
    fn give_up(&mut self, error: &io::Error) {
        if let Some(Current { writer, temporary, .. }) = self.current.take() {
            writer.abandon();
            self.fail(&temporary, error);
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

/// What the names of files end with.
fn suffix(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "",
        Compression::Lz4 => ".lz4",
        Compression::Zstd => ".zst",
    }
}

fn check(spec: &CaptureFiles) -> Result<(), Error> {
    let CaptureFiles { directory, stem, limit, snaplen, .. } = spec;
    if stem.is_empty() || stem.len() > 200 || stem.contains(['/', '\0']) {
        return Err(Error::invalid(format!("stem: `{stem}` can't begin a file's name: 1–200 bytes without `/` can")));
    }
    if *limit < MIN_LIMIT {
        return Err(Error::invalid(format!("limit: {limit} bytes are too few: at least {MIN_LIMIT}")));
    }
    if !(14..=65_535).contains(snaplen) {
        return Err(Error::invalid(format!("snaplen: {snaplen} is not within 14–65535")));
    }
    match fs::metadata(directory) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(Error::invalid(format!("directory: {} is no directory", directory.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = format!("directory: {} is not there: make it, or name another", directory.display());
            Err(Error::new(ErrorKind::NotFound, text))
        }
        Err(error) => Err(file_error("looking at", directory, &error)),
    }
}

/// Names a file unless there is one of that name.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        // This file system can't (NFS, for one): the gap between looking and naming is small.
        Err(Errno::EINVAL) if fs::symlink_metadata(to).is_err() => fs::rename(from, to),
        Err(Errno::EINVAL) => Err(Errno::EEXIST.into()),
        result => Ok(result?),
    }
}
