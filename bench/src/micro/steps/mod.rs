//! The things to measure. Each prepares what it needs outside of what is measured, and says how many items a run has.

use std::fmt;

mod classify;
mod components;
mod mac_table;
mod meter;
mod parsing;
mod rings;
mod turn;
mod vhost;

/// Bursts of a run of a step that costs a few nanoseconds an item.
const BURSTS: usize = 16;

/// A step that was made ready. It is repeated as often as wanted.
pub trait Step {
    /// Makes the next run possible. It is not part of what is measured.
    fn prepare(&mut self);
    /// The step, for all items of a run.
    fn run(&mut self);
}

/// A step that can be made.
pub struct Case {
    /// Group of cases that it belongs to.
    pub group: &'static str,
    /// What it does.
    pub name: String,
    /// Frames, lookups or whatever a run consists of.
    pub items: usize,
    make: Box<dyn Fn() -> Box<dyn Step>>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Case({}: {})", self.group, self.name)
    }
}

impl Case {
    fn new<S: 'static, P: Fn(&mut S) + Copy + 'static, R: Fn(&mut S) + Copy + 'static>(
        group: &'static str,
        name: impl Into<String>,
        items: usize,
        make: impl Fn() -> S + 'static,
        prepare: P,
        run: R,
    ) -> Self {
        let make = move || Box::new(Made { state: make(), prepare, run }) as Box<dyn Step>;
        Self { group, name: name.into(), items, make: Box::new(make) }
    }

    /// Builds tables and frames, which may take a while.
    pub fn make(&self) -> Box<dyn Step> {
        (self.make)()
    }
}

struct Made<S, P, R> {
    state: S,
    prepare: P,
    run: R,
}

impl<S, P: Fn(&mut S), R: Fn(&mut S)> Step for Made<S, P, R> {
    fn prepare(&mut self) {
        (self.prepare)(&mut self.state);
    }

    fn run(&mut self) {
        (self.run)(&mut self.state);
    }
}

/// For steps that need no preparation.
fn nothing<S>(_: &mut S) {}

/// Name of the step that is a worker's whole turn.
pub const WHOLE_TURN: &str = "worker, everything on";

/// Group of the steps that are a worker's whole turn with components.
pub const COMPONENTS: &str = "components";

/// All of them, group by group.
pub fn cases() -> Vec<Case> {
    let groups = [
        parsing::cases(),
        classify::cases(),
        mac_table::cases(),
        meter::cases(),
        rings::cases(),
        turn::cases(),
        components::cases(),
        vhost::cases(),
    ];
    groups.into_iter().flatten().collect()
}
