//! The DPU interface as a stranger uses it, over gRPC: a Python client generated from the document's own messages.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tests::python::{environment, script};
use tests::raw::RawSocket;
use tests::veth::{End, Veth};
use tests::{Daemon, Frame, Mac, NetNs, Options, shell, wait};

const SOON: Duration = Duration::from_secs(3);

fn drive(daemon: &Daemon, environment: &Path, phase: &str) -> String {
    let mut client = script(daemon, environment, "drive.py");
    let driven = shell::output(client.arg(daemon.path("run/dpu.sock")).arg(phase));
    let said = String::from_utf8_lossy(&driven.stdout).into_owned();
    let failed = String::from_utf8_lossy(&driven.stderr);
    assert!(driven.status.success(), "{phase}: {said}\n{failed}\n{}", daemon.log());
    said
}

#[test]
fn a_python_client_made_from_the_document_drives_every_method_through_kill_and_restart() {
    let environment = environment();
    let mut daemon = Daemon::start("python");
    let said = drive(&daemon, &environment, "configure");
    let services = ["ElasticNic", "Vdisk", "Meter", "TrafficControl", "PortStats", "EthMac"];
    for service in services {
        assert!(said.contains(&format!("ok {service}.")), "{service} was not driven:\n{said}");
    }
    daemon.kill();
    daemon.launch();
    drive(&daemon, &environment, "verify");
    daemon.stop();
    daemon.launch();
    drive(&daemon, &environment, "verify");
    drive(&daemon, &environment, "cleanup");
    daemon.finish();
}

#[test]
fn a_python_client_made_from_the_document_reads_and_sets_an_optical_port() {
    let environment = environment();
    let daemon = Daemon::start("optical");
    let far = NetNs::new("far");
    let near = End { ns: &daemon.ns, ifname: "up0" };
    Veth { queues: 2, ..Veth::default() }.connect(near, End { ns: &far, ifname: "h0" });
    daemon.ok("POST", "ports", json!({ "name": "up", "kind": "phy", "ifname": "up0" }));
    let outside = RawSocket::open(&far, "h0");
    let frame = Frame::ethernet(Mac::stranger(1), Mac::BROADCAST).payload(0x88b5, &[0; 46]);
    (0..20).for_each(|_| outside.send(&frame));
    wait::expect("all came", SOON, || daemon.stats("up")["rx"]["packets"].as_u64() >= Some(20));
    drive(&daemon, &environment, "optical");
    // A wire has one MTU, so the other end of a pair that can be reached has it too.
    for (ns, ifname) in [(&*daemon.ns, "up0"), (&far, "h0")] {
        assert!(ns.sh(&format!("ip link show {ifname}")).contains("mtu 1400"), "{ifname}");
    }
    daemon.finish();
}

#[test]
fn a_python_client_made_from_the_document_makes_a_bond_that_outlives_a_restart() {
    let environment = environment();
    let mut daemon = Daemon::start("bond");
    let far = NetNs::new("far");
    for (ifname, other) in [("b0", "h0"), ("b1", "h1")] {
        Veth::default().connect(End { ns: &daemon.ns, ifname }, End { ns: &far, ifname: other });
    }
    drive(&daemon, &environment, "bond");
    let members = |daemon: &Daemon| daemon.get("bonds/bond0")["spec"]["members"].clone();
    assert_eq!(members(&daemon), json!(["b0"]));
    daemon.stop();
    daemon.launch();
    assert_eq!(members(&daemon), json!(["b0"]));
    drive(&daemon, &environment, "end_bond");
    daemon.finish();
}

/// Makes an authority with certificates, and another one that nobody trusts, by openssl.
fn certificates(dir: &Path) {
    let openssl = |line: &str| {
        let made = shell::output(Command::new("openssl").args(line.split_whitespace()).current_dir(dir));
        assert!(made.status.success(), "openssl {line}: {}", shell::text(&made));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for (authority, names) in [("ca", &["server", "client"][..]), ("other", &["stranger"])] {
        openssl(&format!("req -x509 {key} -keyout {authority}.key -out {authority}.pem -subj /CN={authority} -days 2"));
        for name in names {
            openssl(&format!(
                "req {key} -keyout {name}.key -out {name}.csr -subj /CN={name} -addext subjectAltName=IP:127.0.0.1"
            ));
            openssl(&format!(
                "x509 -req -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -copy_extensions copy \
                 -out {name}.pem -days 2"
            ));
        }
    }
}

#[test]
fn tls_lets_in_whom_the_authority_has_signed_and_nobody_else() {
    let environment = environment();
    let dir = tempfile::tempdir().expect("a temporary directory");
    certificates(dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    let config = format!(
        "[dpu]\nlisten = \"127.0.0.1:50051\"\ncertificate = {:?}\nkey = {:?}\nclient_ca = {:?}\n",
        file("server.pem"),
        file("server.key"),
        file("ca.pem")
    );
    let daemon = Daemon::with("tls", &Options { config, ..Options::default() });
    let call = |name: &str| {
        let mut client = script(&daemon, &environment, "secure.py");
        shell::output(client.arg("127.0.0.1:50051").arg(dir.path()).arg(name))
    };
    let good = call("client");
    assert!(good.status.success(), "{}", shell::text(&good));
    assert!(shell::text(&good).contains("dpu.EthMac"), "{}", shell::text(&good));
    for bad in ["-", "stranger"] {
        assert!(!call(bad).status.success(), "{bad} was let in");
    }
    daemon.finish();
}

#[test]
fn a_client_that_holds_its_connection_does_not_hold_the_daemon() {
    let mut daemon = Daemon::start("hold");
    let sockets = ["run/api.sock", "run/dpu.sock"].map(|name| {
        let mut stream = UnixStream::connect(daemon.path(name)).expect("it listens");
        // The start of a request, and of an HTTP/2 connection.
        stream.write_all(b"PRI * HTTP/2.0\r\n").expect("it takes that");
        stream
    });
    let mut scrape = daemon.ns.run(|| std::net::TcpStream::connect("127.0.0.1:9477").expect("it listens"));
    scrape.write_all(b"GET /metrics HTTP/1.1\r\n").expect("it takes that");
    daemon.stop();
    drop((sockets, scrape));
    assert!(!daemon.path("run/dpu.sock").exists(), "the socket's file is left");
    daemon.launch();
    daemon.finish();
}
