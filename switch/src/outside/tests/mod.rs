//! What the tests of outside ends share: components and inboxes of their own, files and oracles.

mod captures;
mod files;
mod playing;

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use nix::sys::stat::Mode;
use pcap_file::pcap::{PcapHeader, PcapReader as Oracle, PcapWriter as OracleWriter, RawPcapPacket};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
use pcap_file::pcapng::blocks::simple_packet::SimplePacketBlock;
use pcap_file::{DataLink, Endianness, TsResolution};
use proptest::prelude::*;
use tempfile::TempDir;

use super::pcap_reader::{Next, PcapReader};
use super::pcap_writer::PcapWriter;
use super::*;
use crate::host::kernel::KernelHost;
use crate::model::{CaptureFiles, Compression, Direction};

const FORMS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];
const START_NS: u64 = 1_700_000_000_123_456_789;

/// Components that send.
struct Components(Receiver<CapturedFrame>);

impl FromSwitch for Components {
    fn take(&mut self, timeout: Duration) -> Vec<CapturedFrame> {
        self.0.recv_timeout(timeout).into_iter().chain(self.0.try_iter()).collect()
    }
}

/// Components that send nothing.
struct Silent;

impl FromSwitch for Silent {
    fn take(&mut self, timeout: Duration) -> Vec<CapturedFrame> {
        std::thread::sleep(timeout);
        Vec::new()
    }
}

/// Components that receive while there is room.
#[derive(Clone, Default)]
struct Inbox {
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    room: Arc<AtomicUsize>,
}

impl Inbox {
    fn with_room(room: usize) -> Self {
        Self { room: Arc::new(AtomicUsize::new(room)), ..Self::default() }
    }

    fn frames(&self) -> Vec<Vec<u8>> {
        self.frames.lock().unwrap().clone()
    }
}

impl ToSwitch for Inbox {
    fn offer(&mut self, frame: &[u8]) -> bool {
        let mut frames = self.frames.lock().unwrap();
        let has_room = frames.len() < self.room.load(Ordering::Relaxed);
        if has_room {
            frames.push(frame.to_vec());
        }
        has_room
    }

    fn max_frame(&self) -> usize {
        1518
    }
}

/// Starts an end without receivers.
fn start(spec: &OutsideSpec) -> Result<(OutsideThread, Sender<CapturedFrame>), Error> {
    let (sender, receiver) = channel();
    let thread =
        OutsideThread::start(spec, &KernelHost::default(), Box::new(Inbox::default()), Box::new(Components(receiver)))?;
    Ok((thread, sender))
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn frame(number: u64, len: usize) -> CapturedFrame {
    // One half compresses well, the other hardly does.
    let noise =
        |at: usize| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(at as u64 * 0x45d9_f3b3) >> 29) as u8;
    CapturedFrame {
        vport: 1,
        queue: 0,
        direction: Direction::Tx,
        timestamp_ns: START_NS + number * 1_000_003,
        wire_len: len as u32,
        data: (0..len).map(|at| if at % 64 < 32 { 7 } else { noise(at) }).collect(),
    }
}

fn capture(directory: &Path, compression: Compression) -> CaptureFiles {
    CaptureFiles {
        directory: directory.to_owned(),
        within: None,
        stem: "spp_pcap.20261121101500.phy0".to_owned(),
        compression,
        limit: 1 << 20,
        snaplen: 65_535,
    }
}

/// Decompresses a file as far as it goes. Also says whether the compressor's frame is complete.
fn decompress(path: &Path, compression: Compression) -> (Vec<u8>, bool) {
    let file = File::open(path).unwrap();
    let mut reader: Box<dyn Read> = match compression {
        Compression::None => Box::new(file),
        Compression::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(file)),
        Compression::Zstd => Box::new(zstd::Decoder::new(file).unwrap()),
    };
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 4096]);
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return (bytes, true),
            Ok(len) => bytes.extend(&buffer[..len]),
            Err(_) => return (bytes, false),
        }
    }
}

/// Time, length on the wire and bytes of each frame of a classic pcap file.
fn records(bytes: &[u8]) -> Vec<(u64, u32, Vec<u8>)> {
    let mut reader = Oracle::new(bytes).unwrap();
    assert_eq!(
        (reader.header().ts_resolution, reader.header().datalink),
        (TsResolution::NanoSecond, DataLink::ETHERNET)
    );
    let mut records = Vec::new();
    while let Some(packet) = reader.next_raw_packet() {
        let packet = packet.unwrap();
        let ns = u64::from(packet.ts_sec) * 1_000_000_000 + u64::from(packet.ts_frac);
        records.push((ns, packet.orig_len, packet.data.to_vec()));
    }
    records
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A classic pcap file with these frames.
fn pcap(endianness: Endianness, ts_resolution: TsResolution, datalink: DataLink, frames: &[Vec<u8>]) -> Vec<u8> {
    let header = PcapHeader { endianness, ts_resolution, datalink, snaplen: 64, ..PcapHeader::default() };
    let mut writer = OracleWriter::with_header(Vec::new(), header).unwrap();
    for frame in frames {
        let len = frame.len() as u32;
        let data = Cow::Borrowed(frame.as_slice());
        let packet = RawPcapPacket { ts_sec: 1, ts_frac: 2, incl_len: len, orig_len: len + 1, data };
        writer.write_raw_packet(&packet).unwrap();
    }
    writer.into_writer()
}

fn some_frames() -> Vec<Vec<u8>> {
    (0..3000).map(|number| frame(number, 14 + number as usize % 1505).data).collect()
}
