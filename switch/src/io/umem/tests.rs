use std::collections::HashMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;

/// Most steps of a property. Miri takes a second for some.
const MOST_STEPS: usize = if cfg!(miri) { 12 } else { 400 };

fn umem(frames: u32) -> Arc<Umem> {
    Umem::new(frames, 2048, HugePages::Off).unwrap()
}

/// Flags of the mapping that a UMEM's frames lie in (`VmFlags` of proc_pid_smaps(5)).
fn flags(umem: &Umem) -> Vec<String> {
    let first = umem.region().0 as usize;
    let holds = |line: &str| {
        let (from, to) = line.split_whitespace().next()?.split_once('-')?;
        let [from, to] = [from, to].map(|end| usize::from_str_radix(end, 16));
        Some((from.ok()?..to.ok()?).contains(&first))
    };
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = maps.lines().skip_while(|line| holds(line) != Some(true));
    lines.find_map(|line| line.strip_prefix("VmFlags:")).unwrap().split_whitespace().map(str::to_owned).collect()
}

#[test]
#[cfg_attr(miri, ignore = "reads what the kernel mapped")]
fn huge_pages_are_asked_for_unless_they_are_off() {
    // `ht`: reserved huge pages. `hg`: transparent huge pages are wanted.
    let asked = |huge| flags(&Umem::new(8192, 2048, huge).unwrap()).iter().any(|flag| flag == "ht" || flag == "hg");
    assert!(asked(HugePages::Auto));
    assert!(!asked(HugePages::Off));
}

#[test]
fn a_frame_is_claimed_once_and_only_from_where_it_is() {
    let umem = umem(64);
    let mut cache = FrameCache::new(Arc::clone(&umem));
    let [mut here, mut there] = umem.new_owners();
    let frame = cache.take().unwrap();
    let addr = umem.give(frame, &mut here);
    assert_eq!(umem.claim(addr, 60, &mut there), None);
    assert_eq!(umem.claim(addr, 2048 - 255, &mut here), None, "data beyond its chunk");
    assert_eq!(umem.claim(1 << 40, 60, &mut here), None, "address beyond UMEM");
    let frame = umem.claim(addr, 60, &mut here).unwrap();
    assert_eq!((frame.start(), frame.len()), (256, 60));
    assert_eq!(umem.claim(addr, 60, &mut here), None);
    cache.put(frame);
}

