//! Reads the log-linear histogram that `bpf/bench/ends.bpf.c` fills. Buckets are less than 1 % wide.

use crate::number::whole;
use crate::results::Percentiles;

/// Buckets of an octave.
const STEPS: u32 = 128;
/// Buckets in all.
pub(crate) const BUCKETS: u32 = STEPS * 26;

/// Middle of a bucket in nanoseconds.
fn value(bucket: u32) -> f64 {
    if bucket < 2 * STEPS {
        return f64::from(bucket);
    }
    let shift = bucket / STEPS - 1;
    let low = u64::from(bucket - shift * STEPS) << shift;
    low as f64 + ((1_u64 << shift) - 1) as f64 / 2.0
}

/// Percentiles of counts by bucket. All are 0 for an empty histogram.
pub(crate) fn percentiles(counts: &[u64]) -> Percentiles {
    let packets: u64 = counts.iter().sum();
    let at = |share: f64| {
        let wanted = whole((packets as f64 * share).ceil()).max(1);
        let mut below = 0;
        let found = (0_u32..).zip(counts).find(|(_, count)| {
            below += **count;
            below >= wanted
        });
        found.map_or(0.0, |(bucket, _)| value(bucket))
    };
    Percentiles { p50: at(0.5), p99: at(0.99), p999: at(0.999), packets }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bucket that the BPF program chooses.
    fn bucket(ns: u64) -> u32 {
        let value = u32::try_from(ns).unwrap_or(u32::MAX);
        let shift = if value < STEPS { 0 } else { value.ilog2() - 7 };
        if value < STEPS { value } else { shift * STEPS + (value >> shift) }
    }

    #[test]
    fn a_bucket_is_never_further_than_half_a_percent_from_what_is_in_it() {
        for ns in (0..4096)
            .chain((12..32).flat_map(|octave| [0, 1, 77, 4095].map(|more| (1_u64 << octave) + (more << (octave - 12)))))
        {
            let at = bucket(ns);
            assert!(at < BUCKETS, "{ns}");
            assert!((value(at) - ns as f64).abs() <= ns as f64 * 0.005, "{ns}: {}", value(at));
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_count_from_the_fastest() {
        let mut counts = vec![0; BUCKETS as usize];
        assert_eq!(percentiles(&counts), Percentiles::default());
        counts[10] = 989;
        counts[20] = 10;
        counts[30] = 1;
        let found = percentiles(&counts);
        assert_eq!((found.p50, found.p99, found.p999, found.packets), (10.0, 20.0, 20.0, 1000));
    }
}
