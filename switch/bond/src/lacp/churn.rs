//! Churn detection: a port that can't get into sync (IEEE 802.1AX-2008, 5.4.17).

use std::time::Duration;

use crate::Time;

/// How long a port may be out of sync before it is said to churn.
const CHURN_DETECTION: Duration = Duration::from_secs(60);

/// Whether a port gets into sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChurnState {
    /// It is not, but for less than 60 s.
    #[default]
    Monitoring,
    /// It is in sync.
    None,
    /// It has not been in sync for 60 s.
    Churned,
}

/// The machine of one end of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Churn {
    pub(super) state: ChurnState,
    pub(super) count: u64,
    until: Option<Time>,
}

impl Churn {
    /// Looks at the port again. A port that is not `enabled` is not timed.
    pub(super) fn run(&mut self, now: Time, enabled: bool, in_sync: bool) {
        if in_sync || !enabled {
            self.state = if in_sync { ChurnState::None } else { ChurnState::Monitoring };
            self.until = None;
            return;
        }
        match (self.state, self.until) {
            (ChurnState::Churned, _) => {}
            (_, Some(until)) if until <= now => {
                self.state = ChurnState::Churned;
                self.until = None;
                self.count += 1;
            }
            (_, Some(_)) => {}
            (_, None) => {
                self.state = ChurnState::Monitoring;
                self.until = Some(now + CHURN_DETECTION);
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Time {
        Time::from_secs(seconds)
    }

    #[test]
    fn a_port_out_of_sync_for_sixty_seconds_churns_until_it_is_in_sync() {
        let mut churn = Churn::default();
        churn.run(s(1), true, false);
        assert_eq!((churn.state, churn.deadline()), (ChurnState::Monitoring, Some(s(61))));
        churn.run(s(60), true, false);
        assert_eq!(churn.state, ChurnState::Monitoring);
        churn.run(s(61), true, false);
        churn.run(s(200), true, false);
        assert_eq!((churn.state, churn.count, churn.deadline()), (ChurnState::Churned, 1, None));
        churn.run(s(201), true, true);
        assert_eq!(churn.state, ChurnState::None);
        churn.run(s(202), true, false);
        assert_eq!((churn.state, churn.deadline()), (ChurnState::Monitoring, Some(s(262))));
        churn.run(s(300), false, false);
        assert_eq!((churn.state, churn.count), (ChurnState::Monitoring, 1), "a link that is down is not timed");
    }
}
