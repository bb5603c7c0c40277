//! The hand-over socket: who gets sockets, and how the daemon fares with clients that ask badly.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use serde_json::{Value, json};
use tests::companion::{
    PATIENCE, connect, ends_with, expect_free, guest, open_to_all, outcomes, port, request, run, start,
};
use tests::handover::{Client, as_user};
use tests::qemu_double::{Double, NOBODY, unprivileged};
use tests::{Daemon, Options, wait};

/// A user who may have all ports' sockets.
const EVERYWHERE: u32 = 7001;
/// A user who may have those of `a`.
const OF_A: u32 = 7002;
/// A user who may have none.
const STRANGER: u32 = 7003;
/// Longest message in bytes.
const LONGEST: usize = 4096;

/// A daemon with two ports, reachable for all users.
fn daemon(label: &str) -> Daemon {
    let config = format!("[guests]\nusers = [\"{EVERYWHERE}\"]\nports = {{ a = [\"{OF_A}\", \"nobody\"] }}");
    let daemon = Daemon::with(label, &Options { config, ..Options::default() });
    open_to_all(&daemon);
    port(&daemon, "a");
    port(&daemon, "b");
    daemon
}

/// An idle process of a user.
struct Sleeper(Child);

impl Sleeper {
    fn new(uid: u32) -> Self {
        let child = Command::new("sleep").arg("600").uid(uid).gid(uid).stdin(Stdio::null()).spawn();
        Self(child.expect("sleep starts"))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn with_pid(port: &str, pid: u32) -> Value {
    json!({ "request": "sockets", "port": port, "pid": pid })
}

/// Frees a port whose sockets this process asked for and no longer has.
fn release(client: &Client, port: &str) {
    let (answer, _) = client.ask(&json!({ "request": "release", "port": port }));
    assert_eq!(answer["port"], port, "{answer}");
}

/// Whether the answer says that sockets were given.
fn gets(client: &Client, request: &Value) -> bool {
    let (answer, sockets) = client.ask(request);
    assert_eq!(answer["code"].is_null(), sockets.len() == 1, "{answer}");
    sockets.len() == 1
}

#[test]
fn users_get_the_sockets_that_they_may_have() {
    let daemon = daemon("haccess");
    let root = connect(&daemon);
    for (uid, of_a, of_b) in [
        (0, true, true),
        (EVERYWHERE, true, true),
        (OF_A, true, false),
        (NOBODY, true, false),
        (STRANGER, false, false),
    ] {
        as_user(uid, || {
            let client = connect(&daemon);
            for (port, may) in [("a", of_a), ("b", of_b)] {
                assert_eq!(gets(&client, &request(port)), may, "{uid} {port}");
                assert_eq!(client.ask(&json!({ "request": "describe", "port": port })).0["port"] == port, may, "{uid}");
            }
        });
        ["a", "b"].into_iter().for_each(|port| release(&root, port));
    }
    // A stranger learns neither which ports exist nor what is behind a number.
    as_user(STRANGER, || {
        let client = connect(&daemon);
        for kind in ["sockets", "describe", "release"] {
            let refused = |port: &str| client.refused(&json!({ "request": kind, "port": port }));
            let told = ["a", "b", "c", "0", "9"].map(|port| refused(port).1.replace(&format!("`{port}`"), "`it`"));
            assert!(told.iter().all(|text| *text == told[0]), "{told:?}");
            assert_eq!(refused("0").0, "EACCES");
            assert!(told[0].contains(&format!("user {STRANGER}")) && told[0].contains("[guests.ports]"), "{told:?}");
        }
    });
    // A user who may have all learns that there is none.
    assert_eq!(as_user(EVERYWHERE, || connect(&daemon).refused(&request("c"))).0, "ENOENT");
    daemon.finish();
}

#[test]
fn sockets_are_for_a_process_of_ones_own_only() {
    let daemon = daemon("hpid");
    let (own, others) = (Sleeper::new(OF_A), Sleeper::new(EVERYWHERE));
    as_user(OF_A, || {
        let client = connect(&daemon);
        for pid in [others.pid(), 1, daemon.pid().cast_unsigned()] {
            let (code, text) = client.refused(&with_pid("a", pid));
            assert_eq!((code.as_str(), text), ("EACCES", format!("pid: process {pid} is not user {OF_A}'s")));
        }
        assert!(gets(&client, &with_pid("a", own.pid())));
    });
    assert_eq!((&guest(&daemon, "a")["pid"], &guest(&daemon, "a")["uid"]), (&json!(own.pid()), &json!(OF_A)));
    drop(own);
    expect_free(&daemon, "a");
    // Root may name anybody's process, but not one that does not exist.
    let root = connect(&daemon);
    assert!(gets(&root, &with_pid("b", others.pid())));
    assert_eq!(root.refused(&with_pid("b", std::process::id())).0, "EBUSY");
    for pid in [json!(0), json!(-1), json!(i32::MAX), json!("1")] {
        let (code, text) = root.refused(&json!({ "request": "sockets", "port": "a", "pid": pid }));
        assert!(code == "EINVAL" && text.contains("pid") || pid == "1" && text.contains("i32"), "{code} {text}");
    }
    drop(others);
    expect_free(&daemon, "b");
    daemon.finish();
}

#[test]
fn an_ordinary_user_starts_a_guest_without_root() {
    let daemon = daemon("huser");
    let mut b = start(&daemon, "b", "10.0.0.2");
    // A launcher with the right to lock memory.
    let mut command = run(&daemon, "a");
    command.args(["-guest", "ip=10.0.0.1"]);
    unprivileged(&mut command, 1 << 30, &[]);
    let mut a = Double::spawn(command);
    a.wait_ready();
    assert!(a.ping("10.0.0.2") && b.ping("10.0.0.1"));
    assert_eq!(guest(&daemon, "a")["uid"], NOBODY);
    drop(a);
    expect_free(&daemon, "a");
    // Without that right, for a port that is not the user's, and as somebody else.
    for (words, memlock, why) in [
        ("a", 8 << 20, "this user may have 8 MiB: raise `memlock` in /etc/security/limits.conf"),
        ("b", 1 << 30, "port b: user 65534 may not have the sockets of `b`"),
        ("a --user root", 1 << 30, "--user: only root can run QEMU as somebody else"),
    ] {
        let mut command = run(&daemon, words);
        unprivileged(&mut command, memlock, &[]);
        let text = ends_with(&mut command, 125);
        assert!(text.contains(why), "{words}: {text}");
        expect_free(&daemon, "a");
    }
    drop(b);
    daemon.finish();
}

/// The daemon's open descriptors. Those of BPF are left out: a guest's end has some while it is open, and one that was
/// opened in vain is closed a moment later.
fn open_files(daemon: &Daemon) -> Vec<PathBuf> {
    let files = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("it runs");
    let links = files.flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
    links.filter(|link| !link.to_string_lossy().starts_with("anon_inode:bpf")).collect()
}

/// Number of them.
fn descriptors(daemon: &Daemon) -> usize {
    open_files(daemon).len()
}

/// Waits until the daemon has no more descriptors open than before, except for the connection and the process that it
/// still looks at.
fn expect_descriptors(daemon: &Daemon, before: usize) {
    let mut last = 0;
    let back = wait::until(PATIENCE, || {
        last = descriptors(daemon);
        (last <= before + 2).then_some(())
    });
    assert!(back.is_some(), "{last} descriptors after {before}: {:?}", open_files(daemon));
}

/// Asks for the sockets of both ports, gives them back, and checks that the daemon is well.
fn expect_well(daemon: &Daemon) {
    let client = connect(daemon);
    for port in ["a", "b"] {
        assert!(gets(&client, &request(port)));
        release(&client, port);
    }
}

#[test]
fn bad_messages_are_answered_and_what_comes_with_them_is_closed() {
    let daemon = daemon("hbad");
    expect_well(&daemon);
    let before = descriptors(&daemon);
    let fd: OwnedFd = std::fs::File::open("/dev/null").expect("it is there").into();
    let client = connect(&daemon);
    let long = json!({ "request": "describe", "port": "x".repeat(LONGEST) }).to_string();
    let deep = "[".repeat(LONGEST - 1);
    let messages: [&[u8]; 10] = [
        b"x",
        b"{}",
        b"{\"request\":\"sockets\"}",
        b"{\"request\":\"steal\",\"port\":\"a\"}",
        b"{\"request\":\"sockets\",\"port\":\"a\",\"more\":1}",
        b"{\"request\":\"sockets\",\"port\":7}",
        b"\xff\xfe\0",
        b"[]",
        long.as_bytes(),
        deep.as_bytes(),
    ];
    for message in messages {
        for fds in [0, 1, 60, 200] {
            // The kernel may refuse descriptors on the daemon's behalf (6.16 and later).
            match client.send(message, &vec![fd.as_raw_fd(); fds]) {
                Err(Errno::EPERM) if fds > 0 => continue,
                sent => sent.expect("it is sent"),
            }
            let (answer, given) = client.answer();
            assert!(answer["code"] == "EINVAL" && given.is_empty(), "{fds}: {answer}");
        }
    }
    // The longest valid message, with descriptors that nobody wants.
    let mut padded = request("a").to_string();
    padded.push_str(&" ".repeat(LONGEST - padded.len()));
    if client.send(padded.as_bytes(), &[fd.as_raw_fd(); 3]) == Err(Errno::EPERM) {
        client.send(padded.as_bytes(), &[]).expect("it is sent");
    }
    let (answer, sockets) = client.answer();
    assert_eq!((answer["port"].as_str(), sockets.len()), (Some("a"), 1), "{answer}");
    drop(sockets);
    release(&client, "a");
    // An empty message is the end.
    client.send(b"", &[]).expect("it is sent");
    assert_eq!(client.receive().expect("the end").0, b"");
    drop(client);
    expect_well(&daemon);
    expect_descriptors(&daemon, before);
    daemon.finish();
}

#[test]
fn many_connections_of_one_user_keep_nobody_else_out() {
    let daemon = daemon("hmany");
    expect_well(&daemon);
    let before = descriptors(&daemon);
    let strangers: Vec<_> = as_user(STRANGER, || (0..100).map(|_| connect(&daemon)).collect());
    let users: Vec<_> = as_user(OF_A, || (0..100).map(|_| connect(&daemon)).collect());
    expect_well(&daemon);
    let roots: Vec<_> = (0..100).map(|_| connect(&daemon)).collect();
    expect_well(&daemon);
    // All users with the right are served.
    for client in users.iter().chain(&roots) {
        assert_eq!(client.ask(&json!({ "request": "describe", "port": "a" })).0["port"], "a");
    }
    let refused = |client: &&Client| {
        let asked = client.send(request("a").to_string().as_bytes(), &[]);
        asked.is_ok() && client.receive().is_ok_and(|(bytes, _)| !bytes.is_empty())
    };
    let answered = strangers.iter().filter(refused).count();
    assert!((1..100).contains(&answered), "{answered}");
    drop((strangers, users, roots));
    expect_descriptors(&daemon, before);
    // Many connections come and go at once, from several threads.
    std::thread::scope(|scope| {
        for side in 0..4 {
            let daemon = &daemon;
            scope.spawn(move || {
                (0..100).for_each(|n| {
                    let client = connect(daemon);
                    if n % 2 == side % 2 {
                        client.send(request("b").to_string().as_bytes(), &[]).expect("there is room");
                    }
                });
            });
        }
    });
    expect_well(&daemon);
    expect_descriptors(&daemon, before);
    daemon.finish();
}

#[test]
fn a_client_that_does_not_listen_harms_nobody() {
    let daemon = daemon("hdeaf");
    expect_well(&daemon);
    let before = descriptors(&daemon);
    let mut b = start(&daemon, "b", "10.0.0.2");
    // It asks until the daemon takes no more requests, because the answers pile up.
    let deaf = as_user(OF_A, || {
        let client = connect(&daemon);
        let (mut asked, mut waited) = (0, 0);
        let ask = || loop {
            // The first requests are for sockets, which pile up with the answers. The rest are answered sooner.
            let kind = if asked < 20 { "sockets" } else { "describe" };
            match client.send(json!({ "request": kind, "port": "a" }).to_string().as_bytes(), &[]) {
                Ok(()) => (asked, waited) = (asked + 1, 0),
                Err(Errno::EAGAIN) => {
                    waited += 1;
                    return (waited == 20).then_some(());
                }
                Err(errno) => panic!("{errno}"),
            }
        };
        assert!(wait::until(PATIENCE, ask).is_some(), "it is told to wait");
        client
    });
    assert_eq!(connect(&daemon).refused(&request("b")).0, "EBUSY", "others are answered");
    // The requested sockets are on their way for a while. Then they are taken back.
    let holder = guest(&daemon, "a");
    assert!(holder.is_null() || holder["pid"] == std::process::id(), "{holder}");
    drop(deaf);
    release(&connect(&daemon), "a");
    let mut a = start(&daemon, "a", "10.0.0.1");
    assert!(a.ping("10.0.0.2") && b.ping("10.0.0.1"));
    let lost = outcomes(&daemon, "a");
    assert_eq!(lost[2], 0, "{lost:?}");
    drop((a, b));
    ["a", "b"].into_iter().for_each(|port| expect_free(&daemon, port));
    expect_descriptors(&daemon, before);
    daemon.finish();
}

#[test]
fn who_asks_and_goes_leaves_the_port_free() {
    let daemon = daemon("hgone");
    expect_well(&daemon);
    let before = descriptors(&daemon);
    // Separate processes that end before or after the answer has come.
    let script = "import socket,sys\n\
                  s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET)\n\
                  s.connect(sys.argv[1])\n\
                  s.send(b'{\"request\":\"sockets\",\"port\":\"a\"}')\n\
                  if sys.argv[2]=='1': s.recv(1)\n";
    for round in 0..6 {
        let path = daemon.path("run/fds.sock");
        let mut command = Command::new("python3");
        command.args(["-c", script]).arg(&path).arg((round % 2).to_string());
        ends_with(&mut command, 0);
        expect_free(&daemon, "a");
        // This process lives on, but hangs up without reading.
        connect(&daemon).send(request("a").to_string().as_bytes(), &[]).expect("there is room");
        assert!(gets(&connect(&daemon), &request("a")), "{round}: it may ask again");
        release(&connect(&daemon), "a");
        drop(start(&daemon, "a", "10.0.0.1"));
        expect_free(&daemon, "a");
    }
    expect_descriptors(&daemon, before);
    daemon.finish();
}
