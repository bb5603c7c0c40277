//! Writing rules into an empty table and into a full one.

use std::sync::Arc;

use bench::micro::fixtures::{rule, rule_table};
use criterion::{BatchSize, Criterion, Throughput};
use switch::engine::rule::{Rule, RuleTable};
use switch::model::RuleSpec;

/// Writes one rule, and a batch of 65,536.
pub fn rules(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rules written");
    group.throughput(Throughput::Elements(1));
    for rules in [1, 1_000, 65_535] {
        for masks in [1, 64] {
            let mut table = rule_table(rules, masks);
            // Workers hold the earlier version. So each write makes the next version beside it.
            let mut held = table.commit();
            let mut n = 0;
            group.bench_function(format!("one into {rules}, {masks} masks"), |bencher| {
                bencher.iter_batched(
                    || {
                        n += 1;
                        let spec = RuleSpec { key_index: 65_535, ..rule(100_000 + n, masks).spec() };
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
