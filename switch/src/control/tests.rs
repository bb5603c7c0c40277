//! A running switch without ports: frames come and go by outside ends, whose threads the tests play.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use std::sync::Arc;

use super::Switch;
use super::components::{FromComponents, LiveOutside, ToComponents, queues};
use super::state::lock;
use crate::ErrorKind;
use crate::host::kernel::KernelHost;
use crate::model::*;
use crate::outside::{FromSwitch, OutsideThread, ToSwitch};

/// An end's thread that does nothing.
struct Idle;

impl ToSwitch for Idle {
    fn offer(&mut self, _: &[u8]) -> bool {
        false
    }
}

impl FromSwitch for Idle {
    fn take(&mut self, timeout: Duration) -> Vec<CapturedFrame> {
        std::thread::sleep(timeout.min(Duration::from_millis(5)));
        Vec::new()
    }
}

/// Sets a flag when it goes, also when a test fails, or the thread that waits for it would go on for ever.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn switch(workers: usize) -> Switch {
    let settings =
        DataplaneSettings { workers, frames: 8192, huge_pages: HugePages::Off, ..DataplaneSettings::default() };
    Switch::start(&settings, BridgeSettings::default(), Default::default()).unwrap()
}

/// Adds an outside end whose queues the test has.
fn outside(switch: &Switch, no: u32) -> (ToComponents, FromComponents) {
    let spec = OutsideSpec::Pcap { rx: None, tx: None };
    let (end, to, from) = queues(&switch.core, no, &spec);
    let thread = OutsideThread::start(&spec, &KernelHost::default(), Box::new(Idle), Box::new(Idle)).unwrap();
    lock(&switch.control).components.outside.insert(no, LiveOutside { spec, end: Arc::new(end), thread });
    (to, from)
}

fn end(port: EndPort) -> End {
    End { port, vlan: VlanEdit::None }
}

fn forward(name: &str, worker: usize, from: EndPort, to: EndPort) -> ComponentSpec {
    ComponentSpec {
        name: name.to_owned(),
        worker,
        kind: ComponentKind::Forward,
        rx: vec![end(from)],
        tx: vec![end(to)],
        table: Vec::new(),
    }
}

/// A numbered frame.
fn frame(number: u64) -> Vec<u8> {
    let mut frame = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]].concat();
    frame.extend([0x88, 0xb5]);
    frame.extend(number.to_be_bytes());
    frame.resize(60, 0);
    frame
}

fn number(frame: &[u8]) -> u64 {
    u64::from_be_bytes(frame[14..22].try_into().unwrap())
}

/// Waits until nothing is on its way, and checks that all is accounted for.
fn assert_balanced(switch: &Switch) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let (stats, audit) = (switch.stats(), switch.audit());
        assert!(audit.consistent, "{audit:?}");
        if (stats.unaccounted_packets, stats.unaccounted_bytes) == (0, 0) {
            return;
        }
        assert!(Instant::now() < deadline, "{stats:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Takes that many frames.
fn take(from: &mut FromComponents, count: usize) -> Vec<CapturedFrame> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut frames = Vec::new();
    while frames.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} came", frames.len());
        frames.extend(from.take(Duration::from_millis(10)));
    }
    frames
}

