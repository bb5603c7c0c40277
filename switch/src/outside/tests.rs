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

#[test]
fn a_capture_goes_on_in_the_next_file_and_each_is_complete() {
    for (compression, suffix) in FORMS.into_iter().zip(["", ".lz4", ".zst"]) {
        let directory = TempDir::new().unwrap();
        let spec = capture(directory.path(), compression);
        let (thread, sender) = start(&OutsideSpec::Capture(spec.clone())).unwrap();
        let sent: Vec<_> = (0..3000).map(|number| frame(number, 60 + number as usize % 1400)).collect();
        for frame in &sent {
            sender.send(frame.clone()).unwrap();
        }
        wait_until("the third file", || thread.files().len() == 3);
        let files = thread.files();
        assert_eq!(thread.stop(), None);
        let expected: Vec<_> =
            (1..=3).map(|number| format!("spp_pcap.20261121101500.phy0.{number}.pcap{suffix}")).collect();
        assert_eq!(names(directory.path()), expected);
        assert_eq!(files, expected.iter().map(|name| directory.path().join(name)).collect::<Vec<_>>());
        let mut seen = Vec::new();
        for (at, file) in files.iter().enumerate() {
            let (bytes, complete) = decompress(file, compression);
            assert!(complete, "{file:?}");
            let over = bytes.len() as u64 >= spec.limit;
            assert!(over == (at < 2) && bytes.len() as u64 <= spec.limit + 1500, "{file:?}: {} bytes", bytes.len());
            seen.extend(records(&bytes));
        }
        let sent: Vec<_> = sent.into_iter().map(|frame| (frame.timestamp_ns, frame.wire_len, frame.data)).collect();
        assert!(seen == sent, "{compression:?}");
    }
}

#[test]
fn no_more_than_snaplen_bytes_are_kept() {
    let directory = TempDir::new().unwrap();
    let spec = CaptureFiles { snaplen: 64, ..capture(directory.path(), Compression::None) };
    let (thread, sender) = start(&OutsideSpec::Capture(spec)).unwrap();
    let long = frame(0, 1000);
    sender.send(long.clone()).unwrap();
    sender.send(frame(1, 60)).unwrap();
    let files = thread.files();
    assert_eq!(thread.stop(), None);
    let seen = records(&fs::read(&files[0]).unwrap());
    assert_eq!(seen[0], (START_NS, 1000, long.data[..64].to_vec()));
    assert_eq!((seen[1].1, seen[1].2.len(), seen.len()), (60, 60, 2));
}

#[test]
fn what_is_captured_can_be_read_while_the_capture_runs() {
    for compression in FORMS {
        let directory = TempDir::new().unwrap();
        let (thread, sender) = start(&OutsideSpec::Capture(capture(directory.path(), compression))).unwrap();
        let mut temporary = thread.files()[0].clone().into_os_string();
        temporary.push(".tmp");
        for number in 0..2 {
            let sent = frame(number, 100);
            sender.send(sent.clone()).unwrap();
            // 24 bytes of header, and 16 more for each frame.
            let len = 24 + (number as usize + 1) * 116;
            wait_until("the frame", || decompress(Path::new(&temporary), compression).0.len() == len);
            let (bytes, complete) = decompress(Path::new(&temporary), compression);
            assert_eq!(records(&bytes)[number as usize].2, sent.data);
            assert!(compression != Compression::Zstd || !complete);
        }
        assert!(!thread.files()[0].exists());
        let files = thread.files();
        assert_eq!(thread.stop(), None);
        assert!(files[0].exists() && !Path::new(&temporary).exists());
    }
}

