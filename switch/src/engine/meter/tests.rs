//! Meters against an exact model, over days of simulated time, under changes and from several threads.

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;

/// The textbook token bucket, in exact fractions. Tokens are in parts of 10⁻⁹, time is in nanoseconds.
struct Model {
    level: u128,
    rate: u128,
    burst: u128,
    at: u64,
}

impl Model {
    fn new(rate: u32, burst: u64) -> Self {
        Self { level: u128::from(burst), rate: u128::from(rate), burst: u128::from(burst), at: 0 }
    }

    fn take(&mut self, cost: u64, now: u64) -> bool {
        self.level = (self.level + u128::from(now - self.at) * self.rate).min(self.burst);
        self.at = now;
        let enough = self.level >= u128::from(cost);
        if enough {
            self.level -= u128::from(cost);
        }
        enough
    }
}

const DAY: u64 = 86_400_000_000_000;

fn gap() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0_u64..2_000, 4 => 0_u64..10_000_000, 1 => 0_u64..10_000_000_000, 1 => 0..3 * DAY]
}

fn any_spec() -> impl Strategy<Value = MeterSpec> {
    let rate = prop_oneof![64_u32..10_000, 10_000_u32..100_000_000, Just(100_000_000)];
    (rate, any::<bool>(), 0_u8..3, 33_u32..1_000_000, any::<bool>()).prop_map(|(rate, pps, mode, burst, aware)| {
        MeterSpec {
            kind: if pps { MeterType::Pps } else { MeterType::Kbps },
            burst: Some(burst),
            mode: [MeterMode::Single, MeterMode::Rfc2698, MeterMode::Rfc4115][usize::from(mode)],
            peak_rate: (mode > 0).then_some(rate.saturating_mul(2)),
            peak_burst: (mode > 0).then_some(burst),
            color_aware: aware,
            ..MeterSpec::new(1, rate)
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Over days, every verdict is the model's, to the last bit.
    #[test]
    fn a_bucket_is_the_exact_model(
        rate in 1_u32.., burst: u32, steps in prop::collection::vec((gap(), 14_usize..4096), 1..200)
    ) {
        let burst = Unit::Kbit.burst(burst);
        let (bucket, mut model, mut now) = (Bucket::new(rate, burst, 0), Model::new(rate, burst), 0);
        for (gap, len) in steps {
            now += gap;
            let cost = Unit::Kbit.cost(len);
            prop_assert_eq!(bucket.take(cost, now), model.take(cost, now));
            prop_assert_eq!(u128::from(bucket.level(now)), model.level);
        }
    }

    /// Colours are those of the RFCs' own algorithms, run on two models.
    #[test]
    fn colours_are_those_of_the_rfcs(
        spec in any_spec(), steps in prop::collection::vec((gap(), 14_usize..4096, 0_u8..3), 1..200)
    ) {
        let meter = Meter::new(&spec, 1, 0);
        let unit = meter.unit;
        let (burst, peak_burst) = bursts(&spec);
        let mut c = Model::new(spec.rate, unit.burst(burst));
        let mut p = Model::new(spec.peak_rate.unwrap_or(0), unit.burst(peak_burst));
        let mut now = 0;
        let mut counted = [0; 3];
        for (gap, len, before) in steps {
            now += gap;
            let before = [Color::Green, Color::Yellow, Color::Red][usize::from(before)];
            let pre = if spec.color_aware { before } else { Color::Green };
            let cost = unit.cost(len);
            // Time passes for the models even if no token is taken.
            c.take(0, now);
            p.take(0, now);
            let expected = match spec.mode {
                MeterMode::Single => if c.take(cost, now) { Color::Green } else { Color::Red },
                MeterMode::Rfc2698 if pre == Color::Red || p.level < u128::from(cost) => Color::Red,
                MeterMode::Rfc2698 if pre == Color::Yellow || c.level < u128::from(cost) => {
                    p.take(cost, now);
                    Color::Yellow
                }
                MeterMode::Rfc2698 => {
                    p.take(cost, now);
                    c.take(cost, now);
                    Color::Green
                }
                MeterMode::Rfc4115 if pre == Color::Green && c.take(cost, now) => Color::Green,
                MeterMode::Rfc4115 if pre != Color::Red && p.take(cost, now) => Color::Yellow,
                MeterMode::Rfc4115 => Color::Red,
            };
            prop_assert_eq!(meter.preview(len, before, now), expected);
            prop_assert_eq!(meter.color(0, len, before, now), expected);
            counted[expected as usize] += 1;
        }
        prop_assert_eq!(meter.counts().map(|count| count.packets), counted);
    }

    /// Over every interval between two frames, while rates change, a meter lets through at most the burst and what the
    /// rates brought meanwhile.
    #[test]
    fn a_meter_never_exceeds_rate_times_time_plus_burst_through_changes(
        steps in prop::collection::vec(
            (0_u64..3_000_000, 14_usize..1515, prop::option::weighted(0.1, 64_u32..10_000_000)), 2..150
        )
    ) {
        let mut spec = MeterSpec { burst: Some(100), ..MeterSpec::new(1, 1000) };
        let meter = Meter::new(&spec, 1, 0);
        // For each frame that passed: its time, its cost, and the parts that rates had brought by then.
        let (mut now, mut brought, mut passed) = (0_u64, 0_u128, Vec::new());
        for (gap, len, rate) in steps {
            now += gap;
            brought += u128::from(gap) * u128::from(spec.rate);
            if let Some(rate) = rate {
                spec.rate = rate;
                meter.configure(&spec, now);
            }
            if meter.color(0, len, Color::Green, now) == Color::Green {
                passed.push((brought, u128::from(Unit::Kbit.cost(len))));
            }
        }
        let burst = u128::from(Unit::Kbit.burst(100));
        for first in 0..passed.len() {
            let mut sum = 0;
            for last in first..passed.len() {
                sum += passed[last].1;
                prop_assert!(sum <= burst + (passed[last].0 - passed[first].0), "frames {first} to {last}");
            }
        }
    }

    /// A burst taken at once costs what its frames cost one by one.
    #[test]
    fn a_burst_is_the_sum_of_its_frames(
        lens in prop::collection::vec(14_usize..1515, 1..64), rate in 64_u32..1_000_000
    ) {
        let spec = MeterSpec { burst: Some(400), ..MeterSpec::new(1, rate) };
        let (whole, single) = (Meter::new(&spec, 1, 0), Meter::new(&spec, 1, 0));
        let bytes: usize = lens.iter().sum();
        let all = whole.take_all(0, lens.len(), bytes, 5);
        let greens = lens.iter().filter(|len| single.color(0, **len, Color::Green, 5) == Color::Green).count();
        prop_assert_eq!(all, greens == lens.len());
        if all {
            prop_assert_eq!(whole.level(5), single.level(5));
            prop_assert_eq!(whole.counts(), single.counts());
        } else {
            prop_assert_eq!(whole.level(5), 400_000_000, "nothing is taken");
        }
    }
}

/// Under overload no less than 99 % of the rate passes, and no more than rate × time + burst, from 64 kbit/s to 100
/// Gbit/s.
#[test]
fn steady_overload_gets_the_whole_rate_and_no_more() {
    for rate in [64, 1_000, 100_000, 1_000_000, 10_000_000, 100_000_000] {
        for len in [60, 594, 1514] {
            let spec = MeterSpec::new(1, rate);
            let meter = Meter::new(&spec, 1, 0);
            // Twice the rate is offered, for as long as it takes to send 200,000 frames.
            let gap = (len as u64 * 8 * 1_000_000 / u64::from(rate) / 2).max(1);
            let mut now = 0;
            let mut bits = 0_u128;
            for _ in 0..200_000 {
                now += gap;
                if meter.color(0, len, Color::Green, now) == Color::Green {
                    bits += 8 * len as u128;
                }
            }
            // In parts of 10⁻⁶ bit.
            let (allowed, burst) = (u128::from(now) * u128::from(rate), u128::from(Unit::Kbit.burst(bursts(&spec).0)));
            assert!(bits * 1_000_000 <= allowed + burst, "{rate} kbit/s, {len} B: too much");
            assert!(bits * 1_000_000 >= allowed * 99 / 100, "{rate} kbit/s, {len} B: {bits} bits in {now} ns");
        }
    }
}

/// Threads share a meter and one clock that all of them advance. Together they get what one thread would get.
#[test]
fn several_workers_on_one_meter_get_its_rate_together() {
    const WORKERS: usize = 4;
    const FRAMES: u64 = 100_000;
    for mode in [MeterMode::Single, MeterMode::Rfc2698, MeterMode::Rfc4115] {
        let two = mode != MeterMode::Single;
        let spec = MeterSpec { mode, peak_rate: two.then_some(20_000), ..MeterSpec::new(1, 10_000) };
        let (meter, clock) = (Meter::new(&spec, WORKERS, 0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (meter, clock) = (&meter, &clock);
                scope.spawn(move || {
                    for _ in 0..FRAMES {
                        // 100 bytes every 20 µs: 40 Mbit/s offered.
                        let now = clock.fetch_add(20_000, Ordering::Relaxed);
                        meter.color(worker, 100, Color::Green, now);
                    }
                });
            }
        });
        let now = u128::from(clock.load(Ordering::Relaxed));
        let [green, yellow, red] = meter.counts();
        assert_eq!(green.packets + yellow.packets + red.packets, WORKERS as u64 * FRAMES);
        let (burst, peak_burst) = bursts(&spec);
        let check = |what, count: u64, rate: u32, burst: u32| {
            let (bits, allowed) = (u128::from(count) * 800 * 1_000_000, now * u128::from(rate));
            assert!(bits <= allowed + u128::from(Unit::Kbit.burst(burst)), "{mode:?} {what}: too much");
            assert!(bits >= allowed * 99 / 100, "{mode:?} {what}: {bits} of {allowed}");
        };
        check("green", green.packets, 10_000, burst);
        match mode {
            MeterMode::Single => assert_eq!(yellow.packets, 0),
            MeterMode::Rfc2698 => check("green and yellow", green.packets + yellow.packets, 20_000, peak_burst),
            MeterMode::Rfc4115 => check("yellow", yellow.packets, 20_000, peak_burst),
        }
    }
}

#[test]
fn a_change_gives_no_free_burst_and_leaves_no_gap() {
    let spec = MeterSpec { burst: Some(100), ..MeterSpec::new(1, 1000) };
    let meter = Meter::new(&spec, 1, 0);
    while meter.color(0, 125, Color::Green, 0) == Color::Green {}
    assert_eq!(meter.level(0), 0);
    // After an hour at a rate of nearly nothing comes a high rate. The hour has brought tokens at the low rate only.
    meter.configure(&MeterSpec { burst: Some(4_000_000), rate: 1, ..spec.clone() }, 0);
    let hour = 3_600_000_000_000;
    meter.configure(&MeterSpec { burst: Some(4_000_000), rate: 1_000_000, ..spec.clone() }, hour);
    assert_eq!(meter.level(hour), 3_600_000_000, "3,600 kbit: an hour at 1 kbit/s");
    // A smaller burst cuts the level, a larger one does not fill it.
    meter.configure(&MeterSpec { burst: Some(40), ..spec.clone() }, hour);
    assert_eq!(meter.level(hour), 40_000_000);
    meter.configure(&MeterSpec { burst: Some(400), ..spec }, hour);
    assert_eq!(meter.level(hour), 40_000_000);
}

#[test]
fn a_worker_whose_time_is_behind_neither_gains_nor_loses() {
    let spec = MeterSpec { burst: Some(100), ..MeterSpec::new(1, 1000) };
    let meter = Meter::new(&spec, 2, 0);
    assert!(meter.take_all(0, 10, 12_500, 1000), "the whole burst");
    assert_eq!(meter.color(1, 125, Color::Green, 500), Color::Red);
    assert_eq!(meter.level(1_001_000), 1_000_000, "a millisecond brings 1,000 bits from the later time on");
}

#[test]
fn default_bursts_are_a_tenth_of_a_second_and_at_least_ten_frames() {
    assert_eq!(default_burst(MeterType::Kbps, 10_000_000), 1_000_000);
    assert_eq!(default_burst(MeterType::Kbps, 64), 122);
    assert_eq!(default_burst(MeterType::Pps, 1_000), 100);
    assert_eq!(default_burst(MeterType::Pps, 5), 10);
}

#[test]
fn a_remarked_packet_keeps_its_checksum_right() {
    let sum = |header: &[u8]| {
        let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        (sum & 0xffff) + (sum >> 16)
    };
    let mut ip = vec![0x45, 0x03, 0, 20, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let check = !(sum(&ip) as u16);
    ip[10..12].copy_from_slice(&check.to_be_bytes());
    for tags in [&[][..], &[0x81, 0, 0, 5], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6]] {
        let mut frame = [&[2; 12][..], tags, &[8, 0], &ip].concat();
        let at = 14 + tags.len();
        for dscp in 0..64 {
            remark(&mut frame, dscp);
            assert_eq!((frame[at + 1] >> 2, frame[at + 1] & 3), (dscp, 3), "ECN stays");
            assert_eq!(sum(&frame[at..]), 0xffff);
        }
    }
    let mut v6 = [&[2; 12][..], &[0x86, 0xdd], &[0x6f, 0xff, 0xff, 0xff], &[0; 36]].concat();
    remark(&mut v6, 0b101_010);
    assert_eq!(v6[14..18], [0x6a, 0b1011_1111, 0xff, 0xff], "version, ECN and flow label stay");
}

proptest! {
    #[test]
    fn no_bytes_make_remarking_panic_or_change_anything_but_a_header(
        bytes in prop::collection::vec(any::<u8>(), 0..80)
    ) {
        let mut frame = bytes.clone();
        remark(&mut frame, 46);
        prop_assert_eq!(&frame[..frame.len().min(14)], &bytes[..bytes.len().min(14)]);
    }
}
