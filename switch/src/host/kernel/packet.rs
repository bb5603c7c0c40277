//! Packet sockets on a `phy` port: promiscuous mode, and copies of group-addressed frames.
//!
//! A NIC that carries guests must accept their addresses. Promiscuous mode is asked for through a packet socket. The
//! kernel ends it with the socket, so a killed daemon leaves no netdev promiscuous.
//!
//! With steering `shared` the host's stack gets group-addressed frames, because an XDP program can't both pass and
//! redirect a packet. Guests need them too (ARP, neighbour discovery, DHCP). So a packet socket copies each of them, on
//! a thread of its own (`GroupTap`), to the port's worker.
//!
//! By then the kernel has moved a VLAN tag out of the data (`skb_vlan_untag` in `__netif_receive_skb_core`). It reports
//! the tag beside the packet, and the tag is put back here.
#![allow(unsafe_code, reason = "system calls")]

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg, send, socket,
};

use crate::host::{FrameSocket, GroupFrames, PacketSocket};
use crate::io::sys::{bind_to, set_number, set_option};

/// A number as addresses, memberships and protocols of packet sockets have it. All fit into 16 bits.
#[expect(clippy::cast_possible_truncation, reason = "small numbers of the kernel's ABI")]
mod abi {
    pub(super) const AF_PACKET: u16 = libc::AF_PACKET as u16;
    pub(super) const ETH_P_ALL: u16 = libc::ETH_P_ALL as u16;
    pub(super) const PACKET_MR_PROMISC: u16 = libc::PACKET_MR_PROMISC as u16;
}

const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
/// Bytes kept free in front of a received frame, for its VLAN tag.
const TAG_ROOM: usize = 4;
/// Bytes of the destination and source address.
const ADDRESSES: usize = 12;

/// Keeps a netdev promiscuous while it lives.
#[derive(Debug)]
pub struct Promiscuous {
    _socket: OwnedFd,
}

impl Promiscuous {
    /// Makes the netdev promiscuous.
    pub fn new(ifindex: u32) -> Result<Self, Errno> {
        let socket = packet_socket()?;
        let member = libc::packet_mreq {
            mr_ifindex: ifindex.cast_signed(),
            mr_type: abi::PACKET_MR_PROMISC,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        // SAFETY: the option takes this struct. It contains numbers only.
        unsafe { set_option(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &member)? };
        Ok(Self { _socket: socket })
    }
}

impl PacketSocket for Promiscuous {}

/// A socket that gets a copy of every group-addressed frame from a netdev.
#[derive(Debug)]
pub struct GroupSocket {
    socket: OwnedFd,
}

impl GroupSocket {
    /// Opens the socket on a netdev. It gets only frames that come after that.
    pub fn open(ifindex: u32) -> Result<Self, Errno> {
        let socket = packet_socket()?;
        set_number(socket.as_fd(), libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
        set_number(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
        // Classic BPF: accept frames with the group bit in the first byte. ldb [0]; jset #1, keep; ret 0; keep: ret
        // all.
        const STEPS: u16 = 4;
        let mut program: [_; STEPS as usize] = [
            libc::sock_filter { code: 0x30, jt: 0, jf: 0, k: 0 },
            libc::sock_filter { code: 0x45, jt: 1, jf: 0, k: 1 },
            libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 },
            libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: u32::MAX },
        ];
        let filter = libc::sock_fprog { len: STEPS, filter: program.as_mut_ptr() };
        // SAFETY: the option takes this struct. It points to a live program of the given length, and the kernel copies
        // the program.
        unsafe { set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)? };
        bind(&socket, ifindex, abi::ETH_P_ALL)?;
        Ok(Self { socket })
    }
}

impl GroupFrames for GroupSocket {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<&'a [u8], Errno> {
        let (len, aux) = {
            let mut parts = [IoSliceMut::new(&mut buffer[TAG_ROOM..])];
            let mut control = nix::cmsg_space!(libc::tpacket_auxdata);
            let message =
                recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
            let aux = message.cmsgs()?.find_map(|message| match message {
                ControlMessageOwned::Unknown(raw)
                    if raw.cmsg_header.cmsg_level == libc::SOL_PACKET
                        && raw.cmsg_header.cmsg_type == libc::PACKET_AUXDATA =>
                {
                    // tpacket_auxdata: status, len, snaplen (u32 each), mac, net, vlan_tci, vlan_tpid (u16 each).
                    let bytes = raw.data_bytes;
                    let word = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
                    let status = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
                    (status & libc::TP_STATUS_VLAN_VALID != 0).then_some(())?;
                    let tpid = if status & libc::TP_STATUS_VLAN_TPID_VALID != 0 { word(18)? } else { 0x8100 };
                    Some((tpid, word(16)?))
                }
                _ => None,
            });
            (message.bytes, aux)
        };
        let Some((tpid, tci)) = aux.filter(|_| len >= ADDRESSES) else {
            return Ok(&buffer[TAG_ROOM..TAG_ROOM + len]);
        };
        buffer.copy_within(TAG_ROOM..TAG_ROOM + ADDRESSES, 0);
        buffer[ADDRESSES..ADDRESSES + 2].copy_from_slice(&tpid.to_be_bytes());
        buffer[ADDRESSES + 2..ADDRESSES + 4].copy_from_slice(&tci.to_be_bytes());
        Ok(&buffer[..TAG_ROOM + len])
    }
}

/// A socket that sends frames, and receives none.
#[derive(Debug)]
pub struct SendSocket {
    socket: OwnedFd,
}

impl SendSocket {
    /// Opens it on a netdev. Its frames go before what waits in the netdev's queueing discipline.
    pub fn open(ifindex: u32) -> Result<Self, Errno> {
        /// `TC_PRIO_CONTROL`.
        const CONTROL: u32 = 7;
        let socket = packet_socket()?;
        set_number(socket.as_fd(), libc::SOL_SOCKET, libc::SO_PRIORITY, CONTROL)?;
        bind(&socket, ifindex, 0)?;
        Ok(Self { socket })
    }
}

impl FrameSocket for SendSocket {
    fn send(&self, frame: &[u8]) -> Result<(), Errno> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT).map(drop)
    }
}

/// A packet socket without a protocol. It receives nothing before it is bound to one.
fn packet_socket() -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None::<SockProtocol>)
}

/// Binds a packet socket to a netdev. It gets frames of that protocol, and with protocol 0 none.
fn bind(socket: &OwnedFd, ifindex: u32, protocol: u16) -> Result<(), Errno> {
    let address = libc::sockaddr_ll {
        sll_family: abi::AF_PACKET,
        sll_protocol: protocol.to_be(),
        sll_ifindex: ifindex.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: this is an address of the socket's family, and consists of numbers.
    unsafe { bind_to(socket.as_fd(), &address) }
}
