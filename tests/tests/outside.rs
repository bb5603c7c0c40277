//! Outside ends without workers: taps in a namespace, captures on a full disk, and captures as other programs read
//! them.

use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use switch::host::kernel::KernelHost;
use switch::model::{CaptureFiles, CapturedFrame, Compression, Direction, OutsideSpec};
use switch::outside::{FromSwitch, OutsideThread, ToSwitch};
use switch::{Error, ErrorKind};
use tempfile::TempDir;
use tests::raw::RawSocket;
use tests::{Frame, Mac, NetNs, narrow, shell, wait};

const ETHERTYPE: u16 = 0x88b5;
const PATIENCE: Duration = Duration::from_secs(10);

/// Components that send.
struct Components(Receiver<CapturedFrame>);

impl FromSwitch for Components {
    fn take(&mut self, timeout: Duration) -> Vec<CapturedFrame> {
        self.0.recv_timeout(timeout).into_iter().chain(self.0.try_iter()).collect()
    }
}

/// Components that receive.
#[derive(Clone, Default)]
struct Inbox(Arc<Mutex<Vec<Vec<u8>>>>);

impl ToSwitch for Inbox {
    fn offer(&mut self, frame: &[u8]) -> bool {
        self.0.lock().expect("no panic").push(frame.to_vec());
        true
    }
}

/// An end, the frames that it gave, and the sender towards it.
struct End {
    thread: OutsideThread,
    inbox: Inbox,
    sender: Sender<CapturedFrame>,
}

impl End {
    fn start(spec: &OutsideSpec) -> Result<Self, Error> {
        let (sender, receiver) = channel();
        let inbox = Inbox::default();
        let thread = OutsideThread::start(
            spec,
            &KernelHost::default(),
            Box::new(inbox.clone()),
            Box::new(Components(receiver)),
        )?;
        Ok(Self { thread, inbox, sender })
    }

    fn tap(ns: &NetNs, ifname: &str) -> Result<Self, Error> {
        ns.run(|| Self::start(&OutsideSpec::Tap { ifname: ifname.to_owned() }))
    }

    fn send(&self, frame: &Frame) {
        let sent = CapturedFrame {
            vport: 0,
            queue: 0,
            direction: Direction::Tx,
            timestamp_ns: 1_700_000_000_123_456_789,
            wire_len: narrow(frame.0.len()),
            data: frame.0.clone(),
        };
        self.sender.send(sent).expect("the thread takes frames");
    }

    fn has_received(&self, frame: &Frame) -> bool {
        self.inbox.0.lock().expect("no panic").contains(&frame.0)
    }

    fn expect_error(&self, text: &str) {
        wait::expect(text, PATIENCE, || self.thread.error().is_some_and(|error| error.contains(text)));
    }
}

fn frame(number: u32, len: usize) -> Frame {
    Frame::ethernet(Mac::stranger(number), Mac::BROADCAST).payload(ETHERTYPE, &[]).padded(len)
}

#[test]
fn a_tap_carries_frames_both_ways_and_goes_with_its_end() {
    let ns = NetNs::new("tap");
    let end = End::tap(&ns, "tap-a").expect("a tap");
    let host = RawSocket::open(&ns, "tap-a");
    let tagged = Frame::ethernet(Mac::stranger(2), Mac::BROADCAST).tag(0x8100, 5, 100).payload(ETHERTYPE, &[1; 46]);
    for sent in [frame(1, 60), frame(1, 1514), tagged] {
        host.send(&sent);
        wait::expect("the host's frame", PATIENCE, || end.has_received(&sent));
        end.send(&sent);
        let seen = host.recv_if(PATIENCE, |frame| frame.0 == sent.0);
        assert!(seen.is_some(), "{sent:?}");
    }
    // The reading thread sleeps by now. A frame wakes it.
    std::thread::sleep(Duration::from_millis(300));
    let late = frame(3, 100);
    host.send(&late);
    wait::expect("the late frame", PATIENCE, || end.has_received(&late));
    // The queue is written out before the tap goes.
    for number in 0..50 {
        end.send(&frame(1000 + number, 60));
    }
    assert_eq!((end.thread.tx_dropped(), end.thread.stop()), (0, None));
    // The socket first reports that the tap is gone, and then gives its frames.
    let seen: Vec<_> = std::iter::from_fn(|| host.recv(Duration::from_secs(1))).map(|frame| frame.src()).collect();
    assert_eq!(seen, (0..50).map(|number| Mac::stranger(1000 + number)).collect::<Vec<_>>());
    assert_eq!(ns.find_ifindex("tap-a"), None);
    // The name is free again.
    End::tap(&ns, "tap-a").expect("a tap once more");
}

#[test]
fn a_name_that_is_taken_or_none_is_refused() {
    let ns = NetNs::new("taken");
    ns.sh("ip link add dummy-a type veth peer name dummy-b");
    ns.sh("ip tuntap add dev tap-lasting mode tap");
    for ifname in ["dummy-a", "tap-lasting"] {
        let error = End::tap(&ns, ifname).err().expect("the name is taken");
        assert!(error.kind() == ErrorKind::Busy && error.to_string().contains(ifname), "{error}");
    }
    for ifname in ["", "sixteen-letters-", "a/b", "a b", "tap%d", ".."] {
        let error = End::tap(&ns, ifname).err().expect("no name of a netdev");
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("ifname"), "{error}");
    }
    assert_eq!(ns.links().len(), 4, "the loopback, the pair and the lasting tap");
}