#[test]
fn a_capture_never_touches_a_file_that_is_there() {
    let directory = TempDir::new().unwrap();
    let taken = ["1.pcap.lz4", "2.pcap.lz4.tmp"].map(|end| format!("spp_pcap.20261121101500.phy0.{end}"));
    for name in &taken {
        fs::write(directory.path().join(name), "mine").unwrap();
    }
    let (thread, _sender) = start(&OutsideSpec::Capture(capture(directory.path(), Compression::Lz4))).unwrap();
    let third = thread.files()[0].clone();
    assert!(third.ends_with("spp_pcap.20261121101500.phy0.3.pcap.lz4"));
    // A file that appears later is not replaced either.
    fs::write(&third, "mine").unwrap();
    let error = thread.stop().unwrap();
    assert!(error.contains("3.pcap.lz4.tmp") && error.contains("File exists"), "{error}");
    for name in taken.iter().map(|name| directory.path().join(name)).chain([third]) {
        assert_eq!(fs::read(&name).unwrap(), b"mine", "{name:?}");
    }
}

#[test]
fn a_capture_whose_directory_is_deleted_says_so_and_goes_on_taking_frames() {
    let directory = TempDir::new().unwrap();
    let (thread, sender) = start(&OutsideSpec::Capture(capture(directory.path(), Compression::Lz4))).unwrap();
    directory.close().unwrap();
    sender.send(frame(0, 100)).unwrap();
    wait_until("the error", || thread.error().is_some());
    for number in 1..5 {
        sender.send(frame(number, 100)).unwrap();
    }
    wait_until("the drops", || thread.tx_dropped() == 4);
    let error = thread.stop().unwrap();
    assert!(error.contains("deleted") && error.contains(".1.pcap.lz4.tmp"), "{error}");
}

#[test]
fn a_capture_that_can_t_be_is_refused() {
    let directory = TempDir::new().unwrap();
    let good = capture(directory.path(), Compression::Lz4);
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let cases = [
        (CaptureFiles { directory: directory.path().join("none"), ..good.clone() }, ErrorKind::NotFound, "none"),
        (CaptureFiles { directory: file, ..good.clone() }, ErrorKind::Invalid, "no directory"),
        (CaptureFiles { stem: "../up".to_owned(), ..good.clone() }, ErrorKind::Invalid, "stem"),
        (CaptureFiles { stem: String::new(), ..good.clone() }, ErrorKind::Invalid, "stem"),
        (CaptureFiles { limit: (1 << 20) - 1, ..good.clone() }, ErrorKind::Invalid, "limit"),
        (CaptureFiles { snaplen: 13, ..good.clone() }, ErrorKind::Invalid, "snaplen"),
        (CaptureFiles { snaplen: 65_536, ..good.clone() }, ErrorKind::Invalid, "snaplen"),
    ];
    for (spec, kind, text) in cases {
        let error = start(&OutsideSpec::Capture(spec)).err().unwrap();
        assert!(error.kind() == kind && error.to_string().contains(text), "{error}");
    }
    assert_eq!(names(directory.path()), ["file"]);
}

#[test]
fn a_full_disk_is_an_error_in_every_form() {
    for compression in FORMS {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut writer = PcapWriter::new(full, compression, 65_535).unwrap();
        let failed = (0..10_000).find_map(|number| writer.write(&frame(number, 1000)).err()).unwrap();
        assert_eq!(failed.raw_os_error(), Some(libc::ENOSPC), "{compression:?}");
        writer.abandon();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut writer = PcapWriter::new(full, compression, 65_535).unwrap();
        writer.write(&frame(0, 1000)).unwrap();
        assert_eq!(writer.finish().unwrap_err().raw_os_error(), Some(libc::ENOSPC), "{compression:?}");
    }
    let (thread, sender) = start(&OutsideSpec::Pcap { rx: None, tx: Some("/dev/full".into()) }).unwrap();
    for number in 0..1000 {
        sender.send(frame(number, 1000)).unwrap();
    }
    wait_until("the drops", || thread.tx_dropped() > 100);
    let error = thread.stop().unwrap();
    assert!(error.contains("/dev/full") && error.contains("No space left"), "{error}");
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

/// A pcapng file with these frames on the second of two interfaces. `ethernet` says whether that one is Ethernet.
fn pcapng(endianness: Endianness, ethernet: bool, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut writer = PcapNgWriter::with_endianness(Vec::new(), endianness).unwrap();
    for linktype in [DataLink::ETHERNET, if ethernet { DataLink::ETHERNET } else { DataLink::RAW }] {
        let interface = InterfaceDescriptionBlock { linktype, snaplen: 0, options: Vec::new() };
        writer.write_pcapng_block(interface).unwrap();
    }
    for frame in frames {
        let block = EnhancedPacketBlock {
            interface_id: 1,
            timestamp: Duration::from_secs(1),
            original_len: frame.len() as u32,
            data: Cow::Borrowed(frame),
            options: Vec::new(),
        };
        writer.write_pcapng_block(block).unwrap();
    }
    writer.into_inner()
}

fn play(bytes: &[u8], inbox: &Inbox) -> (TempDir, Result<OutsideThread, Error>) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("in.pcap");
    fs::write(&path, bytes).unwrap();
    let spec = OutsideSpec::Pcap { rx: Some(path), tx: None };
    let thread = OutsideThread::start(&spec, &KernelHost::default(), Box::new(inbox.clone()), Box::new(Silent));
    (directory, thread)
}

