//! `xsk-guest IFNAME`: a guest like QEMU's af-xdp netdev, an AF_XDP socket on the guest's end of a port.
//!
//! It prints `ready`, then reads commands from standard input, one a line. It answers each with one line:
//!
//! - `send HEX` sends a frame. The answer is `ok`.
//! - `recv MILLISECONDS` answers the next frame in hex digits, or `none`.
//!
//! It ends with its input.

use std::io::{BufRead, Write, stdin};

use anyhow::{Context, bail, ensure};
use xsk::{Port, READY, RING};
use xsk_rs::config::BindFlags;
use xsk_rs::{FrameDesc, Umem};

/// Socket, memory, and frames that the kernel does not have. The socket must drop before its memory.
struct Guest {
    port: Port,
    free: Vec<FrameDesc>,
    umem: Umem,
}

impl Guest {
    fn open(ifname: &str) -> anyhow::Result<Self> {
        let (umem, mut frames) = xsk::umem(2 * RING)?;
        let free = frames.split_off(RING as usize);
        // SAFETY: the frames are of this UMEM and nowhere else, and the process has this one socket.
        let port = unsafe { Port::open(ifname, &umem, &frames, BindFlags::empty()) }?;
        Ok(Self { port, free, umem })
    }

    fn send(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        let mut sent = [FrameDesc::default(); 64];
        // SAFETY: the completion ring gives back sent frames of this UMEM.
        let count = unsafe { self.port.completion.consume(&mut sent) };
        self.free.extend_from_slice(&sent[..count]);
        let mut desc = self.free.pop().context("no free frame")?;
        // SAFETY: the frame was free, so nobody else reads or writes it.
        unsafe {
            self.umem.data_mut(&mut desc).cursor().write_all(frame)?;
            ensure!(self.port.tx.produce_and_wakeup(&[desc])? == 1, "the transmit ring is full");
        }
        Ok(())
    }

    /// The next frame, unless none comes within `timeout` milliseconds.
    fn recv(&mut self, timeout: i32) -> anyhow::Result<Option<Vec<u8>>> {
        let mut desc = [FrameDesc::default()];
        // SAFETY: the received frame is of this UMEM. It is read before it goes back to the fill ring.
        unsafe {
            if self.port.rx.poll_and_consume(&mut desc, timeout)? == 0 {
                return Ok(None);
            }
            let frame = self.umem.data(&desc[0]).contents().to_vec();
            self.port.fill.produce(&desc);
            Ok(Some(frame))
        }
    }

    fn answer(&mut self, line: &str) -> anyhow::Result<String> {
        match line.split_once(' ') {
            Some(("send", hex)) => self.send(&bytes(hex)?).map(|()| "ok".to_owned()),
            Some(("recv", timeout)) => {
                let frame = self.recv(timeout.parse()?)?;
                Ok(frame.map_or_else(|| "none".to_owned(), |frame| hex(&frame)))
            }
            _ => bail!("no command: {line}"),
        }
    }
}

fn bytes(hex: &str) -> anyhow::Result<Vec<u8>> {
    let pair = |pair: &[u8]| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
    hex.as_bytes().chunks(2).map(pair).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn main() -> anyhow::Result<()> {
    let ifname = std::env::args().nth(1).context("usage: xsk-guest IFNAME")?;
    let mut guest = Guest::open(&ifname)?;
    println!("{READY}");
    for line in stdin().lock().lines() {
        println!("{}", guest.answer(&line?)?);
    }
    Ok(())
}
