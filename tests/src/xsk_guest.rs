//! A guest as QEMU's af-xdp netdev is one: an AF_XDP socket on the guest's end of a port, by xsk-rs, which is not what the
//! switch itself is built on. Rings of 2,048 entries, frames of 4,096 bytes, need-wakeup.

use std::ffi::CString;
use std::io::Write;
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::XskMap;
use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

use crate::daemon::Guest;
use crate::gensink::attach;
use crate::packet::Frame;

const RING: u32 = 2048;
const FRAMES: u32 = 2 * RING;

/// The guest.
#[derive(Debug)]
pub struct XskGuest {
    // The program goes first, then the socket, then its memory.
    _program: Ebpf,
    tx: TxQueue,
    rx: RxQueue,
    fill: FillQueue,
    completion: CompQueue,
    free: Vec<FrameDesc>,
    umem: Umem,
}

impl XskGuest {
    /// Opens it on queue 0 of a guest's netdev.
    pub fn open(guest: &Guest) -> Self {
        let size = QueueSize::new(RING).expect("a power of two");
        let config = UmemConfig::builder().fill_queue_size(size).comp_queue_size(size).build().expect("a valid layout");
        // The UMEM opens the socket that is bound later, and a socket belongs to the namespace that it was opened in.
        let (umem, mut frames) = guest
            .ns
            .run(|| Umem::new(config, NonZeroU32::new(FRAMES).expect("some"), false).expect("memory for a guest"));
        let socket = SocketConfig::builder()
            .rx_queue_size(size)
            .tx_queue_size(size)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(BindFlags::XDP_USE_NEED_WAKEUP)
            .build();
        let interface = Interface::new(CString::new(guest.ifname.as_str()).expect("no zero byte"));
        let opened = guest.ns.run(|| {
            // SAFETY: this is the one socket on this UMEM and queue.
            unsafe { Socket::new(socket, &umem, &interface, 0) }.expect("an AF_XDP socket on the guest's end")
        });
        let (tx, rx, rings) = opened;
        let (mut fill, completion) = rings.expect("rings of the first socket on a UMEM");
        let free = frames.split_off(RING as usize);
        // SAFETY: these frames are of this UMEM and nowhere else.
        unsafe { fill.produce(&frames) };
        let mut program = attach(&guest.ns, &guest.ifname, "xsk_guest", "to_socket");
        let mut map: XskMap<_> = program.map_mut("SOCKETS").expect("the map").try_into().expect("an XSKMAP");
        map.set(0, rx.fd().as_raw_fd(), 0).expect("the map takes the socket");
        Self { _program: program, tx, rx, fill, completion, free, umem }
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: &Frame) {
        let mut done = [FrameDesc::default(); 64];
        // SAFETY: the completion ring gives back frames of this UMEM that were sent.
        let count = unsafe { self.completion.consume(&mut done) };
        self.free.extend_from_slice(&done[..count]);
        let mut desc = self.free.pop().expect("a free frame");
        // SAFETY: the frame was free: nobody else reads or writes it.
        unsafe {
            self.umem.data_mut(&mut desc).cursor().write_all(&frame.0).expect("a frame holds it");
            assert_eq!(self.tx.produce_and_wakeup(&[desc]).expect("the kernel takes it"), 1);
        }
    }

    /// The next frame, or `None` after `timeout`.
    pub fn recv(&mut self, timeout: Duration) -> Option<Frame> {
        let mut desc = [FrameDesc::default()];
        // SAFETY: the received frame is read before it goes back to the fill ring, and is of this UMEM.
        unsafe {
            let wait = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
            if self.rx.poll_and_consume(&mut desc, wait).expect("polling a socket") == 0 {
                return None;
            }
            let frame = Frame(self.umem.data(&desc[0]).contents().to_vec());
            self.fill.produce(&desc);
            Some(frame)
        }
    }
}
