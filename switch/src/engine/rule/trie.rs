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
const DEEPEST: u32 = 48 / BITS;

/// The rules of one key under one mask, lowest index first: the first is the one that matches.
#[derive(Clone, Debug)]
struct Entry {
    key: Key,
    hash: u64,
    first: Arc<Rule>,
    /// Others of the very same key, ascending.
    rest: Vec<Arc<Rule>>,
}

/// Entries with a piece of their hashes apart, so that looking for one that is not there reads a cache line or two.
#[derive(Clone, Debug)]
struct Page {
    /// Bits of the hash that no level uses, of the first entries; [`Page::find`] looks at those of `entries` only.
    tags: [u16; PAGE],
    entries: Vec<Entry>,
}

impl Default for Page {
    fn default() -> Self {
        Self { tags: [0; PAGE], entries: Vec::new() }
    }
}

fn tag(hash: u64) -> u16 {
    (hash >> 48) as u16
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
        let len = self.entries.len();
        let tagged = |at: &usize| self.tags[*at] == tag(hash) && self.entries[*at].key == *key;
        // Beyond the tags there is something only where the hash can't tell keys apart.
        (0..len.min(PAGE)).find(tagged).or_else(|| (PAGE..len).find(|at| self.entries[*at].key == *key))
    }

    fn push(&mut self, entry: Entry) {
        if let Some(place) = self.tags.get_mut(self.entries.len()) {
            *place = tag(entry.hash);
        }
        self.entries.push(entry);
    }

    fn remove(&mut self, at: usize) {
        self.entries.swap_remove(at);
        if let (Some(moved), Some(place)) = (self.entries.get(at), self.tags.get_mut(at)) {
            *place = tag(moved.hash);
        }
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
                        None => page.push(Entry { key, hash, first: rule, rest: Vec::new() }),
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
                        page.remove(at);
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
    for entry in &page.entries {
        pages[child(entry.hash, level)].push(entry.clone());
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
