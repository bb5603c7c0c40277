//! What a decision asks: which rule applies, and where stations are.

use super::context::BurstContext;
use crate::engine::PortNo;
use crate::engine::fdb::{Fdb, Learn};
use crate::engine::rule::{Key, Rule, Rules};
use crate::model::{MacAddr, Vid};

/// Answers the questions of a decision. Each worker has one with caches, a trace has one that changes nothing.
///
/// Dispatch is static: [`decide`](super::decide) is compiled for each implementation.
pub trait Lookup {
    /// The rule that applies to a frame with that key. `key` is called only if the answer depends on it.
    fn classify<'a>(&mut self, rules: &'a Rules, key: impl FnOnce() -> Key) -> Option<&'a Rule>;

    /// Learns that a station is behind the burst's ingress port, which may have at most `port_limit` of them. False if
    /// it is held at another port.
    fn learn(&mut self, context: &BurstContext<'_>, mac: MacAddr, vid: Vid, port_limit: u32) -> bool;

    /// The port that a station is behind.
    #[inline]
    fn find_station(&mut self, fdb: &Fdb, mac: MacAddr, vid: Vid) -> Option<PortNo> {
        fdb.lookup(mac, vid)
    }
}

/// Asks classifier and FDB each time, without a cache.
#[derive(Clone, Copy, Debug, Default)]
pub struct DirectLookup;

impl Lookup for DirectLookup {
    #[inline]
    fn classify<'a>(&mut self, rules: &'a Rules, key: impl FnOnce() -> Key) -> Option<&'a Rule> {
        rules.find(&key()).map(AsRef::as_ref)
    }

    #[inline]
    fn learn(&mut self, context: &BurstContext<'_>, mac: MacAddr, vid: Vid, port_limit: u32) -> bool {
        context.fdb.learn(mac, vid, context.ingress, port_limit, context.now) != Learn::Held
    }
}

/// As [`DirectLookup`], but leaves the FDB as it is. It answers as if the sender had been learned.
#[derive(Clone, Copy, Debug, Default)]
pub struct DryRunLookup {
    sender: Option<(MacAddr, Vid, PortNo)>,
}

impl Lookup for DryRunLookup {
    fn classify<'a>(&mut self, rules: &'a Rules, key: impl FnOnce() -> Key) -> Option<&'a Rule> {
        DirectLookup.classify(rules, key)
    }

    fn learn(&mut self, context: &BurstContext<'_>, mac: MacAddr, vid: Vid, _port_limit: u32) -> bool {
        let learn = context.fdb.preview(mac, vid, context.ingress);
        self.sender = (learn != Learn::Static).then_some((mac, vid, context.ingress));
        learn != Learn::Held
    }

    fn find_station(&mut self, fdb: &Fdb, mac: MacAddr, vid: Vid) -> Option<PortNo> {
        match self.sender {
            Some((sender, sender_vid, port)) if (sender, sender_vid) == (mac, vid) => Some(port),
            _ => fdb.lookup(mac, vid),
        }
    }
}
