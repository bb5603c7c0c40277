//! The examples of SPP's API references, on a running daemon with NICs and VMs' ports. Each request is sent by curl
//! with the printed arguments. The answer is compared with the printed one.

use std::sync::Arc;

use kit::reference::{self, Example};
use tests::veth::{End, Veth};
use tests::{Daemon, NetNs, Options, shell};

/// Number of tests that share the examples and run side by side.
const HANDS: usize = 4;

/// Status, content type and body of a request.
fn curl(daemon: &Daemon, request: &str) -> (u16, String, String) {
    let (method, path, body) = reference::parts(request);
    let mut command = daemon.ns.command("curl");
    // The references don't name the header either. So curl sends a form's content type.
    command.args(["-sS", "-X", method, "-H", "application/json", "-w", "\n%{http_code} %{content_type}"]);
    if !body.is_empty() {
        command.args(["-d", body]);
    }
    let said = shell::run(command.arg(format!("http://127.0.0.1:7777{path}")));
    let (text, last) = said.rsplit_once('\n').expect("the line that was asked for");
    let (status, content_type) = last.split_once(' ').expect("two words");
    (status.parse().expect("a number"), content_type.to_owned(), text.to_owned())
}

/// Runs an example on the machine that it assumes, after its preparing requests.
fn run(example: &Example) {
    let ns = Arc::new(NetNs::new("sppref"));
    for n in 0..2 {
        let (nic, wire) = (format!("eth1{n}"), format!("wire{n}"));
        let veth = Veth { queues: example.queues(), ..Veth::default() };
        veth.connect(End { ns: &ns, ifname: &nic }, End { ns: &ns, ifname: &wire });
        ns.sh(&format!("ip link set {nic} address 56:48:4f:53:54:0{n}"));
    }
    let captures = tempfile::tempdir().expect("a temporary directory");
    let config = format!("[spp]\ndirectory = {:?}\n{}", captures.path(), example.config());
    let daemon = Daemon::within(ns, &Options { config, ..Options::default() });
    for request in example.before {
        let (status, _, text) = curl(&daemon, request);
        assert!((200..300).contains(&status), "{}: {request}: {status} {text}", example.name);
    }
    let (status, content_type, text) = curl(&daemon, example.request);
    if let Err(why) = example.check(status, &content_type, &text) {
        panic!("{why}");
    }
    daemon.finish();
}

fn hand(n: usize) {
    reference::examples().skip(n).step_by(HANDS).for_each(run);
}

#[test]
fn first_hand_of_examples() {
    hand(0);
}

#[test]
fn second_hand_of_examples() {
    hand(1);
}

#[test]
fn third_hand_of_examples() {
    hand(2);
}

#[test]
fn fourth_hand_of_examples() {
    hand(HANDS - 1);
}
