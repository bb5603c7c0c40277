//! Files in place of a port. Components receive the frames of one file. What they send is written to another.

use std::fs::{Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::unistd::geteuid;

use super::pcap_reader::{Next, PcapReader};
use super::pcap_writer::PcapWriter;
use super::state::{State, Way};
use super::{MODE, Sink, ToSwitch, file_error};
use crate::model::{CapturedFrame, Compression};
use crate::{Error, ErrorKind};

/// First and longest wait before a frame that found no room is offered again.
const RETRY: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(20));
/// Bytes kept of each frame. No frame is longer.
const SNAPLEN: u32 = 65_535;

/// Offers the frames of a file, until it ends or the end is stopped. Waits while there is no room.
pub fn play(path: &Path, mut file: PcapReader, mut to: Box<dyn ToSwitch>, state: &State) {
    let mut frame = Vec::new();
    let max = to.max_frame();
    while !state.stopping() {
        match file.next(&mut frame, max) {
            Ok(Next::Frame) => offer(&frame, to.as_mut(), state),
            Ok(Next::Skipped) => {
                state.rx_dropped.fetch_add(1, Ordering::Relaxed);
                let text = format!("{}: frames not of 14–{max} bytes, or not Ethernet's, are skipped", path.display());
                state.set_error(Way::In, Some(text));
            }
            Ok(Next::End) => return,
            Err(reason) => {
                state.set_error(Way::In, Some(format!("reading {}: {reason}; no more frames come", path.display())));
                return;
            }
        }
    }
}

fn offer(frame: &[u8], to: &mut dyn ToSwitch, state: &State) {
    let (mut wait, longest) = RETRY;
    while !to.offer(frame) && !state.stopping() {
        std::thread::sleep(wait);
        wait = (wait * 2).min(longest);
    }
}

/// The file that receives what components send.
pub struct Record {
    path: PathBuf,
    /// `None` after a failure. Frames are dropped then.
    writer: Option<PcapWriter>,
    state: Arc<State>,
}

impl Record {
    /// Begins the file. It replaces an existing one, but never `read`, which is being read.
    pub fn open(path: &Path, read: Option<&Path>, state: Arc<State>) -> Result<Self, Error> {
        let failed = |error| file_error("writing", path, &error);
        // Truncating waits until the file is known to be another one. Opening a named pipe would wait for its reader.
        // Links are not followed, because in a directory that everybody may write to, somebody else may have made them.
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).mode(MODE);
        let file = options.open(path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        if found.file_type().is_fifo() {
            return Err(Error::invalid(format!("{} is a named pipe: name a file", path.display())));
        }
        if let Some(read) = read {
            let read = read.metadata().map_err(|error| file_error("reading", read, &error))?;
            if (read.dev(), read.ino()) == (found.dev(), found.ino()) {
                return Err(Error::invalid(format!("{} can't be read and written: name two files", path.display())));
            }
        }
        if found.is_file() {
            check_owner(path, &found)?;
            file.set_len(0).map_err(failed)?;
        }
        let writer = PcapWriter::new(file, Compression::None, SNAPLEN).map_err(failed)?;
        Ok(Self { path: path.to_owned(), writer: Some(writer), state })
    }

    fn fail(&mut self, error: &io::Error) {
        if let Some(writer) = self.writer.take() {
            writer.abandon();
        }
        let text = format!("writing {}: {error}; frames are dropped", self.path.display());
        self.state.set_error(Way::Out, Some(text));
    }
}

/// Refuses an existing file that somebody else may have put there. In a directory that everybody may write to, it could
/// serve to read what guests send, or to have another of our files replaced.
fn check_owner(path: &Path, found: &Metadata) -> Result<(), Error> {
    let why = if ![0, geteuid().as_raw()].contains(&found.uid()) {
        "belongs to another user"
    } else if found.nlink() > 1 {
        "has other names"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Denied, format!("{} is there and {why}: it is not written; remove it", path.display())))
}

impl Sink for Record {
    fn write(&mut self, frames: &[CapturedFrame]) {
        for frame in frames {
            let written = match &mut self.writer {
                Some(writer) => writer.write(frame),
                None => {
                    self.state.tx_dropped.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            };
            if let Err(error) = written {
                self.state.tx_dropped.fetch_add(1, Ordering::Relaxed);
                self.fail(&error);
            }
        }
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.flush_if_due()
        {
            self.fail(&error);
        }
    }

    fn finish(&mut self) {
        if let Some(writer) = self.writer.take()
            && let Err(error) = writer.finish()
        {
            self.fail(&error);
        }
    }
}
