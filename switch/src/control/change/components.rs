//! One set of components in the place of another.
//!
//! Every component that changes stops taking frames from anywhere but the rings by which frames come to it from
//! others that change. What is in these rings when they stop is treated by the old components: [`drain`] waits for
//! it, ring by ring. Then all that change take nothing any more, queues move to the workers that are to have them,
//! and the new set is put in place at once. Other components go on all the time. Each step is a [`Set`] that
//! workers pick up between two turns, so that after a step no frame is in a worker's hands that was taken before
//! it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Error;
use crate::control::components::{compile, stats_of};
use crate::control::core::Core;
use crate::control::state::Control;
use crate::control::sums::retire;
use crate::counters::as_count;
use crate::model::ComponentSpec;
use crate::worker::component::{Component, Gate, Link, Set};
use crate::worker::ends::Ring;
use crate::worker::view::PortShared;

/// How long old components may take for what is between them; what is left then is dropped.
pub(super) const DRAIN: Duration = Duration::from_millis(200);
/// How often it is looked whether they are done.
pub(super) const LOOK: Duration = Duration::from_micros(20);

/// A queue that is to be at another worker.
struct Move {
    port: Arc<PortShared>,
    queue: u32,
    to: usize,
}

/// Puts a set of components in place.
pub(in crate::control) fn set_components(control: &mut Control, specs: Vec<ComponentSpec>) -> Result<(), Error> {
    let core = Arc::clone(&control.core);
    let next = compile(&mut control.components, &control.ports, core.workers.count(), specs)?;
    let old = std::mem::take(&mut control.components.running);
    let (moves, flows) = (moves(&next), Arc::clone(&control.components.flows));
    let changes: Vec<_> = old
        .iter()
        .map(|component| !next.iter().any(|other| Arc::ptr_eq(component, other)) || has_moved(component, &moves))
        .collect();
    let publish = |gate: &dyn Fn(usize) -> Gate| {
        let components = old.iter().enumerate().map(|(at, component)| (Arc::clone(component), gate(at))).collect();
        let set = Arc::new(Set { components, flows: Arc::clone(&flows) });
        core.shared.publish_components(Arc::clone(&set));
        set
    };
    let between = between(&old, &changes);
    let rings: Vec<_> = between.iter().map(|between| between.ring.no()).collect();
    let set = publish(&|at| if changes[at] { Gate::Rings(rings.clone()) } else { Gate::Open });
    let in_time = drain(&core, &set, &between);
    publish(&|at| if changes[at] { Gate::Shut } else { Gate::Open });
    drop(set);
    for Between { ring, from, to } in &between {
        // In time, only what goes round in a circle is left. Else it can't be told what had been where.
        if changes[*to] && (changes[*from] || !in_time) && !ring.is_empty() {
            control.components.empty(&core, ring, true);
        }
    }
    carry_out(control, moves);
    put_readers(control, &next);
    let live = &mut control.components;
    live.running = next;
    core.shared.publish_components(live.open_set());
    live.empty_unread_rings(&core);
    for gone in old.iter().filter(|old| !live.running.iter().any(|new| new.spec.name == old.spec.name)) {
        retire(&mut live.retired, stats_of(&gone.counters));
    }
    Ok(())
}

/// The queues that are not at the worker which is to have them: that of the component that takes frames from them,
/// else of the one that sends by them.
fn moves(next: &[Arc<Component>]) -> Vec<Move> {
    let mut wanted: HashMap<(u16, u32), (Arc<PortShared>, usize)> = HashMap::new();
    let ends = next.iter().flat_map(|component| component.rx.iter().map(move |link| (component, link)));
    let ends = ends.chain(next.iter().flat_map(|component| component.tx.iter().map(move |link| (component, link))));
    for (component, link) in ends {
        let Link::Port(port, queue) = link else { continue };
        let all = 0..as_count(port.queues.len());
        for queue in all.filter(|number| queue.is_none_or(|queue| queue == *number)) {
            let place = wanted.entry((port.no, queue));
            place.or_insert_with(|| (Arc::clone(port), component.spec.worker));
        }
    }
    let moves = wanted.into_iter().map(|((_, queue), (port, to))| Move { port, queue, to });
    moves.filter(|Move { port, queue, to }| port.queues[*queue as usize].worker() != *to).collect()
}

