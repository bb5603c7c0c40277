//! Where the frames of a port's queues lie, and how many frames of UMEM each is supplied with.
//!
//! A quarter of UMEM is no port's: it is for frames on their way, and for copies of floods and mirrors. The rest is
//! shared out by what ports were *given*, whatever they have at the moment. So traffic decides nothing, and the quarter
//! is there whenever receive sides are full. Early ports get more than later ones, but each of `capacity.ports` ports
//! finds its least share, if there are frames enough for that.
//!
//! A queue that shares UMEM takes memory of the kernel for all of it. So only the first guests' queues share
//! ([`DataplaneSettings::shared_queues`]). Later ones have a UMEM of their own, which takes less memory, and are given
//! nothing. A guest that finds too few frames has one too. With a small UMEM sharing takes less memory, and all share.

use crate::control::state::Control;
use crate::io::queue_rings::RingMemory;
use crate::model::{DataplaneSettings, MAX_FRAMES, MIN_FILL, PortKind};
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
    /// Queues of guests that share UMEM.
    sharing: u32,
}

impl Supply {
    /// What the live ports leave.
    pub fn of(control: &Control) -> Self {
        let mut supply = Self::new(control.core.settings.clone());
        for port in control.ports.iter() {
            supply.note(port.spec.kind, port.queues(), port.rings.memory);
        }
        supply
    }

    fn new(settings: DataplaneSettings) -> Self {
        let to_come = settings.capacity.ports;
        Self { settings, given: 0, to_come, sharing: 0 }
    }

    /// A port has come, and has that.
    fn note(&mut self, kind: PortKind, queues: u32, memory: RingMemory) {
        self.to_come = self.to_come.saturating_sub(1);
        self.given += memory.fill() * queues;
        if kind.may_have_own_umem() && memory != RingMemory::Own {
            self.sharing += queues;
        }
    }

    /// Says where the frames of a further port lie, whose queues have rings of that depth. If it shares UMEM, it has
    /// its frames from then on.
    ///
    /// # Errors
    /// There are too few for a port that has to share. The text says how many `frames` are wanted.
    pub fn take(&mut self, kind: PortKind, queues: u32, depth: u32) -> Result<RingMemory, Error> {
        let room = self.room();
        let is_short = room < MIN_FILL * queues;
        let may_have_own = kind.may_have_own_umem() && self.settings.has_own_umems();
        let memory = if may_have_own && (is_short || self.sharing + queues > self.settings.shared_queues) {
            RingMemory::Own
        } else if is_short {
            return Err(self.used_up(queues));
        } else {
            RingMemory::Shared { fill: self.share(self.to_come.saturating_sub(1), room, queues, depth) }
        };
        self.note(kind, queues, memory);
        Ok(memory)
    }

    /// Where the frames of a port's queues lie, which have `before`, once their rings have another depth. It is no new
    /// port, so it has no fewer than before, if its rings have room for them.
    pub fn retake(&self, before: RingMemory, queues: u32, depth: u32) -> RingMemory {
        let RingMemory::Shared { fill } = before else { return before };
        let share = self.share(self.to_come, self.room() + fill * queues, queues, depth);
        RingMemory::Shared { fill: share.max(fill).min(depth) }
    }

    /// Frames that ports can still be given.
    fn room(&self) -> u32 {
        (self.settings.frames - self.settings.reserved_frames()).saturating_sub(self.given)
    }

