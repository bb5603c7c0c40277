//! Writes a classic pcap file, through a compressor if one is asked for.
//!
//! Timestamps are in nanoseconds, because frames come less than a microsecond apart. Readers of pcap files know this
//! form (magic 0xa1b23c4d) since libpcap 1.5 of 2013. The crate pcap-file writes the records.
//!
//! A frame on its way to the disk waits in one of two buffers, here or in the compressor. [`PcapWriter::flush`] empties
//! both, so that a reader understands the file so far.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use byteorder::NativeEndian;
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use nix::sys::statvfs::fstatvfs;
use pcap_file::pcap::{PcapHeader, RawPcapPacket};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};

use crate::model::{CapturedFrame, Compression};

/// Longest time that a frame waits in buffers.
const FLUSH_AFTER: Duration = Duration::from_secs(1);
/// Bytes of the buffer in front of the compressor or the file.
const BUFFER: usize = 128 << 10;
/// Bytes of a record's header.
const RECORD_HEADER: u64 = 16;
/// Bytes of a file's header.
const FILE_HEADER: u64 = 24;
/// Bytes written between two checks for room on the disk.
const LOOK_AFTER: u64 = 16 << 20;
/// Error kind for too little room left to others. A disk that is really full gives the system's `StorageFull`.
const QUOTA: io::ErrorKind = io::ErrorKind::QuotaExceeded;
/// Zstandard's own default.
const ZSTD_LEVEL: i32 = 3;

/// The stage between the buffer and the file.
enum Form {
    Plain(File),
    Lz4(Box<FrameEncoder<File>>),
    Zstd(zstd::Encoder<'static, File>),
}

impl Form {
    fn new(file: File, compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Form::Plain(file),
            // The same blocks as SPP uses.
            Compression::Lz4 => {
                let info = FrameInfo::new().block_size(BlockSize::Max256KB).block_mode(BlockMode::Linked);
                Form::Lz4(Box::new(FrameEncoder::with_frame_info(info, file)))
            }
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(file, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                Form::Zstd(encoder)
            }
        })
    }

    fn file(&self) -> &File {
        match self {
            Form::Plain(file) => file,
            Form::Lz4(encoder) => encoder.get_ref(),
            Form::Zstd(encoder) => encoder.get_ref(),
        }
    }

    fn finish(self) -> io::Result<File> {
        match self {
            Form::Plain(file) => Ok(file),
            Form::Lz4(encoder) => encoder.finish().map_err(io::Error::other),
            Form::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl Write for Form {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Form::Plain(file) => file.write(bytes),
            Form::Lz4(encoder) => encoder.write(bytes),
            Form::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Form::Plain(file) => file.flush(),
            Form::Lz4(encoder) => encoder.flush(),
            Form::Zstd(encoder) => encoder.flush(),
        }
    }
}

/// A pcap file that is being written.
pub struct PcapWriter {
    out: BufWriter<Form>,
    snaplen: u32,
    written: u64,
    /// Value of `written` at the last check for room.
    looked_at: u64,
    waiting_since: Option<Instant>,
}

impl PcapWriter {
    /// Begins an empty file. It keeps the first `snaplen` bytes of each frame.
    pub fn new(file: File, compression: Compression, snaplen: u32) -> io::Result<Self> {
        let mut out = BufWriter::with_capacity(BUFFER, Form::new(file, compression)?);
        let header = PcapHeader {
            snaplen,
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::native(),
            ..PcapHeader::default()
        };
        header.write_to(&mut out).map_err(to_io)?;
        Ok(Self { out, snaplen, written: FILE_HEADER, looked_at: 0, waiting_since: Some(Instant::now()) })
    }

    /// Writes a frame.
    pub fn write(&mut self, frame: &CapturedFrame) -> io::Result<()> {
        const NANOSECONDS: u64 = 1_000_000_000;
        let kept = u32::try_from(frame.data.len()).unwrap_or(u32::MAX).min(self.snaplen);
        let record = RawPcapPacket {
            ts_sec: u32::try_from(frame.timestamp_ns / NANOSECONDS).unwrap_or(u32::MAX),
            ts_frac: (frame.timestamp_ns % NANOSECONDS) as u32,
            incl_len: kept,
            orig_len: frame.wire_len,
            data: Cow::Borrowed(&frame.data[..kept as usize]),
        };
        record.write_to::<_, NativeEndian>(&mut self.out).map_err(to_io)?;
        self.written += RECORD_HEADER + u64::from(kept);
        self.waiting_since.get_or_insert_with(Instant::now);
        if self.written - self.looked_at < LOOK_AFTER {
            return Ok(());
        }
        self.looked_at = self.written;
        check_room(self.out.get_ref().file())
    }

    /// Bytes written so far, before compression.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Empties the buffers if something has waited in them for a second, so that readers of the file find it.
    pub fn flush_if_due(&mut self) -> io::Result<()> {
        match self.waiting_since {
            Some(since) if since.elapsed() >= FLUSH_AFTER => self.flush(),
            _ => Ok(()),
        }
    }

    /// Empties the buffers. A file without a name (a deleted one) is an error too.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.waiting_since = None;
        let file = self.out.get_ref().file();
        match file.metadata()?.nlink() {
            0 => Err(io::Error::new(io::ErrorKind::NotFound, "it was deleted while it was written")),
            _ => check_room(file),
        }
    }

    /// Completes the file.
    pub fn finish(mut self) -> io::Result<()> {
        let flushed = self.flush();
        // The file is whole, even if the disk is nearly full by now.
        let flushed = flushed.or_else(|error| if error.kind() == QUOTA { Ok(()) } else { Err(error) });
        // A drop of the buffer would write its rest once more after a failure.
        let (form, _) = self.out.into_parts();
        flushed?;
        form.finish().map(drop)
    }

    /// Stops writing, and leaves the file as it is.
    pub fn abandon(self) {
        let _ = self.out.into_parts();
    }
}

/// Checks that a file's file system has the room that captures leave to others: a twentieth of its blocks and of its
/// inodes.
pub fn check_room(file: impl AsFd) -> io::Result<()> {
    let found = fstatvfs(file)?;
    let short = |free: u64, all: u64| free < all / 20;
    if short(found.blocks_available(), found.blocks()) || short(found.files_available(), found.files()) {
        return Err(io::Error::new(QUOTA, "less than a twentieth of the file system is free"));
    }
    Ok(())
}

fn to_io(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        error => io::Error::other(error),
    }
}
