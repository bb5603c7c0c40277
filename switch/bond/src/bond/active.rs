//! The active member of mode `active-backup`, and the addresses of members.

use model::MacAddr;
use thiserror::Error;

use super::{Bond, Member};
use crate::options::{FailOverMac, Mode, PrimaryReselect};
use crate::{MemberId, Time};

/// Why a member can't be made the active one. The texts say what would be right.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ActivateError {
    /// Only that mode has an active member.
    #[error("active_slave: mode {0} has no active member; active-backup has")]
    Mode(Mode),
    /// The bond has no member of that name.
    #[error("active_slave: `{0}` is no member of the bond; add it first (slaves +{0})")]
    NoMember(String),
    /// It has no link.
    #[error("active_slave: the link of `{0}` is down; only a member whose link is up can be active")]
    Down(String),
}

impl Bond {
    /// Makes the member of that name the active one, or the best one without a name. It stays until a link changes.
    ///
    /// # Errors
    /// See [`ActivateError`]. Nothing has changed then.
    pub fn activate(&mut self, now: Time, name: Option<&str>) -> Result<(), ActivateError> {
        if self.options.mode != Mode::ActiveBackup {
            return Err(ActivateError::Mode(self.options.mode));
        }
        self.active = match name {
            None => None,
            Some(name) => {
                let (id, member) = self.named(name).ok_or_else(|| ActivateError::NoMember(name.to_owned()))?;
                if !member.usable() {
                    return Err(ActivateError::Down(name.to_owned()));
                }
                Some(id)
            }
        };
        self.update(now);
        Ok(())
    }

    fn named(&self, name: &str) -> Option<(MemberId, &Member)> {
        self.members.iter().find(|(_, member)| member.name == name).map(|(id, member)| (*id, member))
    }

    /// Chooses the active member. Returns whether it is another one than last time.
    ///
    /// One that was chosen stays as long as it is usable and nothing else has changed.
    pub(super) fn choose_active(&mut self) -> bool {
        let usable = |id: MemberId| self.members.get(&id).is_some_and(Member::usable);
        if self.options.mode != Mode::ActiveBackup || !self.up {
            self.active = None;
        } else if self.choose || !self.active.is_some_and(usable) {
            self.active = self.best();
            self.force_primary &= self.active.is_none();
        }
        self.choose = false;
        let before = std::mem::replace(&mut self.last_active, self.active);
        self.active.is_some() && self.active != before
    }

    fn best(&self) -> Option<MemberId> {
        let usable = |id: MemberId| self.members.get(&id).filter(|member| member.usable()).map(|member| (id, member));
        let primary = self.options.primary.as_deref().and_then(|name| self.named(name)).and_then(|(id, _)| usable(id));
        let current = self.active.and_then(usable);
        match (primary, current) {
            (Some((primary, _)), None) => Some(primary),
            (Some((primary, p)), Some((current, c))) => {
                let better = (p.link.speed, p.link.duplex) > (c.link.speed, c.link.duplex);
                let wanted = match self.options.primary_reselect {
                    PrimaryReselect::Always => true,
                    PrimaryReselect::Better => better,
                    PrimaryReselect::Failure => false,
                };
                Some(if wanted || self.force_primary { primary } else { current })
            }
            (None, Some((current, _))) => Some(current),
            (None, None) => self.members.keys().find_map(|&id| usable(id)).map(|(id, _)| id),
        }
    }

    /// The address that a member's netdev is to have. None without that member.
    pub fn member_mac(&self, id: MemberId) -> Option<MacAddr> {
        let member = self.members.get(&id)?;
        let own = self.options.mode == Mode::ActiveBackup
            && match self.options.fail_over_mac {
                FailOverMac::None => false,
                FailOverMac::Active => true,
                FailOverMac::Follow => self.active != Some(id),
            };
        Some(if own { member.mac } else { self.mac })
    }

    /// The bond's address. All zero before it has had a member.
    pub fn mac(&self) -> MacAddr {
        let of_active = self.options.mode == Mode::ActiveBackup && self.options.fail_over_mac == FailOverMac::Active;
        let active = self.active.filter(|_| of_active).and_then(|id| self.members.get(&id));
        active.map_or(self.mac, |member| member.mac)
    }
}
