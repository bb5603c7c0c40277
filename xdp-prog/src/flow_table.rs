//! The flow table that XDP follows (`bpf/flows.h`): its maps, and the side of user space.
//!
//! A [`FlowTable`] is shared by the programs of all ports. User space writes entries, and reads what XDP counts. What
//! XDP writes and what user space writes are different words, and each is written whole.
//!
//! Calls that take a slot panic on one that the table does not have.
#![allow(unsafe_code, reason = "memory that is shared with the kernel, and a call of libbpf's C interface")]

use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, libbpf_sys};
use nix::sys::mman::{MapFlags as MmapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use crate::error::Error;
use crate::skeleton::types::{xsw_flow, xsw_flow_bucket, xsw_flow_control};

/// Ports that there can be (`XSW_MAX_PORTS`).
pub const FLOW_PORTS: usize = 1024;
/// Words of a key.
pub const FLOW_WORDS: usize = 7;
/// Bytes of metadata in front of a numbered packet.
pub const FLOW_MARK: usize = 12;
/// Fewest and most slots of a table.
pub const FLOW_SLOTS: std::ops::RangeInclusive<u32> = 64..=1 << 20;
/// Slots of a bucket.
const WAYS: u32 = 2;
/// Slots that a flow may be in: those of two buckets.
const PLACES: usize = 4;
/// Bit of the first word of a key of layer 2.
const KEY_L2: u64 = 1 << 63;
/// Bit of the third word of a key of IPv6.
const KEY_V6: u64 = 1 << 63;
/// Flag of an entry: its limit holds.
const LIMITED: u32 = 1;
/// Flag of an action: packets of one buffer only.
const ONE_BUFFER: u64 = 1 << 20;
/// How far an epoch is behind that of no valid entry.
const OUTDATED: u32 = 1 << 30;

/// The bytes of a packet that a decision comes from, as XDP reads them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowTableKey(pub [u64; FLOW_WORDS]);

impl FlowTableKey {
    /// The key of packets of `queue`. `words` are those of the switch's flow cache. `is_l2`: they are of layer 2 only.
    pub fn new(words: [u64; FLOW_WORDS], queue: u32, is_l2: bool) -> Self {
        let mut key = words;
        key[0] = words[0] & 0xffff_ffff_ffff | u64::from(queue) << 48 | if is_l2 { KEY_L2 } else { 0 };
        Self(key)
    }
}

/// How much of a packet is in keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowDepth {
    /// Nothing: no packet has an entry.
    Off = 0,
    /// Addresses, tag and EtherType of IP packets.
    L2 = 1,
    /// IP addresses, protocol and ports too, of whole TCP and UDP packets.
    L4 = 2,
}

/// What is done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowEdit {
    /// It goes out as it is.
    None,
    /// Without its tag.
    Pop,
    /// With another TCI in its tag.
    SetTci(u16),
    /// With a tag of TPID 0x8100.
    PushC(u16),
    /// With a tag of TPID 0x88a8.
    PushS(u16),
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowAction {
    /// Packets up to `longest` bytes go out of `port`.
    Send {
        /// Number of the port.
        port: u16,
        /// What is done to the tag first.
        edit: FlowEdit,
        /// Longest packet in bytes, before the edit.
        longest: u16,
        /// Whether packets of several buffers go too.
        multi_buffer: bool,
    },
    /// Packets are dropped.
    Drop,
}

impl FlowAction {
    fn word(self) -> u64 {
        match self {
            Self::Drop => 5 << 16 | u64::from(u16::MAX) << 48,
            Self::Send { port, edit, longest, multi_buffer } => {
                let (op, tci) = match edit {
                    FlowEdit::None => (0, 0),
                    FlowEdit::Pop => (1, 0),
                    FlowEdit::SetTci(tci) => (2, tci),
                    FlowEdit::PushC(tci) => (3, tci),
                    FlowEdit::PushS(tci) => (4, tci),
                };
                let one_buffer = if multi_buffer { 0 } else { ONE_BUFFER };
                u64::from(port) | op << 16 | one_buffer | u64::from(tci) << 32 | u64::from(longest) << 48
            }
        }
    }
}

/// A number that XDP has put in front of a packet on its way to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowMark {
    /// The entry of the packet's flow.
    pub slot: usize,
    /// The number.
    pub number: u32,
}

/// Whether `one` is later than `other`, if numbers wrap.
pub fn is_later(one: u32, other: u32) -> bool {
    one.wrapping_sub(other).cast_signed() > 0
}

/// `struct xsw_flow`.
#[derive(Debug)]
#[repr(C)]
struct Slot {
    key: [AtomicU64; FLOW_WORDS],
    seq: AtomicU32,
    epoch: AtomicU32,
    sent: AtomicU32,
    done: AtomicU32,
    limit: AtomicU32,
    flags: AtomicU32,
    action: AtomicU64,
    packets: AtomicU64,
    bytes: AtomicU64,
    pad: [AtomicU64; 3],
}

