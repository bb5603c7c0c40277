//! Memory that many clients had at once goes back to the kernel when they are gone.
//!
//! glibc keeps freed memory that is not at the end of a heap. After a few hundred slow clients that is most of theirs.
#![allow(unsafe_code, reason = "one call of the C library that no crate wraps")]

/// Number of connections from which their memory is worth a look.
const MANY: usize = 16;

/// Watches a number of connections. Asks the C library to give memory back when most of many have gone.
#[derive(Debug, Default)]
pub(crate) struct Heap {
    peak: usize,
}

impl Heap {
    /// Notes the number of connections. Returns whether memory should go back now.
    pub(crate) fn note(&mut self, connections: usize) -> bool {
        self.peak = self.peak.max(connections);
        let gone = self.peak >= MANY && connections <= self.peak / 4;
        if gone {
            self.peak = connections;
        }
        gone
    }
}

/// Gives free memory back. Takes a millisecond or so, in which other threads may wait for memory.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) has no preconditions, and is safe with threads.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_back_once_when_most_of_many_have_gone() {
        let mut heap = Heap::default();
        let told = |heap: &mut Heap, counts: &[usize]| counts.iter().filter(|count| heap.note(**count)).count();
        assert_eq!(told(&mut heap, &[1, 2, 1, 0, 15, 0]), 0, "few");
        assert_eq!(told(&mut heap, &[16, 256, 100, 65]), 0);
        assert_eq!(told(&mut heap, &[64, 63, 20, 17]), 1);
        assert_eq!(told(&mut heap, &[16, 15, 5]), 1);
        give_back();
    }
}
