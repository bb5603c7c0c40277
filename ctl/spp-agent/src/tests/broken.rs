//! A broken spp-ctl, or something else in its place. What it sends changes nothing and delays nobody.

use std::io::{ErrorKind, Read, Write};

use super::*;

const ONE: &str = "[[spp.process]]\ntype = \"vf\"\nclient_id = 1\ncores = [0, 1]\n";

fn one() -> Rig {
    Rig::start(ONE, Version::Types, StatusFormat::Json)
}

/// Asks until an answer comes. Earlier requests and their answers may still be on their way.
fn is_well(rig: &Rig, link: &mut Link) {
    link.stream().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut buffer = vec![0; 1 << 16];
    while link.stream().read(&mut buffer).is_ok_and(|read| read > 0) {}
    link.stream().set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    link.ask("status").unwrap();
    assert!(rig.spp.instance(VF).is_ok());
}

#[test]
fn commands_that_are_cut_off_anywhere_change_nothing() {
    let rig = one();
    let before = rig.spp.instances();
    let command = "component start c1 9 merge";
    for at in 0..=command.len() {
        let (_, mut link) = rig.ctl.accept_secondary();
        link.stream().write_all(&command.as_bytes()[..at]).unwrap();
        if at % 2 == 0 {
            // The connection is reset, with the answer unread.
            nix::sys::socket::setsockopt(
                link.stream(),
                nix::sys::socket::sockopt::Linger,
                &libc::linger { l_onoff: 1, l_linger: 0 },
            )
            .unwrap();
        }
    }
    let (_, mut link) = rig.ctl.accept_secondary();
    is_well(&rig, &mut link);
    assert_eq!(rig.spp.instances(), before);
}

#[test]
fn bytes_without_end_are_refused_and_not_kept() {
    let rig = one();
    let before = rig.spp.instances();
    let (_, mut link) = rig.ctl.accept_secondary();
    let mut answers = link.stream().try_clone().unwrap();
    answers.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let reader = std::thread::spawn(move || {
        let (mut buffer, mut text) = (vec![0; 1 << 16], Vec::new());
        while let Ok(read @ 1..) = answers.read(&mut buffer) {
            text.extend_from_slice(&buffer[..read]);
        }
        String::from_utf8(text).unwrap()
    });
    for block in [&b"x"[..], b"status ", b"\xff\x00\xfe", b"{\"a\":", b"\n\n\n", b"component start \0"] {
        let many = block.repeat((2 << 20) / block.len());
        link.stream().write_all(&many).unwrap();
    }
    let text = reader.join().unwrap();
    assert!(text.contains("error") && text.len() < 64 << 20, "{} bytes", text.len());
    is_well(&rig, &mut link);
    assert_eq!(rig.spp.instances(), before);
}

#[test]
fn one_that_does_not_read_is_given_up_and_comes_again() {
    let rig = one();
    let (_, mut link) = rig.ctl.accept_secondary();
    link.stream().set_nonblocking(true).unwrap();
    let many = b"status\n".repeat(32);
    // Send until all buffers are full, or the agent gives up.
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        match link.stream().write(&many) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(Duration::from_millis(10)),
            Err(_) => break,
        }
        assert!(Instant::now() < until, "it is not given up");
    }
    let (proc, mut link) = rig.ctl.accept_secondary();
    assert_eq!(proc, VF);
    is_well(&rig, &mut link);
}
