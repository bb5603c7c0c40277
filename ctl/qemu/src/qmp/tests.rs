//! The client with a double of QEMU, and with peers that break the protocol.

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

use super::*;
use crate::double::{GREETING, QemuDouble};

const SHORT: Patience = Patience { greeting: Duration::from_millis(200), answer: Duration::from_millis(300) };

/// A peer that runs `serve` for its first client, and the outcome of connecting to it.
fn peer(serve: impl FnOnce(UnixStream) + Send + 'static) -> (Result<Qmp, QmpError>, JoinHandle<()>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || serve(listener.accept().unwrap().0));
    (Qmp::connect_with(&path, SHORT), thread)
}

/// A peer that sends the greeting, accepts one command, and sends `pieces` after the second.
fn answering(pieces: Vec<String>) -> impl FnOnce(UnixStream) + Send + 'static {
    move |mut stream| {
        stream.write_all(GREETING.as_bytes()).unwrap();
        let mut bytes = [0; 4096];
        let _ = stream.read(&mut bytes).unwrap();
        stream.write_all(b"{\"return\": {}, \"id\": 1}\r\n").unwrap();
        let _ = stream.read(&mut bytes).unwrap();
        for piece in pieces {
            stream.write_all(piece.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        // Stays until the client is gone.
        let _ = stream.read(&mut bytes);
    }
}

fn answer(pieces: &[&str]) -> (Qmp, Result<Value, QmpError>) {
    let (qmp, _) = peer(answering(pieces.iter().map(|piece| (*piece).to_owned()).collect()));
    let mut qmp = qmp.unwrap();
    let answer = qmp.execute("query-status", Value::Null);
    (qmp, answer)
}

#[test]
fn a_command_is_answered_and_refusals_are_in_the_words_of_qemu() {
    let qemu = QemuDouble::start();
    let mut qmp = Qmp::connect(qemu.path()).unwrap();
    assert_eq!((qmp.version(), qmp.peer()), ((10, 1, 0), Some(std::process::id().cast_signed())));
    let children = qmp.execute("qom-list", json!({ "path": "/machine/peripheral" })).unwrap();
    assert_eq!(children, json!([]));
    let error = qmp.execute("device_del", json!({ "id": "x" })).unwrap_err();
    assert!(error.is_refusal() && error.is_not_found(), "{error:?}");
    assert_eq!(error.to_string(), "QEMU refuses device_del: Device 'x' not found");
}

#[test]
fn descriptors_arrive() {
    let qemu = QemuDouble::start();
    let mut qmp = Qmp::connect(qemu.path()).unwrap();
    let (one, other) = UnixStream::pair().unwrap();
    qmp.execute_with("getfd", json!({ "fdname": "a" }), &[one.as_fd()]).unwrap();
    drop(one);
    assert_eq!(qemu.held(), ["a"]);
    qmp.execute("closefd", json!({ "fdname": "a" })).unwrap();
    assert_eq!((&other).read(&mut [0; 1]).unwrap(), 0, "it had the last copy");
}

#[test]
fn messages_may_come_in_pieces_and_several_at_a_time() {
    let (mut qmp, value) = answer(&[
        "{\"event\": \"RESUME\", \"timestamp\": {\"sec",
        "onds\": 1}}\r\n{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"d\"}}\r\n{\n  \"retu",
        "rn\":\n  7,\n \"id\": 2\n}\r",
        "\n",
    ]);
    assert_eq!(value.unwrap(), json!(7));
    let wait = |qmp: &mut Qmp, device: &'static str| {
        let deadline = Instant::now() + Duration::from_millis(50);
        qmp.wait_event(&["DEVICE_DELETED"], |data| data["device"] == device, deadline).unwrap()
    };
    assert_eq!(wait(&mut qmp, "e"), None);
    assert_eq!(wait(&mut qmp, "d").unwrap().data, json!({ "device": "d" }));
    assert_eq!(wait(&mut qmp, "d"), None, "it is told once");
}

