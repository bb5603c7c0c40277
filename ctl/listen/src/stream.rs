//! A connection with deadlines.

use std::future::Future;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::clients::Ticket;

/// Deadlines of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// A client that sends nothing for this long is cut off. `None` if the protocol sees to that.
    pub silence: Option<Duration>,
    /// A client that does not take its answer gets this long for the next `least` bytes.
    pub stall: Duration,
    /// Bytes to take in that time.
    pub least: usize,
}

/// The connection. It ends with an error at a deadline, or if its place is given to another.
#[derive(Debug)]
pub struct Guarded<S> {
    inner: S,
    ticket: Ticket,
    deadlines: Deadlines,
    /// Runs while nothing comes.
    silence: Option<Pin<Box<Sleep>>>,
    /// Runs while the client does not take what is written, with the bytes that it has taken since.
    stall: Option<(Pin<Box<Sleep>>, usize)>,
    is_cut: bool,
}

impl<S> Guarded<S> {
    /// Watches over a connection with a place among the clients.
    pub fn new(inner: S, ticket: Ticket, deadlines: Deadlines) -> Self {
        Self { inner, ticket, deadlines, silence: None, stall: None, is_cut: false }
    }

    /// An error if the connection has lost its place. Otherwise this task is woken when that happens.
    fn check_place(&mut self, cx: &mut Context<'_>) -> Result<()> {
        // The sender only goes without a word if the table is gone, with the server.
        self.is_cut = self.is_cut || Pin::new(&mut self.ticket.is_cut).poll(cx).is_ready();
        if self.is_cut {
            Err(Error::new(ErrorKind::ConnectionAborted, "its place was given to another"))
        } else {
            Ok(())
        }
    }

    /// Nothing came.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.ticket.awaited();
        let Some(limit) = self.deadlines.silence else { return Poll::Pending };
        let timer = self.silence.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "it sent nothing")))
    }

    /// What a write led to.
    fn written(&mut self, cx: &mut Context<'_>, result: Poll<Result<usize>>) -> Poll<Result<usize>> {
        match result {
            Poll::Ready(Ok(bytes)) => {
                self.ticket.moved();
                if let Some((_, taken)) = &mut self.stall {
                    *taken += bytes;
                }
                Poll::Ready(Ok(bytes))
            }
            Poll::Pending => {
                self.ticket.awaited();
                loop {
                    let limit = self.deadlines.stall;
                    let (timer, taken) = self.stall.get_or_insert_with(|| (Box::pin(sleep(limit)), 0));
                    ready!(timer.as_mut().poll(cx));
                    if *taken < self.deadlines.least {
                        return Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "it did not take its answer")));
                    }
                    self.stall = None;
                }
            }
            error => error,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        this.check_place(cx)?;
        match Pin::new(&mut this.inner).poll_read(cx, buf) {
            Poll::Pending => this.poll_silence(cx),
            read => {
                this.ticket.moved();
                this.silence = None;
                read
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        let this = &mut *self;
        this.check_place(cx)?;
        let result = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.written(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let this = &mut *self;
        this.check_place(cx)?;
        let result = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.written(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// Servers flush when they have written all they have. So the client has taken it.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        this.stall = None;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::clients::{Clients, Peer};

    const SECOND: Duration = Duration::from_secs(1);
    const DEADLINES: Deadlines = Deadlines { silence: Some(SECOND), stall: SECOND, least: 100 };

    fn guarded(clients: &Clients) -> (Guarded<DuplexStream>, DuplexStream) {
        let (server, client) = duplex(64);
        (Guarded::new(server, clients.admit(Peer::User(1)), DEADLINES), client)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_cut_off_and_one_that_speaks_is_not() {
        let (mut server, mut client) = guarded(&Clients::new(1));
        for _ in 0..5 {
            tokio::time::sleep(SECOND / 2).await;
            client.write_all(b"x").await.unwrap();
            assert_eq!(server.read_u8().await.unwrap(), b'x');
        }
        assert_eq!(server.read_u8().await.unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_too_little_is_cut_off() {
        for (bytes, good) in [(0, false), (1, false), (60, true)] {
            let (mut server, mut client) = guarded(&Clients::new(1));
            let reader = tokio::spawn(async move {
                let mut room = vec![0; bytes];
                // Up to three times in each second.
                while bytes > 0 && client.read_exact(&mut room).await.is_ok() {
                    tokio::time::sleep(SECOND / 3).await;
                }
                std::future::pending::<()>().await;
            });
            let result = server.write_all(&[0; 1000]).await;
            assert_eq!(result.is_ok(), good, "{bytes}: {result:?}");
            reader.abort();
        }
    }

    #[tokio::test]
    async fn a_connection_without_its_place_ends_at_once() {
        let clients = Clients::new(1);
        let (mut server, _client) = guarded(&clients);
        let waiting = tokio::spawn(async move { server.read_u8().await });
        tokio::task::yield_now().await;
        let _other = clients.admit(Peer::User(2));
        assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionAborted);
    }
}
