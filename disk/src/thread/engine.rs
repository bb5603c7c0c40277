//! The loop of a thread.
#![allow(unsafe_code, reason = "operations of io_uring name memory")]

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use io_uring::opcode;
use nix::sys::eventfd::EventFd;
use tracing::error;
use vhost_user::event::Event;
use vhost_user::ring::RingError;

use super::active::Serving;
use super::bounce::Bounces;
use super::slot::Slots;
use super::{Active, Command, Kick, Shared, user};
use crate::store::Channel;
use crate::uring::{Completion, Registered, Ring};

/// Entries of the io_uring. More operations than that go to the kernel in parts.
const ENTRIES: u32 = 256;
/// Files besides kicks and calls: the store's, and the thread's own event.
const OWN_FILES: u32 = 4;
/// How often a ring is looked at that has no kick event.
const POLL: Duration = Duration::from_micros(200);

/// A thread's state.
#[derive(Debug)]
pub struct Engine {
    pub(super) ring: Ring,
    pub(super) channel: Box<dyn Channel>,
    pub(super) shared: Arc<Shared>,
    pub(super) queues: Vec<Serving>,
    pub(super) slots: Slots,
    pub(super) bounces: Bounces,
    /// Alignment that buffers need: of addresses and lengths.
    pub(super) align: (usize, usize),
    /// Operations that the store has begun and not ended.
    pub(super) begun: usize,
    pub(super) paused: bool,
    /// When a request may begin that waits for limits, in nanoseconds.
    pub(super) deadline: Option<u64>,
    commands: Receiver<Command>,
    pausers: Vec<Sender<()>>,
    wake: Arc<EventFd>,
    wake_file: Registered,
    generation: u32,
    stop: bool,
    events: Vec<Completion>,
}

impl Engine {
    pub(super) fn new(
        shared: Arc<Shared>,
        commands: Receiver<Command>,
        wake: Arc<EventFd>,
        paused: bool,
    ) -> io::Result<Self> {
        let mut ring = Ring::new(ENTRIES, OWN_FILES + u32::from(shared.shape.queues))?;
        let wake_file = ring.register(wake.as_fd())?;
        let channel = shared.store.channel(&mut ring)?;
        let properties = shared.store.properties();
        let size = |bytes: u32| usize::try_from(bytes).unwrap_or(1);
        let align = (size(properties.memory_align), size(properties.offset_align));
        let mut engine = Self {
            ring,
            channel,
            shared,
            queues: Vec::new(),
            slots: Slots::default(),
            bounces: Bounces::default(),
            align,
            begun: 0,
            paused,
            deadline: None,
            commands,
            pausers: Vec::new(),
            wake,
            wake_file,
            generation: 0,
            stop: false,
            events: Vec::new(),
        };
        engine.wait_for(engine.wake_file, user::WAKE);
        Ok(engine)
    }

