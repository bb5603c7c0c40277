//! Which member each bucket of flows goes to.
//!
//! A flow's hash names a bucket, and the bucket has a member. The table is stable:
//! - A member that goes takes only its own buckets along. Those spread over the others.
//! - A member that comes gets its fair share, and no bucket moves but those.
//!
//! A bucket must not go to another member while frames of it still wait at the one it had, or a flow is reordered. A
//! member whose link is gone delivers nothing more, so its buckets move at once. Otherwise a bucket moves in steps:
//! 1. It is to move, and still goes to its old member.
//! 2. As soon as it had no frame for the drain time, it moves. Nobody notices.
//! 3. If it is busy for longer than [`PATIENCE`], it is held for the drain time, and then moves. The caller keeps back
//!    or drops the frames of a held bucket.
//!
//! The caller tells how many frames each bucket had so far ([`Buckets::settle`]).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{MemberId, Time};

/// Number of buckets. 16 members then have at least 16 each, so shares differ by at most a sixteenth.
pub const BUCKETS: usize = 256;
/// Longest time for the frames of a member's ring to leave: 2,048 frames of 1,514 bytes at 1 Gbit/s take 25 ms.
pub const DRAIN: Duration = Duration::from_millis(30);
/// How long a bucket may be busy before it is made to move.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Where the frames of a bucket go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// No member is usable.
    Nowhere,
    /// To that member.
    Member(MemberId),
    /// Nowhere yet: what was sent to the old member has to leave first.
    Held,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    At(MemberId),
    /// It is to move at once when it is quiet, and from `since` on at the latest after [`PATIENCE`].
    Moving {
        from: MemberId,
        to: MemberId,
        since: Time,
        /// Frames so far, and when that was first seen to be so many.
        quiet: Option<(u64, Time)>,
    },
    Holding {
        to: MemberId,
        until: Time,
    },
}

impl Place {
    /// The member that it is at, or will be at.
    fn owner(self) -> Option<MemberId> {
        match self {
            Self::Nowhere => None,
            Self::At(member) | Self::Moving { to: member, .. } | Self::Holding { to: member, .. } => Some(member),
        }
    }
}

/// The table of a bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets {
    places: [Place; BUCKETS],
    members: Vec<MemberId>,
}

impl Default for Buckets {
    fn default() -> Self {
        Self { places: [Place::Nowhere; BUCKETS], members: Vec::new() }
    }
}

impl Buckets {
    /// Where the frames of a bucket go now. `bucket` is below [`BUCKETS`].
    pub fn slot(&self, bucket: usize) -> Slot {
        match self.places[bucket] {
            Place::Nowhere => Slot::Nowhere,
            Place::At(member) | Place::Moving { from: member, .. } => Slot::Member(member),
            Place::Holding { .. } => Slot::Held,
        }
    }

    /// All of them.
    pub fn slots(&self) -> [Slot; BUCKETS] {
        std::array::from_fn(|bucket| self.slot(bucket))
    }

    /// Members that have buckets, in ascending order.
    pub fn members(&self) -> &[MemberId] {
        &self.members
    }

    /// Makes these the members. `lost` says whether a member that is not among them delivers nothing any more: then its
    /// buckets move at once.
    pub fn set_members(&mut self, now: Time, mut members: Vec<MemberId>, lost: impl Fn(MemberId) -> bool) {
        members.sort_unstable();
        members.dedup();
        self.members = members;
        self.leave_lost(&lost);
        let mut shares: BTreeMap<MemberId, usize> = self.members.iter().map(|&member| (member, 0)).collect();
        for place in &self.places {
            if let Some(count) = place.owner().and_then(|owner| shares.get_mut(&owner)) {
                *count += 1;
            }
        }
        if shares.is_empty() {
            self.places = [Place::Nowhere; BUCKETS];
            return;
        }
        for bucket in 0..BUCKETS {
            if self.places[bucket].owner().is_none_or(|owner| !shares.contains_key(&owner)) {
                let to = least(&shares);
                self.move_bucket(now, bucket, to);
                shares.entry(to).and_modify(|count| *count += 1);
            }
        }
        self.level(now, &mut shares);
    }

