//! A hash table of one mask's rules that many can read while one makes the next version of it.
//!
//! A trie over the hash of the masked key: branches of 64, and pages of some dozens of entries at its ends. All parts are
//! shared between versions ([`Arc::make_mut`]): a change copies one page and the branches above it, whatever the size of the
//! table, and the version that workers hold stays as it was. Within a batch, what was copied once is changed in place.

use std::sync::Arc;

use super::Rule;
use super::key::Key;

/// Children of a branch, by six bits of the hash.
const FANOUT: usize = 64;
/// Bits of the hash that a level uses up.
const BITS: u32 = FANOUT.trailing_zeros();
/// Entries of a page at which it is split.
const PAGE: usize = 32;
/// Level at which pages are no longer split: the bits of the hash are used up.
const DEEPEST: u32 = 60 / BITS;

/// The rules of one key under one mask, lowest index first: the first is the one that matches.
#[derive(Clone, Debug)]
struct Entry {
    key: Key,
    first: Arc<Rule>,
    /// Others of the very same key, ascending.
    rest: Vec<Arc<Rule>>,
}

/// Entries with their hashes apart, so that looking for one reads little memory.
#[derive(Clone, Debug, Default)]
struct Page {
    hashes: Vec<u64>,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
enum Node {
    Page(Arc<Page>),
    Branch(Arc<[Node; FANOUT]>),
}

/// The table.
#[derive(Clone, Debug)]
pub(super) struct Trie {
    root: Node,
}

impl Default for Trie {
    fn default() -> Self {
        Self { root: Node::empty() }
    }
}

fn child(hash: u64, level: u32) -> usize {
    (hash >> (level * BITS)) as usize % FANOUT
}

impl Node {
    fn empty() -> Self {
        Node::Page(Arc::default())
    }
}

impl Page {
    #[inline]
    fn find(&self, hash: u64, key: &Key) -> Option<usize> {
        let same = |at: &usize| self.hashes[*at] == hash && self.entries[*at].key == *key;
        (0..self.hashes.len()).find(same)
    }

    fn push(&mut self, hash: u64, entry: Entry) {
        self.hashes.push(hash);
        self.entries.push(entry);
    }
}

impl Trie {
    /// The rule of lowest index under that key, whose hash is `hash`.
    #[inline]
    pub(super) fn find(&self, hash: u64, key: &Key) -> Option<&Arc<Rule>> {
        let (mut node, mut level) = (&self.root, 0);
        loop {
            match node {
                Node::Branch(children) => {
                    node = &children[child(hash, level)];
                    level += 1;
                }
                Node::Page(page) => return page.find(hash, key).map(|at| &page.entries[at].first),
            }
        }
    }

    /// Adds a rule. No rule of its index may be in the table.
    pub(super) fn insert(&mut self, rule: Arc<Rule>) {
        let (key, hash) = (rule.compiled.value, rule.hash);
        let (mut node, mut level) = (&mut self.root, 0);
        // Down to the page, splitting a full one on the way.
        loop {
            if let Node::Page(page) = node
                && page.entries.len() >= PAGE
                && level < DEEPEST
                && page.find(hash, &key).is_none()
            {
                *node = split(page, level);
            }
            match node {
                Node::Branch(children) => {
                    node = &mut Arc::make_mut(children)[child(hash, level)];
                    level += 1;
                }
                Node::Page(page) => {
                    let page = Arc::make_mut(page);
                    match page.find(hash, &key) {
                        Some(at) => page.entries[at].add(rule),
                        None => page.push(hash, Entry { key, first: rule, rest: Vec::new() }),
                    }
                    return;
                }
            }
        }
    }

    /// Removes a rule that is in the table.
    pub(super) fn remove(&mut self, rule: &Rule) {
        let (key, hash) = (rule.compiled.value, rule.hash);
        let (mut node, mut level) = (&mut self.root, 0);
        loop {
            match node {
                Node::Branch(children) => {
                    node = &mut Arc::make_mut(children)[child(hash, level)];
                    level += 1;
                }
                Node::Page(page) => {
                    let page = Arc::make_mut(page);
                    if let Some(at) = page.find(hash, &key)
                        && page.entries[at].drop_rule(rule.spec.key_index)
                    {
                        page.hashes.swap_remove(at);
                        page.entries.swap_remove(at);
                    }
                    return;
                }
            }
        }
    }
}

/// The branch that takes the place of a full page.
fn split(page: &Page, level: u32) -> Node {
    let mut pages: [Page; FANOUT] = std::array::from_fn(|_| Page::default());
    for (hash, entry) in page.hashes.iter().zip(&page.entries) {
        pages[child(*hash, level)].push(*hash, entry.clone());
    }
    Node::Branch(Arc::new(pages.map(|page| Node::Page(Arc::new(page)))))
}

impl Entry {
    fn add(&mut self, rule: Arc<Rule>) {
        let rule = if rule.spec.key_index < self.first.spec.key_index {
            std::mem::replace(&mut self.first, rule)
        } else {
            rule
        };
        let at = self.rest.partition_point(|other| other.spec.key_index < rule.spec.key_index);
        self.rest.insert(at, rule);
    }

    /// Takes a rule out; true if the entry is to go with it.
    fn drop_rule(&mut self, index: u32) -> bool {
        if self.first.spec.key_index == index {
            if self.rest.is_empty() {
                return true;
            }
            self.first = self.rest.remove(0);
        } else if let Ok(at) = self.rest.binary_search_by_key(&index, |rule| rule.spec.key_index) {
            self.rest.remove(at);
        }
        false
    }
}
