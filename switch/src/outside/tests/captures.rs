//! Captures: files that follow each other, and what stops them.

use super::*;

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