/// `struct xsw_flow_control`.
#[derive(Debug)]
#[repr(C)]
struct Control {
    epoch: AtomicU32,
    depth: AtomicU32,
    pad: [AtomicU32; 14],
    installed: [AtomicU32; FLOW_PORTS],
}

const _: () = assert!(size_of::<Slot>() == size_of::<xsw_flow>() && size_of::<Slot>() == 128);
const _: () = assert!(size_of::<Slot>() * WAYS as usize == size_of::<xsw_flow_bucket>());
const _: () = assert!(size_of::<Control>() == size_of::<xsw_flow_control>());

/// Pages that stay mapped as long as this lives.
#[derive(Debug)]
struct Pages {
    start: NonNull<std::ffi::c_void>,
    len: NonZeroUsize,
}

// SAFETY: the pages are plain memory, which atomic words alone are made of.
unsafe impl Send for Pages {}
// SAFETY: see above.
unsafe impl Sync for Pages {}

impl Pages {
    /// At least `bytes` of zeroes, or the beginning of a map.
    fn new(bytes: usize, map: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        let len = NonZeroUsize::new(bytes.next_multiple_of(4096)).unwrap_or(NonZeroUsize::MIN);
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let start = match map {
            // SAFETY: the kernel chooses the place. Nobody has a reference into it yet.
            Some(map) => unsafe { mmap(None, len, access, MmapFlags::MAP_SHARED, map, 0) },
            // SAFETY: see above.
            None => unsafe { mmap_anonymous(None, len, access, MmapFlags::MAP_PRIVATE) },
        };
        let start = start.map_err(|errno| Error::system("mapping the flow table", &errno))?;
        Ok(Self { start, len })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the pages are this one's own, and references into them borrow it.
        let _ = unsafe { munmap(self.start, self.len.get()) };
    }
}

/// The maps that programs share.
#[derive(Debug)]
struct Maps {
    flows: MapHandle,
    control: MapHandle,
    exits: MapHandle,
}

/// The table.
#[derive(Debug)]
pub struct FlowTable {
    slots: u32,
    flows: Pages,
    control: Pages,
    /// `None`: there is no kernel behind it.
    maps: Option<Maps>,
    seeds: [u64; 8],
    cookie: u32,
}

/// Random bytes.
fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map(|()| bytes).map_err(|error| Error::system("reading random bytes", &error))
}

fn create(kind: MapType, name: &str, value: usize, entries: usize, flags: u32) -> Result<MapHandle, Error> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as _,
        map_flags: flags,
        ..Default::default()
    };
    let [value, entries] = [value, entries].map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    MapHandle::create(kind, Some(name), 4, value, entries, &options)
        .map_err(|error| Error::system("making the flow table", &error))
}

impl FlowTable {
    /// A table with that many slots: the next power of two, within [`FLOW_SLOTS`].
    ///
    /// # Errors
    /// The kernel does not let maps be made, or mapped.
    pub fn new(slots: u32) -> Result<Self, Error> {
        let slots = clamped(slots);
        let mmapable = libbpf_sys::BPF_F_MMAPABLE;
        let buckets = (slots / WAYS) as usize;
        let maps = Maps {
            flows: create(MapType::Array, "flows", size_of::<xsw_flow_bucket>(), buckets, mmapable)?,
            control: create(MapType::Array, "flow_control", size_of::<Control>(), 1, mmapable)?,
            exits: create(MapType::Devmap, "flow_exits", 4, FLOW_PORTS, 0)?,
        };
        Self::over(slots, Some(maps))
    }

    /// A table that no kernel follows.
    ///
    /// # Errors
    /// There is no memory.
    pub fn detached(slots: u32) -> Result<Self, Error> {
        Self::over(clamped(slots), None)
    }

    fn over(slots: u32, maps: Option<Maps>) -> Result<Self, Error> {
        let bytes = slots as usize * size_of::<Slot>();
        let flows = Pages::new(bytes, maps.as_ref().map(|maps| maps.flows.as_fd()))?;
        let control = Pages::new(size_of::<Control>(), maps.as_ref().map(|maps| maps.control.as_fd()))?;
        let mut seeds = [0; 8];
        for (seed, bytes) in seeds.iter_mut().zip(random::<64>()?.chunks_exact(8)) {
            *seed = bytes.first_chunk().map_or(1, |bytes| u64::from_ne_bytes(*bytes)) | 1;
        }
        let cookie = u32::from_ne_bytes(random()?);
        let table = Self { slots, flows, control, maps, seeds, cookie };
        // Memory of zeroes is a table of valid entries for the key of zeroes. That key can't occur: it has a source
        // address, and ports of the bridge are checked. Still, no slot is to be valid before it is written.
        table.all().iter().for_each(|slot| slot.epoch.store(OUTDATED.wrapping_neg(), Ordering::Relaxed));
        Ok(table)
    }

