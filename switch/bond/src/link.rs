//! Links of members, and when they count as up or down.

use std::time::Duration;

use crate::Time;

/// Whether both ends may send at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Duplex {
    /// They take turns.
    Half,
    /// They may.
    Full,
}

/// A link as the kernel reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// It has a carrier.
    pub up: bool,
    /// Mbit/s. None if the driver does not tell.
    pub speed: Option<u32>,
    /// None if the driver does not tell. It is then taken to be full.
    pub duplex: Option<Duplex>,
}

/// Speeds in Mbit/s in the order of their numbers in keys, from 1 on (Linux: `enum ad_link_speed_type`).
const SPEEDS: [u32; 17] =
    [1, 10, 100, 1000, 2500, 5000, 10000, 14000, 20000, 25000, 40000, 50000, 56000, 100_000, 200_000, 400_000, 800_000];
/// Bits of a key: full duplex, then five of the speed, then ten of the user.
const KEY_FULL: u16 = 1;
const KEY_SPEED_SHIFT: u32 = 1;
const KEY_USER_SHIFT: u32 = 6;

impl Link {
    /// The key of a port with this link, as the Linux bonding driver makes it. None if it is down or of half duplex:
    /// only links of full duplex are aggregated (IEEE 802.1AX-2008, 5.1.1).
    ///
    /// A speed that is unknown, or not in the driver's list, is 0. So links of unknown speed are aggregated with each
    /// other. The driver aggregates none of them.
    pub fn key(&self, user: u16) -> Option<u16> {
        if !self.up || self.duplex == Some(Duplex::Half) {
            return None;
        }
        let speed = SPEEDS.iter().position(|speed| Some(*speed) == self.speed).map_or(0, |index| index + 1);
        let speed = u16::try_from(speed).unwrap_or(0);
        Some(user << KEY_USER_SHIFT | speed << KEY_SPEED_SHIFT | KEY_FULL)
    }
}

/// Whether a member's link counts as up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkState {
    /// It does.
    Up,
    /// It does until the time that `downdelay` gives it is over.
    Fail(Time),
    /// It does not.
    #[default]
    Down,
    /// It does not until the time that `updelay` wants is over.
    Back(Time),
}

impl LinkState {
    /// Whether it counts as up.
    pub fn usable(self) -> bool {
        matches!(self, Self::Up | Self::Fail(_))
    }

    /// When it changes by itself.
    pub(crate) fn deadline(self) -> Option<Time> {
        match self {
            Self::Fail(at) | Self::Back(at) => Some(at),
            Self::Up | Self::Down => None,
        }
    }

    /// What it becomes when the link is so. `hurry`: no member is usable, so nothing waits for `updelay`.
    pub(crate) fn next(self, now: Time, up: bool, delays: (Duration, Duration), hurry: bool) -> Self {
        let (up_delay, down_delay) = delays;
        match (self, up) {
            (Self::Up | Self::Fail(_), true) => Self::Up,
            (Self::Down | Self::Back(_), false) => Self::Down,
            (Self::Down, true) if up_delay.is_zero() || hurry => Self::Up,
            (Self::Down, true) => Self::Back(now + up_delay),
            (Self::Back(at), true) if at <= now || hurry => Self::Up,
            (Self::Up, false) if down_delay.is_zero() => Self::Down,
            (Self::Up, false) => Self::Fail(now + down_delay),
            (Self::Fail(at), false) if at <= now => Self::Down,
            (state, _) => state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_linux_driver() {
        let link = |speed| Link { up: true, speed: Some(speed), duplex: Some(Duplex::Full) };
        for (speed, key) in [(100, 7), (1000, 9), (10_000, 15), (25_000, 21), (40_000, 23), (100_000, 29)] {
            assert_eq!(link(speed).key(0), Some(key), "{speed} Mbit/s");
        }
        assert_eq!(link(1000).key(1023), Some(0xffc9));
        assert_eq!(link(12_345).key(0), Some(1));
        assert_eq!(Link { up: true, speed: None, duplex: None }.key(2), Some(0x81));
        assert_eq!(Link { duplex: Some(Duplex::Half), ..link(100) }.key(0), None);
        assert_eq!(Link { up: false, ..link(100) }.key(0), None);
    }

    #[test]
    fn delays_hold_back_a_link_that_flaps() {
        const MS: fn(u64) -> Time = Time::from_millis;
        let delays = (MS(200), MS(100));
        let next = |state: LinkState, now, up| state.next(MS(now), up, delays, false);
        let failing = next(LinkState::Up, 0, false);
        assert_eq!((failing, failing.usable()), (LinkState::Fail(MS(100)), true));
        assert_eq!(next(failing, 99, false), failing);
        assert_eq!(next(failing, 99, true), LinkState::Up, "a short loss is not seen");
        assert_eq!(next(failing, 100, false), LinkState::Down);
        let back = next(LinkState::Down, 0, true);
        assert_eq!((back, back.usable()), (LinkState::Back(MS(200)), false));
        assert_eq!(next(back, 150, false), LinkState::Down, "and has to wait again");
        assert_eq!(next(back, 200, true), LinkState::Up);
        assert_eq!(back.next(MS(1), true, delays, true), LinkState::Up, "nothing else is there");
        assert_eq!(LinkState::Down.next(MS(1), true, delays, true), LinkState::Up);
    }
}
