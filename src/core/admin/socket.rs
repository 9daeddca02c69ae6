//! A connection to the endpoint: its first bytes, what is read and written after them,
//! and its end.
//!
//! A connection is armed from the start: what fails ends in a reset. After a command
//! that is refused, the end of its line is left unread, because for that the kernel
//! resets a unix socket, too: `poetry fetch` prints the refusal, and fails.

use super::first::{HEAD_MAX, Opening, look};
use crate::net::{Received, Stream, Then};
use crate::rt;
use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncWrite};
use futures::{FutureExt, ready};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// How long a client may take none of its answer. Shorter than a person waits, longer
/// than a bad network stalls.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long, and for how many bytes, a client is listened to after its answer: a byte
/// that arrives after the close makes the kernel reset the connection, and that may
/// cut the answer. A body that was refused is such a thing.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 << 10;

/// Reads the first bytes into `held`, until it is known what they are: a command
/// without its line ending, or a head of HTTP with whatever follows it. They are looked
/// at before they are taken, and taken before more are waited for: looking alone would
/// find the same bytes at once, for ever.
///
/// # Errors
/// The connection's.
pub(super) async fn read_first(stream: &Stream, held: &mut Vec<u8>) -> io::Result<Opening> {
    let mut buffer = vec![0; HEAD_MAX];
    loop {
        let count = match stream.peek_now(&mut buffer) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                stream.readable().await?;
                continue;
            }
            other => other?,
        };

        let before = held.len();
        held.extend_from_slice(&buffer[..count]);
        let opening = look(held, count == 0);
        let end = match opening {
            Opening::Command(_) => held.iter().position(|byte| *byte == b'\n'),
            _ => None,
        };

        let taken = end.map_or(count, |end| end - before);
        if taken > 0 {
            stream.read_now(&mut buffer[..taken])?;
        }
        if let Opening::Command(length) = opening {
            held.truncate(length);
        }
        if opening != Opening::Unfinished {
            return Ok(opening);
        }
    }
}

/// Sends all of this.
///
/// # Errors
/// The connection's, or [`ErrorKind::TimedOut`] if the client takes nothing for ten
/// seconds.
pub(super) async fn send_all(stream: &Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.send(bytes, Then::Unknown) {
            Ok(count) => bytes = &bytes[count..],
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                let writable = rt::within(STALL_TIMEOUT, stream.writable()).await;
                writable.ok_or(ErrorKind::TimedOut)??;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Ends a connection whose answer is complete.
pub(super) async fn close_politely(stream: &Stream) {
    stream.disarm();
    let _gone = stream.finish();

    let hear = async {
        let mut buffer = vec![0; 4 << 10];
        let mut heard = 0;
        while heard < LINGER_BYTES {
            match stream.try_recv(&mut buffer) {
                Received::Bytes(count) => heard += count,
                Received::Nothing if stream.readable().await.is_ok() => {}
                _ => return,
            }
        }
    };
    let _time_over = rt::within(LINGER_TIMEOUT, hear).await;
}

/// Ends a connection whose answer says that something went wrong: by a reset, once the
/// kernel has sent the answer.
pub(super) async fn reset(stream: &Stream) {
    let _time_over = rt::within(LINGER_TIMEOUT, stream.emptied()).await;
}

/// A connection with the bytes in front that were read from it already.
pub(super) struct Rejoined<'a> {
    first: &'a [u8],
    stream: &'a Stream,
    /// Ready once the client has taken nothing for too long.
    stall: Option<BoxFuture<'static, ()>>,
}

impl<'a> Rejoined<'a> {
    pub(super) fn new(first: &'a [u8], stream: &'a Stream) -> Rejoined<'a> {
        Rejoined {
            first,
            stream,
            stall: None,
        }
    }
}

impl AsyncRead for Rejoined<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if !self.first.is_empty() {
            return Pin::new(&mut self.first).poll_read(cx, buffer);
        }
        loop {
            match self.stream.read_now(buffer) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
            ready!(self.stream.poll_readable(cx))?;
        }
    }
}

impl AsyncWrite for Rejoined<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.send(bytes, Then::Unknown) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                other => {
                    self.stall = None;
                    return Poll::Ready(other);
                }
            }

            let stall = self
                .stall
                .get_or_insert_with(|| rt::sleep(STALL_TIMEOUT).boxed());
            if stall.poll_unpin(cx).is_ready() {
                return Poll::Ready(Err(ErrorKind::TimedOut.into()));
            }
            ready!(self.stream.poll_writable(cx))?;
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Nothing: [`close_politely`] follows.
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
