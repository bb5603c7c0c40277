//! A request in work.
#![allow(unsafe_code, reason = "vectors of buffers are pointers")]

use std::sync::Arc;

use nix::errno::Errno;
use vhost_user::memory::GuestMemory;
use vhost_user::ring::{Chain, Request};

use super::bounce::{BOUNCE, Bounce};
use crate::request::{self, Command, Range};
use crate::store::Operation;

/// A request in work, and a place for the next one.
#[derive(Debug)]
pub struct Slot {
    /// The chain. It keeps the guest's memory mapped.
    pub request: Request,
    /// Place of its queue in the thread.
    pub queue: usize,
    /// What is to be done.
    pub command: Command,
    /// Ranges of a discard or of zeroes.
    pub ranges: Vec<Range>,
    /// When it began, in nanoseconds.
    pub began: u64,
    /// An aligned copy of the data, or of a part.
    pub bounce: Option<Bounce>,
    /// Buffers of the operation in work.
    buffers: Vec<libc::iovec>,
    /// Bytes that are done, of data that goes in parts. Ranges that are done.
    done: usize,
    /// Bytes of the part in work.
    part: usize,
    /// The last step is in work: to make durable what was done.
    flushing: bool,
}

// SAFETY: buffers are pointers into memory that the request keeps mapped, or into the bounce buffer. They are the
// kernel's, whatever thread has the slot.
unsafe impl Send for Slot {}

/// What a request does next.
pub enum Step<'a> {
    /// This operation with these buffers.
    Begin(Operation, &'a [libc::iovec]),
    /// Its data has to be copied, and it has no bounce buffer.
    NeedBounce,
    /// Nothing: it is done.
    Done,
}

impl Slot {
    /// A place for requests in that memory.
    pub fn new(memory: &Arc<GuestMemory>) -> Self {
        Self {
            request: Request::new(memory),
            queue: 0,
            command: Command::Flush,
            ranges: Vec::new(),
            began: 0,
            bounce: None,
            buffers: Vec::new(),
            done: 0,
            part: 0,
            flushing: false,
        }
    }

    /// Begins with a request that was taken and read.
    pub fn start(&mut self, queue: usize, command: Command) {
        (self.queue, self.command) = (queue, command);
        (self.done, self.part, self.flushing) = (0, 0, false);
    }

    /// Direction and bytes, if limits are asked.
    pub fn cost(&self) -> Option<(bool, u64)> {
        match self.command {
            Command::Read { len, .. } => Some((false, len.into())),
            Command::Write { len, .. } => Some((true, len.into())),
            Command::Discard | Command::WriteZeroes => Some((true, 0)),
            Command::Flush | Command::Identify => None,
        }
    }

    /// Bytes of its data or ranges.
    pub fn bytes(&self) -> u64 {
        match self.command {
            Command::Read { len, .. } | Command::Write { len, .. } => len.into(),
            Command::Discard | Command::WriteZeroes => self.ranges.iter().map(|range| range.len).sum(),
            Command::Flush | Command::Identify => 0,
        }
    }

    /// First byte that it writes, or 0.
    pub fn first(&self) -> u64 {
        match self.command {
            Command::Read { at, .. } | Command::Write { at, .. } => at,
            Command::Discard | Command::WriteZeroes => self.ranges.first().map_or(0, |range| range.at),
            Command::Flush | Command::Identify => 0,
        }
    }

