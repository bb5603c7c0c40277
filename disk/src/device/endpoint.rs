//! The thread of a disk's socket.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use vhost_user::connection::{Connection, Ended, FrontEnd};
use vhost_user::session::{Offer, Outcome};
use vhost_user::socket::{Listener, Place, Role, connect};

use super::Device;
use crate::confine;
use crate::thread::{Command as ThreadCommand, Shared};

/// How often a client tries to connect, and a server looks whether its socket's file is there.
const RETRY: Duration = Duration::from_millis(200);
/// Requests that are served before the thread looks at the rest again.
const TURNS: usize = 64;

/// What there is to be seen of a session.
#[derive(Clone, Debug, Default)]
pub struct SessionInfo {
    /// A front end is connected.
    pub connected: bool,
    /// Virtio features that were negotiated.
    pub features: Option<u64>,
    /// Protocol features that were negotiated.
    pub protocol_features: u64,
    /// Rings that run.
    pub active_queues: usize,
    /// Sessions until now.
    pub sessions: u64,
    /// Why the last session has ended, or why there is none.
    pub last_error: Option<String>,
}

/// What the thread is asked to do.
#[derive(Debug)]
pub enum Request {
    /// Make the disk greater, to so many bytes.
    Grow(u64, Sender<Result<(), String>>),
    /// Take no requests. Answered when nothing is in work.
    Pause(Sender<()>),
    /// Take requests again.
    Resume(Sender<()>),
}

/// The thread, from outside. It ends when this is dropped.
#[derive(Debug)]
pub struct Endpoint {
    requests: Option<Sender<Request>>,
    wake: Arc<EventFd>,
    info: Arc<Mutex<SessionInfo>>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// Makes the socket of a server, and starts the thread. `make` makes the device on the thread, which is confined.
    ///
    /// # Errors
    /// The socket can't be made, or the device can't.
    pub fn start<F>(name: &str, place: Place, make: F) -> std::io::Result<Self>
    where
        F: FnOnce() -> std::io::Result<Device> + Send + 'static,
    {
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let listener = match place.role {
            Role::Server => Some(place.listen().map_err(std::io::Error::other)?),
            Role::Client => None,
        };
        let info = Arc::new(Mutex::new(SessionInfo::default()));
        let (requests, receiver) = channel();
        let (tell, ready) = channel();
        let (shown, woken, name) = (Arc::clone(&info), Arc::clone(&wake), name.to_owned());
        let run = move || {
            let directory = place.path.parent().map(std::path::Path::to_path_buf).unwrap_or_default();
            confine::to_sockets_in(&name, &directory);
            match make() {
                Ok(device) => {
                    let shared = Arc::clone(device.shared());
                    let offer = shared.shape.offer();
                    let (wake, info) = (woken, shown);
                    let mut run =
                        Run { place, listener, device, shared, offer, front_end: None, info, wake, requests: receiver };
                    let _ = tell.send(Ok(()));
                    run.run();
                }
                Err(error) => {
                    let _ = tell.send(Err(error));
                }
            }
        };
        let thread = std::thread::Builder::new().name("xs-disk".to_owned()).spawn(run)?;
        let begun = ready.recv().unwrap_or_else(|_| Err(std::io::Error::other("the disk's thread has ended")));
        // The socket goes with the thread: it is not there any more when the caller hears of the failure.
        let thread = crate::thread::begun_or_joined(begun, thread)?;
        Ok(Self { requests: Some(requests), wake, info, thread: Some(thread) })
    }

    /// What there is to be seen, as it changes.
    pub fn session(&self) -> Arc<Mutex<SessionInfo>> {
        Arc::clone(&self.info)
    }

