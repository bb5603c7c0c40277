//! What goes back: replies and acknowledgements.

use super::action::{Action, Outcome};
use super::refusal::{Refusal, name};
use crate::message::{Code, Reply};

/// What a device has to do for a request, before it is answered.
#[derive(Debug)]
#[must_use = "the front end waits for the answer"]
pub struct Turn {
    /// In this order.
    pub actions: Vec<Action>,
    pub(super) question: Question,
    pub(super) refusal: Option<Refusal>,
}

impl std::fmt::Display for Turn {
    /// The request's name.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&name(self.question.code))
    }
}

/// The answer to a request.
#[derive(Debug)]
#[must_use = "the front end waits for it"]
pub struct Answer {
    /// What the front end gets, if anything.
    pub reply: Option<Reply>,
    /// The request was refused, and why. For the log.
    pub refusal: Option<String>,
    /// The connection is over, after the reply.
    pub close: bool,
}

/// What the front end waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    code: u32,
    /// Bytes of its payload.
    size: usize,
    need_reply: bool,
    asked: Asked,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    /// Nothing, but perhaps an acknowledgement.
    Nothing,
    /// Always an acknowledgement.
    Acknowledgement,
    /// A number.
    Number(u64),
    /// Where the ring was stopped.
    Base(u8),
    /// A piece of the configuration space.
    Config { offset: u32, size: u32, flags: u32 },
    /// A new record of requests in flight.
    Inflight,
}

impl Question {
    /// What is asked, as far as the code tells. A refusal is told in this way.
    ///
    /// `log_shared`: the front end waits after `SET_LOG_BASE`, because the log is shared memory.
    pub(super) fn of(code: u32, size: usize, need_reply: bool, log_shared: bool) -> Self {
        let asked = match Code::of(code) {
            Some(Code::GetConfig) => Asked::Config { offset: 0, size: 0, flags: 0 },
            Some(Code::GetInflightFd) => Asked::Inflight,
            Some(Code::SetLogBase) if log_shared => Asked::Acknowledgement,
            _ => Asked::Nothing,
        };
        Self { code, size, need_reply, asked }
    }

    pub(super) fn ask(&mut self, asked: Asked) {
        self.asked = asked;
    }

    /// The ring whose position is asked for.
    pub(super) fn base_of(&self) -> Option<u8> {
        if let Asked::Base(ring) = self.asked { Some(ring) } else { None }
    }

    /// The answer. `base` is where the ring was stopped that was asked for.
    pub(super) fn answer(self, outcome: Outcome, base: u32) -> Answer {
        let reply = match (self.asked, outcome) {
            (_, Outcome::Failed(why)) => return self.refuse(&Refusal::Failed(why)),
            (_, Outcome::Refused) if !may_be_declined(self.code) => {
                return self.refuse(&Refusal::Failed("the device does not do what it has to".to_owned()));
            }
            (_, Outcome::Refused) => return self.refuse(&Refusal::Device),
            (Asked::Nothing, _) => self.need_reply.then(|| Reply::acknowledgement(self.code, true)),
            (Asked::Acknowledgement, _) => Some(Reply::acknowledgement(self.code, true)),
            (Asked::Number(number), _) => Some(Reply::number(self.code, number)),
            (Asked::Base(ring), _) => Some(Reply::ring_base(ring, base)),
            (Asked::Config { offset, size, flags }, Outcome::Config(data)) if u32::try_from(data.len()) == Ok(size) => {
                Some(Reply::config(offset, flags, &data))
            }
            (Asked::Inflight, Outcome::Inflight(region)) => Some(Reply::inflight(Some(region), self.size)),
            (Asked::Config { .. } | Asked::Inflight, _) => return self.refuse(&Refusal::Device),
        };
        Answer { reply, refusal: None, close: false }
    }

    /// The front end learns of a refusal by the reply, or by the end of the connection.
    pub(super) fn refuse(self, refusal: &Refusal) -> Answer {
        let reply = match self.asked {
            Asked::Config { .. } => Some(Reply::no_config()),
            Asked::Inflight => Some(Reply::inflight(None, self.size)),
            Asked::Acknowledgement => Some(Reply::acknowledgement(self.code, false)),
            Asked::Nothing if self.need_reply && !has_answer(self.code) => {
                Some(Reply::acknowledgement(self.code, false))
            }
            // A number or a position can't say no.
            Asked::Nothing | Asked::Number(_) | Asked::Base(_) => None,
        };
        let close = refusal.is_fatal() || (reply.is_none() && !may_be_ignored(self.code));
        Answer { reply, refusal: Some(format!("{}: {refusal}", name(self.code))), close }
    }
}

/// Its answer is a number or a position. A front end would take an acknowledgement for that.
fn has_answer(code: u32) -> bool {
    use Code::{GetFeatures, GetMaxMemSlots, GetProtocolFeatures, GetQueueNum, GetStatus, GetVringBase};
    let answered = [GetFeatures, GetProtocolFeatures, GetQueueNum, GetVringBase, GetMaxMemSlots, GetStatus];
    Code::of(code).is_some_and(|code| answered.contains(&code))
}

/// A device may say no to it.
fn may_be_declined(code: u32) -> bool {
    Code::of(code).is_some_and(|code| matches!(code, Code::GetConfig | Code::SetConfig | Code::GetInflightFd))
}

/// Both ends agree on all that matters, even if it was refused and nobody was told.
fn may_be_ignored(code: u32) -> bool {
    let ignored = [Code::SetLogFd, Code::SendRarp, Code::NetSetMtu, Code::SetBackendReqFd, Code::SetConfig];
    Code::of(code).is_some_and(|code| ignored.contains(&code))
}
