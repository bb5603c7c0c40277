//! Meters: a frame, and a burst as one.

use std::hint::black_box;

use switch::engine::meter::{Color, Meter};
use switch::model::MeterSpec;

use super::{BURSTS, Case, nothing};
use crate::micro::bed::wide_meter;
use crate::micro::fixtures::BURST;

const GROUP: &str = "meter";
const LEN: usize = 60;
const FRAMES: usize = BURSTS * BURST;

struct State {
    meter: Meter,
    now: u64,
}

impl State {
    fn wide() -> Self {
        Self { meter: wide_meter(), now: 0 }
    }

    fn empty() -> Self {
        let meter = Meter::new(&MeterSpec::new(1, 1), 1, 0);
        while meter.color(0, LEN, Color::Green, 0) == Color::Green {}
        Self { meter, now: 0 }
    }

    fn frames(&mut self) {
        for _ in 0..FRAMES {
            black_box(self.meter.color(0, LEN, Color::Green, self.now));
        }
    }

    fn bursts(&mut self) {
        for _ in 0..FRAMES {
            black_box(self.meter.take_all(0, BURST, BURST * LEN, self.now));
        }
    }

    fn a_while_later(&mut self) {
        self.now += 1_000_000;
    }
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(GROUP, "a frame, within the rate", FRAMES, State::wide, State::a_while_later, State::frames),
        Case::new(GROUP, "a frame, above the rate", FRAMES, State::empty, nothing, State::frames),
        Case::new(GROUP, "a burst, within the rate", FRAMES, State::wide, State::a_while_later, State::bursts),
    ]
}