    fn all(&self) -> &[Slot] {
        // SAFETY: the pages have so many slots, are aligned to pages, and stay as long as `self`. All words are atomic,
        // and any bits are valid for them.
        unsafe { std::slice::from_raw_parts(self.flows.start.as_ptr().cast(), self.slots as usize) }
    }

    fn at(&self, slot: usize) -> &Slot {
        &self.all()[slot]
    }

    fn control(&self) -> &Control {
        // SAFETY: as for the slots.
        unsafe { self.control.start.cast().as_ref() }
    }

    /// Number of slots.
    pub fn slots(&self) -> usize {
        self.slots as usize
    }

    /// The hash of a flow, which names its places.
    pub fn hash(&self, key: &FlowTableKey) -> u64 {
        let [a, b, c, d, e, f, g] = key.0;
        let [p, q, r, s, t, u, v, last] = self.seeds;
        let product = |word: u64, seed: u64| word.wrapping_mul(seed);
        let mut hash = product(a, p).wrapping_add(product(b, q)).wrapping_add(product(c, r));
        hash = hash.wrapping_add(product(d, s));
        if c & KEY_V6 != 0 {
            hash = hash.wrapping_add(product(e, t)).wrapping_add(product(f, u)).wrapping_add(product(g, v));
        }
        hash ^= hash >> 32;
        hash.wrapping_mul(last)
    }

    /// The slots that a flow may be in.
    pub fn places(&self, key: &FlowTableKey) -> [usize; PLACES] {
        let hash = self.hash(key);
        #[expect(clippy::cast_possible_truncation, reason = "halves of a hash")]
        let [one, other] = [hash >> 32, hash].map(|half| (half as u32 & (self.slots / WAYS - 1)) as usize * 2);
        [one, one + 1, other, other + 1]
    }

    /// Makes an entry of a slot. From now on XDP numbers the flow's packets, until the last number that it has given is
    /// [done](Self::done). Returns the number before the first.
    ///
    /// The slot must have been [void](Self::void) for so long that no program is still at it.
    pub fn install(&self, slot: usize, key: &FlowTableKey, action: FlowAction, epoch: u32) -> u32 {
        let at = self.at(slot);
        self.write(at, || {
            for (word, value) in at.key.iter().zip(key.0) {
                word.store(value, Ordering::Relaxed);
            }
            at.action.store(action.word(), Ordering::Relaxed);
            at.flags.store(0, Ordering::Relaxed);
            let sent = at.sent.load(Ordering::Relaxed);
            at.done.store(sent.wrapping_sub(1), Ordering::Relaxed);
            at.epoch.store(epoch, Ordering::Relaxed);
            sent
        })
    }

