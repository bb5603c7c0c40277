//! Page faults that a guest causes on purpose.
//!
//! A guest shares its memory as a file. If it shrinks the file, an access to what is cut off raises SIGBUS, which ends
//! the process. The same happens if a hugetlbfs or tmpfs has no page left. So a handler is installed before the first
//! file is mapped. It looks for the address among the guarded mappings, and puts zeroes in place of the whole mapping.
//! The access is repeated, and finds the zeroes. The mapping's flag tells the owner, who closes the guest's port.
//!
//! A SIGBUS at another address goes to the handler that was there before. The handler takes no lock and allocates
//! nothing, so it may interrupt anything.
#![allow(unsafe_code, reason = "a signal handler, and mmap over memory in use")]

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};

/// Slots of a block.
const BLOCK: usize = 64;
/// Codes of a SIGBUS for the access of a thread: an address without memory behind it, and memory that has failed.
const CODES: [libc::c_int; 2] = [libc::BUS_ADRERR, libc::BUS_MCEERR_AR];

/// A guarded mapping, or a free place for one.
///
/// It is written under [`WRITER`], and read in the handler. `version` is odd while it is written, so that the handler
/// takes no mixture of two mappings. The slot that a fault belongs to is not written meanwhile, because the thread that
/// faults keeps the mapping alive.
#[derive(Debug)]
struct Slot {
    version: AtomicU32,
    /// First byte, or null if the slot is free.
    start: AtomicPtr<u8>,
    len: AtomicUsize,
    broken: AtomicPtr<AtomicBool>,
}

/// Slots. More follow when all are taken. A block is never freed, so the handler can always walk the list.
#[derive(Debug)]
struct Block {
    slots: [Slot; BLOCK],
    next: OnceLock<Box<Block>>,
}

static FIRST: Block = Block::new();
static WRITER: Mutex<()> = Mutex::new(());
/// What was done on SIGBUS before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

impl Slot {
    const fn new() -> Self {
        Self {
            version: AtomicU32::new(0),
            start: AtomicPtr::new(ptr::null_mut()),
            len: AtomicUsize::new(0),
            broken: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Only with the lock held.
    fn set(&self, start: *mut u8, len: usize, broken: *mut AtomicBool) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.start.store(start, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        self.broken.store(broken, Ordering::Relaxed);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// The mapping in this slot, if it has the address.
    fn with(&self, addr: usize) -> Option<(*mut u8, usize, *mut AtomicBool)> {
        let version = self.version.load(Ordering::Acquire);
        let (start, len) = (self.start.load(Ordering::Relaxed), self.len.load(Ordering::Relaxed));
        let broken = self.broken.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let whole = version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version;
        (whole && !start.is_null() && addr.wrapping_sub(start.addr()) < len).then_some((start, len, broken))
    }

    fn is_free(&self) -> bool {
        self.start.load(Ordering::Relaxed).is_null()
    }
}

impl Block {
    const fn new() -> Self {
        Self { slots: [const { Slot::new() }; BLOCK], next: OnceLock::new() }
    }
}

/// All blocks, first to last.
fn blocks() -> impl Iterator<Item = &'static Block> {
    std::iter::successors(Some(&FIRST), |block| block.next.get().map(|next| &**next))
}

/// A mapping in the list. It leaves the list on drop.
#[derive(Debug)]
pub(super) struct Guarded {
    slot: &'static Slot,
    /// Kept for the slot, which points to it.
    _broken: Arc<AtomicBool>,
}

impl Guarded {
    /// Enters a mapping. `broken` becomes true when a fault made its bytes zeroes.
    ///
    /// # Safety
    /// These are all bytes of whole mappings. The caller owns them, and unmaps them only after this is dropped. Zeroes
    /// may take their place at any time.
    pub(super) unsafe fn new(start: NonNull<u8>, len: usize, broken: Arc<AtomicBool>) -> Self {
        install();
        let _writer = WRITER.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = blocks().flat_map(|block| &block.slots).find(|slot| slot.is_free());
        let slot = slot.unwrap_or_else(|| {
            let last = blocks().last().unwrap_or(&FIRST);
            &last.next.get_or_init(|| Box::new(Block::new())).slots[0]
        });
        slot.set(start.as_ptr(), len, Arc::as_ptr(&broken).cast_mut());
        Self { slot, _broken: broken }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _writer = WRITER.lock().unwrap_or_else(PoisonError::into_inner);
        self.slot.set(ptr::null_mut(), 0, ptr::null_mut());
    }
}

/// Installs the handler, once.
fn install() {
    static INSTALLED: Once = Once::new();
    // Miri has no signals.
    if cfg!(miri) {
        return;
    }
    INSTALLED.call_once(|| {
        // SAFETY: all zeroes is a valid `sigaction`, and both calls get live structs. The handler has the signature
        // that SA_SIGINFO asks for, and does only what a handler may.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            // What was there before is known before the handler can need it.
            if libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut action) == 0 {
                let _ = BEFORE.set(action);
            }
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
            action = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as libc::sighandler_t;
            // On the thread's alternate stack where there is one, as the standard library's handler is.
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
        }
    });
}