    /// Serves until it is told to stop.
    pub(super) fn run(&mut self) {
        loop {
            let busy = self.turn();
            if self.stop {
                return;
            }
            let timeout = if busy { Some(Duration::ZERO) } else { self.timeout() };
            if let Err(error) = self.ring.wait(timeout) {
                error!(disk = self.shared.name, %error, "io_uring_enter");
                self.shared.fail(format!("io_uring_enter: {error}"));
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// How long it may sleep. None is until something happens.
    fn timeout(&self) -> Option<Duration> {
        let polled = self.queues.iter().any(|serving| matches!(serving.active.kick, Kick::Polled));
        let deadline = self.deadline.map(|at| Duration::from_nanos(at.saturating_sub(self.now())));
        match (polled, deadline) {
            (true, Some(deadline)) => Some(deadline.min(POLL)),
            (true, None) => Some(POLL),
            (false, deadline) => deadline,
        }
    }

    /// Nanoseconds since the disk was made.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.shared.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Does what there is to do. Says whether there is more already.
    fn turn(&mut self) -> bool {
        let now = self.now();
        let mut events = std::mem::take(&mut self.events);
        events.extend(self.ring.completions());
        let mut woken = false;
        for event in events.drain(..) {
            let low = event.user_data & !user::KIND;
            match event.user_data & user::KIND {
                user::STORE => self.completed(u32::try_from(low).unwrap_or(u32::MAX), event.result, now),
                user::KICK => self.kicked(low, event),
                user::WAKE => {
                    woken = true;
                    if !event.more {
                        self.wait_for(self.wake_file, user::WAKE);
                    }
                }
                // A wait that was cancelled.
                _ => {}
            }
        }
        self.events = events;
        if woken {
            let _ = self.wake.read();
            while let Ok(command) = self.commands.try_recv() {
                self.obey(command);
            }
        }
        self.deadline = None;
        let mut busy = false;
        for place in 0..self.queues.len() {
            busy |= self.serve(place, now);
        }
        self.give_back();
        busy
    }

    /// Waits for a file to be readable, again and again. It is never read, so each write to an event is told.
    fn wait_for(&mut self, file: Registered, user_data: u64) {
        let readable = u32::try_from(libc::POLLIN).unwrap_or_default();
        let entry = opcode::PollAdd::new(file.fixed(), readable).multi(true).build();
        // SAFETY: it names no memory.
        unsafe { self.ring.push(entry.user_data(user_data)) };
    }

    /// A kick event is readable. `low` has the generation and the queue.
    fn kicked(&mut self, low: u64, event: Completion) {
        let (generation, number) = (low >> 16, low & 0xffff);
        let is_it = |serving: &Serving| {
            u64::from(serving.active.number) == number && u64::from(serving.generation) == generation
        };
        let Some(at) = self.queues.iter().position(is_it) else { return };
        self.queues[at].look = true;
        if event.result < 0 {
            let errno = nix::errno::Errno::from_raw(-event.result);
            self.queues[at].broken = true;
            self.shared.fail(format!("the kick of ring {number} can't be waited for: {errno}"));
        } else if !event.more
            && let Some(file) = self.queues[at].kick_file
        {
            self.wait_for(file, event.user_data);
        }
    }

    fn place(&self, number: u16) -> Option<usize> {
        self.queues.iter().position(|serving| serving.active.number == number)
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Start(active) => self.start(active),
            Command::Take(number, taker) => {
                if let Some(at) = self.place(number) {
                    (self.queues[at].taker, self.queues[at].look) = (Some(taker), true);
                }
            }
            Command::SetCall(number, call) => {
                if let Some(at) = self.place(number) {
                    self.queues[at].active.call = call;
                    // What was used without an event is told now.
                    self.call(at);
                }
            }
            Command::SetKick(number, kick) => {
                if let Some(at) = self.place(number) {
                    self.close_kick(at);
                    self.queues[at].active.kick = kick;
                    self.open_kick(at);
                    self.queues[at].look = true;
                }
            }
            Command::SetEnabled(number, on) => {
                if let Some(at) = self.place(number) {
                    (self.queues[at].active.enabled, self.queues[at].look) = (on, true);
                }
            }
            Command::SetLog(number, log) => {
                if let Some(at) = self.place(number) {
                    self.queues[at].active.queue.set_log(log);
                }
            }
            Command::Pause(teller) => {
                self.paused = true;
                self.pausers.push(teller);
                self.look_at_all();
            }
            Command::Resume => {
                self.paused = false;
                self.look_at_all();
            }
            Command::Stop => self.stop = true,
        }
    }

    fn look_at_all(&mut self) {
        self.queues.iter_mut().for_each(|serving| serving.look = true);
    }

    fn start(&mut self, active: Box<Active>) {
        self.generation = self.generation.wrapping_add(1);
        self.queues.push(Serving::new(active, self.generation));
        let at = self.queues.len() - 1;
        self.open_kick(at);
        // An earlier daemon may have used requests and not told.
        self.call_always(at);
    }

    fn open_kick(&mut self, at: usize) {
        let serving = &mut self.queues[at];
        let Kick::Event(event) = &serving.active.kick else { return };
        self.generation = self.generation.wrapping_add(1);
        serving.generation = self.generation;
        let user_data = user::KICK | u64::from(serving.generation) << 16 | u64::from(serving.active.number);
        match self.ring.register(event.as_fd()) {
            Ok(file) => {
                serving.kick_file = Some(file);
                self.wait_for(file, user_data);
            }
            Err(error) => {
                serving.broken = true;
                self.shared.fail(format!("the kick of a ring can't be used: {error}"));
            }
        }
    }

    fn close_kick(&mut self, at: usize) {
        let serving = &mut self.queues[at];
        let Some(file) = serving.kick_file.take() else { return };
        let user_data = user::KICK | u64::from(serving.generation) << 16 | u64::from(serving.active.number);
        // SAFETY: it names no memory.
        unsafe { self.ring.push(opcode::AsyncCancel::new(user_data).build()) };
        self.ring.forget(file);
    }

    /// Tells the driver that requests were used, if it wants to know.
    pub(super) fn call(&mut self, at: usize) {
        if self.queues[at].active.queue.needs_call() {
            self.call_always(at);
        }
    }

    fn call_always(&mut self, at: usize) {
        let call = self.queues[at].active.call.as_ref();
        if let Some(Err(error)) = call.map(Event::signal) {
            self.give_up(at, &RingError::Call(error).to_string());
        }
    }

    /// Gives back queues of which nothing is in work, and tells that all is quiet.
    fn give_back(&mut self) {
        let is_quiet = |serving: &Serving| serving.in_flight == 0 && serving.left_over() == 0;
        let mut at = 0;
        while at < self.queues.len() {
            if self.queues[at].taker.is_none() || !is_quiet(&self.queues[at]) {
                at += 1;
                continue;
            }
            self.close_kick(at);
            let serving = self.queues.remove(at);
            if let Some(taker) = serving.taker {
                let _ = taker.send(serving.active);
            }
        }
        if self.slots.taken() == 0 && self.queues.is_empty() {
            // The guest's memory goes with them.
            self.slots.clear();
            self.bounces.shrink();
        }
        // What a disabled ring had in work when a daemon was killed waits until it is enabled.
        let is_still =
            |serving: &Serving| serving.in_flight == 0 && (serving.left_over() == 0 || !serving.active.enabled);
        if !self.pausers.is_empty() && self.queues.iter().all(is_still) {
            for teller in self.pausers.drain(..) {
                let _ = teller.send(());
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Nothing is in work, unless the thread panics. The kernel must not touch memory that is given back.
        while self.begun > 0 {
            if self.ring.wait(None).is_err() {
                std::process::abort();
            }
            let is_store = |event: &Completion| event.user_data & user::KIND == user::STORE;
            let ended = self.ring.completions().filter(is_store).count();
            self.begun = self.begun.saturating_sub(ended);
        }
        self.shared.full.forget();
    }
}
