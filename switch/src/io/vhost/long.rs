//! Packets for a guest that are to be cut. A guest that takes them gets them whole, others get the segments.

use vhost_user::memory::GuestSlice;
use vhost_user::net::{NetHeader, Undelivered, deliver};
use vhost_user::ring::RingError;

use super::copy::{self, MAX_MERGED};
use super::pair::{PairCounters, RunningRing};
use super::queue::VhostQueue;
use crate::io::umem::Frame;
use crate::model::Count;

/// Most chains that a whole packet is spread over. A guest with shorter ones gets segments.
pub(super) const MAX_LONG_MERGED: usize = 64;
/// Most bytes of the headers of a packet that is cut, with a tag that was put in front.
const MAX_HEADERS: usize = 256 + 4;
/// Segments that are looked for room for at once.
const SEGMENTS: usize = 64;

impl VhostQueue {
    /// Copies a packet that is to be cut to the guest, whole or in segments. Returns what of it was taken, as on a
    /// wire: less than all of it if the guest has too little room. The frame stays the caller's.
    pub fn send_long(&mut self, frame: &mut Frame) -> Count {
        self.with_ring(|queue, ring| queue.write_long(ring, frame))
    }

    fn write_long(&mut self, ring: &mut RunningRing, frame: &mut Frame) -> Result<Count, RingError> {
        let offload = frame.offload();
        if ring.offloads.lets_pass(&offload) {
            frame.restore_ip_length();
            let mut burst = ring.queue.burst(&mut self.scratch, MAX_LONG_MERGED)?;
            let chains = burst.len();
            let parts = [frame.data(), self.umem.tail(frame)];
            let done = deliver(&mut burst, ring.header, offload.header(), &parts, GuestSlice::default());
            self.used |= burst.finish()? > 0;
            match done {
                Ok(()) => {
                    PairCounters::add(&self.pair.counters.long_sent, 1);
                    return Ok(frame.wire());
                }
                Err(Undelivered::NoBuffers) if chains < MAX_LONG_MERGED => return Ok(Count::default()),
                Err(Undelivered::NoBuffers | Undelivered::TooLong) => {}
            }
        }
        self.write_segments(ring, frame)
    }

    fn write_segments(&mut self, ring: &mut RunningRing, frame: &Frame) -> Result<Count, RingError> {
        let (mut sent, mut headers) = (Count::default(), [0; MAX_HEADERS]);
        let headers = frame.offload().gso.and_then(|gso| headers.get_mut(..gso.payload.into()));
        let Some((cut, headers)) = self.umem.cut(frame).zip(headers) else { return Ok(sent) };
        let (all, mut next, mut no_room) = (cut.segments(), 0, 0);
        while next < all {
            let before = next;
            let mut burst = ring.queue.burst(&mut self.scratch, SEGMENTS.min(all - next) + MAX_MERGED - 1)?;
            while next < all && !burst.is_empty() {
                let payload = cut.write_headers(next, headers);
                let parts = [&*headers, payload];
                if !copy::write(ring.header, &mut burst, NetHeader::PLAIN, &parts, GuestSlice::default()) {
                    no_room += 1;
                }
                sent.add(Count { packets: 1, bytes: (headers.len() + payload.len()) as u64 });
                next += 1;
            }
            self.used |= burst.finish()? > 0;
            if next == before {
                break;
            }
        }
        if no_room > 0 {
            PairCounters::add(&self.pair.counters.no_room, no_room);
        }
        if next == all {
            PairCounters::add(&self.pair.counters.segmented, 1);
        }
        Ok(sent)
    }
}
