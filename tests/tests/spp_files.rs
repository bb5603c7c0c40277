//! The Soft Patch Panel's outside ends: captures into files, ports that are files, taps, and the null device.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tests::raw::RawSocket;
use tests::spp::{component, done, get, refused, vhost};
use tests::{Daemon, Frame, Mac, Options, narrow, shell, wait};

const SOON: Duration = Duration::from_secs(5);

fn daemon(label: &str, directory: &Path, more: &str) -> Daemon {
    let config = format!("[spp]\ndirectory = {directory:?}\n[[spp.process]]\ntype = \"vf\"\nclient_id = 1\n{more}");
    Daemon::with(label, &Options { workers: 2, config, ..Options::default() })
}

/// Length and UDP payload of each packet of a capture file, as tshark reads it.
fn read_back(file: &Path) -> Vec<(usize, String)> {
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(file).args(["-T", "fields", "-E", "separator=|", "-e", "frame.len", "-e", "udp.payload"]);
    let text = shell::run(tshark.stderr(Stdio::null()));
    let line = |line: &str| {
        let (len, payload) = line.split_once('|').expect("two fields");
        (len.parse().expect("a number"), payload.to_owned())
    };
    text.lines().map(line).collect()
}

/// What tshark must read for these frames.
fn expected(frames: &[Frame]) -> Vec<(usize, String)> {
    let udp = |frame: &Frame| Frame(frame.0[42..].to_vec()).hex();
    frames.iter().map(|frame| (frame.0.len(), udp(frame))).collect()
}

fn numbered(from: Mac, to: Mac, count: u64) -> Vec<Frame> {
    (0..count).map(|n| Frame::ethernet(from, to).stream(1, n, 64 + 13 * narrow::<usize>(n) % 1400)).collect()
}

#[test]
fn a_capture_is_read_back_packet_by_packet() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (compression, suffix) in [("none", "pcap"), ("lz4", "pcap.lz4"), ("zstd", "pcap.zst")] {
        let more = format!(
            "[[spp.process]]\ntype = \"pcap\"\nclient_id = 2\ncores = [1, 2, 3]\nport = \"vhost:0\"\ncompression = \"{compression}\""
        );
        let daemon = daemon("spppcap", directory.path(), &more);
        let guest = vhost(&daemon, 0);
        assert_eq!(get(&daemon, "/v1/pcaps/2")["status"], "idle");
        done(&daemon, "PUT", "/v1/pcaps/2/capture", json!({ "action": "start" }));
        let status = get(&daemon, "/v1/pcaps/2");
        assert_eq!(status["status"], "running", "{status}");
        // A component can't have a captured end.
        component(&daemon, "vfs/1", "f", 5, "forward", &["tx ring:0"]);
        let body = json!({ "action": "attach", "port": "vhost:0", "dir": "rx" }).to_string();
        let why = refused(&daemon, "PUT", "/v1/vfs/1/components/f/ports", &body);
        assert!(why.contains("pcap 2"), "{why}");
        let socket = guest.raw();
        let frames = numbered(guest.mac, Mac::stranger(1), 200);
        frames.iter().for_each(|frame| socket.send(frame));
        wait::expect("all are taken", SOON, || daemon.stats("v0")["rx"]["packets"] == 200);
        done(&daemon, "PUT", "/v1/pcaps/2/capture", json!({ "action": "stop" }));
        let files: Vec<_> = std::fs::read_dir(directory.path()).expect("the directory").flatten().collect();
        let file = files.iter().find(|file| file.file_name().to_string_lossy().ends_with(&format!(".{suffix}")));
        let file = file.unwrap_or_else(|| panic!("no file ends with {suffix}: {files:?}")).path();
        assert_eq!(read_back(&file), expected(&frames), "{compression}");
        daemon.finish();
    }
}

#[test]
fn a_pcap_port_plays_one_file_and_writes_another() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // The other daemon plays what one has written.
    let first = daemon("sppwrite", directory.path(), "");
    let guest = vhost(&first, 0);
    component(&first, "vfs/1", "w", 0, "forward", &["rx vhost:0", "tx pcap:3"]);
    let socket = guest.raw();
    let frames = numbered(guest.mac, Mac::stranger(1), 50);
    frames.iter().for_each(|frame| socket.send(frame));
    wait::expect("all are taken", SOON, || first.stats("v0")["rx"]["packets"] == 50);
    done(&first, "DELETE", "/v1/vfs/1/components/w", Value::Null);
    let written = directory.path().join("spp-tx3.pcap");
    assert_eq!(read_back(&written), expected(&frames));
    first.finish();
    std::fs::rename(&written, directory.path().join("spp-rx4.pcap")).expect("it can be renamed");
    let second = daemon("sppplay", directory.path(), "");
    let guest = vhost(&second, 0);
    let socket = guest.raw();
    component(&second, "vfs/1", "p", 1, "forward", &["rx pcap:4", "tx vhost:0"]);
    for frame in &frames {
        assert_eq!(socket.recv_if(SOON, |got| got.mark().is_some()).as_ref(), Some(frame));
    }
    second.finish();
}

#[test]
fn a_tap_is_a_netdev_of_the_host() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let daemon = daemon("spptap", directory.path(), "");
    let guest = vhost(&daemon, 0);
    component(&daemon, "vfs/1", "in", 0, "forward", &["rx tap:7", "tx vhost:0"]);
    component(&daemon, "vfs/1", "out", 1, "forward", &["rx vhost:0", "tx tap:7"]);
    daemon.ns.sh("ip address add 10.7.0.1/24 dev spp_tap7");
    guest.address("10.7.0.2/24");
    assert!(guest.pings("10.7.0.1"));
    done(&daemon, "DELETE", "/v1/vfs/1/components/in", Value::Null);
    done(&daemon, "DELETE", "/v1/vfs/1/components/out", Value::Null);
    assert_eq!(daemon.ns.find_ifindex("spp_tap7"), None, "it goes with its last component");
    daemon.finish();
}

#[test]
fn the_null_device_gives_zeros_and_takes_all() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let daemon = daemon("sppnull", directory.path(), "");
    let guest = vhost(&daemon, 0);
    component(&daemon, "vfs/1", "sink", 0, "forward", &["rx vhost:0", "tx nullpmd:0"]);
    let socket = guest.raw();
    numbered(guest.mac, Mac::stranger(1), 20).iter().for_each(|frame| socket.send(frame));
    wait::expect("all are taken", SOON, || daemon.stats("v0")["rx"]["packets"] == 20);
    daemon.assert_balanced();
    let listener = RawSocket::open(&guest.ns, &guest.ifname);
    component(&daemon, "vfs/1", "source", 1, "forward", &["rx nullpmd:1", "tx vhost:0"]);
    assert!(listener.recv_if(SOON, |got| *got == Frame(vec![0; 64])).is_some());
    done(&daemon, "DELETE", "/v1/vfs/1/components/source", Value::Null);
    daemon.finish();
}