    /// A port's share of `room`, for each queue, with so many others to come.
    fn share(&self, others: u32, room: u32, queues: u32, depth: u32) -> u32 {
        // A bond may have no member yet, and so no queue.
        let queues = queues.max(1);
        let least = self.settings.least_fill();
        let others = least.saturating_mul(others);
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
    use crate::model::PortKind::{Guest, Phy, Vhost};
    use crate::model::{Capacity, DEFAULT_QUEUE_DEPTH};

    fn supply(frames: u32, ports: u32) -> Supply {
        let capacity = Capacity { ports, ..Capacity::default() };
        Supply::new(DataplaneSettings { frames, capacity, ..DataplaneSettings::default() })
    }

    fn take(supply: &mut Supply, kind: PortKind, queues: u32) -> Result<RingMemory, Error> {
        supply.take(kind, queues, DEFAULT_QUEUE_DEPTH)
    }

    /// Takes ports of that many queues up to the one that is refused. Returns how many there were.
    fn use_up(supply: &mut Supply, kind: PortKind, queues: u32) -> usize {
        std::iter::from_fn(|| take(supply, kind, queues).ok()).take(2000).count()
    }

    #[test]
    fn each_of_the_ports_that_there_can_be_finds_its_least_share() {
        for kind in [Phy, Vhost] {
            for (frames, ports) in [(65_536, 256), (32_768, 256), (131_072, 1024), (1024, 12), (1_048_576, 1)] {
                let mut supply = supply(frames, ports);
                let least = supply.settings.least_fill().min(DEFAULT_QUEUE_DEPTH);
                let fills: Vec<_> = (0..ports).map(|_| take(&mut supply, kind, 1).unwrap().fill()).collect();
                assert!(fills.iter().all(|fill| *fill >= least), "{frames} frames, {ports} ports: {fills:?}");
            }
        }
    }

    #[test]
    fn the_first_guests_share_and_later_ones_have_their_own_memory() {
        for (frames, ports, sharing) in [(65_536, 256, 32), (65_536, 1024, 32), (131_072, 8, 8), (16_384, 64, 64)] {
            let mut supply = supply(frames, ports);
            assert_eq!(supply.settings.sharing_ports(), sharing);
            let all: Vec<_> = (0..ports).map(|_| take(&mut supply, Guest, 1).unwrap()).collect();
            let (first, later) = all.split_at(sharing as usize);
            assert!(first.iter().all(|memory| memory.fill() >= MIN_FILL), "{frames} frames, {ports} ports: {first:?}");
            assert!(later.iter().all(|memory| *memory == RingMemory::Own), "{frames} frames, {ports} ports: {later:?}");
        }
    }

    #[test]
    fn a_port_that_is_no_guest_shares_however_many_guests_there_are() {
        let mut supply = supply(65_536, 256);
        assert!((0..200).all(|_| take(&mut supply, Guest, 1).is_ok()));
        assert!(take(&mut supply, Phy, 1).unwrap() != RingMemory::Own);
        assert!(take(&mut supply, Vhost, 1).unwrap() != RingMemory::Own);
    }

    #[test]
    fn a_queue_shares_where_that_takes_less_memory() {
        assert!(!supply(16_384, 256).settings.has_own_umems());
        assert!(supply(32_768, 256).settings.has_own_umems());
        let mut small = supply(16_384, 256);
        assert!((0..40).all(|_| take(&mut small, Guest, 1).unwrap() != RingMemory::Own));
    }

    #[test]
    fn a_guest_whose_queues_are_too_many_to_share_has_its_own_memory_and_the_next_one_shares() {
        let mut supply = supply(65_536, 256);
        assert_eq!(take(&mut supply, Guest, 33).unwrap(), RingMemory::Own);
        assert_ne!(take(&mut supply, Guest, 31).unwrap(), RingMemory::Own);
        assert_eq!(take(&mut supply, Guest, 2).unwrap(), RingMemory::Own);
        assert_ne!(take(&mut supply, Guest, 1).unwrap(), RingMemory::Own);
    }

    #[test]
    fn nics_that_use_up_umem_leave_guests_their_own() {
        let mut supply = supply(32_768, 256);
        use_up(&mut supply, Phy, 64);
        use_up(&mut supply, Phy, 1);
        assert_eq!(take(&mut supply, Guest, 1).unwrap(), RingMemory::Own);
    }

    #[test]
    fn a_refusal_says_how_many_frames_are_wanted_and_these_are_enough() {
        let mut small = supply(8192, 256);
        let fitted = use_up(&mut small, Guest, 1);
        let text = take(&mut small, Guest, 1).unwrap_err().to_string();
        assert!(text.contains("UMEM is used up") && text.contains("`dataplane.frames` to 16384"), "{text}");
        assert!(use_up(&mut supply(16_384, 256), Guest, 1) > fitted);
        let mut largest = supply(MAX_FRAMES, 1024);
        let fitted = use_up(&mut largest, Phy, 64);
        let text = take(&mut largest, Phy, 64).unwrap_err().to_string();
        assert!(fitted >= 8 && text.contains("1048576 at most"), "{fitted}: {text}");
    }

    #[test]
    fn another_depth_takes_no_frames_from_a_port_that_has_room_for_them() {
        let mut supply = supply(65_536, 256);
        let first = take(&mut supply, Guest, 1).unwrap();
        let shallow = supply.take(Guest, 2, 64).unwrap();
        assert_eq!((first, shallow), (RingMemory::Shared { fill: 1542 }, RingMemory::Shared { fill: 64 }));
        assert_eq!(supply.retake(first, 1, 64), RingMemory::Shared { fill: 64 });
        use_up(&mut supply, Phy, 64);
        use_up(&mut supply, Phy, 1);
        assert_eq!(supply.retake(first, 1, 4096), first);
        assert!(supply.retake(shallow, 2, 4096).fill() >= shallow.fill());
        assert_eq!(supply.retake(RingMemory::Own, 1, 64), RingMemory::Own);
    }

    proptest! {
        #[test]
        fn a_quarter_is_never_given(
            shift in 10_u32..=20, ports in 1_u32..=1024, shared_queues in 0_u32..200,
            wishes in prop::collection::vec((any::<bool>(), 1_u32..=128, 6_u32..=12), 0..300)
        ) {
            let mut supply = supply(1 << shift, ports);
            supply.settings.shared_queues = shared_queues;
            for (is_guest, queues, depth) in wishes {
                let before = supply.given;
                match supply.take(if is_guest { Guest } else { Phy }, queues, 1 << depth) {
                    Ok(RingMemory::Shared { fill }) => prop_assert!((MIN_FILL..=1 << depth).contains(&fill)),
                    Ok(RingMemory::Own) => prop_assert!(is_guest && supply.given == before),
                    Err(_) => prop_assert_eq!(supply.given, before),
                }
                prop_assert!(supply.given <= supply.settings.frames - supply.settings.reserved_frames());
            }
        }
    }
}
