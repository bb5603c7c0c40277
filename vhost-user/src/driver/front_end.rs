//! Messages of a front end, for tests and the bench.
#![allow(clippy::missing_panics_doc, reason = "it panics where a back end breaks the protocol")]

use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::message::features as bit;
use crate::message::{Code, RegionAddress};
use crate::ring::RingSetup;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// A record of requests in flight: its layout as it came, and its file.
#[derive(Debug)]
pub struct Record {
    layout: Vec<u8>,
    file: OwnedFd,
}

/// A connection to a back end. Each request that has an answer is waited for.
#[derive(Debug)]
pub struct FrontEnd {
    socket: UnixStream,
    protocol: u64,
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

impl FrontEnd {
    /// Connects. An answer that takes longer than 30 seconds is an error.
    ///
    /// # Errors
    /// Nobody is there.
    pub fn connect(path: &Path) -> io::Result<Self> {
        Self::over(UnixStream::connect(path)?)
    }

    /// The same over a connection that a back end has made.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn over(socket: UnixStream) -> io::Result<Self> {
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { socket, protocol: 0 })
    }

    fn send(&mut self, code: Code, flags: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let header = [code.number(), 1 | flags, payload.len() as u32].map(u32::to_ne_bytes).concat();
        let fds: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if fds.is_empty() { &rights[..0] } else { &rights[..] };
        let parts = [IoSlice::new(&header), IoSlice::new(payload)];
        sendmsg::<()>(self.socket.as_raw_fd(), &parts, rights, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    fn receive(&mut self, code: Code) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
        let mut header = [0; 12];
        let mut control = nix::cmsg_space!([i32; 1]);
        let (count, fd) = {
            let mut parts = [io::IoSliceMut::new(&mut header)];
            let got =
                recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
            let mut fd = None;
            for message in got.cmsgs()? {
                if let ControlMessageOwned::ScmRights(fds) = message {
                    fd = fds.first().copied();
                }
            }
            (got.bytes, fd)
        };
        #[allow(unsafe_code, reason = "descriptors come as numbers")]
        // SAFETY: the kernel has just made it for this process.
        let fd = fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.socket.read_exact(&mut header[count..])?;
        let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        assert_eq!((word(0), word(4) & 7), (code.number(), 5), "a reply to {code}");
        let mut payload = vec![0; word(8) as usize];
        self.socket.read_exact(&mut payload)?;
        Ok((payload, fd))
    }

    /// Tells something, and waits for the acknowledgement if there are some.
    ///
    /// # Errors
    /// The back end refuses it, or hangs up.
    pub fn tell(&mut self, code: Code, payload: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let acknowledged = self.protocol & bit::REPLY_ACK != 0;
        self.send(code, if acknowledged { 8 } else { 0 }, payload, fds)?;
        if acknowledged {
            let (payload, _) = self.receive(code)?;
            if payload[..8] != [0; 8] {
                return Err(io::Error::other(format!("{code} is refused")));
            }
        }
        Ok(())
    }

    /// Asks for a number.
    ///
    /// # Errors
    /// The back end hangs up.
    pub fn ask(&mut self, code: Code, payload: &[u8]) -> io::Result<u64> {
        self.send(code, 0, payload, &[])?;
        let (payload, _) = self.receive(code)?;
        Ok(u64::from_ne_bytes(payload[..8].try_into().expect("eight bytes")))
    }

    /// Owner, those of these protocol features that are offered, and the channel for the back end's requests if that is
    /// one of them.
    ///
    /// # Errors
    /// The back end refuses something, or hangs up.
    pub fn begin(&mut self, protocol: u64) -> io::Result<Option<UnixStream>> {
        let protocol = self.ask(Code::GetProtocolFeatures, &[])? & protocol;
        self.send(Code::SetProtocolFeatures, 0, &protocol.to_ne_bytes(), &[])?;
        self.protocol = protocol;
        self.tell(Code::SetOwner, &[], &[])?;
        if protocol & bit::BACKEND_REQ == 0 {
            return Ok(None);
        }
        let (ours, theirs) = UnixStream::pair()?;
        self.tell(Code::SetBackendReqFd, &[], &[theirs.as_fd()])?;
        Ok(Some(ours))
    }

    /// Gives the record that was kept, or asks for one, if that feature is used.
    ///
    /// # Errors
    /// The back end refuses it, or hangs up.
    pub fn record(&mut self, kept: Option<Record>, queues: u16, size: u16) -> io::Result<Option<Record>> {
        if self.protocol & bit::INFLIGHT_SHMFD == 0 {
            return Ok(kept);
        }
        let record = match kept {
            Some(record) => record,
            None => {
                let mut question = words(&[0, 0]);
                question.extend([queues, size].map(u16::to_ne_bytes).concat());
                question.extend([0; 4]);
                self.send(Code::GetInflightFd, 0, &question, &[])?;
                let (layout, file) = self.receive(Code::GetInflightFd)?;
                Record { layout, file: file.ok_or_else(|| io::Error::other("no record"))? }
            }
        };
        self.tell(Code::SetInflightFd, &record.layout, &[record.file.as_fd()])?;
        Ok(Some(record))
    }

    /// Tells the only region of memory.
    ///
    /// # Errors
    /// The back end refuses it, or hangs up.
    pub fn memory(&mut self, region: &RegionAddress, file: &OwnedFd) -> io::Result<()> {
        let mut table = words(&[1]);
        table.extend(words(&[region.guest_addr, region.size, region.user_addr, region.mmap_offset]));
        self.tell(Code::SetMemTable, &table, &[file.as_fd()])
    }

    /// Tells another region of memory.
    ///
    /// # Errors
    /// The back end refuses it, or hangs up.
    pub fn add_memory(&mut self, region: &RegionAddress, file: &OwnedFd) -> io::Result<()> {
        let region = words(&[0, region.guest_addr, region.size, region.user_addr, region.mmap_offset]);
        self.tell(Code::AddMemReg, &region, &[file.as_fd()])
    }

    /// Sets up a ring and starts it.
    ///
    /// # Errors
    /// The back end refuses it, or hangs up.
    pub fn start_ring(
        &mut self,
        number: u32,
        setup: &RingSetup,
        base: u32,
        kick: BorrowedFd<'_>,
        call: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let pair = |value: u32| [number, value].map(u32::to_ne_bytes).concat();
        self.tell(Code::SetVringNum, &pair(setup.size), &[])?;
        self.tell(Code::SetVringBase, &pair(base), &[])?;
        let mut addresses = pair(0);
        addresses.extend(words(&[setup.descriptors, setup.used, setup.available, 0]));
        self.tell(Code::SetVringAddr, &addresses, &[])?;
        self.tell(Code::SetVringKick, &words(&[number.into()]), &[kick])?;
        self.tell(Code::SetVringCall, &words(&[number.into()]), &[call])?;
        self.tell(Code::SetVringEnable, &pair(1), &[])
    }

    /// Stops a ring. Returns its position.
    ///
    /// # Errors
    /// The back end refuses it, or hangs up.
    pub fn stop_ring(&mut self, number: u32) -> io::Result<u32> {
        let state = self.ask(Code::GetVringBase, &[number, 0].map(u32::to_ne_bytes).concat())?;
        Ok((state >> 32) as u32)
    }

    /// The first 60 bytes of the configuration space.
    ///
    /// # Errors
    /// The back end refuses it, or hangs up.
    pub fn config(&mut self) -> io::Result<Vec<u8>> {
        let mut question = [0_u32, 60, 0].map(u32::to_ne_bytes).concat();
        question.extend([0; 60]);
        self.send(Code::GetConfig, 0, &question, &[])?;
        let (payload, _) = self.receive(Code::GetConfig)?;
        payload.get(12..).map(<[u8]>::to_vec).ok_or_else(|| io::Error::other("no configuration space"))
    }

    /// Writes into the configuration space.
    ///
    /// # Errors
    /// The back end refuses it, or hangs up.
    pub fn set_config(&mut self, offset: u32, data: &[u8]) -> io::Result<()> {
        let mut payload = [offset, data.len() as u32, 0].map(u32::to_ne_bytes).concat();
        payload.extend_from_slice(data);
        self.tell(Code::SetConfig, &payload, &[])
    }
}
