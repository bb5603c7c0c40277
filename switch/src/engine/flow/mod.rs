//! Flow rules of a port, compiled: which end a frame is for that came in, and what becomes of the tags of frames that come in or go out.
//!
//! The rules of a group are a [`Rules`] of their own, found as traffic rules are: by one probe for each distinct mask. Their keys are
//! made of layer 2 alone, so the words of a [`Key`] mean other fields here than they do there. In front is a worker's [`FlowRuleCache`] of what it
//! found, so that neither rules nor masks count for a flow that was seen before. Who has a frame meet the rules hears of it as an
//! [`Observer`]: a worker counts, a trace tells.

mod check;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) use check::check;

use super::parse::{L2, fold_product, parse_l2};
use super::rule::{Key, Match, NONE, Rule, RuleTable, Rules, TwoWayCache, WORDS};
use super::vlan::{TagEdit, apply};
use crate::counters::Shards;
use crate::model::{FlowDirection, FlowEdit, FlowKey, FlowRule, FlowTarget, Masked, MaskedMac};

/// In the word of the inner EtherType: the frame has a tag.
const TAGGED: u64 = 1 << 16;

/// Where a frame is and how long, in its chunk, and the queue whose end it is for, if a rule says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// First byte.
    pub start: usize,
    /// Length in bytes.
    pub len: usize,
    /// Queue.
    pub queue: Option<u32>,
}

/// A rule with what it counts.
#[derive(Clone, Debug)]
pub struct CountedRule {
    /// As it was given.
    pub rule: FlowRule,
    /// Frames that met it.
    pub matched: Arc<Shards>,
}

/// What becomes of frames is told to.
pub trait Observer {
    /// A rule is met by a frame of `len` bytes.
    fn matched(&mut self, rule: &CountedRule, len: usize);
    /// No rule of that group is met.
    fn missed(&mut self, _group: u32) {}
    /// A tag was changed.
    fn edited(&mut self, edit: TagEdit);
}

/// What comes behind a rule's edits.
#[derive(Clone, Copy, Debug)]
enum Next {
    Done(Option<u32>),
    /// The group in that place.
    Group(usize),
}

#[derive(Debug)]
struct Action {
    counted: CountedRule,
    next: Next,
}

/// Words of a [`Key`] that are in use.
const USED: usize = 3;
/// Entries of a [`FlowRuleCache`].
const CACHE_ENTRIES: usize = 4096;
/// Groups compiled so far. Each has a mark, by which what is remembered of it is told from what is of others.
static GROUPS: AtomicU32 = AtomicU32::new(0);

/// What a worker remembers of the rules that frames met, of all groups.
#[derive(Debug)]
pub struct FlowRuleCache(TwoWayCache<USED>);

impl Default for FlowRuleCache {
    fn default() -> Self {
        Self(TwoWayCache::new(CACHE_ENTRIES))
    }
}

/// A group: rules by their order, and what they do.
#[derive(Debug)]
struct Group {
    /// As rules name it.
    number: u32,
    rules: Rules,
    actions: Box<[Action]>,
    /// Bits that any of its rules looks at.
    relevant: [u64; USED],
    /// What tells it from all others, those of before too; never 0.
    mark: u32,
}

impl Group {
    /// What the first rule does that the frame meets, which is told.
    #[inline(always)]
    fn met(
        &self,
        cache: &mut FlowRuleCache,
        buf: &[u8],
        outcome: &Outcome,
        observer: &mut impl Observer,
    ) -> Option<&Action> {
        let action = layer_2(buf, outcome).and_then(|l2| self.action(key_of(&l2), cache));
        match action {
            Some(action) => observer.matched(&action.counted, outcome.len),
            None => observer.missed(self.number),
        }
        action
    }

    /// What the first rule does that a frame of that key meets.
    #[inline(always)]
    fn action(&self, key: [u64; USED], cache: &mut FlowRuleCache) -> Option<&Action> {
        // No array built by a closure: that may end as a call.
        let ([a, b, c], [x, y, z]) = (key, self.relevant);
        let flow = [a & x, b & y, c & z];
        let hash =
            fold_product(flow[0] ^ 0x9e37_79b9_7f4a_7c15, flow[1] ^ flow[2].rotate_left(32) ^ 0xd1b5_4a32_d192_ed03);
        let index = match cache.0.find(hash, self.mark, &flow) {
            Some(index) => index,
            None => self.search(flow, hash, cache),
        };
        self.actions.get(index as usize)
    }

    /// Index of the first rule of that flow, which is remembered from now on.
    #[inline(never)]
    fn search(&self, flow: [u64; USED], hash: u64, cache: &mut FlowRuleCache) -> u32 {
        let mut words = [0; WORDS];
        words[..USED].copy_from_slice(&flow);
        let index = self.rules.find(&Key(words)).map_or(NONE, |rule| rule.index);
        cache.0.put(hash, self.mark, &flow, index);
        index
    }
}

/// The rules of one direction.
#[derive(Debug, Default)]
pub struct FlowTable {
    /// By number, the first being group 0; empty without rules in that one.
    groups: Box<[Group]>,
}

