//! The MAC table: lookups and learning among 1 to 100,000 stations, in an order without locality.

use std::hint::black_box;

use switch::engine::fdb::Fdb;
use switch::model::MacAddr;

use super::{BURSTS, Case, nothing};
use crate::micro::fixtures::{BURST, mac_table, station};

const GROUP: &str = "MAC table";
const LOOKUPS: usize = BURSTS * BURST;
const VID: u16 = 10;

struct State {
    fdb: Fdb,
    asked: Vec<MacAddr>,
    at: usize,
    now: u32,
}

impl State {
    /// Asks for stations from number `first` on.
    fn new(stations: u32, first: u32) -> Self {
        let count = stations.next_multiple_of(LOOKUPS as u32);
        let asked = (0..count).map(|n| station(first + n.wrapping_mul(7919) % stations)).collect();
        Self { fdb: mac_table(stations), asked, at: 0, now: 0 }
    }

    fn each<T>(&mut self, what: impl Fn(&Fdb, MacAddr, u32) -> T) {
        let end = self.at + LOOKUPS;
        for mac in &self.asked[self.at..end] {
            black_box(what(&self.fdb, *black_box(mac), self.now));
        }
        self.at = end % self.asked.len();
    }

    fn look_up(&mut self) {
        self.each(|fdb, mac, _| fdb.lookup(mac, VID));
    }

    fn learn(&mut self) {
        self.each(|fdb, mac, now| fdb.learn(mac, VID, 1, u32::MAX, now));
    }

    fn a_second_later(&mut self) {
        self.now += 1;
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for stations in [1, 64, 1_000, 10_000, 100_000] {
        let known = move || State::new(stations, 1);
        let unknown = move || State::new(stations, 1 + stations);
        let name = |what| format!("{what}, {stations} stations");
        cases.push(Case::new(GROUP, name("look-up, hit"), LOOKUPS, known, nothing, State::look_up));
        cases.push(Case::new(GROUP, name("look-up, miss"), LOOKUPS, unknown, nothing, State::look_up));
        cases.push(Case::new(GROUP, name("learn, seen this second"), LOOKUPS, known, nothing, State::learn));
        cases.push(Case::new(GROUP, name("learn, seen before"), LOOKUPS, known, State::a_second_later, State::learn));
    }
    cases
}
