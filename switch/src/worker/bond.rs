//! Bonds as workers see them: where frames go out, and which ones are taken in.
//!
//! A bond is one port. The queues of all its members are queues of that port. Its thread in control decides, and
//! workers go by what it has published: a table for what goes out ([`BondShared`]), and a gate for what comes in by a
//! member ([`MemberShared`]).
//!
//! The thread doesn't wait for control's lock. It replaces the table, and raises [`Shared::bonds_epoch`]. Each worker
//! then works out its next hops anew between two bursts.
//!
//! [`Shared::bonds_epoch`]: super::shared::Shared::bonds_epoch

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU64};

use arc_swap::ArcSwap;
use bond::buckets::BUCKETS;
use bond::hash::{Flow, IpFlow};
use bond::lacp::pdu::{ETHERTYPE, SLOW_PROTOCOLS};
use bond::options::HashPolicy;
use bond::{Collect, MemberId};
use crossbeam::queue::ArrayQueue;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::counters::PortShard;
use crate::engine::parse::{self, Fragment, Headers, L3, L4};
use crate::io::umem::{Frame, FrameCache};
use crate::model::DropReason;
use crate::worker::view::QueueShared;

/// Bytes of a Slow Protocols frame that are kept. A LACPDU has 124, and what is behind them is passed over.
const SLOW_LEN: usize = 128;
/// Frames of the Slow Protocols that wait for the bond's thread. A partner sends three a second and link at most.
const SLOW_BACKLOG: usize = 64;

/// Where the frames of a bucket go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// No member is usable.
    Nowhere,
    /// They are kept until the table changes, or a flow would be reordered.
    Held,
    /// To that member, by its place in [`BondTable::members`].
    Member(u8),
}

/// Where the frames of a bond go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// No member may send.
    Nowhere,
    /// All to that member, by its place in [`BondTable::members`].
    Member(usize),
    /// Each flow to its bucket's place.
    Buckets(HashPolicy, Box<[Place; BUCKETS]>),
    /// Each frame to all of these.
    All(Vec<usize>),
    /// To these in turn, so many frames each. 0: a random one for each frame.
    InTurn(Vec<usize>, u16),
}

/// A bond's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BondTable {
    /// Members with their queues.
    pub members: Vec<(MemberId, Range<u32>)>,
    /// Where frames go.
    pub way: Way,
}

/// Frames that a worker has sent by each bucket.
#[derive(Debug)]
#[repr(align(128))]
struct BucketCounts([AtomicU64; BUCKETS]);

/// A bond as all workers share it.
#[derive(Debug)]
pub struct BondShared {
    table: ArcSwap<BondTable>,
    /// By worker, who is its only writer.
    sent: Box<[BucketCounts]>,
}

impl BondShared {
    /// A bond without members, for so many workers.
    pub fn new(workers: usize) -> Self {
        let counts = || BucketCounts(std::array::from_fn(|_| AtomicU64::new(0)));
        let table = BondTable { members: Vec::new(), way: Way::Nowhere };
        Self { table: ArcSwap::from_pointee(table), sent: (0..workers).map(|_| counts()).collect() }
    }

    /// The table in force.
    pub fn table(&self) -> Arc<BondTable> {
        self.table.load_full()
    }

    /// Replaces the table. Workers find it when they are told of a new epoch.
    pub fn set_table(&self, table: BondTable) {
        self.table.store(Arc::new(table));
    }

    /// Frames that workers have sent by a bucket so far.
    pub fn sent(&self, bucket: usize) -> u64 {
        self.sent.iter().map(|counts| counts.0[bucket].load(Relaxed)).sum()
    }

    /// A worker sends a frame by a bucket.
    #[inline]
    pub(super) fn count(&self, worker: usize, bucket: usize) {
        let count = &self.sent[worker].0[bucket];
        count.store(count.load(Relaxed) + 1, Relaxed);
    }
}

