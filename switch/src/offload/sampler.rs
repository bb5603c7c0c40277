//! Which flows have many packets, by samples. Pure.
//!
//! One frame in about [`PERIOD`] is looked at. A flow that is met again within a second or two is a candidate. So a
//! flow needs some hundred packets a second to become one, and those with the most packets come first. A worker pays
//! some nanoseconds a frame.

/// Frames from sample to sample.
const PERIOD: u32 = 64;
/// Flows that are remembered.
const PLACES: usize = 8192;
/// Seconds between two samples of a flow with many packets, at most.
const RECENTLY: u32 = 1;

/// A flow that was met.
#[derive(Clone, Copy, Debug, Default)]
struct Met {
    hash: u32,
    at: u32,
}

/// The samples of a worker.
#[derive(Debug)]
pub struct Sampler {
    met: Box<[Met]>,
    /// Frames up to the next sample.
    wait: u32,
    noise: u32,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { met: vec![Met::default(); PLACES].into_boxed_slice(), wait: PERIOD, noise: 1 }
    }
}

impl Sampler {
    /// A burst of `frames` came. Returns which of them to look at, if one is due.
    #[inline]
    pub fn due(&mut self, frames: usize) -> Option<usize> {
        #[expect(clippy::cast_possible_truncation, reason = "at most the frames of a burst")]
        let frames = frames as u32;
        if frames < self.wait {
            self.wait -= frames;
            return None;
        }
        Some(self.choose(frames))
    }

    #[cold]
    fn choose(&mut self, frames: u32) -> usize {
        let chosen = self.wait.saturating_sub(1).min(frames.saturating_sub(1));
        // Flows in turn are met alike: no period fits that of the samples.
        self.noise = self.noise.wrapping_mul(0x9e37_79b1).wrapping_add(0x7f4a_7c15);
        self.wait = PERIOD / 2 + (self.noise >> 16) % PERIOD;
        chosen as usize
    }

    /// A flow of that hash was met at second `now`. True if it was met before, and not long ago.
    pub fn meet(&mut self, hash: u64, now: u32) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "two parts of a hash")]
        let (place, hash) = (hash as usize % PLACES, (hash >> 32) as u32 | 1);
        let met = &mut self.met[place];
        let again = met.hash == hash && now.wrapping_sub(met.at) <= RECENTLY;
        *met = Met { hash, at: now };
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_frame_in_so_many_is_looked_at_whatever_the_bursts() {
        for burst in [1, 7, 32, 64, 200] {
            let (mut sampler, mut samples) = (Sampler::default(), 0);
            for _ in 0..100_000 / burst {
                if let Some(chosen) = sampler.due(burst) {
                    assert!(chosen < burst);
                    samples += 1;
                }
            }
            let least = if burst > 100 { 400 } else { 1000 };
            assert!((least..2000).contains(&samples), "{samples} samples in bursts of {burst}");
        }
    }

    #[test]
    fn each_of_some_flows_in_turn_is_met() {
        let (mut sampler, mut met) = (Sampler::default(), [0; 32]);
        for _ in 0..3000 {
            if let Some(chosen) = sampler.due(32) {
                met[chosen] += 1;
            }
        }
        assert!(met.iter().all(|times| *times > 10), "{met:?}");
    }

    #[test]
    fn a_flow_that_comes_back_soon_is_told_from_one_that_does_not() {
        let mut sampler = Sampler::default();
        let flow = 0x1234_5678_9abc_def0;
        assert!(!sampler.meet(flow, 10));
        assert!(sampler.meet(flow, 11));
        assert!(!sampler.meet(flow, 20));
        assert!(!sampler.meet(flow ^ 1 << 40, 20), "another flow of the same place");
        assert!(!sampler.meet(flow, 20), "it has lost its place");
    }
}