/// The handler.
extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the location is this thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above. The interrupted code must find its error number unchanged. With SA_SIGINFO the kernel gives a
    // valid `info`, and SIGBUS of these codes has an address.
    unsafe {
        let before = *errno;
        let code = (*info).si_code;
        if !CODES.contains(&code) || !replace((*info).si_addr().addr()) {
            pass_on(signal, code, info, context);
        }
        *errno = before;
    }
}

/// Puts zeroes in place of the mapping that has the address. False if no guarded mapping has it.
fn replace(addr: usize) -> bool {
    let found = blocks().flat_map(|block| &block.slots).find_map(|slot| slot.with(addr));
    let Some((start, len, broken)) = found else { return false };
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    // SAFETY: a thread touches this mapping right now, so it is alive, and with it its slot and its flag. Whoever made
    // the slot agreed to zeroes.
    unsafe {
        let zeroes = libc::mmap(start.cast(), len, access, flags, -1, 0);
        if zeroes == libc::MAP_FAILED {
            return false;
        }
        (*broken).store(true, Ordering::Release);
    }
    true
}

/// Does what would have been done without this handler.
///
/// # Safety
/// In a handler of the signal, with what the kernel gave it.
unsafe fn pass_on(signal: libc::c_int, code: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let before = BEFORE.get();
    let handler = before.map_or(libc::SIG_DFL, |before| before.sa_sigaction);
    // A signal that was sent, or that tells of memory that nobody touched. All others come again when the handler
    // returns.
    let once = code <= 0 || code == libc::BUS_MCEERR_AO;
    match handler {
        libc::SIG_IGN if once => (),
        // The kernel does not let an access be ignored.
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: both functions may be called in a handler.
            unsafe {
                libc::signal(signal, libc::SIG_DFL);
                if once {
                    libc::raise(signal);
                }
            }
        }
        handler => {
            let takes_info = before.is_some_and(|before| before.sa_flags & libc::SA_SIGINFO != 0);
            // SAFETY: the address is that of a handler which was installed for this signal. The flag says which of the
            // two signatures it has.
            unsafe {
                if takes_info {
                    type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
                    std::mem::transmute::<libc::sighandler_t, Handler>(handler)(signal, info, context);
                } else {
                    std::mem::transmute::<libc::sighandler_t, extern "C" fn(libc::c_int)>(handler)(signal);
                }
            }
        }
    }
}

/// Touches a mapping that is not guarded, of a file without bytes.
#[cfg(test)]
pub(super) fn touch_unguarded(file: std::os::fd::OwnedFd) {
    use std::os::fd::AsRawFd;
    // SAFETY: the mapping is new. The access ends the process.
    unsafe {
        let start = libc::mmap(ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(start, libc::MAP_FAILED);
        std::hint::black_box(start.cast::<u8>().read_volatile());
    }
}
