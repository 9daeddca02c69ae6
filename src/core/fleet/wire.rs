//! A connection as the `redis` crate wants it: tokio's traits for I/O, over our own
//! socket. What comes is looked at before the crate sees it: [`Ration`].

use super::ration::{NotRedis, Ration};
use crate::net::{Stream, Then};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are read before other tasks of the thread run. A server that sends
/// without end would keep them all waiting.
const READ_IN_A_ROW: usize = 256 << 10;

/// Why a connection is of no use; empty while it is.
pub(super) type Fault = Arc<OnceLock<NotRedis>>;

/// See the head of this file.
pub(super) struct Wire {
    stream: Stream,
    ration: Ration,
    fault: Fault,
    /// Bytes that were read since it last waited.
    in_a_row: usize,
}

impl Wire {
    pub fn new(stream: Stream, ration: Ration, fault: Fault) -> Wire {
        stream.send_small_at_once();
        Wire {
            stream,
            ration,
            fault,
            in_a_row: 0,
        }
    }

    fn read(&mut self, into: &mut ReadBuf<'_>) -> io::Result<usize> {
        let space = into.initialize_unfilled();
        let count = self.stream.read_now(space)?;
        if let Err(fault) = self.ration.look(&space[..count]) {
            let _first_counts = self.fault.set(fault);
        }
        if let Some(fault) = self.fault.get() {
            return Err(io::Error::new(ErrorKind::InvalidData, *fault));
        }
        into.advance(count);
        Ok(count)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.in_a_row >= READ_IN_A_ROW {
            self.in_a_row = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }

        loop {
            match self.read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.in_a_row = 0;
                    ready!(self.stream.poll_readable(cx))?;
                }
                read => {
                    let count = read?;
                    self.in_a_row += count;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.send(bytes, Then::Unknown) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready!(self.stream.poll_writable(cx))?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // nothing is held back
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.finish())
    }
}
