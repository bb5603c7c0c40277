//! A growable array in versions. Many threads can read a version while one makes the next.
//!
//! It is a tree with all leaves at the same depth. Versions share what they have in common ([`Arc::make_mut`]). A
//! change copies one leaf and the branches above it, whatever the length. A version that somebody holds stays as it
//! was. What was copied once for a version is changed in place from then on.

use std::sync::Arc;

/// Bits of a position within its leaf.
const LEAF_BITS: u32 = 6;
/// Bits of a position that each level of branches uses.
const BRANCH_BITS: u32 = 6;

#[derive(Clone, Debug)]
enum Node<T> {
    Leaf(Arc<[T]>),
    Branch(Arc<[Node<T>]>),
}

/// The array. It is never empty.
#[derive(Clone, Debug)]
pub(super) struct Array<T> {
    root: Node<T>,
    len: usize,
    /// Bits of a position that the levels from the root down use.
    bits: u32,
}

/// The child of a branch over `bits` bits that has position `at`.
#[inline]
fn child(at: usize, bits: u32) -> usize {
    (at >> (bits - BRANCH_BITS)) % (1 << BRANCH_BITS)
}

fn appended<T: Clone>(all: &[T], last: T) -> Arc<[T]> {
    all.iter().cloned().chain(std::iter::once(last)).collect()
}

impl<T: Clone> Array<T> {
    /// An array of one element.
    pub(super) fn new(first: T) -> Self {
        Self { root: Node::Leaf(Arc::new([first])), len: 1, bits: LEAF_BITS }
    }

    /// Number of elements, at least 1.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The element at position `at`.
    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<&T> {
        if at >= self.len {
            return None;
        }
        let (mut node, mut bits) = (&self.root, self.bits);
        loop {
            match node {
                Node::Leaf(elements) => return elements.get(at % (1 << LEAF_BITS)),
                Node::Branch(children) => node = children.get(child(at, bits))?,
            }
            bits -= BRANCH_BITS;
        }
    }

    /// The element at position `at`, to be changed.
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        if at >= self.len {
            return None;
        }
        let (mut node, mut bits) = (&mut self.root, self.bits);
        loop {
            match node {
                Node::Leaf(elements) => return Arc::make_mut(elements).get_mut(at % (1 << LEAF_BITS)),
                Node::Branch(children) => node = Arc::make_mut(children).get_mut(child(at, bits))?,
            }
            bits -= BRANCH_BITS;
        }
    }

    /// Appends an element.
    pub(super) fn push(&mut self, element: T) {
        if self.len == 1 << self.bits {
            self.root = Node::Branch(Arc::new([self.root.clone()]));
            self.bits += BRANCH_BITS;
        }
        self.root.push(self.len, self.bits, element);
        self.len += 1;
    }

    /// Removes the last element, unless it is the only one.
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.len == 1 {
            return None;
        }
        let last = self.get(self.len - 1).cloned();
        self.len -= 1;
        self.root.truncate(self.len, self.bits);
        if self.bits > LEAF_BITS && self.len == 1 << (self.bits - BRANCH_BITS) {
            self.bits -= BRANCH_BITS;
            if let Node::Branch(children) = &self.root
                && let Some(first) = children.first().cloned()
            {
                self.root = first;
            }
        }
        last
    }
}

impl<T: Clone> Node<T> {
    /// Adds the element of position `at`, the last one, to a node over `bits` bits.
    fn push(&mut self, at: usize, bits: u32, element: T) {
        match self {
            Node::Leaf(elements) => *elements = appended(elements, element),
            Node::Branch(children) => match Arc::make_mut(children).get_mut(child(at, bits)) {
                Some(last) => last.push(at, bits - BRANCH_BITS, element),
                None => *children = appended(children, Self::over_one(bits - BRANCH_BITS, element)),
            },
        }
    }

    /// A node over `bits` bits with one element.
    fn over_one(bits: u32, element: T) -> Self {
        if bits == LEAF_BITS {
            Node::Leaf(Arc::new([element]))
        } else {
            Node::Branch(Arc::new([Self::over_one(bits - BRANCH_BITS, element)]))
        }
    }

    /// Removes position `at`, the last one, and the nodes below this one that are empty without it.
    fn truncate(&mut self, at: usize, bits: u32) {
        match self {
            Node::Leaf(elements) => *elements = elements[..at % (1 << LEAF_BITS)].into(),
            Node::Branch(children) => {
                let last = child(at, bits);
                if at.is_multiple_of(1 << (bits - BRANCH_BITS)) {
                    *children = children[..last].into();
                } else if let Some(last) = Arc::make_mut(children).get_mut(last) {
                    last.truncate(at, bits - BRANCH_BITS);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_length_up_to_three_levels_grows_and_shrinks() {
        const MOST: usize = (1 << (LEAF_BITS + 2 * BRANCH_BITS)) + 40;
        let mut array = Array::new(0);
        (1..MOST).for_each(|n| array.push(n));
        assert_eq!((array.len(), array.get(MOST)), (MOST, None));
        assert!((0..MOST).all(|at| array.get(at) == Some(&at)));
        for n in (1..MOST).rev() {
            assert_eq!(array.pop(), Some(n));
            assert_eq!((array.get(n), array.get(n - 1)), (None, Some(&(n - 1))));
        }
        assert_eq!((array.pop(), array.len(), array.get(0)), (None, 1, Some(&0)));
    }

    #[test]
    fn a_change_copies_one_leaf() {
        let mut array = Array::new(0);
        (1..10_000).for_each(|n| array.push(n));
        let before = array.clone();
        *array.get_mut(5000).unwrap() = 0;
        array.push(10_000);
        let differ = |at: &usize| !std::ptr::eq(before.get(*at).unwrap(), array.get(*at).unwrap());
        let differ: Vec<_> = (0..10_000).filter(differ).map(|at| at >> LEAF_BITS).collect();
        assert_eq!((differ.first(), differ.last()), (Some(&(5000 >> LEAF_BITS)), Some(&(9_999 >> LEAF_BITS))));
        assert_eq!(differ.len(), (1 << LEAF_BITS) + 10_000 % (1 << LEAF_BITS));
    }

    proptest! {
        #[test]
        fn versions_stay_as_they_were(steps in prop::collection::vec((0..6, 0..200_usize, any::<u32>()), 1..400)) {
            let (mut array, mut model) = (Array::new(0), vec![0]);
            let mut old = Vec::new();
            for (what, at, value) in steps {
                match what {
                    0 => {
                        for n in 0..at as u32 {
                            array.push(n);
                            model.push(n);
                        }
                    }
                    1 | 2 => {
                        for _ in 0..at {
                            prop_assert_eq!(array.pop().is_some(), model.len() > 1);
                            model.truncate((model.len() - 1).max(1));
                        }
                    }
                    3 => old.push((array.clone(), model.clone())),
                    _ => match (array.get_mut(at), model.get_mut(at)) {
                        (Some(place), Some(same)) => (*place, *same) = (value, value),
                        (place, same) => prop_assert!(place.is_none() && same.is_none()),
                    },
                }
            }
            old.push((array, model));
            for (array, model) in old {
                prop_assert_eq!(array.len(), model.len());
                prop_assert!((0..model.len()).all(|at| array.get(at) == model.get(at)));
                prop_assert_eq!(array.get(model.len()), None);
            }
        }
    }
}