fn some_frames() -> Vec<Vec<u8>> {
    (0..3000).map(|number| frame(number, 14 + number as usize % 1505).data).collect()
}

#[test]
fn the_frames_of_a_file_are_offered_once_in_order_and_wait_for_room() {
    let frames = some_frames();
    let mut files = vec![(pcapng(Endianness::Little, true, &frames)), (pcapng(Endianness::Big, true, &frames))];
    for endianness in [Endianness::Little, Endianness::Big] {
        for resolution in [TsResolution::MicroSecond, TsResolution::NanoSecond] {
            files.push(pcap(endianness, resolution, DataLink::ETHERNET, &frames));
        }
    }
    for (number, bytes) in files.iter().enumerate() {
        let inbox = Inbox::with_room(10);
        let (_directory, thread) = play(bytes, &inbox);
        let thread = thread.unwrap();
        wait_until("the first frames", || inbox.frames().len() == 10);
        inbox.room.store(usize::MAX, Ordering::Relaxed);
        wait_until("all frames", || inbox.frames().len() == frames.len());
        assert_eq!((thread.rx_dropped(), thread.stop()), (0, None), "file {number}");
        assert!(inbox.frames() == frames, "file {number}");
    }
}

#[test]
fn a_file_whose_frames_find_no_room_can_be_stopped() {
    let inbox = Inbox::default();
    let (_directory, thread) =
        play(&pcap(Endianness::Little, TsResolution::MicroSecond, DataLink::ETHERNET, &some_frames()), &inbox);
    assert_eq!(thread.unwrap().stop(), None);
    assert!(inbox.frames().is_empty());
}

#[test]
fn frames_that_can_t_be_offered_are_skipped_and_counted() {
    let good = [vec![1; 14], vec![2; 1518], vec![3; 60]];
    let frames = [good[0].clone(), vec![0; 1519], good[1].clone(), vec![0; 13], vec![0; 300_000], good[2].clone()];
    for bytes in [
        pcap(Endianness::Little, TsResolution::MicroSecond, DataLink::ETHERNET, &frames),
        pcapng(Endianness::Little, true, &frames),
    ] {
        let inbox = Inbox::with_room(10);
        let (_directory, thread) = play(&bytes, &inbox);
        let thread = thread.unwrap();
        wait_until("the last frame", || inbox.frames().len() == 3);
        assert_eq!((inbox.frames(), thread.rx_dropped()), (good.to_vec(), 3));
        let error = thread.stop().unwrap();
        assert!(error.contains("in.pcap") && error.contains("14–1518 bytes"), "{error}");
    }
    let inbox = Inbox::with_room(10);
    let (_directory, thread) = play(&pcapng(Endianness::Little, false, &good), &inbox);
    let thread = thread.unwrap();
    wait_until("the counts", || thread.rx_dropped() == 3);
    assert!(thread.stop().unwrap().contains("not Ethernet's") && inbox.frames().is_empty());
}

