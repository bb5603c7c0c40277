//! Look-ups and decisions with a cold CPU cache. Between two bursts the bench walks other memory, as packets would fill
//! the cache. Found rules are counted.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bench::micro::bed::{RULES, snapshot};
use bench::micro::fixtures::{BURST, keys, mac_table, rule_table, rule_table_to, udp4};
use criterion::{Criterion, Throughput};
use switch::engine::bridge::{BurstContext, FlowCache};
use switch::engine::rule::{ExactMatchCache, Key, Rules};
use switch::model::RuleTarget;

/// Bytes walked before each burst. They exceed a core's second-level cache.
const WALK: usize = 2 << 20;

/// Other memory, which evicts the CPU's caches as packets do.
struct Others(Vec<u64>);

impl Others {
    fn new() -> Self {
        Self(vec![0; WALK / 8])
    }

    fn walk(&mut self) {
        self.0.iter_mut().step_by(8).for_each(|word| *word = word.wrapping_add(1));
        black_box(&mut self.0);
    }
}

/// Time of that many items, burst by burst. `burst` measures one burst.
fn bursts(items: u64, others: &mut Others, mut burst: impl FnMut(&mut Others) -> Duration) -> Duration {
    (0..items.div_ceil(BURST as u64)).map(|_| burst(others)).sum()
}

/// Look-ups, burst by burst.
pub fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rules, cold");
    group.throughput(Throughput::Elements(1));
    let mut others = Others::new();
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
        let (mut cache, mut next) = (ExactMatchCache::default(), 0);
        group.bench_function(format!("{rules} rules, {masks} masks, {flows} flows"), |bencher| {
            bencher.iter_custom(|lookups| {
                bursts(lookups, &mut others, |others| {
                    let burst: [Key; BURST] = std::array::from_fn(|n| flow_keys[(next + n) % flow_keys.len()]);
                    next = (next + BURST) % flow_keys.len();
                    others.walk();
                    let start = Instant::now();
                    let found = burst.iter().filter_map(|key| cache.find(&rules_now, black_box(key)));
                    found.for_each(|rule| rule.applied(0, 64));
                    start.elapsed()
                })
            });
        });
    }
    group.finish();
}

/// A worker's decisions, burst by burst, on packets of flows in turn or to stations in turn.
pub fn decisions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decisions, cold");
    group.throughput(Throughput::Elements(1));
    let mut others = Others::new();
    let cases = [None, Some(1), Some(8)].into_iter().flat_map(|masks| [64, 4_000, 10_000, 100_000].map(|n| (masks, n)));
    for (masks, count) in cases {
        let (fdb, frames): (_, Vec<_>) = match masks {
            None => (mac_table(count), (0..count).map(|n| udp4(1 + n, 0)).collect()),
            Some(_) => (mac_table(1), (0..count).map(of_flow).collect()),
        };
        let rules = |masks| rule_table_to(RULES, masks, RuleTarget::Normal).commit();
        let snap = &snapshot().with_rules(2, masks.map_or_else(Rules::default, rules));
        let (mut cache, mut runs) = (FlowCache::default(), Vec::new());
        let mut all_bursts = frames.chunks_exact(BURST).cycle();
        let name = match masks {
            None => format!("no rules, {count} stations"),
            Some(masks) => format!("{RULES} rules, {masks} masks, {count} flows"),
        };
        let context = BurstContext { snap, fdb: &fdb, now: 0, ingress: 0, worker: 0 };
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|decisions| {
                bursts(decisions, &mut others, |others| {
                    others.walk();
                    // Received frames are in the caches.
                    let burst = all_bursts.next().map(<[_]>::to_vec).unwrap_or_default();
                    let start = Instant::now();
                    cache.begin_burst();
                    let mut rest = burst.iter().map(Vec::as_slice);
                    loop {
                        let (cached, decision) = cache.lookup_burst(&context, rest.clone(), &mut runs);
                        rest.by_ref().take(cached).for_each(drop);
                        let Some((decision, frame)) = decision.zip(rest.next()) else { break };
                        decision.rule.inspect(|rule| rule.applied(0, frame.len()));
                        black_box(decision);
                    }
                    runs.clear();
                    start.elapsed()
                })
            });
        });
    }
    group.finish();
}

/// A packet of flow `n`, to the destination of a rule.
fn of_flow(n: u32) -> Vec<u8> {
    let mut frame = udp4(1, n % RULES);
    // Its source address.
    frame[26..30].copy_from_slice(&(0xac10_0000 + n).to_be_bytes());
    frame
}