impl FlowTable {
    /// The rules of that direction, which [`check`] has found right.
    pub fn new(rules: &[CountedRule], direction: FlowDirection) -> Self {
        let mut sorted: Vec<_> = rules.iter().filter(|counted| counted.rule.direction == direction).collect();
        sorted.sort_by_key(|counted| (counted.rule.group, counted.rule.priority));
        let groups: Vec<_> = sorted.chunk_by(|one, other| one.rule.group == other.rule.group).collect();
        if groups.first().and_then(|group| group.first()).is_none_or(|counted| counted.rule.group != 0) {
            return Self::default();
        }
        let next = |target| match target {
            FlowTarget::Normal => Next::Done(None),
            FlowTarget::Queue(queue) => Next::Done(Some(queue)),
            // No rule of a group without rules matches.
            FlowTarget::Group(group) => match groups.binary_search_by_key(&group, |rules| rules[0].rule.group) {
                Ok(place) => Next::Group(place),
                Err(_) => Next::Done(None),
            },
        };
        let group = |rules: &&[&CountedRule]| {
            let mut table = RuleTable::default();
            for (index, counted) in (0..).zip(*rules) {
                table.insert(Arc::new(Rule::from_match(index, compiled(&counted.rule.key))));
            }
            let action =
                |counted: &&CountedRule| Action { counted: (*counted).clone(), next: next(counted.rule.target) };
            let rules_now = table.commit();
            let relevant = std::array::from_fn(|word| rules_now.relevant().0[word]);
            // After 2³² groups marks come again, by when nothing that old is remembered.
            let mark = GROUPS.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1);
            let (number, actions) = (rules[0].rule.group, rules.iter().map(action).collect());
            Group { number, mark, rules: rules_now, actions, relevant }
        };
        Self { groups: groups.iter().map(group).collect() }
    }

    /// Whether no frame can meet a rule.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Carries out the rules that the frame meets which `buf`, a whole chunk, holds at `start..start + len`. A frame whose layer 2 is
    /// not whole meets none.
    #[inline(always)]
    pub fn run(
        &self,
        cache: &mut FlowRuleCache,
        buf: &mut [u8],
        start: usize,
        len: usize,
        observer: &mut impl Observer,
    ) -> Outcome {
        let outcome = Outcome { start, len, queue: None };
        let Some(group) = self.groups.first() else { return outcome };
        match group.met(cache, buf, &outcome, observer) {
            None => outcome,
            // What most rules do.
            Some(Action { counted, next: Next::Done(queue) }) if counted.rule.edits.is_empty() => {
                Outcome { queue: *queue, ..outcome }
            }
            Some(action) => self.carry_out(action, cache, buf, outcome, observer),
        }
    }

    /// Carries out a rule and those of the groups that it jumps to.
    #[inline(never)]
    fn carry_out(
        &self,
        action: &Action,
        cache: &mut FlowRuleCache,
        buf: &mut [u8],
        outcome: Outcome,
        observer: &mut impl Observer,
    ) -> Outcome {
        let (mut outcome, mut action) = (outcome, action);
        loop {
            for edit in &action.counted.rule.edits {
                let edit = layer_2(buf, &outcome).map_or(TagEdit::None, |l2| tag_edit(*edit, &l2));
                if edit != TagEdit::None {
                    (outcome.start, outcome.len) = apply(edit, buf, outcome.start, outcome.len);
                    observer.edited(edit);
                }
            }
            let next = match action.next {
                Next::Group(place) => self.groups.get(place),
                Next::Done(queue) => return Outcome { queue, ..outcome },
            };
            match next.and_then(|group| group.met(cache, buf, &outcome, observer)) {
                Some(next) => action = next,
                None => return outcome,
            }
        }
    }
}

#[inline(always)]
fn layer_2(buf: &[u8], outcome: &Outcome) -> Option<L2> {
    parse_l2(buf.get(outcome.start..outcome.start + outcome.len)?).ok()
}

/// What an edit is on a frame with that layer 2.
fn tag_edit(edit: FlowEdit, l2: &L2) -> TagEdit {
    match (edit, l2.tag) {
        (FlowEdit::Push(tpid), _) => TagEdit::Push { tpid, tci: 0 },
        (FlowEdit::Pop, Some(_)) => TagEdit::Pop,
        (FlowEdit::Vid(vid), Some(tag)) => TagEdit::SetTci(tag.tci & 0xf000 | vid),
        (FlowEdit::Pcp(pcp), Some(tag)) => TagEdit::SetTci(tag.tci & 0x1fff | u16::from(pcp) << 13),
        (_, None) => TagEdit::None,
    }
}

/// Destination and EtherType behind the addresses; source and tag; whether there is a tag, and the EtherType behind it.
#[inline(always)]
fn key_of(l2: &L2) -> [u64; USED] {
    let (ethertype, tci, inner) = match l2.tag {
        Some(tag) => (tag.tpid, tag.tci, TAGGED | u64::from(l2.ethertype)),
        None => (l2.ethertype, 0, 0),
    };
    [l2.dst.to_u64() << 16 | u64::from(ethertype), l2.src.to_u64() << 16 | u64::from(tci), inner]
}

fn compiled(key: &FlowKey) -> Match {
    let FlowKey { dmac, smac, ethertype, tci, inner_type } = *key;
    let mac = |mac: Option<MaskedMac>| {
        mac.map_or((0, 0), |mac| (mac.value.to_u64() << 16, (mac.mask & MaskedMac::FULL) << 16))
    };
    let word = |word: Option<Masked<16>>| {
        word.map_or((0, 0), |word| (u64::from(word.value), u64::from(word.mask & Masked::<16>::FULL)))
    };
    let tagged = if tci.is_some() || inner_type.is_some() { (TAGGED, TAGGED) } else { (0, 0) };
    let fields = [(mac(dmac), word(ethertype)), (mac(smac), word(tci)), (tagged, word(inner_type))];
    let mut found = Match::default();
    for (at, (high, low)) in fields.into_iter().enumerate() {
        (found.value.0[at], found.mask.0[at]) = (high.0 | low.0, high.1 | low.1);
    }
    found
}