#[test]
fn an_answer_to_an_earlier_command_is_passed_over() {
    assert_eq!(answer(&["{\"return\": 1, \"id\": 1}\n{\"return\": 2, \"id\": 2}\n"]).1.unwrap(), json!(2));
}

#[test]
fn who_does_not_answer_is_not_waited_for_for_ever() {
    let started = Instant::now();
    assert!(matches!(answer(&[]).1, Err(QmpError::Silent { .. })));
    // A peer that sends events without end is cut off as well.
    let events = vec!["{\"event\": \"X\"}\n".to_owned(); 10_000];
    let (qmp, _) = peer(move |stream| {
        let mut serve = Some(answering(Vec::new()));
        let mut copy = stream.try_clone().unwrap();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            for event in events {
                if copy.write_all(event.as_bytes()).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        serve.take().unwrap()(stream);
    });
    let mut qmp = qmp.unwrap();
    assert!(matches!(qmp.execute("x", Value::Null), Err(QmpError::Silent { .. })));
    assert!(qmp.events.len() <= MAX_EVENTS && started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_message_without_end_is_refused() {
    let (_, answer) = answer(&[&"[".repeat(100), "\n", &"\"".repeat(2), &",1".repeat(MAX_MESSAGE)]);
    assert!(matches!(answer, Err(QmpError::Garbled(_))), "{answer:?}");
    let (qmp, _) = peer(|mut stream| {
        let _ = stream.write_all(format!("{{\"QMP\": \"{}", "x".repeat(2 * MAX_MESSAGE)).as_bytes());
    });
    let error = qmp.unwrap_err().to_string();
    assert!(error.contains("longer than 262144 bytes"), "{error}");
}

#[test]
fn what_is_no_qmp_is_told_from_one_that_is_taken() {
    for (said, part) in [
        ("QEMU 10.1.0 monitor - type 'help' for more information\n(qemu) ", "not JSON"),
        ("login: ", "no whole message"),
        ("{\"hello\": 1}\n", "greeting"),
        ("[1]\n", "not an object"),
    ] {
        let (qmp, _) = peer(move |mut stream| {
            stream.write_all(said.as_bytes()).unwrap();
            let _ = stream.read(&mut [0; 1]);
        });
        let error = qmp.unwrap_err();
        assert!(matches!(error, QmpError::NotQmp { .. }) && error.to_string().contains(part), "{said}: {error}");
    }
    let (qmp, _) = peer(|mut stream| drop(stream.read(&mut [0; 1])));
    assert!(matches!(qmp, Err(QmpError::Taken { .. })), "{qmp:?}");
    let (qmp, _) = peer(drop);
    assert!(matches!(qmp, Err(QmpError::NotQmp { .. })), "{qmp:?}");
}

#[test]
fn nobody_and_too_many_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp.sock");
    assert!(matches!(Qmp::connect(&path), Err(QmpError::Absent { .. })));
    let listener = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _waiting = UnixStream::connect(&path).unwrap();
    let started = Instant::now();
    assert!(matches!(Qmp::connect_with(&path, SHORT), Err(QmpError::Taken { .. })));
    assert!(started.elapsed() < Duration::from_secs(2));
    drop(listener);
    assert!(matches!(Qmp::connect(&path), Err(QmpError::Absent { .. })));
}

#[test]
fn an_end_of_the_connection_is_no_silence() {
    let (qmp, _) = peer(|mut stream| {
        stream.write_all(GREETING.as_bytes()).unwrap();
        let _ = stream.read(&mut [0; 4096]);
        stream.write_all(b"{\"return\": {}}\n").unwrap();
        let _ = stream.read(&mut [0; 4096]);
    });
    let error = qmp.unwrap().execute("quit-at-once", Value::Null).unwrap_err();
    assert!(matches!(error, QmpError::Closed), "{error:?}");
}
