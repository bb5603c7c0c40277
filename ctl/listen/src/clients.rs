//! The share of each client among a server's connections.
//!
//! A server has a limited number of places. When they are taken, a new client gets the place of another: of the peer
//! with the most places the connection that has kept the server waiting the longest. So a peer with few connections is
//! always let in, and whoever opens many and does nothing takes only its own places away.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A user of this machine, by number.
    User(u32),
    /// A host.
    Host(IpAddr),
}

/// The places of a server. Clones share them.
#[derive(Clone, Debug)]
pub struct Clients(Arc<Table>);

#[derive(Debug)]
struct Table {
    limit: usize,
    started: Instant,
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    taken: Vec<Seat>,
}

#[derive(Debug)]
struct Seat {
    no: u64,
    peer: Peer,
    activity: Arc<Activity>,
    cut: oneshot::Sender<()>,
}

/// What is known of a connection's activity. The connection writes it.
#[derive(Debug, Default)]
struct Activity {
    /// When bytes were last moved, in milliseconds since the table was made.
    moved: AtomicU64,
    /// The server waits for this client: for its bytes, or for it to take some.
    awaited: AtomicBool,
}

impl Seats {
    /// The connection that has to go for a new one of `peer`.
    fn victim(&self, peer: Peer) -> Option<usize> {
        let places = |of: Peer| self.taken.iter().filter(|seat| seat.peer == of).count() + usize::from(of == peer);
        let rank = |seat: &Seat| {
            let awaited = seat.activity.awaited.load(Ordering::Relaxed);
            (places(seat.peer), awaited, std::cmp::Reverse(seat.activity.moved.load(Ordering::Relaxed)))
        };
        (0..self.taken.len()).max_by_key(|at| rank(&self.taken[*at]))
    }
}

impl Clients {
    /// Places for `limit` connections.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Table { limit, started: Instant::now(), seats: Mutex::default() }))
    }

    /// A place for a connection. Cuts another one if there is none.
    pub fn admit(&self, peer: Peer) -> Ticket {
        let mut seats = self.0.lock();
        if seats.taken.len() >= self.0.limit
            && let Some(at) = seats.victim(peer)
        {
            let gone = seats.taken.swap_remove(at);
            tracing::debug!(of = ?gone.peer, "a connection is cut, because others want its place");
            // A connection that has just ended needs no word.
            let _ = gone.cut.send(());
        }
        let (cut, is_cut) = oneshot::channel();
        let (no, activity) = (seats.next, Arc::new(Activity::default()));
        seats.next += 1;
        seats.taken.push(Seat { no, peer, activity: Arc::clone(&activity), cut });
        drop(seats);
        let ticket = Ticket { table: Arc::clone(&self.0), no, activity, is_cut };
        ticket.moved();
        ticket
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place. Dropping it frees the place.
#[derive(Debug)]
pub struct Ticket {
    table: Arc<Table>,
    no: u64,
    activity: Arc<Activity>,
    pub(crate) is_cut: oneshot::Receiver<()>,
}

impl Ticket {
    /// Bytes were moved.
    pub(crate) fn moved(&self) {
        let now = u64::try_from(self.table.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.activity.moved.store(now, Ordering::Relaxed);
        self.activity.awaited.store(false, Ordering::Relaxed);
    }

    /// The server waits for this client.
    pub(crate) fn awaited(&self) {
        self.activity.awaited.store(true, Ordering::Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.table.lock().taken.retain(|seat| seat.no != self.no);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Peer = Peer::User(1);
    const OTHER: Peer = Peer::User(2);

    fn cut(place: &mut Ticket) -> bool {
        place.is_cut.try_recv().is_ok()
    }

    #[test]
    fn a_peer_with_many_connections_gives_way_to_one_with_few() {
        let clients = Clients::new(8);
        let mut mine: Vec<_> = (0..8).map(|_| clients.admit(ME)).collect();
        mine.iter().for_each(Ticket::awaited);
        let mut others: Vec<_> = (0..3).map(|_| clients.admit(OTHER)).collect();
        assert_eq!(mine.iter_mut().filter_map(|place| cut(place).then_some(())).count(), 3);
        for _ in 0..20 {
            drop(clients.admit(ME));
        }
        assert!(!others.iter_mut().any(cut), "however many more there are");
    }

    #[test]
    fn who_keeps_the_server_waiting_longest_goes_first() {
        let clients = Clients::new(3);
        let mut places: Vec<_> = (0..3).map(|_| clients.admit(ME)).collect();
        // One is served, one was slow for long, one is slow since just now.
        places[1].awaited();
        std::thread::sleep(std::time::Duration::from_millis(5));
        places[2].moved();
        places[2].awaited();
        let _new = clients.admit(ME);
        let cut: Vec<_> = places.iter_mut().map(cut).collect();
        assert_eq!(cut, [false, true, false]);
    }

    #[test]
    fn a_place_is_free_when_its_connection_has_ended() {
        let clients = Clients::new(1);
        drop(clients.admit(ME));
        let mut place = clients.admit(ME);
        assert!(!cut(&mut place));
        drop(clients.admit(OTHER));
        assert!(cut(&mut place));
        drop(place);
        assert!(clients.0.lock().taken.is_empty());
    }
}
