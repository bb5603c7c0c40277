//! Admits clients that send the path of the socket as `:authority`.
//!
//! HTTP/2 clients name the server in `:authority`, but a Unix socket has no name. gRPC's C core (Python, Ruby, C++)
//! sends the percent-encoded path since version 1.57, and grpc-java sends the path itself. Neither is an authority by
//! RFC 3986, and the `h2` crate resets such streams (<https://github.com/hyperium/h2/pull/487>, not merged).
//!
//! So the client's bytes pass through here. In header blocks (RFC 7541) each octet that is illegal in an authority
//! becomes `-`. No length changes, so the compression tables of both ends stay equal. Everything else passes unchanged.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// Length of the client's connection preface in bytes (RFC 9113, section 3.4).
const PREFACE: usize = 24;
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
/// Longest frame that a client may send. It is the default of HTTP/2 (RFC 9113, section 6.5.2), and the server leaves
/// it.
const MAX_FRAME: usize = 16_384;
/// Index of `:authority` in HPACK's static table.
const AUTHORITY: usize = 1;

/// Position in the client's bytes.
#[derive(Clone, Copy, Debug)]
enum At {
    /// At a frame, or within its header, which is held back.
    Header,
    /// Within bytes that pass unchanged. The number of those left.
    Passing(usize),
    /// Within a frame of header fields, which is held back. The number of bytes left.
    Holding(usize),
}

/// Takes bytes, and returns them rewritten as soon as possible.
#[derive(Debug)]
struct Rewriter {
    at: At,
    held: Vec<u8>,
}

impl Default for Rewriter {
    fn default() -> Self {
        Self { at: At::Passing(PREFACE), held: Vec::new() }
    }
}

impl Rewriter {
    fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let (wanted, hold) = match self.at {
                At::Header => (FRAME_HEADER - self.held.len(), true),
                At::Passing(left) => (left, false),
                At::Holding(left) => (left, true),
            };
            let (now, rest) = bytes.split_at(wanted.min(bytes.len()));
            if hold { &mut self.held } else { &mut *out }.extend_from_slice(now);
            bytes = rest;
            let left = wanted - now.len();
            self.at = match self.at {
                At::Header if left > 0 => At::Header,
                At::Header => self.begin(out),
                At::Passing(_) if left == 0 => At::Header,
                At::Passing(_) => At::Passing(left),
                At::Holding(_) if left == 0 => {
                    rewrite(&mut self.held);
                    out.append(&mut self.held);
                    At::Header
                }
                At::Holding(_) => At::Holding(left),
            };
        }
    }

    /// Handles a complete frame header.
    fn begin(&mut self, out: &mut Vec<u8>) -> At {
        let len = usize::from(self.held[0]) << 16 | usize::from(self.held[1]) << 8 | usize::from(self.held[2]);
        if self.held[3] == HEADERS && (1..=MAX_FRAME).contains(&len) {
            return At::Holding(len);
        }
        out.append(&mut self.held);
        if len == 0 { At::Header } else { At::Passing(len) }
    }
}

/// Decodes an HPACK integer with a prefix of `bits` bits. Returns its value and the position after it.
fn integer(bytes: &[u8], at: usize, bits: u32) -> Option<(usize, usize)> {
    let max = (1 << bits) - 1;
    let first = usize::from(*bytes.get(at)?) & max;
    if first < max {
        return Some((first, at + 1));
    }
    let mut value = first;
    // Four more bytes suffice for any length within a frame.
    for (more, shift) in (0..4).map(|n| (n, 7 * n)) {
        let byte = usize::from(*bytes.get(at + 1 + more)?);
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, at + 2 + more));
        }
    }
    None
}

/// Decodes an HPACK string. Returns whether it is Huffman-coded, and the range of its octets.
fn string(bytes: &[u8], at: usize) -> Option<(bool, std::ops::Range<usize>)> {
    let coded = bytes.get(at)? & 0x80 != 0;
    let (len, start) = integer(bytes, at, 7)?;
    let end = start.checked_add(len).filter(|end| *end <= bytes.len())?;
    Some((coded, start..end))
}

/// Rewrites a whole HEADERS frame.
fn rewrite(frame: &mut [u8]) {
    let (flags, body) = (frame[4], &mut frame[FRAME_HEADER..]);
    let padding = if flags & PADDED != 0 { usize::from(body[0]) } else { 0 };
    let start = usize::from(flags & PADDED != 0) + if flags & PRIORITY != 0 { 5 } else { 0 };
    let end = body.len().saturating_sub(padding);
    if let Some(block) = body.get_mut(start..end) {
        // If a block can't be read to its end, it continues in the next frame, or `h2` refuses it. What was found is
        // enough.
        let _ = rewrite_block(block);
    }
}

