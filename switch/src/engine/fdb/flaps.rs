//! Stations that flap: they are seen behind two ports in turn, faster than any guest moves. A loop outside of the
//! switch does that, or two stations with one address.
//!
//! A station that moves more often within a second than it may is held at its first port: the one where it was before
//! it began to move. Its entry says so. So a worker needs no lock to find out, and a frame from the first port costs
//! nothing more. After [`HOLD`] seconds it may move again.
//!
//! The first port may be in the loop itself. So what is flooded from there does not go out of the others
//! (`loop_ports`).
//!
//! Stations are tracked from their first move until they have been quiet for a while. There is room for [`PLACES`] of
//! them. A further one in the place of another is not damped, which only means that it moves as often as it likes.

use crate::engine::PortNo;

/// Seconds that a station is held.
pub const HOLD: u32 = 10;
/// Seconds without a move after which a station has settled, so that its next move is its first.
const QUIET: u32 = 2;
/// Stations that are tracked at most.
const PLACES: usize = 1024;

/// A station that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flap {
    /// Its key in the table.
    pub key: u64,
    /// The port where it was before its first move.
    pub first: PortNo,
    /// The port that it moved to last.
    pub other: PortNo,
    /// Second of its last move.
    last: u32,
    /// Moves in that second.
    moves: u32,
    /// Second from which on it may move again, while it is held.
    pub held_until: Option<u32>,
}

impl Flap {
    fn is_settled(&self, now: u32) -> bool {
        self.held_until.is_none() && now.saturating_sub(self.last) > QUIET
    }
}

/// The stations that move. They belong to whoever holds the table's lock.
#[derive(Debug)]
pub struct Flaps(Box<[Option<Flap>]>);

impl Default for Flaps {
    fn default() -> Self {
        Self(vec![None; PLACES].into())
    }
}

impl Flaps {
    /// A station whose entry is in `slot` moves from one port to another at second `now`. Returns the port where it is
    /// to be held from now on, if these are more than `limit` moves within the second.
    pub fn moved(&mut self, slot: usize, key: u64, [from, to]: [PortNo; 2], now: u32, limit: u32) -> Option<PortNo> {
        // Slots are chosen by a secret. So nobody can take the places of others on purpose.
        let place = &mut self.0[slot % PLACES];
        let flap = match place {
            Some(flap) if flap.key == key && !flap.is_settled(now) => flap,
            Some(other) if other.key != key && !other.is_settled(now) => return None,
            _ => place.insert(Flap { key, first: from, other: to, last: now, moves: 0, held_until: None }),
        };
        flap.moves = if flap.last == now { flap.moves + 1 } else { 1 };
        (flap.last, flap.other) = (now, to);
        if flap.moves <= limit {
            return None;
        }
        // What it was held at is no move of its own.
        flap.other = if to == flap.first { from } else { to };
        flap.held_until = Some(now.saturating_add(HOLD));
        Some(flap.first)
    }

    /// Stations that are held.
    pub fn held(&self) -> impl Iterator<Item = &Flap> {
        self.0.iter().flatten().filter(|flap| flap.held_until.is_some())
    }

    /// Forgets stations whose time is over at second `now`, and returns their keys.
    pub fn release(&mut self, now: u32) -> Vec<u64> {
        let is_over = |flap: &mut Flap| flap.held_until.is_some_and(|until| until <= now);
        self.0.iter_mut().filter_map(|place| place.take_if(is_over)).map(|flap| flap.key).collect()
    }

    /// Forgets the stations of a port that goes.
    pub fn forget(&mut self, port: PortNo) {
        self.0.iter_mut().filter(|place| place.is_some_and(|flap| flap.first == port)).for_each(|place| *place = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_that_moves_too_often_is_held_where_it_was_first() {
        let mut flaps = Flaps::default();
        for n in 0..4 {
            assert_eq!(flaps.moved(7, 70, [[1, 2], [2, 1]][n % 2], 100, 4), None, "move {n}");
        }
        assert_eq!(flaps.moved(7, 70, [1, 2], 100, 4), Some(1));
        let held: Vec<_> = flaps.held().map(|flap| (flap.key, flap.first, flap.other)).collect();
        assert_eq!(held, [(70, 1, 2)]);
        assert!(flaps.release(100 + HOLD - 1).is_empty());
        assert_eq!(flaps.release(100 + HOLD), [70]);
        assert_eq!(flaps.held().count(), 0);
    }

    #[test]
    fn moves_of_different_seconds_do_not_add_up_and_the_first_port_is_kept() {
        let mut flaps = Flaps::default();
        for second in 0..20 {
            for pair in [[1, 2], [2, 1], [1, 2], [2, 1]] {
                assert_eq!(flaps.moved(7, 70, pair, second, 4), None);
            }
        }
        // It goes on from another port in the next second.
        assert_eq!(flaps.moved(7, 70, [1, 3], 20, 4), None);
        for _ in 0..3 {
            assert_eq!(flaps.moved(7, 70, [3, 2], 20, 4), None);
        }
        assert_eq!(flaps.moved(7, 70, [2, 3], 20, 4), Some(1));
    }

    #[test]
    fn a_station_that_settles_is_at_its_new_port() {
        let mut flaps = Flaps::default();
        assert_eq!(flaps.moved(7, 70, [1, 2], 0, 2), None);
        for pair in [[2, 3], [3, 2]] {
            assert_eq!(flaps.moved(7, 70, pair, 10, 2), None);
        }
        assert_eq!(flaps.moved(7, 70, [2, 3], 10, 2), Some(2));
    }

    #[test]
    fn a_place_belongs_to_one_station_until_it_settles() {
        let mut flaps = Flaps::default();
        for _ in 0..3 {
            flaps.moved(7, 70, [1, 2], 0, 2);
        }
        for _ in 0..9 {
            assert_eq!(flaps.moved(7 + PLACES, 71, [1, 2], 5, 2), None, "the other one is held");
        }
        flaps.release(HOLD);
        for _ in 0..2 {
            assert_eq!(flaps.moved(7 + PLACES, 71, [4, 5], 20, 2), None);
        }
        assert_eq!(flaps.moved(7 + PLACES, 71, [4, 5], 20, 2), Some(4));
        flaps.forget(4);
        assert_eq!(flaps.held().count(), 0);
    }
}