/// Numbered frames go through three components on two workers while all but the middle one change, workers too. The
/// first one says by a VLAN tag which set it is of, and the last one has entries for that VLAN only: a frame that
/// saw half would be dropped there.
#[test]
fn a_change_of_the_set_loses_nothing_and_no_frame_sees_half_of_it() {
    let switch = switch(2);
    for no in [0, 1] {
        switch.add_ring(no, 1024).unwrap();
    }
    let (mut to, _) = outside(&switch, 0);
    let (_, mut from) = outside(&switch, 1);
    let set = |n: usize| {
        let vid = (n % 5 + 1) as u16;
        let mut first = forward("first", n % 2, EndPort::Outside(0), EndPort::Ring(0));
        first.tx[0].vlan = VlanEdit::Add { vid, pcp: 0 };
        let middle = forward("middle", 0, EndPort::Ring(0), EndPort::Ring(1));
        let mut last = forward("last", n / 2 % 2, EndPort::Ring(1), EndPort::Outside(1));
        last.kind = ComponentKind::Classifier;
        last.tx[0].vlan = VlanEdit::Del;
        last.table = vec![TableEntry { vlan: Some(vid), mac: None, tx: 0 }];
        vec![first, middle, last]
    };
    switch.set_components(set(0)).unwrap();
    let done = AtomicBool::new(false);
    let changes = std::thread::scope(|scope| {
        let changer = scope.spawn(|| {
            let mut n = 0;
            while !done.load(Ordering::Relaxed) {
                n += 1;
                switch.set_components(set(n)).unwrap();
            }
            n
        });
        let done = SetAtEnd(&done);
        let (mut sent, mut received, mut enough) = (0, 0, Instant::now());
        let mut waiting: VecDeque<u64> = VecDeque::new();
        while sent < 100_000 || !waiting.is_empty() {
            // Fewer than any queue on the way holds.
            while sent < 100_000 && waiting.len() < 500 && to.offer(&frame(sent)) {
                waiting.push_back(sent);
                sent += 1;
            }
            for got in from.take(Duration::from_millis(1)) {
                assert_eq!(Some(number(&got.data)), waiting.pop_front(), "after {received}");
                assert_eq!(got.data.len(), 60);
                (received, enough) = (received + 1, Instant::now());
            }
            assert!(enough.elapsed() < Duration::from_secs(20), "stuck: {waiting:?} {:?}", switch.stats().components);
        }
        drop(done);
        changer.join().unwrap()
    });
    assert!(changes > 10, "{changes} changes");
    assert_balanced(&switch);
    let infos = switch.components();
    assert!(infos.iter().all(|info| (info.rx.packets, info.tx.packets, info.dropped.packets) == (100_000, 100_000, 0)));
}

#[test]
fn what_is_in_a_ring_waits_for_the_one_who_takes_it() {
    let switch = switch(2);
    switch.add_ring(5, 64).unwrap();
    let (mut to, _) = outside(&switch, 0);
    let (_, mut from) = outside(&switch, 1);
    let fill = forward("fill", 0, EndPort::Outside(0), EndPort::Ring(5));
    switch.set_components(vec![fill.clone()]).unwrap();
    (0..40).for_each(|n| assert!(to.offer(&frame(n))));
    while switch.ends()[0].queued < 40 {
        std::thread::yield_now();
    }
    assert_balanced(&switch);
    assert_eq!(switch.frames().in_transit, 40);
    assert_eq!(switch.del_ring(5).unwrap_err().kind(), ErrorKind::Busy);
    switch.set_components(vec![forward("empty", 1, EndPort::Ring(5), EndPort::Outside(1)), fill]).unwrap();
    let numbers: Vec<_> = take(&mut from, 40).iter().map(|frame| number(&frame.data)).collect();
    assert_eq!(numbers, (0..40).collect::<Vec<_>>());
    assert_balanced(&switch);
    // And what is in one that goes is dropped, and counted.
    switch.set_components(vec![forward("fill", 0, EndPort::Outside(0), EndPort::Ring(5))]).unwrap();
    (0..3).for_each(|n| assert!(to.offer(&frame(n))));
    while switch.ends()[0].queued < 3 {
        std::thread::yield_now();
    }
    switch.set_components(Vec::new()).unwrap();
    switch.del_ring(5).unwrap();
    assert_balanced(&switch);
    assert_eq!(switch.stats().components.drops["ring_gone"].packets, 3);
}

#[test]
fn frames_that_go_round_in_a_circle_do_not_hold_up_a_change() {
    let switch = switch(2);
    for no in [0, 1] {
        switch.add_ring(no, 64).unwrap();
    }
    let (mut to, _) = outside(&switch, 0);
    let mut merge = forward("merge", 0, EndPort::Outside(0), EndPort::Ring(0));
    merge.kind = ComponentKind::Merge;
    merge.rx.push(end(EndPort::Ring(1)));
    switch.set_components(vec![merge, forward("back", 1, EndPort::Ring(0), EndPort::Ring(1))]).unwrap();
    (0..10).for_each(|n| assert!(to.offer(&frame(n))));
    let came = || switch.ends().iter().find(|info| info.end == EndPort::Outside(0)).map(|info| info.rx.packets);
    while came() != Some(10) || switch.components()[1].tx.packets < 100 {
        std::thread::yield_now();
    }
    switch.set_components(Vec::new()).unwrap();
    assert_balanced(&switch);
    assert_eq!(switch.stats().components.drops["ring_gone"].packets, 10);
    assert!(switch.ends().iter().all(|end| end.queued == 0));
}

