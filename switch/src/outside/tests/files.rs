//! Files that components send to: which are replaced, and who may read them.

use super::*;

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
