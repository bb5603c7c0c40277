//! The threads that serve queues.
//!
//! A thread has some queues of one disk, an io_uring, and a channel to the store. It sleeps in one system call for all:
//! kicks of guests, completions of the store, commands. A turn of its loop is: completions, commands, queues, sleep.
//!
//! A queue moves to a thread by [`Command::Start`] and comes back by [`Command::Take`] once nothing of it is in work.
//! While a thread has it, nobody else touches it.

mod active;
mod bounce;
mod engine;
mod serve;
mod slot;

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::Pid;
use std::sync::atomic::{AtomicBool, AtomicU64};
use vhost_user::event::Event;
use vhost_user::ring::RingLog;

pub use self::active::{Active, Kick};
use self::engine::Engine;
use crate::config::Shape;
use crate::confine;
use crate::limits::Limits;
use crate::request::ID_LEN;
use crate::space::Full;
use crate::stats::QueueCounters;
use crate::store::Store;

/// What a completion belongs to, in the highest byte of its user data.
mod user {
    pub const STORE: u64 = 1 << 56;
    pub const KICK: u64 = 2 << 56;
    pub const WAKE: u64 = 3 << 56;
    pub const KIND: u64 = 0xff << 56;
}

/// User data of a store's operation with that token.
pub(crate) fn store_user_data(token: u32) -> u64 {
    user::STORE | u64::from(token)
}

/// What all threads of a disk share.
#[derive(Debug)]
pub struct Shared {
    /// The disk's name, for logs.
    pub name: String,
    /// What the guest is told as its name.
    pub id: [u8; ID_LEN],
    /// The bytes.
    pub store: Arc<dyn Store>,
    /// What it is to the guest.
    pub shape: Shape,
    /// Bytes of the disk, as the guest has been told.
    pub capacity: AtomicU64,
    /// Writes are durable before they are used.
    pub write_through: AtomicBool,
    /// Limits.
    pub limits: Limits,
    /// Counters, by queue.
    pub counters: Vec<QueueCounters>,
    /// The alarm of a full store.
    pub full: Full,
    /// Beginning of all times.
    pub epoch: Instant,
    /// Signalled when a thread has given up a ring.
    pub alarm: EventFd,
    /// Why it did.
    pub failure: Mutex<Option<String>>,
}

impl Shared {
    /// Tells the session's thread that the guest has broken something.
    pub fn fail(&self, why: String) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        let _ = self.alarm.write(1);
    }

    /// Why a ring was given up, if one was.
    pub fn take_failure(&self) -> Option<String> {
        let _ = self.alarm.read();
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What a thread is told.
#[derive(Debug)]
pub enum Command {
    /// Serve this queue.
    Start(Box<Active>),
    /// End what is in work of this queue, and give it back. Nothing comes if the thread does not have it.
    Take(u16, Sender<Box<Active>>),
    /// The driver is told by another event.
    SetCall(u16, Option<Event>),
    /// Requests are told in another way.
    SetKick(u16, Kick),
    /// Requests have effects, or none.
    SetEnabled(u16, bool),
    /// Writes are logged, elsewhere or no more.
    SetLog(u16, Option<RingLog>),
    /// End what is in work, then tell. Take no requests until [`Command::Resume`].
    Pause(Sender<()>),
    /// Take requests again.
    Resume,
    /// End.
    Stop,
}

/// A thread, from outside. It ends when this is dropped. Its queues have to be taken before.
#[derive(Debug)]
pub struct Thread {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Thread {
    /// Starts a thread that serves some queues of a disk, on that CPU if one is named.
    ///
    /// # Errors
    /// The kernel has no io_uring for it, or no thread. The CPU is not there.
    pub fn start(shared: &Arc<Shared>, number: usize, paused: bool, cpu: Option<usize>) -> io::Result<Self> {
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let (commands, receiver) = channel();
        let (tell, ready) = channel();
        let (shared, woken) = (Arc::clone(shared), Arc::clone(&wake));
        let run = move || match prepare(shared, receiver, woken, paused, cpu) {
            Ok(mut engine) => {
                let _ = tell.send(Ok(()));
                engine.run();
            }
            Err(error) => {
                let _ = tell.send(Err(error));
            }
        };
        let thread = std::thread::Builder::new().name(format!("xs-disk-q{number}")).spawn(run)?;
        let begun = ready.recv().unwrap_or_else(|_| Err(io::Error::other("the thread has ended")));
        Ok(Self { commands, wake, thread: Some(begun_or_joined(begun, thread)?) })
    }

    /// Tells it something.
    pub fn tell(&self, command: Command) {
        // It lives until `Stop`.
        let _ = self.commands.send(command);
        let _ = self.wake.write(1);
    }
}

/// A thread that has begun. One that could not is waited for, so that nothing of it is left.
///
/// # Errors
/// Why it could not.
pub(crate) fn begun_or_joined(begun: io::Result<()>, thread: JoinHandle<()>) -> io::Result<JoinHandle<()>> {
    match begun {
        Ok(()) => Ok(thread),
        Err(error) => {
            let _ = thread.join();
            Err(error)
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.tell(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// On the thread itself.
fn prepare(
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    wake: Arc<EventFd>,
    paused: bool,
    cpu: Option<usize>,
) -> io::Result<Engine> {
    if let Some(cpu) = cpu {
        let mut cpus = CpuSet::new();
        cpus.set(cpu)?;
        sched_setaffinity(Pid::from_raw(0), &cpus)?;
    }
    confine::to_nothing(&shared.name);
    Engine::new(shared, commands, wake, paused)
}