fn rewrite_block(block: &mut [u8]) -> Option<()> {
    let mut at = 0;
    while at < block.len() {
        let bits = match block[at] {
            // An indexed field or a change of the table size has no strings.
            0x80.. => {
                at = integer(block, at, 7)?.1;
                continue;
            }
            0x20..=0x3f => {
                at = integer(block, at, 5)?.1;
                continue;
            }
            0x40..=0x7f => 6,
            _ => 4,
        };
        let (index, mut next) = integer(block, at, bits)?;
        let mut is_authority = index == AUTHORITY;
        if index == 0 {
            let (coded, name) = string(block, next)?;
            is_authority = !coded && block[name.clone()] == *b":authority";
            next = name.end;
        }
        let (coded, value) = string(block, next)?;
        at = value.end;
        let octets = &mut block[value];
        if is_authority && !coded && octets.iter().any(|octet| matches!(octet, b'%' | b'/')) {
            let fits = |octet: u8| octet.is_ascii_alphanumeric() || b".-_~".contains(&octet);
            octets.iter_mut().filter(|octet| !fits(**octet)).for_each(|octet| *octet = b'-');
        }
    }
    Some(())
}

/// A connection that rewrites the bytes of its client.
#[derive(Debug)]
pub(super) struct Tolerant<S> {
    inner: S,
    rewriter: Rewriter,
    ready: Vec<u8>,
    given: usize,
    chunk: Box<[u8]>,
}

impl<S> Tolerant<S> {
    pub(super) fn new(inner: S) -> Self {
        let chunk = vec![0; MAX_FRAME].into_boxed_slice();
        Self { inner, rewriter: Rewriter::default(), ready: Vec::new(), given: 0, chunk }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tolerant<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.given < this.ready.len() {
                let rest = &this.ready[this.given..];
                let now = rest.len().min(buf.remaining());
                buf.put_slice(&rest[..now]);
                this.given += now;
                return Poll::Ready(Ok(()));
            }
            this.given = 0;
            this.ready.clear();
            let mut chunk = ReadBuf::new(&mut this.chunk);
            std::task::ready!(Pin::new(&mut this.inner).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                // The end of the stream. A held part of a truncated frame is useless.
                return Poll::Ready(Ok(()));
            }
            this.rewriter.feed(chunk.filled(), &mut this.ready);
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tolerant<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// No service asks who is connected.
impl<S> Connected for Tolerant<S> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, body: &[u8]) -> Vec<u8> {
        let len = (body.len() as u32).to_be_bytes();
        [&len[1..], &[kind, flags, 0, 0, 0, 1], body].concat()
    }

    fn literal(first: &[u8], value: &[u8]) -> Vec<u8> {
        [first, &[value.len() as u8], value].concat()
    }

    /// Feeds bytes in chunks of `size`.
    fn passed(bytes: &[u8], size: usize) -> Vec<u8> {
        let (mut rewriter, mut out) = (Rewriter::default(), Vec::new());
        bytes.chunks(size).for_each(|piece| rewriter.feed(piece, &mut out));
        out
    }

    fn stream(authority: &[u8]) -> Vec<u8> {
        // Method POST by index, a table size update, a literal path with index 4, then the authority in three forms.
        let mut block = vec![0x83, 0x3f, 0xe1, 0x1f];
        block.extend(literal(&[0x44], b"/dpu.Meter/Get%2F"));
        block.extend(literal(&[0x41], authority));
        block.extend(literal(&[0x01], authority));
        block.extend(literal(&[&[0x40][..], &literal(&[], b":authority")].concat(), authority));
        block.extend(literal(&[0x10], b"x"));
        let padded = [&[3][..], &[0; 5], &block, &[0; 3]].concat();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        [&preface[..], &frame(4, 0, &[]), &frame(1, 4, &block), &frame(0, 1, b"data%2F"), &frame(1, 0x2c, &padded)]
            .concat()
    }

    #[test]
    fn a_path_becomes_an_authority_and_nothing_else_changes() {
        for (from, to) in [(&b"%2Frun%2Fdpu.sock"[..], &b"-2Frun-2Fdpu.sock"[..]), (b"/run/dpu.sock", b"-run-dpu.sock")]
        {
            for size in [1, 2, 7, 10, 64, 4096] {
                assert_eq!(passed(&stream(from), size), stream(to), "pieces of {size}");
            }
        }
        for good in [&b"localhost"[..], b"localhost:50051", b"[::1]:80", b""] {
            assert_eq!(passed(&stream(good), 5), stream(good));
        }
    }

    #[test]
    fn what_is_no_http2_passes_or_stays_held_and_never_panics() {
        let good = stream(b"%2Fx");
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let out = passed(&bad, 13);
                assert!(out.len() <= bad.len());
                passed(&bad[..at], 13);
            }
        }
    }
}
