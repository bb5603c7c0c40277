//! Fuzzes LACP: arbitrary frames at arbitrary times come in at the ports of a system. Frames that parse are encoded to
//! frames that say the same. No port sends more than the standard allows, nothing piles up, and no deadline is past.
#![no_main]

use std::collections::VecDeque;
use std::time::Duration;

use bond::lacp::pdu::Pdu;
use bond::lacp::{Lacp, LacpConfig};
use bond::options::{AdSelect, LacpRate};
use bond::{Duplex, Link, MemberId};
use libfuzzer_sys::fuzz_target;
use model::MacAddr;

const PORTS: u16 = 3;
const SOURCE: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 9]);

/// Times of the frames of each port that were sent within the last second: LACPDUs and others.
#[derive(Default)]
struct Sent([[VecDeque<Duration>; 2]; PORTS as usize]);

impl Sent {
    /// Takes what a system sends now.
    fn take(&mut self, lacp: &mut Lacp, now: Duration) {
        for (port, pdu) in lacp.take_frames() {
            let (kind, most) = if matches!(pdu, Pdu::Lacp(_)) { (0, 3) } else { (1, 5) };
            let times = &mut self.0[usize::from(port.0 - 1)][kind];
            times.push_back(now);
            while times.front().is_some_and(|first| now - *first >= Duration::from_secs(1)) {
                times.pop_front();
            }
            assert!(times.len() <= most, "{} frames in a second", times.len());
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut lacp = Lacp::new(LacpConfig {
        system: MacAddr::new([2, 0, 0, 0, 0, 1]),
        system_priority: 1,
        user_key: 0,
        rate: LacpRate::Fast,
        active: data.len().is_multiple_of(2),
        select: AdSelect::Count,
    });
    let link = Link { up: true, speed: Some(1000), duplex: Some(Duplex::Full) };
    let mut now = Duration::ZERO;
    for port in (1..=PORTS).map(MemberId) {
        lacp.add(port);
        lacp.set_link(now, port, link);
    }
    let mut sent = Sent::default();
    sent.take(&mut lacp, now);
    // Each step: milliseconds to wait in tens, what happens, and a frame with its length in front.
    let mut rest = data;
    while let [wait, what, len, tail @ ..] = rest {
        let (frame, next) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = next;
        now += Duration::from_millis(u64::from(*wait) * 10);
        let port = MemberId(u16::from(what % 3) + 1);
        match what / 3 % 8 {
            0 => lacp.set_link(now, port, Link { up: (what / 24).is_multiple_of(2), ..link }),
            1 => lacp.run(now),
            // The header is right, so that more gets past it.
            2..=4 => {
                let mut slow = Pdu::Other { subtype: 0 }.encode(SOURCE);
                let end = slow.len().min(14 + frame.len());
                slow[14..end].copy_from_slice(&frame[..end - 14]);
                let _ = lacp.receive(now, port, &slow);
            }
            _ => {
                let _ = lacp.receive(now, port, frame);
            }
        }
        if let Ok(pdu) = Pdu::parse(frame) {
            assert_eq!(Pdu::parse(&pdu.encode(SOURCE)), Ok(pdu));
        }
        // What has been due since the last step is done now, late as it is.
        lacp.run(now);
        assert!(lacp.deadline(now).is_none_or(|due| due > now), "a thread would spin");
        sent.take(&mut lacp, now);
    }
});