    /// Writes an entry by the sequence lock. One thread at a time.
    fn write<T>(&self, at: &Slot, write: impl FnOnce() -> T) -> T {
        let seq = at.seq.load(Ordering::Relaxed);
        at.seq.store(seq.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        let result = write();
        at.seq.store(seq.wrapping_add(2), Ordering::Release);
        result
    }

    /// Lets an entry hold in another epoch too.
    pub fn restamp(&self, slot: usize, epoch: u32) {
        self.at(slot).epoch.store(epoch, Ordering::Release);
    }

    /// Ends an entry. A program may be about to follow it still.
    pub fn void(&self, slot: usize) {
        let outdated = self.control().epoch.load(Ordering::Relaxed).wrapping_sub(OUTDATED);
        self.at(slot).epoch.store(outdated, Ordering::Release);
    }

    /// Number of the last packet of a slot's flow that went to the socket.
    pub fn sent(&self, slot: usize) -> u32 {
        self.at(slot).sent.load(Ordering::Acquire)
    }

    /// Number of the last that has left.
    pub fn done(&self, slot: usize) -> u32 {
        self.at(slot).done.load(Ordering::Acquire)
    }

    /// Says that the packet of that number has left, and all before it.
    pub fn set_done(&self, slot: usize, number: u32) {
        let done = &self.at(slot).done;
        if is_later(number, done.load(Ordering::Relaxed)) {
            done.store(number, Ordering::Release);
        }
    }

    /// Has XDP drop packets of a slot's flow that would get a later number than this one.
    pub fn limit(&self, slot: usize, number: u32) {
        let at = self.at(slot);
        at.limit.store(number, Ordering::Relaxed);
        at.flags.store(LIMITED, Ordering::Release);
    }

    /// Packets and bytes of a slot that XDP has done something with, over all entries that the slot had.
    pub fn counts(&self, slot: usize) -> (u64, u64) {
        let at = self.at(slot);
        (at.packets.load(Ordering::Acquire), at.bytes.load(Ordering::Acquire))
    }

    /// Has entries of earlier epochs hold no more, and sets what keys are made of.
    pub fn begin_epoch(&self, epoch: u32, depth: FlowDepth) {
        self.control().depth.store(depth as u32, Ordering::Relaxed);
        self.control().epoch.store(epoch, Ordering::Release);
    }

    /// Says how many entries an ingress port has. Without any its packets are not looked up.
    pub fn set_installed(&self, port: u16, entries: u32) {
        if let Some(place) = self.control().installed.get(usize::from(port)) {
            place.store(entries, Ordering::Release);
        }
    }

    /// Has packets for a port go out of the netdev of that index, in the caller's namespace. `None`: of none.
    ///
    /// # Errors
    /// The kernel does not take it.
    pub fn set_exit(&self, port: u16, ifindex: Option<u32>) -> Result<(), Error> {
        let Some(maps) = &self.maps else { return Ok(()) };
        let key = u32::from(port).to_ne_bytes();
        let result = match ifindex {
            Some(ifindex) => maps.exits.update(&key, &ifindex.to_ne_bytes(), MapFlags::ANY),
            None => maps.exits.delete(&key),
        };
        match result {
            Err(error) if ifindex.is_none() && error.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
            result => {
                result.map_err(|error| Error::system(format!("the exit of port {port} in the flow table"), &error))
            }
        }
    }

    /// The number that XDP has put in front of a packet; `before` are the bytes before it.
    #[inline]
    pub fn mark(&self, before: &[u8]) -> Option<FlowMark> {
        let mark: &[u8; FLOW_MARK] = before.last_chunk()?;
        let [a, b, c, d, e, f, g, h, cookie @ ..] = *mark;
        let slot = u32::from_ne_bytes([a, b, c, d]);
        let is_one = u32::from_ne_bytes(cookie) == self.cookie && slot < self.slots;
        is_one.then(|| FlowMark { slot: slot as usize, number: u32::from_ne_bytes([e, f, g, h]) })
    }

    /// What XDP does with a packet of a slot's flow that goes to the socket: the next number, as it stands in front of
    /// the packet. For tables that no kernel follows.
    pub fn number_packet(&self, slot: usize) -> [u8; FLOW_MARK] {
        let number = self.at(slot).sent.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        let mut mark = [0; FLOW_MARK];
        for (place, word) in
            mark.chunks_exact_mut(4).zip([u32::try_from(slot).unwrap_or(u32::MAX), number, self.cookie])
        {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        mark
    }

    /// What XDP does with packets that go on in the kernel. For tables that no kernel follows.
    pub fn count_packets(&self, slot: usize, packets: u64, bytes: u64) {
        self.at(slot).packets.fetch_add(packets, Ordering::AcqRel);
        self.at(slot).bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Whether XDP would follow the entry of a slot, and not only number its packets.
    pub fn is_followed(&self, slot: usize) -> bool {
        let (at, epoch) = (self.at(slot), self.control().epoch.load(Ordering::Acquire));
        !is_later(epoch, at.epoch.load(Ordering::Acquire)) && self.sent(slot) == self.done(slot)
    }

    /// Descriptors of the maps of flows, of control, and of exits. `None` if there is no kernel behind it.
    pub(crate) fn maps(&self) -> Option<[BorrowedFd<'_>; 3]> {
        let Maps { flows, control, exits } = self.maps.as_ref()?;
        Some([flows, control, exits].map(MapHandle::as_fd))
    }

    /// What programs have to know: buckets, cookie, seeds.
    pub(crate) fn constants(&self) -> (u32, u32, [u64; 8]) {
        (self.slots / WAYS, self.cookie, self.seeds)
    }
}

fn clamped(slots: u32) -> u32 {
    slots.clamp(*FLOW_SLOTS.start(), *FLOW_SLOTS.end()).next_power_of_two()
}

/// Waits until no program follows what was there before. All CPUs have left their polls then
/// (`MEMBARRIER_CMD_GLOBAL`, which waits for RCU).
///
/// # Errors
/// The kernel has no such call.
pub fn wait_for_programs() -> Result<(), Error> {
    const MEMBARRIER_CMD_GLOBAL: nix::libc::c_int = 1;
    // SAFETY: the call takes numbers only.
    let result = unsafe { nix::libc::syscall(nix::libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    match result {
        0 => Ok(()),
        _ => Err(Error::system("waiting for XDP programs (membarrier)", &std::io::Error::last_os_error())),
    }
}
