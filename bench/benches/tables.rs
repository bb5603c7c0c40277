//! Traffic rules, their cache and meters: what one look-up, one change and one frame cost.
//!
//! Look-ups over 1, 1,000 and 65,536 rules under 1, 8 and 64 distinct masks: with locality (64 flows in turn, which the cache
//! holds) and without (a new flow for every packet), and the same with a CPU cache that packets took: between two bursts of
//! look-ups, other memory is walked, and what was found is counted at its rule; rules written into an empty and into a full table.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use switch::engine::meter::{Color, Meter};
use switch::engine::parse::{Headers, L3, parse};
use switch::engine::rule::{FlowCache, Key, Rule, RuleTable};
use switch::model::{Masked, MaskedIp, MeterSpec, RuleAction, RuleKey, RuleSpec, RuleTarget};

const LOOKUPS: u32 = 1024;
/// Look-ups in a row with a cold cache: as many as a burst has frames.
const BURST: usize = 64;
/// Bytes walked before each burst: more than the second-level cache of a core has.
const WALK: usize = 2 << 20;

/// Rule number `n` of a table with `masks` distinct masks: each masks some more bits of the source port.
fn rule(n: u32, masks: u32) -> Arc<Rule> {
    let full = IpAddr::V4(Ipv4Addr::BROADCAST);
    let mask = n % masks;
    let key = RuleKey {
        dip: Some(MaskedIp { addr: IpAddr::V4((0x0a00_0000 + n).into()), mask: full }),
        sl4port: Some(Masked { value: 0, mask: mask << 4 }),
        ..RuleKey::default()
    };
    let spec = RuleSpec { key_index: n, key, action: RuleAction::to(RuleTarget::Drop) };
    Arc::new(Rule::new(spec, None, 1).expect("a rule"))
}

fn table(rules: u32, masks: u32) -> RuleTable {
    let mut table = RuleTable::default();
    (0..rules).for_each(|n| drop(table.insert(rule(n, masks))));
    table
}

/// Headers of a UDP packet, whose addresses are set by turns.
fn headers() -> Headers {
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 9, 0, 26, 0, 0]);
    frame.resize(60, 0);
    parse(&frame).expect("a packet")
}

/// Keys to destinations of the rules and beyond them, from `first` on.
fn keys(first: u32, count: u32, rules: u32) -> Vec<Key> {
    let mut headers = headers();
    let key = |n: u32| {
        if let L3::V4(ip) = &mut headers.l3 {
            ip.dst = (0x0a00_0000 + n.wrapping_mul(7919) % (2 * rules)).into();
            ip.src = n.wrapping_mul(2_654_435_761).into();
        }
        Key::of(0, &headers)
    };
    (first..first + count).map(key).collect()
}

fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rules");
    group.throughput(Throughput::Elements(u64::from(LOOKUPS)));
    for masks in [1, 8, 64] {
        for rules in [1, 1_000, 65_536] {
            let mut table = table(rules, masks.min(rules));
            let rules_now = table.commit();
            let same: Vec<_> = keys(0, 64, rules).into_iter().cycle().take(LOOKUPS as usize).collect();
            let mut cache = FlowCache::default();
            group.bench_function(format!("{rules} rules, {masks} masks, 64 flows"), |bencher| {
                bencher.iter(|| same.iter().filter(|key| cache.find(&rules_now, black_box(key)).is_some()).count());
            });
            // More flows than any cache holds, each seen again only after all others.
            let many = keys(0, 1 << 20, rules);
            let mut next = 0;
            group.bench_function(format!("{rules} rules, {masks} masks, a new flow each"), |bencher| {
                bencher.iter(|| {
                    next = (next + LOOKUPS as usize) % many.len();
                    let some = &many[next..next + LOOKUPS as usize];
                    some.iter().filter(|key| cache.find(&rules_now, black_box(key)).is_some()).count()
                });
            });
        }
    }
    group.finish();
}