    /// Evens out the shares, from the largest to the smallest, until they differ by one at most.
    fn level(&mut self, now: Time, shares: &mut BTreeMap<MemberId, usize>) {
        loop {
            let (from, to) = (most(shares), least(shares));
            if shares[&from] <= shares[&to] + 1 {
                return;
            }
            // The last one, so that the same buckets move to and fro when a member flaps.
            let Some(bucket) = self.places.iter().rposition(|place| place.owner() == Some(from)) else { return };
            self.move_bucket(now, bucket, to);
            shares.entry(from).and_modify(|count| *count -= 1);
            shares.entry(to).and_modify(|count| *count += 1);
        }
    }

    /// Buckets of members that are gone for good have nothing to wait for.
    fn leave_lost(&mut self, lost: &impl Fn(MemberId) -> bool) {
        let gone = |member: MemberId, members: &[MemberId]| !members.contains(&member) && lost(member);
        for place in &mut self.places {
            if let Place::Moving { from, to, .. } = *place
                && gone(from, &self.members)
            {
                *place = Place::At(to);
            }
            if let Place::At(member) = *place
                && gone(member, &self.members)
            {
                *place = Place::Nowhere;
            }
        }
    }

    fn move_bucket(&mut self, now: Time, bucket: usize, to: MemberId) {
        let place = &mut self.places[bucket];
        *place = match *place {
            Place::Nowhere => Place::At(to),
            Place::At(from) if from == to => Place::At(to),
            // Nothing was sent elsewhere yet.
            Place::Moving { from, .. } if from == to => Place::At(to),
            Place::At(from) => Place::Moving { from, to, since: now, quiet: None },
            Place::Moving { from, since, quiet, .. } => Place::Moving { from, to, since, quiet },
            Place::Holding { until, .. } => Place::Holding { to, until },
        };
    }

    /// Moves buckets that may. `frames` gives the frames that a bucket has had so far; it may only grow.
    ///
    /// Returns whether a slot changed.
    pub fn settle(&mut self, now: Time, frames: impl Fn(usize) -> u64) -> bool {
        let mut changed = false;
        for (bucket, place) in self.places.iter_mut().enumerate() {
            match place {
                Place::Moving { to, since, quiet, .. } => {
                    let count = frames(bucket);
                    match quiet {
                        Some((seen, at)) if *seen == count => {
                            if now.saturating_sub(*at) >= DRAIN {
                                *place = Place::At(*to);
                                changed = true;
                                continue;
                            }
                        }
                        _ => *quiet = Some((count, now)),
                    }
                    if now.saturating_sub(*since) >= PATIENCE {
                        *place = Place::Holding { to: *to, until: now + DRAIN };
                        changed = true;
                    }
                }
                Place::Holding { to, until } if *until <= now => {
                    *place = Place::At(*to);
                    changed = true;
                }
                _ => {}
            }
        }
        changed
    }

    /// Whether [`Buckets::settle`] has something to do. Then it wants to be called every [`DRAIN`].
    pub fn unsettled(&self) -> bool {
        self.places.iter().any(|place| matches!(place, Place::Moving { .. } | Place::Holding { .. }))
    }

    /// Whether frames of a bucket may still go to that member.
    pub fn uses(&self, member: MemberId) -> bool {
        self.places.iter().any(|place| match *place {
            Place::At(at) | Place::Moving { from: at, .. } => at == member,
            Place::Nowhere | Place::Holding { .. } => false,
        })
    }
}

/// The member of the smallest share, and of those the first. There is one.
fn least(shares: &BTreeMap<MemberId, usize>) -> MemberId {
    shares.iter().min_by_key(|(_, count)| **count).map_or(MemberId::default(), |(member, _)| *member)
}

/// The member of the largest share, and of those the last. There is one.
fn most(shares: &BTreeMap<MemberId, usize>) -> MemberId {
    shares.iter().max_by_key(|(_, count)| **count).map_or(MemberId::default(), |(member, _)| *member)
}

#[cfg(test)]
mod tests;