    /// The next step. Buffers must fit: begin at multiples of `memory`, and have lengths that are multiples of
    /// `length`.
    pub fn next(&mut self, (memory, length): (usize, usize), durable: bool) -> Step<'_> {
        match self.command {
            Command::Read { at, len } => self.transfer(true, at, len, (memory, length), durable),
            Command::Write { at, len } => self.transfer(false, at, len, (memory, length), durable),
            Command::Flush if self.done == 0 => Step::Begin(Operation::Flush, &[]),
            Command::Flush | Command::Identify => Step::Done,
            Command::Discard | Command::WriteZeroes => match self.ranges.get(self.done) {
                Some(Range { at, len, .. }) if self.command == Command::Discard => {
                    Step::Begin(Operation::Discard { at: *at, len: *len }, &[])
                }
                Some(Range { at, len, unmap }) => {
                    Step::Begin(Operation::Zero { at: *at, len: *len, unmap: *unmap }, &[])
                }
                None if durable && !self.flushing && !self.ranges.is_empty() => {
                    self.flushing = true;
                    Step::Begin(Operation::Flush, &[])
                }
                None => Step::Done,
            },
        }
    }

    fn transfer(
        &mut self,
        is_read: bool,
        at: u64,
        len: u32,
        (memory, length): (usize, usize),
        durable: bool,
    ) -> Step<'_> {
        let len = len as usize;
        let Some(chain) = self.request.chain() else { return Step::Done };
        if self.done >= len {
            return Step::Done;
        }
        let operation = |at: u64| if is_read { Operation::Read { at } } else { Operation::Write { at, durable } };
        if self.done == 0 && self.bounce.is_none() {
            self.buffers.clear();
            let mut fits = true;
            request::data(&chain, is_read, 0, len, |slice| {
                fits &= slice.as_ptr().addr().is_multiple_of(memory) && slice.len().is_multiple_of(length);
                self.buffers.push(libc::iovec { iov_base: slice.as_ptr().cast(), iov_len: slice.len() });
            });
            if fits {
                self.part = len;
                return Step::Begin(operation(at), &self.buffers);
            }
        }
        let Some(bounce) = &mut self.bounce else { return Step::NeedBounce };
        self.part = BOUNCE.min(len - self.done);
        let bytes = &mut bounce.bytes()[..self.part];
        if !is_read {
            let mut filled = 0;
            request::data(&chain, false, self.done, self.part, |slice| {
                filled += slice.read(&mut bytes[filled..]);
            });
        }
        self.buffers.clear();
        self.buffers.push(libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: self.part });
        Step::Begin(operation(at + self.done as u64), &self.buffers)
    }

    /// The operation in work has ended well.
    pub fn step_done(&mut self) {
        match self.command {
            Command::Read { .. } => {
                if let (Some(bounce), Some(chain)) = (&mut self.bounce, self.request.chain()) {
                    let bytes = &bounce.bytes()[..self.part];
                    let mut copied = 0;
                    request::data(&chain, true, self.done, self.part, |slice| {
                        copied += slice.write(&bytes[copied..]);
                    });
                }
                self.done += self.part;
            }
            Command::Write { .. } => self.done += self.part,
            _ => self.done += 1,
        }
    }
}

/// The places of a thread, by token.
#[derive(Debug, Default)]
pub struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Slots {
    /// A free place. It has to be given back.
    pub fn take(&mut self, memory: &Arc<GuestMemory>) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::new(memory));
            // A thread has as many as its rings have entries, at most 256 times 32,768.
            u32::try_from(self.slots.len() - 1).unwrap_or_default()
        })
    }

    /// Gives a place back.
    pub fn give(&mut self, token: u32) {
        self.free.push(token);
    }

    /// The place with that token.
    pub fn get(&mut self, token: u32) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(token).ok()?)
    }

    /// Places that are taken.
    pub fn taken(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Forgets all places, and with them the guest's memory. None is taken.
    pub fn clear(&mut self) {
        debug_assert_eq!(self.taken(), 0, "no request is in work");
        (self.slots, self.free) = (Vec::new(), Vec::new());
    }
}

/// What a result of the store means to the guest.
pub fn is_full(errno: Errno) -> bool {
    matches!(errno, Errno::ENOSPC | Errno::EDQUOT)
}

/// What the driver is told of how much was written into a chain: all of it. The status is the last byte.
pub fn written(chain: &Chain<'_>) -> u32 {
    u32::try_from(chain.writable_len()).unwrap_or(u32::MAX)
}
