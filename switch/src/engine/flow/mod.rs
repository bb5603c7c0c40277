//! Flow rules of a port, compiled. Ingress rules say which queue a frame is for. Rules of both directions edit tags.
//!
//! The rules of a group are a classifier of their own ([`Rules`]): a lookup costs one probe for each distinct mask.
//! Keys have layer 2 alone, so the words of a [`Key`] are other fields here than for traffic rules. Each worker has
//! an exact-match cache in front ([`FlowRuleCache`]). So a flow that was seen before costs the same with any number
//! of rules and masks.
//!
//! Who runs a frame through the rules hears of each as an [`Observer`]: a worker counts, a trace tells.

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

/// Bit of the third word of a key: the frame has a tag.
const TAGGED: u64 = 1 << 16;

/// What the rules have made of a frame: its place in its chunk, and its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// First byte.
    pub start: usize,
    /// Length in bytes.
    pub len: usize,
    /// The queue whose end it is for, if a rule says so.
    pub queue: Option<u32>,
}

/// A rule with its counters.
#[derive(Clone, Debug)]
pub struct CountedRule {
    /// The rule as it was given.
    pub rule: FlowRule,
    /// Frames that matched it.
    pub matched: Arc<Shards>,
}

/// Hears what rules do.
pub trait Observer {
    /// A frame of `len` bytes matches a rule.
    fn matched(&mut self, rule: &CountedRule, len: usize);
    /// A frame matches no rule of that group.
    fn missed(&mut self, _group: u32) {}
    /// A tag was changed.
    fn edited(&mut self, edit: TagEdit);
}

/// What comes after a rule's edits.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// The frame is done, and for that queue if there is one.
    Done(Option<u32>),
    /// The rules of the group at that place come next.
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
/// Number of groups compiled so far. It gives each group a mark of its own.
static GROUPS: AtomicU32 = AtomicU32::new(0);

/// A worker's exact-match cache of flow rules, for all groups of all ports.
#[derive(Debug)]
pub struct FlowRuleCache(TwoWayCache<USED>);

impl Default for FlowRuleCache {
    fn default() -> Self {
        Self(TwoWayCache::new(CACHE_ENTRIES))
    }
}

/// A group: its rules in order, and what they do.
#[derive(Debug)]
struct Group {
    /// Its number, as rules name it.
    number: u32,
    rules: Rules,
    actions: Box<[Action]>,
    /// Bits that any of its rules looks at.
    relevant: [u64; USED],
    /// Tells its cache entries from those of all other groups, former ones too. Never 0.
    mark: u32,
}

impl Group {
    /// The action of the first rule that the frame matches. The observer hears of it.
    #[inline(always)]
    fn first_match(
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

    /// The action of the first rule that matches that key.
    #[inline(always)]
    fn action(&self, key: [u64; USED], cache: &mut FlowRuleCache) -> Option<&Action> {
        // Written out, because an array built by a closure may be compiled to a call.
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

    /// The index of the first rule that matches a flow. It is cached.
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
    /// By number. The first is group 0. Empty if group 0 has no rules, because frames start there.
    groups: Box<[Group]>,
}

impl FlowTable {
    /// The rules of one direction, which must have passed `check`.
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
            // After 2³² groups marks repeat. By then no cache entry is that old.
            let mark = GROUPS.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1);
            let (number, actions) = (rules[0].rule.group, rules.iter().map(action).collect());
            Group { number, mark, rules: rules_now, actions, relevant }
        };
        Self { groups: groups.iter().map(group).collect() }
    }

    /// Whether no frame can match a rule.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Carries out the rules that a frame matches. `buf`, a whole chunk, holds it at `start..start + len`. A frame
    /// whose layer 2 is not whole matches none.
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
        match group.first_match(cache, buf, &outcome, observer) {
            None => outcome,
            // Most rules edit nothing.
            Some(Action { counted, next: Next::Done(queue) }) if counted.rule.edits.is_empty() => {
                Outcome { queue: *queue, ..outcome }
            }
            Some(action) => self.carry_out(action, cache, buf, outcome, observer),
        }
    }

    /// Carries out a rule, and those of the groups that it jumps to.
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
            match next.and_then(|group| group.first_match(cache, buf, &outcome, observer)) {
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

/// What an edit does to the tag of a frame with that layer 2.
fn tag_edit(edit: FlowEdit, l2: &L2) -> TagEdit {
    match (edit, l2.tag) {
        (FlowEdit::Push(tpid), _) => TagEdit::Push { tpid, tci: 0 },
        (FlowEdit::Pop, Some(_)) => TagEdit::Pop,
        (FlowEdit::Vid(vid), Some(tag)) => TagEdit::SetTci(tag.tci & 0xf000 | vid),
        (FlowEdit::Pcp(pcp), Some(tag)) => TagEdit::SetTci(tag.tci & 0x1fff | u16::from(pcp) << 13),
        (_, None) => TagEdit::None,
    }
}

/// The key of a frame, in three words:
///
/// | word | upper bits | lower bits |
/// | --- | --- | --- |
/// | 0 | destination, 48 bits | EtherType (or TPID) after the addresses, 16 bits |
/// | 1 | source, 48 bits | TCI of the tag, 16 bits |
/// | 2 | [`TAGGED`] | EtherType behind the tag, 16 bits |
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