/// A frame of the Slow Protocols that came in at a member: its first bytes.
#[derive(Clone, Copy, Debug)]
pub struct SlowFrame {
    /// The member.
    pub member: MemberId,
    bytes: [u8; SLOW_LEN],
    len: usize,
}

impl SlowFrame {
    /// Its first bytes: all of them up to 128.
    pub fn data(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Frames of the Slow Protocols on their way from workers to a bond's thread.
#[derive(Debug)]
pub struct SlowFrames {
    queue: ArrayQueue<SlowFrame>,
    /// It is readable while there may be some.
    pub event: EventFd,
}

impl SlowFrames {
    /// None yet.
    ///
    /// # Errors
    /// There is no descriptor for the event.
    pub fn new() -> Result<Self, Errno> {
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self { queue: ArrayQueue::new(SLOW_BACKLOG), event })
    }

    /// Takes the oldest one.
    pub fn pop(&self) -> Option<SlowFrame> {
        self.queue.pop()
    }

    fn push(&self, member: MemberId, data: &[u8]) {
        let len = data.len().min(SLOW_LEN);
        let mut bytes = [0; SLOW_LEN];
        bytes[..len].copy_from_slice(&data[..len]);
        let was_empty = self.queue.is_empty();
        // What has no room is more than a partner may send. So it is as if it were lost on the wire.
        if self.queue.push(SlowFrame { member, bytes, len }).is_ok() && was_empty {
            // The only failure is a full counter, which wakes as well.
            let _ = self.event.write(1);
        }
    }
}

/// A member as workers share it: a gate for what comes in by it.
#[derive(Debug)]
pub struct MemberShared {
    id: MemberId,
    collect: AtomicU8,
    slow: Arc<SlowFrames>,
    inactive: AtomicU64,
}

/// What becomes of a frame at the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// It is the bond's.
    Open,
    /// It is for the bond's thread.
    Slow,
    /// It came in by a member that is not active.
    Inactive,
}

impl MemberShared {
    /// A member that nothing is taken from yet but Slow Protocols.
    pub fn new(id: MemberId, slow: Arc<SlowFrames>) -> Self {
        Self { id, collect: AtomicU8::new(Collect::Nothing as u8), slow, inactive: AtomicU64::new(0) }
    }

    /// Says which frames are taken from now on.
    pub fn set_collect(&self, collect: Collect) {
        self.collect.store(collect as u8, Relaxed);
    }

    /// Frames that came in while they were not to.
    pub fn inactive(&self) -> u64 {
        self.inactive.load(Relaxed)
    }

    /// What becomes of a frame. One for the bond's thread is on its way there.
    pub fn gate(&self, frame: &[u8]) -> Gate {
        let is_slow = frame.get(..6) == Some(SLOW_PROTOCOLS.octets().as_slice())
            && frame.get(12..14) == Some(ETHERTYPE.to_be_bytes().as_slice());
        if is_slow {
            self.slow.push(self.id, frame);
            return Gate::Slow;
        }
        let collect = self.collect.load(Relaxed);
        let is_group = frame.first().is_some_and(|byte| byte & 1 == 1);
        if collect == Collect::All as u8 || (collect == Collect::Unicast as u8 && !is_group) {
            return Gate::Open;
        }
        self.inactive.fetch_add(1, Relaxed);
        Gate::Inactive
    }

    /// Leaves in a burst what is the bond's. `queue` and `shard` count what came in and is dropped.
    #[inline(never)]
    pub(super) fn admit(&self, burst: &mut Vec<Frame>, cache: &mut FrameCache, queue: &QueueShared, shard: &PortShard) {
        let mut kept = 0;
        for at in 0..burst.len() {
            let frame = &burst[at];
            match self.gate(frame.data()) {
                Gate::Open => {
                    burst.swap(kept, at);
                    kept += 1;
                }
                Gate::Slow => {}
                Gate::Inactive => {
                    let wire = frame.wire();
                    queue.counters.rx.add(wire.packets, wire.bytes);
                    shard.dropped_all(DropReason::BondInactive, wire);
                }
            }
        }
        burst.drain(kept..).for_each(|frame| cache.put(frame));
    }
}

