//! Files that are played, damaged ones too.

use super::*;

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
