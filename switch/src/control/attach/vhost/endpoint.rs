//! The thread of a port's socket.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use vhost_user::connection::{Connection, Ended, FrontEnd};
use vhost_user::session::{Action, Outcome};
use vhost_user::socket::{Listener, Place, Role, connect};

use super::device::{Device, count_losses};
use super::place::bind_error;
use crate::io::vhost::VhostPair;
use crate::model::VhostInfo;
use crate::{Error, ErrorKind};

/// How often a client tries to connect, and a server looks whether its socket's file is there.
const RETRY: Duration = Duration::from_millis(200);
/// Requests that are served before the thread looks at the rest again.
const TURNS: usize = 64;

/// The thread, from outside. It ends when this is dropped.
#[derive(Debug)]
pub struct Endpoint {
    stop: Arc<EventFd>,
    state: Arc<Mutex<VhostInfo>>,
    pairs: Vec<Arc<VhostPair>>,
    /// It tells in the end whether the positions of some rings are needed when the front end is back.
    thread: Option<JoinHandle<bool>>,
}

impl Endpoint {
    /// Makes the socket of a server, and starts the thread.
    pub fn start(port: &str, place: Place, device: Device) -> Result<Self, Error> {
        let failed = |why: String| Error::new(ErrorKind::System, format!("vhost: {why}"));
        let stop = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC);
        let stop = Arc::new(stop.map_err(|errno| failed(errno.to_string()))?);
        let listener = match place.role {
            Role::Server => Some(place.listen().map_err(|error| bind_error(&error))?),
            Role::Client => None,
        };
        let state = Arc::new(Mutex::new(VhostInfo::default()));
        let pairs = device.pairs().to_vec();
        let mut run = Run {
            port: port.to_owned(),
            place,
            listener,
            device,
            front_end: None,
            state: Arc::clone(&state),
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new().name("xs-vhost".to_owned()).spawn(move || run.run());
        Ok(Self { stop, state, pairs, thread: Some(thread.map_err(|error| failed(error.to_string()))?) })
    }

    /// What a front end has negotiated.
    pub fn info(&self) -> VhostInfo {
        let mut info = lock(&self.state).clone();
        count_losses(&self.pairs, &mut info);
        info
    }

    /// Whether packets can go both ways.
    pub fn is_up(&self) -> bool {
        lock(&self.state).active_pairs > 0
    }
}

impl Endpoint {
    /// Ends the thread. Says whether the positions of some rings are needed when the front end is back.
    pub fn end(mut self) -> bool {
        self.join()
    }

    fn join(&mut self) -> bool {
        let _ = self.stop.write(1);
        self.thread.take().is_some_and(|thread| thread.join().unwrap_or(false))
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.join();
    }
}

fn lock(state: &Mutex<VhostInfo>) -> MutexGuard<'_, VhostInfo> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the thread has.
struct Run {
    port: String,
    place: Place,
    listener: Option<Listener>,
    device: Device,
    front_end: Option<FrontEnd>,
    state: Arc<Mutex<VhostInfo>>,
    stop: Arc<EventFd>,
}

impl Run {
    fn run(&mut self) -> bool {
        while !self.wait() {
            match self.front_end {
                Some(_) => self.serve(),
                None => self.look_for_front_end(),
            }
        }
        self.end("the port goes");
        self.device.has_positions()
    }

    /// Waits until there is something to do. Says whether the thread is to end.
    fn wait(&self) -> bool {
        let other = match (&self.front_end, &self.listener) {
            (Some(front_end), _) => Some((front_end.as_fd(), front_end.events())),
            (None, Some(listener)) => Some((listener.as_fd(), PollFlags::POLLIN)),
            (None, None) => None,
        };
        let mut fds = vec![
            PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.device.alarm().as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(other.map(|(fd, events)| PollFd::new(fd, events)));
        let timeout = PollTimeout::try_from(RETRY).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut fds, timeout);
        fds[0].any().unwrap_or(false)
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
                let mut state = lock(&self.state);
                if state.last_error.as_ref() != Some(&why) {
                    tracing::info!(port = self.port, why, "no front end yet");
                    state.last_error = Some(why);
                }
            }
        }
    }

    fn accept(&mut self) -> Result<Option<Connection>, String> {
        if self.listener.as_ref().is_none_or(|listener| !listener.is_in_place()) {
            // Somebody has removed the file: nobody could connect any more.
            self.listener = None;
            self.listener = Some(self.place.listen().map_err(|error| bind_error(&error).to_string())?);
            tracing::warn!(port = self.port, "the socket's file was gone, and is made anew");
        }
        let accepted = self.listener.as_ref().map(Listener::accept).transpose();
        Ok(accepted.map_err(|error| error.to_string())?.flatten())
    }

    fn begin(&mut self, connection: Connection) {
        self.front_end = Some(FrontEnd::new(connection, self.device.offer()));
        let mut state = lock(&self.state);
        (state.connected, state.last_error) = (true, None);
        state.sessions += 1;
        tracing::info!(port = self.port, "a front end has connected");
    }

    /// Serves requests that have come, and ends the session if it can't go on.
    fn serve(&mut self) {
        let failure = self.front_end.as_ref().and_then(|front_end| self.device.take_failure(front_end.session()));
        if let Some((ring, error)) = failure {
            return self.end(&format!("the guest has broken ring {ring}: {error}"));
        }
        for _ in 0..TURNS {
            match self.serve_one() {
                Ok(true) => {}
                Ok(false) => break,
                Err(ended) => return self.end(&ended.to_string()),
            }
        }
        if let Some(listener) = &self.listener {
            // One guest a port. Who waits would wait for ever.
            let _ = listener.turn_away();
        }
    }

    fn serve_one(&mut self) -> Result<bool, Ended> {
        let Self { device, front_end: Some(front_end), port, state, .. } = self else { return Ok(false) };
        let Some(turn) = front_end.next_turn()? else { return Ok(false) };
        tracing::debug!(port, request = %turn, "a request");
        let mut stopped = Vec::new();
        let outcome =
            device.carry_out(&turn.actions, front_end.session(), &mut |ring, base| stopped.push((ring, base)));
        for (ring, base) in &stopped {
            front_end.ring_stopped(*ring, *base);
        }
        if let Outcome::Failed(why) = &outcome {
            tracing::warn!(port, why, "a request can't be carried out");
        }
        let changes = !turn.actions.is_empty();
        if let Some(refusal) = front_end.finish(turn, outcome)? {
            tracing::warn!(port, refusal, "a request of the front end is refused");
        }
        for (ring, _) in stopped {
            device.position_is_known(ring);
        }
        if changes {
            device.describe(front_end.session(), &mut lock(state));
        }
        Ok(true)
    }

    /// Ends the session, if there is one. The port waits for the next front end.
    fn end(&mut self, why: &str) {
        let Some(mut front_end) = self.front_end.take() else { return };
        let actions: Vec<Action> = front_end.hang_up();
        let outcome = self.device.carry_out(&actions, front_end.session(), &mut |_, _| {});
        debug_assert!(matches!(outcome, Outcome::Done), "rings stop without an error");
        self.device.forget();
        tracing::info!(port = self.port, why, "the front end is gone");
        let mut state = lock(&self.state);
        *state = VhostInfo { sessions: state.sessions, last_error: Some(why.to_owned()), ..VhostInfo::default() };
    }
}
