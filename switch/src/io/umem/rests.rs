//! Packets of which only the head was copied. The rest is still in the memory of the guest that sends them.
//!
//! Everything that decides about a packet reads its first bytes only. So a packet between two guests is copied into a
//! frame up to there. The rest goes from guest to guest, once it is known where to. Its sender gets the buffers back at
//! the end of the burst, and until then no control thread stops its ring.
//!
//! A frame with a rest has the packet's full length, but its last bytes are not the packet's. So it stays with the
//! worker that received it, and only a guest's queue takes it. Whoever else wants it has it
//! [completed](super::FrameCache::complete) first.
//!
//! A guest may change its buffer in between. It harms itself only: what was decided on is what is sent.

use std::cell::Cell;
use std::sync::Arc;

use vhost_user::memory::{GuestMemory, GuestSlice};

/// The rests of one burst. Frames have their numbers.
#[derive(Debug, Default)]
pub struct Rests {
    /// The sender's memory, once the burst is held. It stays mapped while this is here.
    memory: Option<Arc<GuestMemory>>,
    /// Guest address and bytes of each.
    places: Vec<(u64, u32)>,
    /// Region of the last one that was looked for.
    hint: Cell<usize>,
    /// Those that were copied into their frames.
    completed: usize,
}

impl Rests {
    /// Begins with a burst.
    #[inline]
    pub fn begin(&mut self) {
        self.places.clear();
        self.completed = 0;
    }

    /// Notes a rest. Returns its number, or `None` if there are too many.
    #[inline]
    pub fn add(&mut self, rest: GuestSlice<'_>) -> Option<u8> {
        let number = u8::try_from(self.places.len()).ok()?;
        self.places.push((rest.guest(), u32::try_from(rest.len()).ok()?));
        Some(number)
    }

    /// From now on they are read. They are in that memory.
    #[inline]
    pub fn hold(&mut self, memory: &Arc<GuestMemory>) {
        self.memory = Some(Arc::clone(memory));
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The rest of that number. No bytes if there is none.
    #[inline]
    pub fn get(&self, number: u8) -> GuestSlice<'_> {
        let found = self.places.get(usize::from(number)).zip(self.memory.as_deref());
        let slice = found.and_then(|(&(guest, len), memory)| {
            let mut lookup = memory.lookup(self.hint.get());
            let slice = lookup.find(guest, len);
            self.hint.set(lookup.hint());
            slice
        });
        slice.unwrap_or_default()
    }

    /// Notes that one was copied into its frame.
    pub(super) fn note_completed(&mut self) {
        self.completed += 1;
    }

    /// Ends with the burst. No frame may have a rest any more. Returns whether most rests went from guest to guest.
    #[inline]
    pub fn end(&mut self) -> bool {
        self.memory = None;
        let was_worth_it = self.completed * 2 <= self.places.len();
        self.places.clear();
        was_worth_it
    }
}