#[test]
fn without_the_capability_a_tap_is_denied_with_advice() {
    let ns = NetNs::new("denied");
    let error = ns.run(|| {
        // Only this thread's capabilities.
        let mut held = capabilities(None).expect("capabilities");
        held.effective.remove(CapabilitySet::NET_ADMIN);
        set_capabilities(None, held).expect("fewer of them");
        End::start(&OutsideSpec::Tap { ifname: "tap-a".to_owned() }).err()
    });
    let error = error.expect("not allowed");
    assert!(error.kind() == ErrorKind::Denied && error.to_string().contains("CAP_NET_ADMIN"), "{error}");
}

#[test]
fn a_tap_that_is_set_down_or_deleted_says_so_and_frames_are_dropped() {
    let ns = NetNs::new("gone");
    let end = End::tap(&ns, "tap-a").expect("a tap");
    ns.sh("ip link set tap-a down");
    end.send(&frame(1, 60));
    end.expect_error("tap tap-a is down");
    ns.sh("ip link set tap-a up");
    end.send(&frame(2, 60));
    wait::expect("no error", PATIENCE, || end.thread.error().is_none());
    assert_eq!(end.thread.tx_dropped(), 1);
    ns.sh("ip link del tap-a");
    // Nobody has sent anything since.
    end.expect_error("tap tap-a is gone");
    end.send(&frame(3, 60));
    wait::expect("the drop", PATIENCE, || end.thread.tx_dropped() == 2);
    assert!(end.thread.stop().is_some_and(|error| error.contains("is gone")));
}

fn capture(directory: &Path, compression: Compression) -> OutsideSpec {
    OutsideSpec::Capture(CaptureFiles {
        directory: directory.to_owned(),
        within: None,
        stem: "spp_pcap.20261121101500.phy0".to_owned(),
        compression,
        limit: 1 << 20,
        snaplen: 65_535,
    })
}

#[test]
fn other_programs_read_captures() {
    let fields = "-T fields -E separator=| -e frame.time_epoch -e frame.len -e eth.src";
    let count = 1500;
    for (compression, tool) in [
        (Compression::None, "cp FILE PLAIN"),
        (Compression::Lz4, "lz4 -q -d FILE PLAIN"),
        (Compression::Zstd, "zstd -q -d FILE -o PLAIN"),
    ] {
        let directory = TempDir::new().expect("a directory");
        let end = End::start(&capture(directory.path(), compression)).expect("a capture");
        for number in 0..count {
            end.send(&frame(number, 1000));
        }
        wait::expect("the second file", PATIENCE, || end.thread.files().len() == 2);
        let files = end.thread.files();
        assert_eq!(end.thread.stop(), None);
        let mut lines = Vec::new();
        for (at, file) in files.iter().enumerate() {
            let plain = directory.path().join(format!("{at}.plain"));
            let line = tool.replace("FILE", &file.to_string_lossy()).replace("PLAIN", &plain.to_string_lossy());
            shell::run(&mut shell::words(&line));
            let text = shell::run(Command::new("tshark").arg("-r").arg(&plain).args(fields.split(' ')));
            lines.extend(text.lines().filter(|line| line.contains('|')).map(str::to_owned));
        }
        let sent: Vec<_> =
            (0..count).map(|number| format!("1700000000.123456789|1000|{}", Mac::stranger(number))).collect();
        assert!(lines == sent, "{tool:?}: {:?}", lines.first());
    }
}

/// A file system of one MiB, unmounted on drop.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        mount(Some("tmpfs"), directory.path(), Some("tmpfs"), MsFlags::empty(), Some("size=1m")).expect("a tmpfs");
        Self(directory)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_capture_leaves_a_twentieth_of_the_disk() {
    let disk = SmallDisk::new();
    let end = End::start(&capture(disk.0.path(), Compression::None)).expect("a capture");
    // 246 of 256 blocks.
    for number in 0..990 {
        end.send(&frame(number, 1000));
    }
    end.expect_error("a twentieth");
    let error = end.thread.stop().expect("an error");
    assert!(error.contains("the capture has stopped"), "{error}");
    let files = || std::fs::read_dir(disk.0.path()).expect("the directory").count();
    let before = files();
    let error = End::start(&capture(disk.0.path(), Compression::None)).err().expect("no room");
    assert!(error.to_string().contains("a twentieth") && files() == before, "{error}");
}

#[test]
fn a_capture_that_fills_the_disk_says_so_goes_on_taking_frames_and_leaves_what_fits() {
    let disk = SmallDisk::new();
    let end = End::start(&capture(disk.0.path(), Compression::None)).expect("a capture");
    for number in 0..3000 {
        end.send(&frame(number, 1000));
    }
    end.expect_error("No space left");
    wait::expect("the drops", PATIENCE, || end.thread.tx_dropped() > 1000);
    let file = end.thread.files().remove(0);
    let error = end.thread.stop().expect("an error");
    assert!(error.contains("the capture has stopped") && error.contains(".pcap.tmp"), "{error}");
    // The file keeps its provisional name and the complete frames.
    let file = disk.0.path().join(format!("{}.tmp", file.file_name().expect("a name").to_string_lossy()));
    let read = shell::output(Command::new("tshark").arg("-r").arg(file).args(["-T", "fields", "-e", "eth.src"]));
    let text = String::from_utf8_lossy(&read.stdout);
    let sources: Vec<_> = text.lines().collect();
    assert!((900..1100).contains(&sources.len()), "{}: {}", sources.len(), shell::text(&read));
    assert!(sources.iter().enumerate().all(|(number, source)| *source == Mac::stranger(narrow(number)).to_string()));
}