    /// Asks for something. It is answered by the request's own channel.
    pub fn ask(&self, request: Request) {
        if let Some(requests) = &self.requests {
            let _ = requests.send(request);
        }
        let _ = self.wake.write(1);
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.requests = None;
        let _ = self.wake.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(info: &Mutex<SessionInfo>) -> MutexGuard<'_, SessionInfo> {
    info.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the thread has.
struct Run {
    place: Place,
    listener: Option<Listener>,
    device: Device,
    shared: Arc<Shared>,
    offer: Offer,
    front_end: Option<FrontEnd>,
    info: Arc<Mutex<SessionInfo>>,
    wake: Arc<EventFd>,
    requests: Receiver<Request>,
}

impl Run {
    fn run(&mut self) {
        while self.obey() {
            match self.front_end {
                Some(_) => self.serve(),
                None => self.look_for_front_end(),
            }
            self.wait();
        }
        self.end("the disk goes");
    }

    /// Waits until there is something to do.
    fn wait(&self) {
        let other = match (&self.front_end, &self.listener) {
            (Some(front_end), _) => Some((front_end.as_fd(), front_end.events())),
            (None, Some(listener)) => Some((listener.as_fd(), PollFlags::POLLIN)),
            (None, None) => None,
        };
        let mut fds = vec![
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.shared.alarm.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(other.map(|(fd, events)| PollFd::new(fd, events)));
        if self.front_end.is_some() {
            // Others are turned away as they come.
            fds.extend(self.listener.as_ref().map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
        }
        // With a front end there is nothing to look for: the thread takes no CPU.
        let look = PollTimeout::try_from(RETRY).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut fds, if self.front_end.is_some() { PollTimeout::NONE } else { look });
        let _ = self.wake.read();
    }

    /// Does what was asked for. Says whether the thread goes on.
    fn obey(&mut self) -> bool {
        use std::sync::mpsc::TryRecvError;
        loop {
            match self.requests.try_recv() {
                Ok(Request::Grow(bytes, answer)) => {
                    let _ = answer.send(self.grow(bytes));
                }
                Ok(Request::Pause(answer)) => {
                    let (teller, told) = channel();
                    for thread in self.device.threads() {
                        thread.tell(ThreadCommand::Pause(teller.clone()));
                    }
                    drop(teller);
                    // All of them have told, or ended.
                    while told.recv().is_ok() {}
                    let _ = answer.send(());
                }
                Ok(Request::Resume(answer)) => {
                    self.device.threads().iter().for_each(|thread| thread.tell(ThreadCommand::Resume));
                    let _ = answer.send(());
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// The store first, then the configuration space, then the guest.
    fn grow(&mut self, bytes: u64) -> Result<(), String> {
        let has = self.shared.capacity.load(Ordering::Relaxed);
        if !bytes.is_multiple_of(u64::from(self.shared.shape.block)) {
            return Err(format!("{bytes} bytes are no whole blocks of {}", self.shared.shape.block));
        }
        if bytes < has {
            return Err(format!("the disk has {has} bytes and can't shrink to {bytes}: the guest would lose data"));
        }
        if bytes > self.shared.store.properties().bytes {
            self.device.grow_store(bytes).map_err(|error| format!("growing to {bytes} bytes: {error}"))?;
        }
        self.shared.capacity.store(bytes, Ordering::Relaxed);
        if bytes > has && self.front_end.is_some() && !self.device.config_changed() {
            tracing::warn!(disk = self.shared.name, "the front end can't be told that the disk has grown");
        }
        Ok(())
    }

    fn look_for_front_end(&mut self) {
        let found = match self.place.role {
            Role::Server => self.accept(),
            Role::Client => connect(&self.place.path).map(Some).map_err(|error| error.to_string()),
        };
        match found {
            Ok(Some(connection)) => self.begin(connection),
            Ok(None) => {}
            Err(why) => {
                let mut info = lock(&self.info);
                if info.last_error.as_ref() != Some(&why) {
                    tracing::info!(disk = self.shared.name, why, "no front end yet");
                    info.last_error = Some(why);
                }
            }
        }
    }

    fn accept(&mut self) -> Result<Option<Connection>, String> {
        if self.listener.as_ref().is_none_or(|listener| !listener.is_in_place()) {
            // Somebody has removed the file: nobody could connect any more.
            self.listener = None;
            self.listener = Some(self.place.listen().map_err(|error| error.to_string())?);
            tracing::warn!(disk = self.shared.name, "the socket's file was gone, and is made anew");
        }
        let accepted = self.listener.as_ref().map(Listener::accept).transpose();
        Ok(accepted.map_err(|error| error.to_string())?.flatten())
    }

    fn begin(&mut self, connection: Connection) {
        // What an earlier guest has broken is of no interest any more.
        let _ = self.shared.take_failure();
        self.front_end = Some(FrontEnd::new(connection, self.offer));
        let mut info = lock(&self.info);
        (info.connected, info.last_error) = (true, None);
        info.sessions += 1;
        tracing::info!(disk = self.shared.name, "a front end has connected");
    }

    /// Serves requests that have come, and ends the session if it can't go on.
    fn serve(&mut self) {
        if let Some(why) = self.shared.take_failure() {
            return self.end(&why);
        }
        for _ in 0..TURNS {
            match self.serve_one() {
                Ok(true) => {}
                Ok(false) => break,
                Err(ended) => return self.end(&ended.to_string()),
            }
        }
        let is_here = self.front_end.as_ref().is_some_and(|front_end| !front_end.is_hung_up());
        if let Some(listener) = self.listener.as_ref().filter(|_| is_here) {
            // One guest a disk. Who waits would wait for ever.
            let _ = listener.turn_away();
        }
    }

    fn serve_one(&mut self) -> Result<bool, Ended> {
        let Self { device, front_end: Some(front_end), shared, info, .. } = self else { return Ok(false) };
        let Some(turn) = front_end.next_turn()? else { return Ok(false) };
        tracing::debug!(disk = shared.name, request = %turn, "a request");
        let mut stopped = Vec::new();
        let outcome =
            device.carry_out(&turn.actions, front_end.session(), &mut |ring, base| stopped.push((ring, base)));
        for (ring, base) in stopped {
            front_end.ring_stopped(ring, base);
        }
        if let Outcome::Failed(why) = &outcome {
            tracing::warn!(disk = shared.name, why, "a request can't be carried out");
        }
        let changes = !turn.actions.is_empty();
        if let Some(refusal) = front_end.finish(turn, outcome)? {
            tracing::warn!(disk = shared.name, refusal, "a request of the front end is refused");
        }
        if changes {
            let mut info = lock(info);
            info.features = front_end.session().features();
            info.protocol_features = front_end.session().protocol_features();
            info.active_queues = device.active();
        }
        Ok(true)
    }

    /// Ends the session, if there is one. The disk waits for the next front end.
    fn end(&mut self, why: &str) {
        let Some(mut front_end) = self.front_end.take() else { return };
        let actions = front_end.hang_up();
        let outcome = self.device.carry_out(&actions, front_end.session(), &mut |_, _| {});
        if let Outcome::Failed(why) = outcome {
            tracing::error!(disk = self.shared.name, why, "rings can't be stopped");
        }
        self.device.forget();
        tracing::info!(disk = self.shared.name, why, "the front end is gone");
        let mut info = lock(&self.info);
        *info = SessionInfo { sessions: info.sessions, last_error: Some(why.to_owned()), ..SessionInfo::default() };
    }
}