#[test]
fn every_frame_is_counted_once_while_another_thread_moves_them() {
    let umem = umem(1024);
    let mut owners = umem.new_owners();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut cache = FrameCache::new(Arc::clone(&umem));
            while !stop.load(Ordering::Relaxed) {
                let addrs: Vec<_> = (0..500).map(|n| umem.give(cache.take().unwrap(), &mut owners[n % 2])).collect();
                for (n, addr) in addrs.into_iter().enumerate() {
                    cache.put(umem.claim(addr, 0, &mut owners[n % 2]).unwrap());
                }
            }
        });
        for _ in 0..if cfg!(miri) { 3 } else { 1000 } {
            let Whereabouts { free, held, rx, tx } = umem.whereabouts();
            assert_eq!(free + held + rx + tx, 1024);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

proptest! {
    /// Frames move at random between the pool, two owners and hands. The ledger agrees with a model's counts
    /// throughout.
    #[test]
    fn every_frame_is_in_exactly_one_place(
        ops in prop::collection::vec((0u8..5, any::<prop::sample::Index>()), 0..MOST_STEPS),
    ) {
        let umem = umem(128);
        let mut cache = FrameCache::new(Arc::clone(&umem));
        let mut places = umem.new_owners();
        let mut addrs = [Vec::new(), Vec::new()];
        let mut hands = Vec::new();
        for (op, pick) in ops {
            match op {
                0 => hands.extend(cache.take()),
                1 | 2 => if !hands.is_empty() {
                    let place = usize::from(op) - 1;
                    let frame = hands.swap_remove(pick.index(hands.len()));
                    addrs[place].push(umem.give(frame, &mut places[place]));
                },
                3 => for place in 0..2 {
                    if let Some(addr) = addrs[place].pop() {
                        hands.push(umem.claim(addr, 64, &mut places[place]).unwrap());
                    }
                },
                _ => if !hands.is_empty() {
                    cache.put(hands.swap_remove(pick.index(hands.len())));
                },
            }
            let placed = addrs[0].len() + addrs[1].len();
            let free = 128 - placed - hands.len();
            let census = umem.census();
            let seen = (census.free() as usize, census.held() as usize, census.placed() as usize);
            prop_assert_eq!(seen, (free, hands.len(), placed));
            prop_assert_eq!(umem.pool_len() as usize + cache.len(), free);
            prop_assert_eq!(census.at(places[0].id()) as usize, addrs[0].len());
            let Whereabouts { free, held, rx, tx } = umem.whereabouts();
            prop_assert_eq!((free, held), (census.free(), census.held()));
            prop_assert_eq!((rx as usize, tx as usize), (addrs[0].len(), addrs[1].len()));
        }
        let [first, second] = places;
        prop_assert_eq!(umem.reclaim(first).len(), addrs[0].len());
        prop_assert_eq!(umem.reclaim(second).len(), addrs[1].len());
    }
}

/// Every size that a chunk may have.
const SIZES: [u32; 4] = [512, 1024, 2048, 4096];

/// Whether a request is refused by a panic. The refusal does not rest on debug assertions, so these tests hold in
/// release builds too.
fn panics<T>(request: impl FnOnce() -> T) -> bool {
    catch_unwind(AssertUnwindSafe(request)).is_err()
}

#[test]
#[cfg_attr(miri, ignore = "a panic takes Miri seconds")]
fn data_outside_its_chunk_is_refused() {
    for size in SIZES {
        let umem = Umem::new(64, size, HugePages::Off).unwrap();
        let (mut cache, [mut owner, _]) = (FrameCache::new(Arc::clone(&umem)), umem.new_owners());
        let mut frame = cache.take().unwrap();
        let chunk = size as usize;
        for (start, len) in [(0, chunk + 1), (1, chunk), (chunk, 0), (chunk - 1, 2), (5, usize::MAX), (usize::MAX, 5)] {
            assert!(panics(|| frame.set(start, len)), "{start}+{len} of {chunk}");
            assert_eq!((frame.start(), frame.len()), (HEADROOM as usize, 0));
        }
        for (start, len) in [(0, chunk), (chunk - 1, 1), (chunk - 1, 0), (0, 0)] {
            frame.set(start, len);
            assert_eq!((frame.start(), frame.len()), (start, len));
        }
        let addr = umem.give(frame, &mut owner);
        for (addr, len) in [(addr, size + 1), (addr + 1, size), (addr, u32::MAX), (addr + u64::from(size) - 1, 2)] {
            assert_eq!(umem.claim(addr, len, &mut owner), None, "{len} bytes at {addr}");
        }
        cache.put(umem.claim(addr, size, &mut owner).unwrap());
    }
}

#[test]
#[cfg_attr(miri, ignore = "a panic takes Miri seconds")]
fn frames_and_owners_of_another_umem_are_refused() {
    let (small, large) = (umem(32), umem(128));
    let [mut in_small, mut in_large] = [&small, &large].map(|umem| FrameCache::new(Arc::clone(umem)));
    let ([mut small_owner, _], [mut large_owner, _]) = (small.new_owners(), large.new_owners());
    let theirs = || (small.census(), large.census());
    for _ in 0..2 {
        let [a, b] = [in_small.take().unwrap(), in_large.take().unwrap()];
        assert_ne!(a.data().as_ptr(), b.data().as_ptr());
        assert!(panics(|| in_large.put(a)) && panics(|| in_small.put(b)));
    }
    let before = theirs();
    let [a, b] = [in_small.take().unwrap(), in_large.take().unwrap()];
    assert!(panics(|| large.give(a, &mut large_owner)) && panics(|| small.give(b, &mut small_owner)));
    let addr = small.give(in_small.take().unwrap(), &mut small_owner);
    assert_eq!(small_owner.id(), large_owner.id(), "the numbers alone don't tell them apart");
    assert!(panics(|| small.claim(addr, 0, &mut large_owner)));
    assert!(panics(|| small.take_all(&mut large_owner)));
    let after = theirs();
    assert_eq!((after.0.at(small_owner.id()), after.1.placed()), (1, 0));
    assert_eq!((after.0.held(), after.1.held()), (before.0.held() + 1, before.1.held() + 1));
}

#[test]
fn a_frame_outlives_its_umem() {
    let umem = umem(32);
    let mut cache = FrameCache::new(Arc::clone(&umem));
    let mut frame = cache.take().unwrap();
    frame.set(100, 4);
    frame.chunk_mut()[100..104].copy_from_slice(b"data");
    drop((umem, cache));
    // Later mappings do not get its addresses.
    let later: Vec<_> = (0..8).map(|_| self::umem(32)).collect();
    assert_eq!(frame.data(), b"data");
    let place = frame.data().as_ptr() as usize;
    assert!(later.iter().all(|umem| !range_of(umem).contains(&place)));
    let mut cache = FrameCache::new(Arc::clone(&later[0]));
    assert!(panics(|| cache.put(frame)));
}

#[test]
#[cfg_attr(miri, ignore = "a panic takes Miri seconds")]
fn numbers_that_make_no_umem_are_refused() {
    let made = |frames, size| Umem::new(frames, size, HugePages::Off).err();
    for (frames, size) in [(0, 2048), (31, 2048), (33, 2048), (32, 0), (32, 256), (32, 3000), (32, 8192), (32, 1 << 31)]
    {
        assert_eq!(made(frames, size), Some(Errno::EINVAL), "{frames} frames of {size} bytes");
    }
    assert_eq!(made(32, 512), None);
}

/// Addresses of a UMEM's bytes in this process.
fn range_of(umem: &Umem) -> Range<usize> {
    let (first, len) = umem.region();
    first as usize..first as usize + len
}

/// A random operation on a held frame.
#[derive(Clone, Debug)]
enum Move {
    Take,
    Put,
    Set(usize, usize),
    Give,
    /// Claims the last address given, moved by this offset, with this length.
    Claim(i64, u32),
}

fn a_move() -> impl Strategy<Value = Move> {
    // Sizes near the bounds, and arbitrary ones.
    let size = || prop_oneof![0..=4200usize, Just(usize::MAX), any::<usize>()];
    prop_oneof![
        Just(Move::Take),
        Just(Move::Put),
        (size(), size()).prop_map(|(start, len)| Move::Set(start, len)),
        Just(Move::Give),
        (prop_oneof![Just(0), -5000..5000i64], prop_oneof![0..5000u32, any::<u32>()])
            .prop_map(|(by, len)| Move::Claim(by, len)),
    ]
}

proptest! {
    /// However frames are moved and set, the data of each lies in a chunk that no other frame has. What is written to a
    /// frame is found in that chunk only.
    #[test]
    fn a_frame_never_leaves_its_chunk(
        size in prop::sample::select(&SIZES[..]),
        moves in prop::collection::vec((a_move(), any::<prop::sample::Index>()), 0..MOST_STEPS),
    ) {
        let umem = Umem::new(32, size, HugePages::Off).unwrap();
        let (mut cache, [mut owner, _]) = (FrameCache::new(Arc::clone(&umem)), umem.new_owners());
        let (chunk, base) = (size as usize, range_of(&umem).start);
        let (mut hands, mut given): (Vec<Frame>, Vec<u64>) = Default::default();
        // The last fill byte of each chunk.
        let mut marks: HashMap<usize, u8> = HashMap::new();
        for (n, (step, pick)) in moves.into_iter().enumerate() {
            match step {
                Move::Take => hands.extend(cache.take()),
                Move::Put if !hands.is_empty() => cache.put(hands.swap_remove(pick.index(hands.len()))),
                Move::Set(start, len) if !hands.is_empty() => {
                    let frame = pick.get_mut(&mut hands);
                    let before = (frame.start(), frame.len());
                    let fits = start < chunk && start.checked_add(len).is_some_and(|end| end <= chunk);
                    prop_assert_eq!(panics(|| frame.set(start, len)), !fits);
                    prop_assert_eq!((frame.start(), frame.len()), if fits { (start, len) } else { before });
                }
                Move::Give if !hands.is_empty() => {
                    given.push(umem.give(hands.swap_remove(pick.index(hands.len())), &mut owner));
                }
                Move::Claim(by, len) if !given.is_empty() => {
                    let at = pick.index(given.len());
                    let addr = given[at].wrapping_add_signed(by);
                    let index = addr / u64::from(size);
                    let known = given.iter().position(|given| given / u64::from(size) == index);
                    let fits = addr % u64::from(size) + u64::from(len) <= u64::from(size);
                    let claimed = umem.claim(addr, len, &mut owner);
                    prop_assert_eq!(claimed.is_some(), known.is_some() && fits);
                    if let Some((frame, known)) = claimed.zip(known) {
                        prop_assert_eq!((frame.start() as u64, frame.len()), (addr % u64::from(size), len as usize));
                        given.swap_remove(known);
                        hands.push(frame);
                    }
                }
                _ => {}
            }
            let mut places: Vec<_> = hands.iter().map(|frame| (frame.data().as_ptr() as usize - base) / chunk).collect();
            for (frame, index) in hands.iter_mut().zip(&places) {
                let first = frame.data().as_ptr() as usize - base;
                prop_assert!(first % chunk == frame.start() && frame.start() + frame.data().len() <= chunk);
                prop_assert!(*index < 32);
                prop_assert!(marks.get(index).is_none_or(|mark| frame.data().iter().all(|byte| byte == mark)));
                let all = frame.chunk_mut();
                prop_assert_eq!((all.as_ptr() as usize, all.len()), (base + index * chunk, chunk));
            }
            places.sort_unstable();
            places.dedup();
            prop_assert_eq!(places.len(), hands.len(), "two frames have one chunk");
            if !hands.is_empty() {
                let frame = pick.get_mut(&mut hands);
                let index = (frame.data().as_ptr() as usize - base) / chunk;
                let mark = (n % 256) as u8;
                frame.chunk_mut().fill(mark);
                marks.insert(index, mark);
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "64 MiB")]
fn a_tail_has_one_holder_at_a_time() {
    let umem = Umem::new(64, 2048, HugePages::Off).unwrap();
    assert!(umem.take_tail().is_none(), "there are none before they are asked for");
    umem.add_tails().unwrap();
    umem.add_tails().unwrap();
    std::thread::scope(|scope| {
        for thread in 1..=4_u8 {
            let umem = &umem;
            scope.spawn(move || {
                for round in 0..5000 {
                    let mut tails: Vec<_> = (0..round % 4 + 1).filter_map(|_| umem.take_tail()).collect();
                    for (mark, tail) in (0..).zip(&mut tails) {
                        umem.tail_mut(tail)[..64].fill(thread * 8 + mark);
                    }
                    for (mark, mut tail) in (0..).zip(tails) {
                        assert_eq!(umem.tail_mut(&mut tail)[..64], [thread * 8 + mark; 64]);
                        umem.put_tail(tail);
                    }
                }
            });
        }
    });
    assert_eq!(umem.tails_in_use(), 0);
    let all: Vec<_> = std::iter::from_fn(|| umem.take_tail()).collect();
    assert_eq!(all.len(), 1024);
    assert!(umem.check_tails().is_err(), "they are in use, and no frame has one");
    all.into_iter().for_each(|tail| umem.put_tail(tail));
    umem.check_tails().unwrap();
}