#[test]
fn simple_packets_and_a_second_section_are_read() {
    let (first, second) = (vec![1; 61], vec![2; 62]);
    let mut writer = PcapNgWriter::with_endianness(Vec::new(), Endianness::Big).unwrap();
    let interface = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: 0, options: Vec::new() };
    writer.write_pcapng_block(interface).unwrap();
    writer.write_pcapng_block(SimplePacketBlock { original_len: 61, data: Cow::Borrowed(&first) }).unwrap();
    let mut bytes = writer.into_inner();
    // Each section numbers its interfaces from zero.
    bytes.extend(pcapng(Endianness::Little, true, std::slice::from_ref(&second)));
    let inbox = Inbox::with_room(10);
    let (_directory, thread) = play(&bytes, &inbox);
    wait_until("both frames", || inbox.frames().len() == 2);
    assert_eq!((thread.unwrap().stop(), inbox.frames()), (None, vec![first, second]));
}

#[test]
fn a_file_that_was_cut_off_gives_what_it_has_and_an_error() {
    let frames = [vec![1; 60], vec![2; 60]];
    for bytes in [
        pcap(Endianness::Little, TsResolution::MicroSecond, DataLink::ETHERNET, &frames),
        pcapng(Endianness::Little, true, &frames),
    ] {
        let inbox = Inbox::with_room(10);
        let (_directory, thread) = play(&bytes[..bytes.len() - 1], &inbox);
        let thread = thread.unwrap();
        wait_until("the error", || thread.error().is_some());
        assert_eq!(inbox.frames(), [vec![1; 60]]);
        let error = thread.stop().unwrap();
        assert!(error.contains("in.pcap") && error.contains("ends too early"), "{error}");
    }
}