/// The bucket of a frame. 0 if it has no usable header.
pub(super) fn bucket_of(policy: HashPolicy, frame: &[u8]) -> usize {
    let Ok(headers) = parse::parse(frame) else { return 0 };
    let inner = || match policy {
        HashPolicy::Encap23 | HashPolicy::Encap34 => inner_flow(frame, &headers),
        _ => None,
    };
    let flow = Flow {
        src: headers.src,
        dst: headers.dst,
        ethertype: headers.ethertype,
        vid: headers.outer.map(|tag| tag.vid()),
        ip: ip_flow(&headers),
        inner: inner(),
    };
    bond::hash::bucket(policy, &flow)
}

fn ip_flow(headers: &Headers) -> Option<IpFlow> {
    let (src, dst, protocol, fragment): (IpAddr, IpAddr, u8, Fragment) = match headers.l3 {
        L3::V4(ip) => (ip.src.into(), ip.dst.into(), ip.protocol, ip.fragment),
        L3::V6(ip) => (ip.src.into(), ip.dst.into(), ip.protocol, ip.fragment),
        L3::Arp(_) | L3::Other => return None,
    };
    let ports = match headers.l4 {
        L4::Tcp { src, dst, .. } | L4::Udp { src, dst } if fragment == Fragment::Whole => Some((src, dst)),
        _ => None,
    };
    Some(IpFlow { src, dst, protocol, ports })
}

