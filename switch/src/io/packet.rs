//! Packet sockets on a `phy` port: promiscuous mode, and copies of group-addressed frames.
//!
//! A NIC that carries guests must accept their addresses. Promiscuous mode asked for through a packet socket is counted by the
//! kernel and ends with the socket, so a killed daemon leaves no netdev promiscuous.
//!
//! With steering `shared` the host's stack keeps group-addressed frames, because an XDP program cannot both pass and redirect
//! a packet; guests need them too (ARP, neighbour discovery, DHCP). So a packet socket takes a copy of each, on a thread of
//! its own ([`GroupTap`]), and puts it in front of the port's worker. The kernel has moved a VLAN tag out of the data by then
//! (`skb_vlan_untag` in `__netif_receive_skb_core`) and tells it beside the packet; it is put back.

use std::io::IoSliceMut;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
/// Bytes in front of a received frame that are left free for its VLAN tag.
const TAG_ROOM: usize = 4;
/// Destination and source address.
const ADDRESSES: usize = 12;

/// Keeps a netdev promiscuous while it lives.
#[derive(Debug)]
pub struct Promiscuous {
    _socket: OwnedFd,
}

impl Promiscuous {
    /// Makes the netdev promiscuous.
    pub fn new(ifindex: u32) -> Result<Self, Errno> {
        // Protocol 0: the socket receives nothing.
        let socket = packet_socket(0)?;
        let member = libc::packet_mreq {
            mr_ifindex: ifindex.cast_signed(),
            mr_type: libc::PACKET_MR_PROMISC as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set_option(&socket, libc::PACKET_ADD_MEMBERSHIP, &member)?;
        Ok(Self { _socket: socket })
    }
}

/// A socket that gets a copy of each group-addressed frame that comes in from a netdev.
#[derive(Debug)]
pub struct GroupSocket {
    socket: OwnedFd,
}

impl GroupSocket {
    /// Opens it on a netdev. Must be open before the frames come; it blocks in [`GroupSocket::receive`] only.
    pub fn open(ifindex: u32) -> Result<Self, Errno> {
        let socket = packet_socket(0)?;
        set_option(&socket, PACKET_IGNORE_OUTGOING, &1i32)?;
        set_option(&socket, libc::PACKET_AUXDATA, &1i32)?;
        // Accept what has the group bit in its first byte: ldb [0]; jset #1, keep; ret 0; keep: ret all.
        let mut program = [
            libc::sock_filter { code: 0x30, jt: 0, jf: 0, k: 0 },
            libc::sock_filter { code: 0x45, jt: 1, jf: 0, k: 1 },
            libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 },
            libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: u32::MAX },
        ];
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: `filter` points to a live program of the length given, which the kernel copies.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                std::ptr::from_ref(&filter).cast(),
                size_of::<libc::sock_fprog>() as libc::socklen_t,
            )
        };
        Errno::result(result)?;
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: protocol,
            sll_ifindex: ifindex.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: `address` is a `sockaddr_ll` of the size given, which the kernel only reads.
        let result = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                std::ptr::from_ref(&address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        Errno::result(result)?;
        Ok(Self { socket })
    }

    /// The descriptor, to wait on.
    pub fn fd(&self) -> &OwnedFd {
        &self.socket
    }

    /// Takes a frame that has come, with its outer VLAN tag where it was on the wire. `EAGAIN` if there is none.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<&'a [u8], Errno> {
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

impl AsFd for GroupSocket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn packet_socket(protocol: u16) -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers; a non-negative result is a descriptor that nobody else owns.
    let fd = unsafe {
        libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::c_int::from(protocol.to_be()))
    };
    // SAFETY: see above.
    Errno::result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set_option<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> Result<(), Errno> {
    // SAFETY: `value` is a live reference to a plain C value of `size_of::<T>()` bytes, which the kernel only reads.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}