#[test]
fn a_set_that_does_not_fit_changes_nothing() {
    let switch = switch(1);
    switch.add_ring(0, 64).unwrap();
    let (mut to, _) = outside(&switch, 0);
    let (_, mut from) = outside(&switch, 1);
    switch.set_components(vec![forward("f", 0, EndPort::Outside(0), EndPort::Outside(1))]).unwrap();
    for (bad, kind) in [
        (forward("f", 1, EndPort::Outside(0), EndPort::Outside(1)), ErrorKind::Invalid),
        (forward("f", 0, EndPort::Ring(1), EndPort::Outside(1)), ErrorKind::NotFound),
        (forward("f", 0, EndPort::Port { name: "p".into(), queue: None }, EndPort::Ring(0)), ErrorKind::NotFound),
    ] {
        assert_eq!(switch.set_components(vec![bad]).unwrap_err().kind(), kind);
    }
    assert!(to.offer(&frame(1)));
    assert_eq!(take(&mut from, 1).len(), 1);
    assert_eq!(switch.del_outside(0).unwrap_err().kind(), ErrorKind::Busy);
    for (error, kind) in [
        (switch.add_ring(0, 64), ErrorKind::Exists),
        (switch.add_ring(1, 65), ErrorKind::Invalid),
        (switch.add_ring(1024, 64), ErrorKind::Invalid),
        (switch.del_ring(1), ErrorKind::NotFound),
        (switch.add_outside(0, OutsideSpec::Pcap { rx: None, tx: None }), ErrorKind::Exists),
        (switch.del_outside(7), ErrorKind::NotFound),
    ] {
        assert_eq!(error.unwrap_err().kind(), kind);
    }
    assert_balanced(&switch);
}

#[test]
fn a_component_of_another_name_counts_from_zero_and_the_books_balance() {
    let switch = switch(1);
    let (mut to, _) = outside(&switch, 0);
    switch.set_components(vec![forward("f", 0, EndPort::Outside(0), EndPort::Null(0))]).unwrap();
    (0..5).for_each(|n| assert!(to.offer(&frame(n))));
    while switch.components()[0].tx.packets < 5 {
        std::thread::yield_now();
    }
    let ends = switch.ends();
    assert_eq!((ends[0].tx.packets, ends[1].rx.packets), (5, 5), "{ends:?}");
    assert_balanced(&switch);
    // Under another name it begins at zero, and what the first one counted is not forgotten.
    switch.set_components(vec![forward("g", 0, EndPort::Outside(0), EndPort::Null(0))]).unwrap();
    assert_eq!(switch.components()[0].rx, Count::default());
    assert_eq!(switch.stats().components.rx.packets, 5);
    assert_balanced(&switch);
}

/// A capture file of those frames.
fn pcap(frames: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1_u32] {
        file.extend(word.to_le_bytes());
    }
    for frame in frames {
        let len = frame.len() as u32;
        [0, 0, len, len].into_iter().for_each(|word: u32| file.extend(word.to_le_bytes()));
        file.extend(frame);
    }
    file
}

