//! AF_XDP by its system calls: a UMEM, its four rings, and one socket. The socket is given as a descriptor, or opened
//! here.
//!
//! The double uses none of the switch's AF_XDP code, so that one checks the other. ABI: `include/uapi/linux/if_xdp.h`.

use ::tests::narrow;
use std::ffi::{CStr, CString, c_int};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Entries of each ring: libxdp's default, which QEMU keeps.
pub const RING: u32 = 2048;
/// Bytes of a frame: also libxdp's default.
pub const FRAME: usize = 4096;
/// Frames of a UMEM: enough for four full rings.
pub const FRAMES: u64 = 4 * RING as u64;

const FILL_OFFSET: libc::off_t = 0x1_0000_0000;
const COMPLETION_OFFSET: libc::off_t = 0x1_8000_0000;
const RX_OFFSET: libc::off_t = 0;
const TX_OFFSET: libc::off_t = 0x8000_0000;

/// The C library's text for an error, without Rust's number behind it.
pub fn text(error: &io::Error) -> String {
    let Some(code) = error.raw_os_error() else { return error.to_string() };
    // SAFETY: the program has one thread, and the text is copied before the next call.
    unsafe { CStr::from_ptr(libc::strerror(code)) }.to_string_lossy().into_owned()
}

/// Index of a netdev in the process's network namespace.
pub fn ifindex(ifname: &str) -> io::Result<u32> {
    let name = CString::new(ifname)?;
    // SAFETY: the C string outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// Memory from `mmap`, unmapped on drop.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize, flags: c_int, fd: c_int, offset: libc::off_t) -> io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel picks the address, so the call replaces no memory of this process.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is our mapping, and all pointers into it go with it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// A ring shared with the kernel, with integers as entries. One type serves both directions. Each end uses the methods
/// of its side.
#[derive(Debug)]
pub struct Ring<T> {
    map: Mapping,
    layout: libc::xdp_ring_offset,
    _entry: PhantomData<T>,
}

impl<T: Copy> Ring<T> {
    fn new(fd: c_int, layout: libc::xdp_ring_offset, offset: libc::off_t) -> io::Result<Self> {
        let len = narrow::<usize>(layout.desc) + RING as usize * size_of::<T>();
        let map = Mapping::new(len, libc::MAP_SHARED | libc::MAP_POPULATE, fd, offset)?;
        Ok(Self { map, layout, _entry: PhantomData })
    }

    fn word(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: the kernel's layout has an aligned 32-bit word there, inside the mapping that `self` keeps.
        unsafe { &*self.map.start.as_ptr().add(narrow(offset)).cast::<AtomicU32>() }
    }

    fn entry(&self, index: u32) -> *mut T {
        let at = narrow::<usize>(self.layout.desc) + (index % RING) as usize * size_of::<T>();
        // SAFETY: an index below the ring's size is inside the mapping.
        unsafe { self.map.start.as_ptr().add(at).cast() }
    }

    fn producer(&self) -> u32 {
        self.word(self.layout.producer).load(Ordering::Acquire)
    }

    fn consumer(&self) -> u32 {
        self.word(self.layout.consumer).load(Ordering::Acquire)
    }

    /// Entries that a consumer could take.
    pub fn ready(&self) -> u32 {
        self.producer().wrapping_sub(self.consumer())
    }

    /// Entries that a producer could add.
    pub fn free(&self) -> u32 {
        RING - self.ready().min(RING)
    }

    /// Adds all entries, or none if there is too little room.
    pub fn produce(&self, entries: &[T]) -> bool {
        if entries.len() > self.free() as usize {
            return false;
        }
        let mut index = self.producer();
        for entry in entries {
            // SAFETY: the entry is free. The kernel does not read it until the producer index says so.
            unsafe { self.entry(index).write(*entry) };
            index = index.wrapping_add(1);
        }
        self.word(self.layout.producer).store(index, Ordering::Release);
        true
    }

    /// The entry `at` places behind the first that is ready.
    pub fn peek(&self, at: u32) -> T {
        assert!(at < self.ready(), "only what is ready is looked at");
        // SAFETY: the kernel has written the entry and leaves it alone until it is released.
        unsafe { self.entry(self.consumer().wrapping_add(at)).read() }
    }

    /// Gives back the first `count` ready entries.
    pub fn release(&self, count: u32) {
        self.word(self.layout.consumer).store(self.consumer().wrapping_add(count), Ordering::Release);
    }

    /// Whether the kernel wants a call.
    pub fn needs_wakeup(&self) -> bool {
        self.word(self.layout.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// A UMEM with its socket, and that socket's fill and completion rings. Fields drop in this order: rings, socket,
/// memory.
#[derive(Debug)]
pub struct Umem {
    /// Empty frames for the kernel.
    pub fill: Ring<u64>,
    /// Sent frames.
    pub completion: Ring<u64>,
    fd: OwnedFd,
    memory: Mapping,
}

fn set<T>(fd: c_int, option: c_int, value: &T) -> io::Result<()> {
    let (value, len) = (std::ptr::from_ref(value).cast(), narrow(size_of::<T>()));
    // SAFETY: the value is live and has the given size. The kernel only reads it.
    match unsafe { libc::setsockopt(fd, libc::SOL_XDP, option, value, len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn offsets(fd: c_int) -> io::Result<libc::xdp_mmap_offsets> {
    // SAFETY: all zero is a valid value of a struct of integers.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
    let mut len = narrow(size_of_val(&offsets));
    let value = (&raw mut offsets).cast();
    // SAFETY: the kernel writes at most `len` bytes, which is the size of the struct.
    match unsafe { libc::getsockopt(fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, value, &raw mut len) } {
        0 => Ok(offsets),
        _ => Err(io::Error::last_os_error()),
    }
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers. The descriptor, if there is one, belongs to nobody else.
    unsafe {
        match libc::socket(libc::AF_XDP, libc::SOCK_RAW, 0) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

impl Umem {
    /// Makes the memory resident, then registers it on `fd`. Without `fd` it opens a socket, which needs privileges.
    pub fn new(fd: Option<OwnedFd>) -> io::Result<Self> {
        let len = narrow::<usize>(FRAMES) * FRAME;
        let memory = Mapping::new(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)?;
        // SAFETY: these `len` bytes were mapped above.
        unsafe { memory.start.as_ptr().write_bytes(0, len) };
        let owned = fd.map_or_else(socket, Ok)?;
        let fd = owned.as_raw_fd();
        let registration = libc::xdp_umem_reg {
            addr: memory.start.as_ptr().addr() as u64,
            len: len as u64,
            chunk_size: narrow(FRAME),
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        set(fd, libc::XDP_UMEM_REG, &registration)?;
        set(fd, libc::XDP_UMEM_FILL_RING, &RING)?;
        set(fd, libc::XDP_UMEM_COMPLETION_RING, &RING)?;
        let layout = offsets(fd)?;
        let fill = Ring::new(fd, layout.fr, FILL_OFFSET)?;
        let completion = Ring::new(fd, layout.cr, COMPLETION_OFFSET)?;
        Ok(Self { fill, completion, fd: owned, memory })
    }

    /// The socket's descriptor.
    pub fn fd(&self) -> c_int {
        self.fd.as_raw_fd()
    }

    /// Copies `len` bytes at `addr` out.
    pub fn read(&self, addr: u64, len: u32) -> Vec<u8> {
        let (addr, len) = (narrow::<usize>(addr), len as usize);
        assert!(addr + len <= self.memory.len, "the kernel tells addresses inside the UMEM");
        // SAFETY: the bytes lie inside the mapping. The kernel does not write to a frame that it has given.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr().add(addr), len) }.to_vec()
    }

    /// Copies `data` to `addr`.
    pub fn write(&self, addr: u64, data: &[u8]) {
        assert!(narrow::<usize>(addr) + data.len() <= self.memory.len && data.len() <= FRAME, "a frame holds it");
        // SAFETY: the bytes lie inside the mapping, and the kernel does not have the frame.
        unsafe { self.memory.start.as_ptr().add(narrow(addr)).copy_from_nonoverlapping(data.as_ptr(), data.len()) };
    }
}

/// Receive and transmit ring.
#[derive(Debug)]
pub struct Rings {
    /// Received frames.
    pub rx: Ring<libc::xdp_desc>,
    /// Frames to send.
    pub tx: Ring<libc::xdp_desc>,
}

impl Rings {
    /// Makes the rings and binds the socket. `attempt` counts from 0. A later attempt finds the rings made, because the
    /// kernel remembers them.
    pub fn bind(umem: &Umem, ifname: &str, queue: u32, flags: u16, attempt: u32) -> io::Result<Self> {
        let (fd, ifindex) = (umem.fd(), ifindex(ifname)?);
        if attempt == 0 {
            set(fd, libc::XDP_RX_RING, &RING)?;
            set(fd, libc::XDP_TX_RING, &RING)?;
        }
        let layout = offsets(fd)?;
        let rx = Ring::new(fd, layout.rx, RX_OFFSET)?;
        let tx = Ring::new(fd, layout.tx, TX_OFFSET)?;
        let address = libc::sockaddr_xdp {
            sxdp_family: narrow(libc::AF_XDP),
            sxdp_flags: flags,
            sxdp_ifindex: ifindex,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        let len = narrow(size_of_val(&address));
        // SAFETY: a `sockaddr_xdp` of the given size.
        match unsafe { libc::bind(fd, (&raw const address).cast(), len) } {
            0 => Ok(Self { rx, tx }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// A pinned XSKMAP, for `map-path`. The entry is deleted on drop, whatever it holds by then.
#[derive(Debug)]
pub struct MapSlot {
    map: OwnedFd,
    index: u32,
    path: String,
}

#[repr(C)]
struct ObjectAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

const BPF_MAP_UPDATE_ELEM: c_int = 2;
const BPF_MAP_DELETE_ELEM: c_int = 3;
const BPF_OBJ_GET: c_int = 7;

fn bpf<T>(command: c_int, attr: &T) -> io::Result<c_int> {
    // SAFETY: `attr` is the part of `union bpf_attr` that the command reads. Its pointers point to what outlives the
    // call.
    match unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) } {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(narrow(result)),
    }
}

impl MapSlot {
    /// Puts socket `fd` into the map pinned at `path`.
    pub fn fill(path: &str, index: u32, fd: c_int) -> io::Result<Self> {
        let pathname = CString::new(path)?;
        let attr = ObjectAttr { pathname: pathname.as_ptr().addr() as u64, bpf_fd: 0, file_flags: 0 };
        let map = bpf(BPF_OBJ_GET, &attr)?;
        // SAFETY: the descriptor is new and belongs to nobody else.
        let map = unsafe { OwnedFd::from_raw_fd(map) };
        let attr = Self::attr(&map, &index, &fd);
        bpf(BPF_MAP_UPDATE_ELEM, &attr)?;
        Ok(Self { map, index, path: path.to_owned() })
    }

    fn attr(map: &OwnedFd, key: &u32, value: &c_int) -> ElementAttr {
        let map_fd = map.as_raw_fd().cast_unsigned();
        let (key, value) = (std::ptr::from_ref(key).addr() as u64, std::ptr::from_ref(value).addr() as u64);
        ElementAttr { map_fd, pad: 0, key, value, flags: 0 }
    }
}

impl Drop for MapSlot {
    fn drop(&mut self) {
        // The kernel refuses a deletion with a value.
        let attr = ElementAttr { value: 0, ..Self::attr(&self.map, &self.index, &0) };
        if bpf(BPF_MAP_DELETE_ELEM, &attr).is_err() {
            eprintln!("af-xdp: unable to remove AF_XDP socket from map {}", self.path);
        }
    }
}