fn cold_lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rules, cold");
    group.throughput(Throughput::Elements(1));
    let mut other = vec![0_u64; WALK / 8];
    for (rules, masks, flows) in [
        (1, 1, 64),
        (1, 1, 1 << 20),
        (10_000, 1, 100_000),
        (10_000, 8, 100_000),
        (65_536, 1, 64),
        (65_536, 1, 1 << 20),
        (65_536, 8, 1 << 20),
        (65_536, 64, 1 << 20),
    ] {
        let rules_now = table(rules, masks).commit();
        let flow_keys = keys(0, flows, rules);
        for (how, together) in [("", false), (", together", true)] {
            let (mut cache, mut next) = (FlowCache::default(), 0);
            group.bench_function(format!("{rules} rules, {masks} masks, {flows} flows{how}"), |bencher| {
                bencher.iter_custom(|lookups| {
                    let mut spent = Duration::ZERO;
                    for _ in 0..lookups.div_ceil(BURST as u64) {
                        let burst: [Key; BURST] = std::array::from_fn(|n| flow_keys[(next + n) % flow_keys.len()]);
                        next = (next + BURST) % flow_keys.len();
                        other.iter_mut().step_by(8).for_each(|word| *word = word.wrapping_add(1));
                        black_box(&mut other);
                        let mut found = [None; BURST];
                        let start = Instant::now();
                        if together {
                            cache.find_all(&rules_now, black_box(&burst), &mut found, 0);
                            found.iter().flatten().for_each(|rule| rule.applied(0, 64));
                        } else {
                            let found = burst.iter().filter_map(|key| cache.find(&rules_now, black_box(key)));
                            found.for_each(|rule| rule.applied(0, 64));
                        }
                        spent += start.elapsed();
                    }
                    spent
                });
            });
        }
    }
    group.finish();
}

fn inserts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rules written");
    group.throughput(Throughput::Elements(1));
    for rules in [1, 1_000, 65_535] {
        for masks in [1, 64] {
            let mut table = table(rules, masks);
            // Who holds the version before is a worker: each write makes the next one beside it.
            let mut held = table.commit();
            let mut n = 0;
            group.bench_function(format!("one into {rules}, {masks} masks"), |bencher| {
                bencher.iter_batched(
                    || {
                        n += 1;
                        let spec = RuleSpec { key_index: 65_535, ..rule(100_000 + n, masks).spec.clone() };
                        Arc::new(Rule::new(spec, None, 1).expect("a rule"))
                    },
                    |rule| {
                        table.insert(rule);
                        held = table.commit();
                    },
                    BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();
    let mut group = criterion.benchmark_group("a batch of rules");
    group.throughput(Throughput::Elements(65_536));
    group.sample_size(10);
    group.bench_function("65536 into an empty table, 8 masks", |bencher| {
        let all: Vec<_> = (0..65_536).map(|n| rule(n, 8)).collect();
        bencher.iter_batched(
            || all.clone(),
            |rules| {
                let mut table = RuleTable::default();
                rules.into_iter().for_each(|rule| drop(table.insert(rule)));
                table.commit()
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn meters(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("meter");
    group.throughput(Throughput::Elements(1));
    let meter = Meter::new(&MeterSpec::new(1, 100_000_000), 1, 0);
    let mut now = 0;
    group.bench_function("a frame, within the rate", |bencher| {
        bencher.iter(|| {
            now += 100;
            black_box(meter.color(0, 64, Color::Green, now))
        });
    });
    let empty = Meter::new(&MeterSpec::new(1, 1), 1, 0);
    while empty.color(0, 64, Color::Green, 0) == Color::Green {}
    group.bench_function("a frame, too much", |bencher| {
        bencher.iter(|| black_box(empty.color(0, 1500, Color::Green, 1)));
    });
    group.finish();
}

criterion_group!(benches, lookups, cold_lookups, inserts, meters);
criterion_main!(benches);
