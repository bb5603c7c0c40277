//! The engine alone: what a packet costs before any ring or system call.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use switch::engine::bridge::{NoObserver, decide_at};
use switch::engine::fdb::Fdb;
use switch::engine::mac::MacAddr;
use switch::engine::parse::{flow_hash, parse};
use switch::engine::snapshot::{BridgePolicy, PortPolicy, Snapshot};
use switch::engine::vlan::VlanMode;

const BURST: u32 = 64;

fn station(n: u32) -> MacAddr {
    let n = n.to_be_bytes();
    MacAddr([2, 0, n[0], n[1], n[2], n[3]])
}

fn snapshot(ports: u16) -> Snapshot {
    let policy = |no: u16| PortPolicy {
        mac: Some(station(u32::from(no))),
        mac_check: true,
        isolated: false,
        vlan: VlanMode::Access { vid: 10 },
        mtu: 1500,
        fdb_limit: 4096,
    };
    Snapshot::build(1, &BridgePolicy::default(), (0..ports).map(|no| (no, policy(no))).collect())
}

/// A UDP packet in IPv4 from the station at port 0.
fn frame(to: MacAddr) -> Vec<u8> {
    let mut frame = [&to.0[..], &station(0).0, &[0x08, 0x00]].concat();
    frame.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 9, 0, 26, 0, 0]);
    frame.resize(60, 0);
    frame
}

fn engine(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    group.throughput(Throughput::Elements(u64::from(BURST)));
    for stations in [64, 100_000] {
        let (snapshot, fdb) = (snapshot(2), Fdb::new(131_072, 300, 7));
        for n in 1..stations {
            fdb.learn(station(n), 10, 1, u32::MAX, 0);
        }
        let frames: Vec<_> = (0..BURST).map(|n| frame(station(1 + n * 7919 % (stations - 1)))).collect();
        group.bench_function(format!("decide a burst of {BURST}, {stations} stations"), |bencher| {
            bencher.iter(|| {
                for frame in &frames {
                    black_box(decide_at(&snapshot, &fdb, 1, 0, black_box(frame), &mut NoObserver));
                }
            });
        });
    }
    let frames: Vec<_> = (1..=BURST).map(|n| frame(station(n))).collect();
    group.bench_function("parse in full", |bencher| {
        bencher.iter(|| frames.iter().filter(|frame| black_box(parse(black_box(frame))).is_ok()).count());
    });
    group.bench_function("flow hash", |bencher| {
        bencher.iter(|| frames.iter().fold(0, |sum, frame| sum ^ flow_hash(black_box(frame))));
    });
    group.finish();
}

criterion_group!(benches, engine);
criterion_main!(benches);
