//! How many frames each queue of a port is supplied with.
//!
//! A quarter of UMEM is no port's: it is for frames on their way, and for copies of floods and mirrors. The rest is
//! shared out by what ports were *given*, whatever they have at the moment. So traffic decides nothing, and the quarter
//! is there whenever receive sides are full. Early ports get more than later ones, but each of `capacity.ports` ports
//! finds its least share, if there are frames enough for that.

use crate::control::state::Control;
use crate::model::{DataplaneSettings, MAX_FRAMES, MIN_FILL};
use crate::{Error, ErrorKind};

/// A queue gets this part of what no other port is to find.
const SHARE: u32 = 16;

/// What there is to share out.
#[derive(Debug)]
pub(super) struct Supply {
    settings: DataplaneSettings,
    /// Frames that ports were given.
    given: u32,
    /// Ports that there can still be.
    to_come: u32,
}

impl Supply {
    /// What the live ports leave.
    pub fn of(control: &Control) -> Self {
        let settings = control.core.settings.clone();
        let (mut given, mut to_come) = (0, settings.capacity.ports);
        for port in control.ports.iter() {
            given += port.fill * port.queues();
            to_come = to_come.saturating_sub(1);
        }
        Self { settings, given, to_come }
    }

    /// Gives a further port frames. Returns how many for each of its queues, which have rings of that depth.
    ///
    /// # Errors
    /// There are too few. The text says how many `frames` are wanted.
    pub fn take(&mut self, queues: u32, depth: u32) -> Result<u32, Error> {
        let room = self.room();
        if room < MIN_FILL * queues {
            return Err(self.used_up(queues));
        }
        self.to_come = self.to_come.saturating_sub(1);
        let fill = self.share(room, queues, depth);
        self.given += fill * queues;
        Ok(fill)
    }

    /// Frames for each queue of a port that has `fill` for each, once its rings have another depth. It is no new port,
    /// so it has no fewer than before, if its rings have room for them.
    pub fn retake(&self, fill: u32, queues: u32, depth: u32) -> u32 {
        let room = self.room() + fill * queues;
        self.share(room, queues, depth).max(fill).min(depth)
    }

    /// Frames that ports can still be given.
    fn room(&self) -> u32 {
        (self.settings.frames - self.settings.reserved_frames()).saturating_sub(self.given)
    }

    /// A port's share of `room`, for each queue.
    fn share(&self, room: u32, queues: u32, depth: u32) -> u32 {
        let least = self.settings.least_fill();
        let others = least.saturating_mul(self.to_come);
        // Too few for all that may come: half of them is for others.
        let kept = if others.saturating_add(least) <= room { others } else { room / 2 };
        let (mut spare, mut sum) = (room - kept, 0);
        for _ in 0..queues {
            let share = spare / SHARE;
            spare -= share;
            sum += share.max(MIN_FILL);
        }
        (sum.max(least) / queues).min(room / queues).min(depth)
    }

    fn used_up(&self, queues: u32) -> Error {
        let Self { settings, given, .. } = self;
        let (frames, wanted) = (settings.frames, MIN_FILL * queues);
        let enough = ((given + wanted).div_ceil(3) * 4).next_power_of_two();
        let advice = match enough <= MAX_FRAMES {
            true => format!("set `dataplane.frames` to {enough} and restart, or use fewer queues"),
            false => format!("`dataplane.frames` can be {MAX_FRAMES} at most: use fewer queues"),
        };
        let text = format!(
            "UMEM is used up: of {frames} frames ports have {given}, {} are kept for frames on their way, and the {queues} \
             queues of this port need {wanted}: {advice}",
            settings.reserved_frames()
        );
        Error::new(ErrorKind::Full, text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Capacity, DEFAULT_QUEUE_DEPTH};

    fn supply(frames: u32, ports: u32) -> Supply {
        let capacity = Capacity { ports, ..Capacity::default() };
        let settings = DataplaneSettings { frames, capacity, ..DataplaneSettings::default() };
        Supply { settings, given: 0, to_come: ports }
    }

    /// Fills of ports of that many queues, up to the one that is refused.
    fn fills(supply: &mut Supply, queues: u32) -> Vec<u32> {
        std::iter::from_fn(|| supply.take(queues, DEFAULT_QUEUE_DEPTH).ok()).take(2000).collect()
    }

    #[test]
    fn each_of_the_ports_that_there_can_be_finds_its_least_share() {
        for (frames, ports) in [(65_536, 256), (32_768, 256), (131_072, 1024), (1024, 12), (1_048_576, 1)] {
            let mut supply = supply(frames, ports);
            let least = supply.settings.least_fill().min(DEFAULT_QUEUE_DEPTH);
            let fills: Vec<_> = (0..ports).map(|_| supply.take(1, DEFAULT_QUEUE_DEPTH).unwrap()).collect();
            assert!(fills.iter().all(|fill| *fill >= least), "{frames} frames, {ports} ports: {fills:?}");
        }
        assert_eq!(supply(65_536, 256).take(1, 2048).unwrap(), 1542);
    }

    #[test]
    fn a_refusal_says_how_many_frames_are_wanted_and_these_are_enough() {
        let mut small = supply(8192, 256);
        let fitted = fills(&mut small, 1).len();
        let text = small.take(1, 2048).unwrap_err().to_string();
        assert!(text.contains("UMEM is used up") && text.contains("`dataplane.frames` to 16384"), "{text}");
        assert!(fills(&mut supply(16_384, 256), 1).len() > fitted);
        let mut largest = supply(MAX_FRAMES, 1024);
        let fitted = fills(&mut largest, 64).len();
        let text = largest.take(64, 2048).unwrap_err().to_string();
        assert!(fitted >= 8 && text.contains("1048576 at most"), "{fitted}: {text}");
    }

    #[test]
    fn another_depth_takes_no_frames_from_a_port_that_has_room_for_them() {
        let mut supply = supply(65_536, 256);
        let first = supply.take(1, 2048).unwrap();
        let shallow = supply.take(2, 64).unwrap();
        assert_eq!((first, shallow), (1542, 64));
        assert_eq!(supply.retake(first, 1, 64), 64);
        fills(&mut supply, 1);
        assert_eq!((supply.retake(first, 1, 4096), supply.retake(shallow, 2, 4096)), (first, shallow));
    }

    proptest! {
        #[test]
        fn a_quarter_is_never_given(
            shift in 10_u32..=20, ports in 1_u32..=1024,
            wishes in prop::collection::vec((1_u32..=128, 6_u32..=12), 0..300)
        ) {
            let mut supply = supply(1 << shift, ports);
            for (queues, depth) in wishes {
                let before = supply.given;
                match supply.take(queues, 1 << depth) {
                    Ok(fill) => prop_assert!((MIN_FILL..=1 << depth).contains(&fill)),
                    Err(_) => prop_assert_eq!(supply.given, before),
                }
                prop_assert!(supply.given <= supply.settings.frames - supply.settings.reserved_frames());
            }
        }
    }
}
