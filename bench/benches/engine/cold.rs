//! Look-ups with a CPU cache that packets took: other memory is walked between two bursts, and what was found is counted at its
//! rule.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bench::micro::fixtures::{BURST, keys, rule_table};
use criterion::{Criterion, Throughput};
use switch::engine::rule::{FlowCache, Key};

/// Bytes walked before each burst: more than the second-level cache of a core has.
const WALK: usize = 2 << 20;

/// Look-ups, burst by burst.
pub fn lookups(criterion: &mut Criterion) {
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
        let rules_now = rule_table(rules, masks).commit();
        let flow_keys = keys(flows, rules);
        let (mut cache, mut next) = (FlowCache::default(), 0);
        group.bench_function(format!("{rules} rules, {masks} masks, {flows} flows"), |bencher| {
            bencher.iter_custom(|lookups| {
                let mut spent = Duration::ZERO;
                for _ in 0..lookups.div_ceil(BURST as u64) {
                    let burst: [Key; BURST] = std::array::from_fn(|n| flow_keys[(next + n) % flow_keys.len()]);
                    next = (next + BURST) % flow_keys.len();
                    other.iter_mut().step_by(8).for_each(|word| *word = word.wrapping_add(1));
                    black_box(&mut other);
                    let start = Instant::now();
                    let found = burst.iter().filter_map(|key| cache.find(&rules_now, black_box(key)));
                    found.for_each(|rule| rule.applied(0, 64));
                    spent += start.elapsed();
                }
                spent
            });
        });
    }
    group.finish();
}