/// The packet inside of an IP or GRE tunnel, as far as the driver looks: IPv4 and IPv6 in either, and GRE (RFC 2784)
/// with the optional fields of RFC 2890.
fn inner_flow(frame: &[u8], headers: &Headers) -> Option<IpFlow> {
    const IPV4: u16 = 0x0800;
    const IPV6: u16 = 0x86dd;
    let tags = 4 * (usize::from(headers.outer.is_some()) + usize::from(headers.inner.is_some()));
    let start = 14 + tags;
    let (protocol, header_len) = match headers.l3 {
        L3::V4(ip) if ip.fragment == Fragment::Whole => (ip.protocol, 4 * usize::from(frame.get(start)? & 0xf)),
        // Behind extension headers there is nothing to be sure of.
        L3::V6(ip) if ip.fragment == Fragment::Whole && *frame.get(start + 6)? == ip.protocol => (ip.protocol, 40),
        _ => return None,
    };
    let outer = start + header_len;
    let (ethertype, inner) = match protocol {
        4 => (IPV4, outer),
        41 => (IPV6, outer),
        47 => {
            let gre = frame.get(outer..outer + 4)?;
            let fields = [0x80, 0x20, 0x10].into_iter().filter(|flag| gre[0] & flag != 0).count();
            (u16::from_be_bytes([gre[2], gre[3]]), outer + 4 + 4 * fields)
        }
        _ => return None,
    };
    if ![IPV4, IPV6].contains(&ethertype) {
        return None;
    }
    // The parser wants a frame. So it gets the addresses of this one before the inner packet.
    let packet = frame.get(inner..)?;
    let mut bytes = [0; 14 + 128];
    let len = packet.len().min(bytes.len() - 14);
    bytes[..12].copy_from_slice(frame.get(..12)?);
    bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
    bytes[14..14 + len].copy_from_slice(&packet[..len]);
    ip_flow(&parse::parse(&bytes[..14 + len]).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> (MemberShared, Arc<SlowFrames>) {
        let slow = Arc::new(SlowFrames::new().unwrap());
        (MemberShared::new(MemberId(3), Arc::clone(&slow)), slow)
    }

    fn frame(dst: [u8; 6], ethertype: u16) -> Vec<u8> {
        let mut frame = dst.to_vec();
        frame.extend([2, 0, 0, 0, 0, 9]);
        frame.extend(ethertype.to_be_bytes());
        frame.resize(60, 7);
        frame
    }

    #[test]
    fn the_gate_goes_by_what_the_member_collects() {
        let (member, _) = member();
        let (unicast, group) = (frame([2, 0, 0, 0, 0, 1], 0x800), frame([0xff; 6], 0x806));
        for (collect, to_one, to_all) in [
            (Collect::Nothing, Gate::Inactive, Gate::Inactive),
            (Collect::Unicast, Gate::Open, Gate::Inactive),
            (Collect::All, Gate::Open, Gate::Open),
        ] {
            member.set_collect(collect);
            assert_eq!((member.gate(&unicast), member.gate(&group)), (to_one, to_all), "{collect:?}");
        }
        assert_eq!(member.inactive(), 3);
    }

    #[test]
    fn slow_protocols_go_to_the_thread_whatever_the_member_collects() {
        let (member, slow) = member();
        let pdu = frame(SLOW_PROTOCOLS.octets(), ETHERTYPE);
        for collect in [Collect::Nothing, Collect::All] {
            member.set_collect(collect);
            assert_eq!(member.gate(&pdu), Gate::Slow);
            let taken = slow.pop().unwrap();
            assert_eq!((taken.member, taken.data()), (MemberId(3), &pdu[..]));
        }
        // Neither half alone makes one.
        assert_eq!(member.gate(&frame(SLOW_PROTOCOLS.octets(), 0x88cc)), Gate::Open);
        assert_eq!(member.gate(&frame([2; 6], ETHERTYPE)), Gate::Open);
        assert!(slow.pop().is_none());
    }

    #[test]
    fn a_flood_of_slow_protocols_is_bounded_and_long_frames_are_cut() {
        let (member, slow) = member();
        let mut long = frame(SLOW_PROTOCOLS.octets(), ETHERTYPE);
        long.resize(1500, 1);
        (0..1000).for_each(|_| assert_eq!(member.gate(&long), Gate::Slow));
        let taken: Vec<_> = std::iter::from_fn(|| slow.pop()).collect();
        assert!(taken.len() == SLOW_BACKLOG && taken.iter().all(|frame| frame.data().len() == SLOW_LEN));
    }

    fn udp(src_port: u16, proto_ip: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend(src_port.to_be_bytes());
        packet.extend([0, 53, 0, 8, 0, 0]);
        let mut all = frame([2, 0, 0, 0, 0, 1], 0x800)[..14].to_vec();
        all.extend(proto_ip);
        all.extend(packet);
        all
    }

    fn buckets(policy: HashPolicy, prefix: &[u8]) -> usize {
        let found: std::collections::BTreeSet<_> = (0..64).map(|n| bucket_of(policy, &udp(1000 + n, prefix))).collect();
        found.len()
    }

    #[test]
    fn policies_see_ports_and_look_into_tunnels_as_they_say() {
        let ipip = [0x45, 0, 0, 48, 0, 0, 0, 0, 64, 4, 0, 0, 192, 168, 0, 1, 192, 168, 0, 2];
        let gre = [
            &[0x45, 0, 0, 60, 0, 0, 0, 0, 64, 47, 0, 0, 192, 168, 0, 1, 192, 168, 0, 2][..],
            &[0x20, 0, 8, 0, 0, 0, 0, 5],
        ]
        .concat();
        assert!(buckets(HashPolicy::Layer34, &[]) > 40);
        assert_eq!(buckets(HashPolicy::Layer23, &[]), 1);
        for tunnel in [&ipip[..], &gre] {
            assert_eq!(buckets(HashPolicy::Layer34, tunnel), 1);
            assert_eq!(buckets(HashPolicy::Encap23, tunnel), 1);
            assert!(buckets(HashPolicy::Encap34, tunnel) > 40);
        }
        // Cut anywhere, it still has a bucket.
        let whole = udp(7, &gre);
        (0..whole.len()).for_each(|len| assert!(bucket_of(HashPolicy::Encap34, &whole[..len]) < BUCKETS));
    }
}
