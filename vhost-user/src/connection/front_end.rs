//! A front end: its connection with its session.

use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::PollFlags;

use super::stream::{Connection, Ended};
use crate::session::{Action, Offer, Outcome, RingBase, Session, Turn};

/// A front end, as a device sees it.
///
/// A device does this whenever the connection is ready:
///
/// 1. It takes the next [`Turn`] and carries out the actions. It may take its time, and serve others.
/// 2. It gives the turn back with the outcome.
///
/// An error from either means that the connection is over. Then the device stops the rings that
/// [`FrontEnd::hang_up`] names, and drops it.
#[derive(Debug)]
pub struct FrontEnd {
    connection: Connection,
    session: Session,
    /// A turn was taken and not given back.
    busy: bool,
}

impl AsFd for FrontEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl FrontEnd {
    /// A front end that has just connected to a device with that offer.
    pub fn new(connection: Connection, offer: Offer) -> Self {
        Self { connection, session: Session::new(offer), busy: false }
    }

    /// What to wait for. Nothing while a turn is out. The kernel tells of a hang-up all the same, again and again. So
    /// wait for the turn alone then, not for this.
    pub fn events(&self) -> PollFlags {
        match self.connection.events() {
            PollFlags::POLLIN if self.busy => PollFlags::empty(),
            events => events,
        }
    }

    /// What has been negotiated.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The next request's turn. `None` if there is none yet, or if the last one is not finished.
    ///
    /// # Errors
    /// If the connection is over.
    pub fn next_turn(&mut self) -> Result<Option<Turn>, Ended> {
        if self.busy {
            return Ok(None);
        }
        let Some(message) = self.connection.next_message()? else { return Ok(None) };
        self.busy = true;
        Ok(Some(self.session.handle(message)))
    }

    /// The device has stopped that ring, as it was told. The ring was at `base`.
    pub fn ring_stopped(&mut self, ring: u8, base: RingBase) {
        self.session.ring_stopped(ring, base);
    }

    /// Answers the turn. Gives why the request was refused, if it was and the connection goes on.
    ///
    /// # Errors
    /// If the connection is over.
    pub fn finish(&mut self, turn: Turn, outcome: Outcome) -> Result<Option<String>, Ended> {
        self.busy = false;
        let answer = self.session.finish(turn, outcome);
        if let Some(reply) = answer.reply {
            self.connection.send(reply)?;
        }
        match answer.refusal {
            Some(refusal) if answer.close => Err(Ended::Refused(refusal)),
            refusal => Ok(refusal),
        }
    }

    /// The connection is over, or is to be. Gives the rings to stop. Where they were may be said by
    /// [`FrontEnd::ring_stopped`], for [`FrontEnd::session`] to show.
    pub fn hang_up(&mut self) -> Vec<Action> {
        self.session.hang_up()
    }

    /// See [`Connection::is_hung_up`].
    pub fn is_hung_up(&self) -> bool {
        self.connection.is_hung_up()
    }
}
