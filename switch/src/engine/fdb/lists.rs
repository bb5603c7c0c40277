//! Lists of the FDB's entries by port, for evictions and flushes.
//!
//! Every used slot is in exactly one doubly linked list: that of its port's learned entries, or that of its port's
//! static ones. A learned list has the oldest entry first, by when it was learned or last got a second chance. The
//! lists belong to whoever holds the table's lock.

use super::flaps::Flaps;
use crate::engine::PortNo;
use crate::model::MAX_PORTS;

/// End of a list.
pub const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
    /// Second in which the entry was last seen when it was listed.
    listed: u32,
}

#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
    len: u32,
}

/// The lists of all ports.
#[derive(Debug)]
pub struct Lists {
    links: Box<[Link]>,
    /// Two for each port: learned, static.
    heads: Box<[List]>,
    /// Ports that ever had an entry are below this. A search for the fullest looks at these only.
    ports: PortNo,
    /// No learned list is longer than this. It is exact after a search for the fullest. Under a MAC flood the
    /// flooder's own list is as long, so no search is needed.
    longest: u32,
    /// Stations that move between ports.
    pub flaps: Flaps,
}

impl Lists {
    pub fn new(slots: usize) -> Self {
        Self {
            links: vec![Link { previous: NONE, next: NONE, listed: 0 }; slots].into(),
            heads: vec![List { first: NONE, last: NONE, len: 0 }; 2 * MAX_PORTS].into(),
            ports: 0,
            longest: 0,
            flaps: Flaps::default(),
        }
    }

    fn head(port: PortNo, is_static: bool) -> usize {
        2 * usize::from(port) + usize::from(is_static)
    }

    pub fn len(&self, port: PortNo, is_static: bool) -> u32 {
        self.heads[Self::head(port, is_static)].len
    }

    /// Oldest entry, [`NONE`] if there is none.
    pub fn first(&self, port: PortNo, is_static: bool) -> u32 {
        self.heads[Self::head(port, is_static)].first
    }

    /// The entry after `slot` in its list, [`NONE`] if it is the last.
    pub fn next(&self, slot: usize) -> u32 {
        self.links[slot].next
    }

    /// Last-seen time of a slot when it was listed.
    pub fn listed(&self, slot: usize) -> u32 {
        self.links[slot].listed
    }

    /// Appends a slot that is in no list.
    pub fn push(&mut self, port: PortNo, is_static: bool, slot: usize, listed: u32) {
        self.ports = self.ports.max(port.saturating_add(1));
        let number = slot_number(slot);
        let head = &mut self.heads[Self::head(port, is_static)];
        self.links[slot] = Link { previous: head.last, next: NONE, listed };
        match head.last {
            NONE => head.first = number,
            last => self.links[last as usize].next = number,
        }
        head.last = number;
        head.len += 1;
        if !is_static {
            self.longest = self.longest.max(head.len);
        }
    }

    /// Takes a slot out of the list that it is in.
    pub fn unlink(&mut self, port: PortNo, is_static: bool, slot: usize) {
        let head = &mut self.heads[Self::head(port, is_static)];
        let Link { previous, next, .. } = self.links[slot];
        match previous {
            NONE => head.first = next,
            previous => self.links[previous as usize].next = next,
        }
        match next {
            NONE => head.last = previous,
            next => self.links[next as usize].previous = previous,
        }
        head.len -= 1;
    }

    /// The port with most learned entries. Of several it is `favoured`. `None` if nothing is learned.
    pub fn fullest(&mut self, favoured: PortNo) -> Option<PortNo> {
        let own = self.len(favoured, false);
        let mut best = (favoured, own);
        if own < self.longest {
            let learned = (0..).zip(self.heads.iter().step_by(2).take(usize::from(self.ports)).map(|list| list.len));
            best = learned.fold(best, |best, (port, len)| if len > best.1 { (port, len) } else { best });
            self.longest = best.1;
        }
        (best.1 > 0).then_some(best.0)
    }

    /// Ports that ever had an entry are below this.
    pub fn ports(&self) -> PortNo {
        self.ports
    }
}

/// A slot in a link. A table has fewer slots than 2³², see [`MAX_LIMIT`](super::MAX_LIMIT).
fn slot_number(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(NONE)
}
