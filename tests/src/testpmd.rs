//! DPDK's testpmd with virtio-user devices: front ends of vhost-user that poll, with other drivers than Linux's.
//!
//! It takes commands while it runs, as a person would type them. Its memory is one file of ordinary pages.

use std::fs::File;
use std::io::Write as _;
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;

use crate::guest::cached;
use crate::{NetNs, wait};

/// Longest time that it takes to start, or to carry out a command.
const PATIENCE: Duration = Duration::from_secs(30);
/// It prints this when it takes the next command.
const PROMPT: &str = "testpmd> ";
/// Memory in MiB. It holds the packets of a few devices with several queues.
const MEMORY: u32 = 256;
/// Descriptors of each ring. The default is less than a round of packets.
const DESCRIPTORS: u32 = 1024;

/// A virtio-user device.
#[derive(Clone, Debug)]
pub struct VirtioUser {
    /// Path of the socket.
    pub socket: String,
    /// Whether the device makes the socket, and waits for the switch.
    pub server: bool,
    /// Queue pairs.
    pub queues: u32,
    /// Its address.
    pub mac: String,
    /// Further options, such as `packed_vq=1`.
    pub more: String,
}

impl VirtioUser {
    /// A device with one queue pair that connects to a socket.
    pub fn new(socket: &str, mac: &str) -> Self {
        Self { socket: socket.to_owned(), server: false, queues: 1, mac: mac.to_owned(), more: String::new() }
    }

    fn argument(&self, number: usize) -> String {
        let Self { socket, server, queues, mac, more } = self;
        let server = if *server { ",server=1" } else { "" };
        let more = if more.is_empty() { String::new() } else { format!(",{more}") };
        format!("net_virtio_user{number},path={socket},queues={queues},mac={mac}{server}{more}")
    }
}

/// Packets that a device has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Received by the device.
    pub rx: u64,
    /// Sent by the device.
    pub tx: u64,
}

/// A running testpmd. It is killed when it is dropped.
#[derive(Debug)]
pub struct Testpmd {
    child: Child,
    input: ChildStdin,
    dir: tempfile::TempDir,
    /// Bytes of its output that were looked at.
    seen: usize,
}

impl Testpmd {
    /// Starts one with these devices, which have the numbers 0, 1 and so on. All have as many queues as the first. Each
    /// device sends to the next one, and the last one to the first. It forwards nothing yet. A device that makes its
    /// socket waits for the switch here.
    pub fn start(ns: &NetNs, devices: &[VirtioUser]) -> Self {
        let mut testpmd = Self::spawn(ns, devices);
        testpmd.await_prompt("it starts");
        testpmd
    }

    /// Starts one that is expected to end by itself. Returns its output.
    pub fn fails(ns: &NetNs, devices: &[VirtioUser]) -> String {
        let mut testpmd = Self::spawn(ns, devices);
        let ended = wait::until(PATIENCE, || testpmd.child.try_wait().expect("it can be waited for"));
        let status = ended.unwrap_or_else(|| panic!("testpmd runs:\n{}", testpmd.log()));
        assert!(!status.success(), "{}", testpmd.log());
        testpmd.log()
    }

    fn spawn(ns: &NetNs, devices: &[VirtioUser]) -> Self {
        let root = cached("peers/root");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log = File::create(dir.path().join("log")).expect("a log file");
        // Output line by line, not at the end.
        let mut command = ns.command("stdbuf");
        command.arg("-oL").arg(root.join("usr/bin/dpdk-testpmd")).args(arguments(devices));
        let arch = format!("{}-linux-gnu", std::env::consts::ARCH);
        let libraries = ["usr/lib", "lib"].map(|at| root.join(at).join(&arch).display().to_string());
        command.env("LD_LIBRARY_PATH", libraries.join(":"));
        command.env("RUNTIME_DIRECTORY", dir.path()).current_dir(dir.path());
        command.stdin(Stdio::piped()).stdout(log.try_clone().expect("a log file")).stderr(log);
        let mut child = command.spawn().expect("stdbuf is there");
        let input = child.stdin.take().expect("a pipe");
        Self { child, input, dir, seen: 0 }
    }