#[test]
fn a_file_that_can_t_be_read_is_refused_by_name() {
    let raw = pcap(Endianness::Little, TsResolution::MicroSecond, DataLink::RAW, &[]);
    for (bytes, text) in [
        (b"".as_slice(), "it ends too early"),
        (&[0xd4, 0xc3, 0xb2], "pcap or pcapng form is needed"),
        (b"hello, this is a letter and no capture at all, whatever its name says", "pcap or pcapng form is needed"),
        (&raw, "not Ethernet's, but RAW"),
    ] {
        let (directory, thread) = play(bytes, &Inbox::default());
        let error = thread.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        let path = directory.path().join("in.pcap");
        assert!(error.to_string().contains(text) && error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    let directory = TempDir::new().unwrap();
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let (none, here) = (directory.path().join("none"), directory.path().to_owned());
    for (path, kind) in [(&none, ErrorKind::NotFound), (&here, ErrorKind::Invalid), (&pipe, ErrorKind::Invalid)] {
        let error = start(&OutsideSpec::Pcap { rx: Some(path.clone()), tx: None }).err().unwrap();
        assert!(error.kind() == kind && error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    let lost = none.join("out.pcap");
    for path in [&lost, &here, &pipe] {
        let error = start(&OutsideSpec::Pcap { rx: None, tx: Some(path.clone()) }).err().unwrap();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn a_file_is_replaced_by_what_components_send_unless_it_is_read() {
    let directory = TempDir::new().unwrap();
    let path: PathBuf = directory.path().join("file.pcap");
    let old = pcap(Endianness::Little, TsResolution::MicroSecond, DataLink::ETHERNET, &some_frames());
    fs::write(&path, &old).unwrap();
    let link = directory.path().join("link.pcap");
    fs::hard_link(&path, &link).unwrap();
    let error = start(&OutsideSpec::Pcap { rx: Some(path.clone()), tx: Some(link.clone()) }).err().unwrap();
    assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("two files"), "{error}");
    fs::remove_file(link).unwrap();
    assert!(fs::read(&path).unwrap() == old);
    let symlink = directory.path().join("symlink.pcap");
    std::os::unix::fs::symlink(&path, &symlink).unwrap();
    let error = start(&OutsideSpec::Pcap { rx: None, tx: Some(symlink) }).err().unwrap();
    assert!(error.to_string().contains("symlink.pcap"), "{error}");
    assert!(fs::read(&path).unwrap() == old, "a link is not followed");

    let (thread, sender) = start(&OutsideSpec::Pcap { rx: None, tx: Some(path.clone()) }).unwrap();
    let sent = frame(0, 100);
    sender.send(sent.clone()).unwrap();
    // The frame is in the file before the end is stopped.
    wait_until("the frame", || fs::metadata(&path).unwrap().len() == 24 + 116);
    sender.send(sent.clone()).unwrap();
    assert_eq!(thread.stop(), None);
    assert_eq!(records(&fs::read(&path).unwrap()), vec![(START_NS, 100, sent.data); 2]);
}

#[test]
fn a_file_that_somebody_else_has_put_there_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let [theirs, linked, link] = ["theirs", "linked", "link"].map(|name| directory.path().join(name));
    fs::write(&linked, "ours").unwrap();
    fs::hard_link(&linked, &link).unwrap();
    let refused = |path: &Path, why: &str| {
        let error = start(&OutsideSpec::Pcap { rx: None, tx: Some(path.to_owned()) }).err().unwrap();
        assert!(error.kind() == ErrorKind::Denied && error.to_string().contains(why), "{error}");
        assert_eq!(fs::read(path).unwrap(), b"ours");
    };
    refused(&linked, "other names");
    // A link to be read could point to a file that its maker may not read.
    let symlink = directory.path().join("symlink");
    std::os::unix::fs::symlink(&linked, &symlink).unwrap();
    let error = start(&OutsideSpec::Pcap { rx: Some(symlink.clone()), tx: None }).err().unwrap();
    assert!(error.kind() == ErrorKind::Denied && error.to_string().contains("a link"), "{error}");
    fs::write(&theirs, "ours").unwrap();
    if std::os::unix::fs::chown(&theirs, Some(65_534), None).is_ok() {
        refused(&theirs, "belongs to another user");
    }
}

#[test]
fn what_guests_sent_is_not_for_everybody_to_read() {
    use std::os::unix::fs::PermissionsExt;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("new.pcap");
    let (thread, _sender) = start(&OutsideSpec::Pcap { rx: None, tx: Some(path.clone()) }).unwrap();
    drop(thread);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o007, 0);
}

#[test]
fn frames_for_no_file_are_forgotten() {
    let (thread, sender) = start(&OutsideSpec::Pcap { rx: None, tx: None }).unwrap();
    sender.send(frame(0, 100)).unwrap();
    assert_eq!((thread.tx_dropped(), thread.files(), thread.stop()), (0, Vec::new(), None));
    assert!(sender.send(frame(1, 100)).is_err());
}

/// Reads a file to its end. Returns the number of frames.
fn read_all(bytes: &[u8]) -> usize {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("damaged");
    fs::write(&path, bytes).unwrap();
    let Ok(mut reader) = PcapReader::open(&path) else { return 0 };
    let (mut frame, mut frames) = (Vec::new(), 0);
    while let Ok(Next::Frame | Next::Skipped) = reader.next(&mut frame, 1518) {
        frames += 1;
    }
    frames
}

proptest! {
    #[test]
    fn a_damaged_file_does_no_harm(
        kind in 0..4_u8,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let frames: Vec<_> = (0..20).map(|number| frame(number, 14 + number as usize * 7).data).collect();
        let mut bytes = match kind {
            0 => pcap(Endianness::Little, TsResolution::MicroSecond, DataLink::ETHERNET, &frames),
            1 => pcap(Endianness::Big, TsResolution::NanoSecond, DataLink::ETHERNET, &frames),
            2 => pcapng(Endianness::Little, true, &frames),
            _ => pcapng(Endianness::Big, true, &frames),
        };
        prop_assert_eq!(read_all(&bytes), frames.len());
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        prop_assert!(read_all(&bytes) <= bytes.len());
    }
}
