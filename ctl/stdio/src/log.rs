//! A log that never makes its writers wait. A thread of its own does the writing.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that wait to be written, at most. Further lines are lost.
const BACKLOG: usize = 1 << 20;
/// Time for a file that would block (`O_NONBLOCK`) to take a line.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause between two tries of that.
const PAUSE: Duration = Duration::from_millis(10);

/// The log of this process, for [`lost_lines`].
static STANDARD: OnceLock<Log> = OnceLock::new();

/// Lines that the log on standard error has lost since the start.
pub fn lost_lines() -> u64 {
    STANDARD.get().map_or(0, Log::lost)
}

/// The log. Clones share its thread. One write is one entry, which is written whole or lost.
#[derive(Clone, Debug)]
pub struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Signalled when an entry was added, and when all have been dealt with.
    changed: Condvar,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The thread is at work on entries that it has taken.
    busy: bool,
}

impl Log {
    /// The log on standard error. It is the one that [`lost_lines`] counts.
    ///
    /// # Errors
    /// If its thread can't be started.
    pub fn to_stderr() -> io::Result<Self> {
        let log = Self::start(io::stderr())?;
        Ok(STANDARD.get_or_init(|| log).clone())
    }

    /// A log that writes to `out`.
    fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let log = Self(Arc::default());
        let shared = Arc::clone(&log.0);
        let mut writer = Writer { out, torn: false };
        std::thread::Builder::new().name("xs-log".to_owned()).spawn(move || shared.work(&mut writer))?;
        Ok(log)
    }

    /// Adds an entry. Never waits for the file.
    pub fn add(&self, entry: &[u8]) {
        let mut queue = self.0.lock();
        if queue.bytes + entry.len() > BACKLOG {
            self.0.lose(entry);
            return;
        }
        queue.bytes += entry.len();
        queue.entries.push_back(entry.to_vec());
        drop(queue);
        self.0.changed.notify_all();
    }

    /// Waits until all entries have been written or lost, up to `timeout`.
    pub fn flush(&self, timeout: Duration) {
        let idle = |queue: &mut Queue| queue.busy || !queue.entries.is_empty();
        drop(self.0.changed.wait_timeout_while(self.0.lock(), timeout, idle));
    }

    /// Lines that were lost since the start.
    fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

impl Write for Log {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        self.add(entry);
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, entry: &[u8]) {
        let lines = entry.iter().filter(|byte| **byte == b'\n').count().max(1);
        self.lost.fetch_add(lines as u64, Ordering::Relaxed);
    }

    /// Writes entries as they come, for ever.
    fn work(&self, writer: &mut Writer<impl Write>) {
        let mut told = 0;
        loop {
            let waiting = |queue: &mut Queue| queue.entries.is_empty();
            let queue = self.changed.wait_while(self.lock(), waiting);
            let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
            let entries = std::mem::take(&mut queue.entries);
            (queue.bytes, queue.busy) = (0, true);
            drop(queue);
            for entry in entries {
                let lost = self.lost.load(Ordering::Relaxed);
                if lost > told && writer.put(format!("{} lines of this log were lost here\n", lost - told).as_bytes()) {
                    told = lost;
                }
                if !writer.put(&entry) {
                    self.lose(&entry);
                }
            }
            self.lock().busy = false;
            self.changed.notify_all();
        }
    }
}

struct Writer<W> {
    out: W,
    /// The file ends within a line, because the rest of it did not fit.
    torn: bool,
}

impl<W: Write> Writer<W> {
    /// Writes an entry. Returns whether all of it was written.
    fn put(&mut self, entry: &[u8]) -> bool {
        if self.torn && self.write(b"\n") == 0 {
            return false;
        }
        let written = self.write(entry);
        self.torn = written > 0 && written < entry.len();
        written == entry.len()
    }

    /// Writes as many bytes as possible, and returns their number.
    fn write(&mut self, entry: &[u8]) -> usize {
        let (mut at, end) = (0, Instant::now() + PATIENCE);
        while at < entry.len() {
            match self.out.write(&entry[at..]) {
                Ok(0) => break,
                Ok(bytes) => at += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < end => {
                    std::thread::sleep(PAUSE);
                }
                Err(_) => break,
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A file with a given room, whose reader may be gone.
    #[derive(Clone, Debug, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Disk {
        fn with_room(room: usize) -> Self {
            Self(Arc::new(Mutex::new((Vec::new(), room))))
        }

        fn set_room(&self, room: usize) {
            self.0.lock().unwrap().1 = room;
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (text, room) = &mut *self.0.lock().unwrap();
            let taken = bytes.len().min(*room);
            *room -= taken;
            text.extend(&bytes[..taken]);
            if taken == 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_do_not_fit_are_lost_counted_and_told() {
        let disk = Disk::with_room(11);
        let log = Log::start(disk.clone()).unwrap();
        for line in ["first\n", "second\n", "third\n", "two\nlines\n"] {
            log.add(line.as_bytes());
        }
        log.flush(LONG);
        assert_eq!((disk.text().as_str(), log.lost()), ("first\nsecon", 4));
        disk.set_room(1000);
        log.add(b"last\n");
        log.flush(LONG);
        assert_eq!(disk.text(), "first\nsecon\n4 lines of this log were lost here\nlast\n");
        assert_eq!(log.lost(), 4);
    }

    /// A pipe that nobody reads: each write waits for a permission.
    struct Stuck(Receiver<()>, Sender<Vec<u8>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(|_| ErrorKind::BrokenPipe)?;
            let _ = self.1.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_writer_never_waits_for_a_pipe_that_nobody_reads() {
        let ((go, wait), (sent, seen)) = (channel(), channel());
        let log = Log::start(Stuck(wait, sent)).unwrap();
        let line = [b'x'; 1023].iter().chain(b"\n").copied().collect::<Vec<_>>();
        for _ in 0..5000 {
            log.add(&line);
        }
        assert!(log.lost() >= 5000 - 2 * (BACKLOG as u64 / 1024), "{}", log.lost());
        log.flush(Duration::from_millis(1));
        go.send(()).unwrap();
        seen.recv().unwrap();
        // The reader goes away: everything else is lost. What was written may be the note that lines were lost.
        drop(go);
        log.flush(LONG);
        assert!((4999..=5000).contains(&log.lost()), "{}", log.lost());
    }
}