/// Whether a component has a queue that is to be at another worker.
fn has_moved(component: &Component, moves: &[Move]) -> bool {
    component.rx.iter().chain(&component.tx).any(|link| match link {
        Link::Port(port, queue) => {
            moves.iter().any(|it| Arc::ptr_eq(&it.port, port) && queue.is_none_or(|queue| queue == it.queue))
        }
        _ => false,
    })
}

/// A ring on the way from one component that changes to another, and the places of those at its two sides.
struct Between {
    ring: Arc<Ring>,
    from: usize,
    to: usize,
}

/// The rings by which frames come from a component that changes to one that does, by way of others that do not, too.
fn between(components: &[Arc<Component>], changes: &[bool]) -> Vec<Between> {
    let mut readers = HashMap::new();
    for (at, component) in components.iter().enumerate().filter(|(_, component)| component.is_ready()) {
        for link in &component.rx {
            if let Link::Ring(ring) = link {
                readers.insert(ring.no(), at);
            }
        }
    }
    let mut edges = Vec::new();
    for (from, component) in components.iter().enumerate() {
        for link in &component.tx {
            if let Link::Ring(ring) = link
                && let Some(&to) = readers.get(&ring.no())
            {
                edges.push(Between { ring: Arc::clone(ring), from, to });
            }
        }
    }
    let spread = |mut reached: Vec<bool>, step: &dyn Fn(&Between) -> (usize, usize)| {
        for _ in components {
            for (here, there) in edges.iter().map(step) {
                reached[there] |= reached[here];
            }
        }
        reached
    };
    let behind = spread(changes.to_vec(), &|edge| (edge.from, edge.to));
    let before = spread(changes.to_vec(), &|edge| (edge.to, edge.from));
    edges.retain(|edge| behind[edge.from] && before[edge.to]);
    edges
}

/// Waits until what was in those rings, or in the hands of components before them, has come out behind them; false
/// if that took too long. A frame passes each ring once (unless they are a circle), so it is out after as many
/// rounds as there are rings.
fn drain(core: &Core, set: &Arc<Set>, between: &[Between]) -> bool {
    let deadline = Instant::now() + DRAIN;
    for _ in between {
        let marks: Vec<_> = between.iter().map(|edge| edge.ring.counts()[0].packets).collect();
        for (edge, mark) in between.iter().zip(marks) {
            while edge.ring.counts()[1].packets < mark {
                if Instant::now() >= deadline {
                    return false;
                }
                std::thread::sleep(LOOK);
            }
        }
        // What was taken out of a ring is in the next one, or gone, once each worker has ended its turn.
        core.shared.publish_components(Arc::clone(set));
    }
    true
}

/// Moves queues. No component sends by them or takes frames from them now; what comes in waits in their rings.
fn carry_out(control: &mut Control, moves: Vec<Move>) {
    if moves.is_empty() {
        return;
    }
    for Move { port, queue, to } in moves {
        control.core.workers.move_queue(&port, queue, to);
    }
    control.publish();
    control.core.shared.quiesce();
}

/// Notes which worker takes frames from which ring, for those who are to wake it, and for flow rules.
pub(super) fn put_readers(control: &Control, next: &[Arc<Component>]) {
    let mut readers = HashMap::new();
    for component in next.iter().filter(|component| component.is_ready()) {
        for link in &component.rx {
            let rings = match link {
                Link::Ring(ring) => vec![ring],
                Link::Outside(outside) => vec![&outside.input],
                Link::Port(port, queue) => control.components.rings_to(port.no, *queue),
                Link::Null(_) => Vec::new(),
            };
            readers.extend(rings.into_iter().map(|ring| (Arc::as_ptr(ring), component.spec.worker)));
        }
    }
    let mut unread = Vec::new();
    for ring in control.components.all_rings() {
        let reader = readers.get(&Arc::as_ptr(ring)).copied();
        ring.set_reader(reader);
        match reader {
            Some(_) => ring.set_room(None),
            None => unread.push(ring),
        }
    }
    share_room(&unread, control.core.umem().frames());
}

/// What is sent to rings that nobody takes frames from waits there. However many there are, it is a quarter of all
/// frames at most: the rest is for those who move.
fn share_room(unread: &[&Arc<Ring>], frames: u32) {
    let held: u64 = unread.iter().map(|ring| ring.queued().packets).sum();
    let share = u64::from(frames / 4).saturating_sub(held) / (unread.len().max(1) as u64);
    unread.iter().for_each(|ring| ring.set_room(Some(share)));
}
