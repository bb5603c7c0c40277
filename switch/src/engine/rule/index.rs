//! Rules by their index: a radix tree with four levels of 32, shared between versions. A change copies one node of each
//! level, however many rules there are.

use std::sync::Arc;

use super::Rule;
use crate::model::MAX_TABLE_SIZE;

const BITS: u32 = 5;
const FANOUT: usize = 1 << BITS;
/// Number of leaves.
const LEAVES: u32 = 1 << (3 * BITS);
const _: () = assert!(MAX_TABLE_SIZE as usize == FANOUT * LEAVES as usize);

type Node<T> = [Option<Arc<T>>; FANOUT];
type Leaf = Node<Rule>;

/// The tree.
#[derive(Clone, Debug)]
pub(super) struct Index {
    root: Node<Node<Node<Leaf>>>,
}

impl Default for Index {
    fn default() -> Self {
        Self { root: [const { None }; FANOUT] }
    }
}

/// The places of index `at` in the nodes of the four levels, top first.
#[inline]
fn path(at: u32) -> [usize; 4] {
    let place = |level: u32| (at >> (level * BITS)) as usize % FANOUT;
    [place(3), place(2), place(1), place(0)]
}

fn child<T>(node: &mut Node<Node<T>>, place: usize) -> &mut Node<T> {
    Arc::make_mut(node[place].get_or_insert_with(|| Arc::new([const { None }; FANOUT])))
}

impl Index {
    #[inline]
    fn leaf(&self, at: u32) -> Option<&Leaf> {
        let [a, b, c, _] = path(at);
        self.root[a].as_ref()?[b].as_ref()?[c].as_deref()
    }

    /// The rule with index `at`.
    #[inline]
    pub(super) fn get(&self, at: u32) -> Option<&Arc<Rule>> {
        if at >= MAX_TABLE_SIZE {
            return None;
        }
        self.leaf(at)?[path(at)[3]].as_ref()
    }

    /// Sets the rule with index `at`, which must be below [`MAX_TABLE_SIZE`].
    pub(super) fn set(&mut self, at: u32, rule: Option<Arc<Rule>>) {
        let [a, b, c, d] = path(at);
        let leaf = child(child(child(&mut self.root, a), b), c);
        leaf[d] = rule;
    }

    /// All rules from index `from` on, ascending.
    pub(super) fn iter_from(&self, from: u32) -> impl Iterator<Item = &Arc<Rule>> {
        let leaves = (from >> BITS..LEAVES).filter_map(|leaf| self.leaf(leaf << BITS));
        leaves.flat_map(|leaf| leaf.iter().flatten()).skip_while(move |rule| rule.index < from)
    }

    /// The lowest index without a rule.
    pub(super) fn first_free(&self) -> u32 {
        let free = |leaf: u32| match self.leaf(leaf << BITS) {
            None => Some(leaf << BITS),
            Some(rules) => rules.iter().zip(leaf << BITS..).find(|(rule, _)| rule.is_none()).map(|(_, at)| at),
        };
        (0..LEAVES).find_map(free).unwrap_or(MAX_TABLE_SIZE)
    }

    /// Number of leaves that this version shares with another, and of those that differ.
    #[cfg(test)]
    pub(super) fn shared_leaves(&self, other: &Self) -> (usize, usize) {
        let pair = |leaf: u32| Some((self.leaf(leaf << BITS)?, other.leaf(leaf << BITS)?));
        let pairs: Vec<_> = (0..LEAVES).filter_map(pair).collect();
        let shared = pairs.iter().filter(|(a, b)| std::ptr::eq(*a, *b)).count();
        (shared, pairs.len() - shared)
    }
}
