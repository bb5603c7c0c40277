//! The engine alone: the time of each step, and of changes to its tables.

mod changes;
mod cold;

use std::time::{Duration, Instant};

use bench::micro::steps::cases;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn steps(criterion: &mut Criterion) {
    for case in cases() {
        let mut group = criterion.benchmark_group(case.group);
        group.throughput(Throughput::Elements(case.items as u64));
        let mut step = None;
        group.bench_function(BenchmarkId::from_parameter(&case.name), |bencher| {
            let step = step.get_or_insert_with(|| case.make());
            bencher.iter_custom(|runs| {
                let mut time = Duration::ZERO;
                for _ in 0..runs {
                    step.prepare();
                    let start = Instant::now();
                    step.run();
                    time += start.elapsed();
                }
                time
            });
        });
        group.finish();
    }
}

criterion_group!(benches, steps, cold::lookups, cold::decisions, changes::rules);
criterion_main!(benches);