    /// Its output.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for the next prompt. Returns what came before it.
    fn await_prompt(&mut self, what: &str) -> String {
        let answer = wait::until(PATIENCE, || {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                panic!("testpmd ended with {status}:\n{}", self.log());
            }
            let log = self.log();
            let text = log.get(self.seen..)?;
            let end = text.find(PROMPT)?;
            self.seen += end + PROMPT.len();
            Some(text[..end].to_owned())
        });
        answer.unwrap_or_else(|| panic!("{what}: not within {PATIENCE:?}:\n{}", self.log()))
    }

    /// Carries out a command. Returns what it prints.
    pub fn command(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").expect("it takes commands");
        self.await_prompt(line)
    }

    /// What a device has counted.
    pub fn counters(&mut self, device: usize) -> Counters {
        let text = self.command(&format!("show port stats {device}"));
        let count = |key: &str| {
            let (_, rest) = text.split_once(key).unwrap_or_else(|| panic!("no {key} in {text}"));
            let word = rest.split_whitespace().next().unwrap_or_default();
            word.parse().unwrap_or_else(|_| panic!("{key} {word}: {text}"))
        };
        Counters { rx: count("RX-packets:"), tx: count("TX-packets:") }
    }

    /// Whether a device says that its link is up.
    pub fn is_up(&mut self, device: usize) -> bool {
        self.command(&format!("show port info {device}")).contains("Link status: up")
    }

    /// Each queue of each device sends `bursts` times 32 packets to the next device, in one go. Then all receive.
    pub fn send(&mut self, bursts: u32) {
        self.command("set fwd rxonly");
        self.command(&format!("start tx_first {bursts}"));
    }

    /// Ends what [`Testpmd::send`] has begun.
    pub fn rest(&mut self) {
        self.command("stop");
    }

    /// Ends it by SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        // Both are harmless for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of testpmd:\n{}", self.log());
        }
    }
}

/// Drivers that it opens at run time. They are found among its libraries: it takes no path that anybody can write to.
const DRIVERS: [&str; 2] = ["librte_mempool_ring.so.", "librte_net_virtio.so."];

fn drivers() -> Vec<String> {
    let libraries = cached("peers/root").join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let entries = std::fs::read_dir(&libraries).expect("the unpacked libraries");
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let versioned = |name: &String| {
        let version = DRIVERS.iter().find_map(|driver| name.strip_prefix(driver));
        version.is_some_and(|version| version.parse::<u32>().is_ok())
    };
    names.filter(versioned).collect()
}

fn arguments(devices: &[VirtioUser]) -> Vec<String> {
    // Both threads on one CPU: the one that takes commands sleeps.
    let mut words: Vec<String> = ["--lcores", "(0,1)@0", "--no-huge", "-m"].map(str::to_owned).to_vec();
    words.push(MEMORY.to_string());
    words.extend(["--single-file-segments", "--no-pci", "--no-telemetry", "--no-shconf"].map(str::to_owned));
    words.extend(drivers().into_iter().flat_map(|driver| ["-d".to_owned(), driver]));
    for (number, device) in devices.iter().enumerate() {
        words.extend(["--vdev".to_owned(), device.argument(number)]);
    }
    let queues = devices.first().map_or(1, |device| device.queues);
    // Packets are of many flows, so that every queue gets some.
    words.extend(["--", "-i", "--total-num-mbufs=32768", "--mbcache=64", "--txonly-multi-flow"].map(str::to_owned));
    words.push(format!("--rxq={queues}"));
    words.push(format!("--txq={queues}"));
    words.push(format!("--rxd={DESCRIPTORS}"));
    words.push(format!("--txd={DESCRIPTORS}"));
    for number in 0..devices.len() {
        let next = &devices[(number + 1) % devices.len()];
        words.push(format!("--eth-peer={number},{}", next.mac));
    }
    words
}