#[test]
fn a_file_goes_through_a_component_into_another_file_whole() {
    const FRAMES: u64 = 5000;
    let switch = switch(1);
    let directory = tempfile::tempdir().unwrap();
    let (rx, tx) = (directory.path().join("rx.pcap"), directory.path().join("tx.pcap"));
    std::fs::write(&rx, pcap((0..FRAMES).map(frame))).unwrap();
    switch.add_outside(0, OutsideSpec::Pcap { rx: Some(rx), tx: None }).unwrap();
    switch.add_outside(1, OutsideSpec::Pcap { rx: None, tx: Some(tx.clone()) }).unwrap();
    switch.set_components(vec![forward("f", 0, EndPort::Outside(0), EndPort::Outside(1))]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while switch.components()[0].rx.packets < FRAMES {
        assert!(Instant::now() < deadline, "{:?} {:?}", switch.components(), switch.outside());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_balanced(&switch);
    let dropped = switch.ends()[1].tx_dropped.packets;
    switch.set_components(Vec::new()).unwrap();
    (0..2).for_each(|no| switch.del_outside(no).unwrap());
    let written = std::fs::read(&tx).unwrap();
    let numbers: Vec<_> = written[24..].chunks(16 + 60).map(|record| number(&record[16..])).collect();
    assert_eq!(numbers.len() as u64, FRAMES - dropped);
    assert!(numbers.is_sorted() && numbers.first() == Some(&0), "{:?}", &numbers[..10]);
    assert_balanced(&switch);
}

#[test]
fn a_switch_that_ends_with_components_at_work_ends() {
    let switch = switch(2);
    switch.add_ring(0, 64).unwrap();
    let set =
        vec![forward("f", 0, EndPort::Null(0), EndPort::Ring(0)), forward("g", 1, EndPort::Ring(0), EndPort::Null(1))];
    switch.set_components(set).unwrap();
    while switch.components()[1].tx.packets < 1000 {
        std::thread::yield_now();
    }
    switch.shutdown();
}

#[test]
fn rings_that_nobody_empties_hold_a_quarter_of_all_frames_at_most() {
    const RINGS: u32 = 12;
    let switch = switch(1);
    let held = || {
        let ends = switch.ends().into_iter().filter(|end| matches!(end.end, EndPort::Ring(_)));
        ends.map(|end| end.queued).sum::<u32>()
    };
    (0..RINGS).for_each(|no| switch.add_ring(no, 1024).unwrap());
    // One after another, as a client would that has no end of patience; the first ones are full then.
    for no in 0..RINGS {
        switch.set_components(vec![forward("f", 0, EndPort::Null(0), EndPort::Ring(no))]).unwrap();
        let before = switch.components()[0].dropped.packets;
        while switch.components()[0].dropped.packets < before + 2048 {
            std::thread::yield_now();
        }
        assert!(held() <= 8192 / 4, "{}", held());
    }
    assert!(held() > 1024, "they hold something: {}", held());
    assert_balanced(&switch);
    // With a reader a ring has all of its room.
    let set =
        vec![forward("f", 0, EndPort::Null(0), EndPort::Ring(0)), forward("g", 0, EndPort::Ring(0), EndPort::Null(1))];
    switch.set_components(set).unwrap();
    while switch.components()[1].tx.packets < 10_000 {
        std::thread::yield_now();
    }
    assert!(switch.ends().iter().any(|end| end.end == EndPort::Ring(0) && end.queued < 1024));
    switch.set_components(Vec::new()).unwrap();
    (0..RINGS).for_each(|no| switch.del_ring(no).unwrap());
    assert_balanced(&switch);
}

#[test]
fn components_in_a_circle_leave_time_to_others() {
    let switch = switch(1);
    let (mut to, mut from) = outside(&switch, 0);
    let ring = EndPort::Ring;
    (0..2).for_each(|no| switch.add_ring(no, 64).unwrap());
    let mut round = forward("a", 0, ring(1), ring(0));
    round.kind = ComponentKind::Merge;
    round.rx.push(end(EndPort::Null(0)));
    let mut set =
        vec![round, forward("b", 0, ring(0), ring(1)), forward("f", 0, EndPort::Outside(0), EndPort::Outside(0))];
    switch.set_components(set.clone()).unwrap();
    while switch.components().iter().take(2).any(|component| component.tx.packets < 1000) {
        std::thread::yield_now();
    }
    for round in 0..20 {
        assert!(to.offer(&frame(round)));
        assert_eq!(number(&take(&mut from, 1)[0].data), round);
    }
    assert!(switch.audit().consistent);
    // The circle is broken without waiting for its end, which does not come.
    set.remove(1);
    switch.set_components(set).unwrap();
    switch.set_components(Vec::new()).unwrap();
    (0..2).for_each(|no| switch.del_ring(no).unwrap());
    assert_balanced(&switch);
}

#[test]
fn there_are_no_more_ends_outside_than_threads_can_be_spared_for() {
    let switch = switch(1);
    let spec = OutsideSpec::Pcap { rx: None, tx: None };
    (0..128).for_each(|no| switch.add_outside(no, spec.clone()).unwrap());
    let error = switch.add_outside(128, spec.clone()).unwrap_err();
    assert!(error.kind() == ErrorKind::Full && error.to_string().contains("128"), "{error}");
    switch.del_outside(7).unwrap();
    switch.add_outside(128, spec).unwrap();
}
