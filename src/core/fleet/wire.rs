//! A connection as the `redis` crate wants it: tokio's traits for I/O, over our own
//! socket. What comes is looked at before the crate sees it: [`Ration`].

use super::ration::{NotRedis, Ration};
use crate::net::{Stream, Then};
use crate::rt;
use futures::future::{BoxFuture, FutureExt};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read before other tasks of the thread run.
const READ_AT_ONCE: usize = 64 << 10;

/// What is read in a row before the thread looks for other events: while a task is
/// ready, the executor does that only now and then. A server that sends without end
/// would keep all clients waiting.
const READ_IN_A_ROW: usize = 512 << 10;

/// What a reply or a message counts beside its bytes: many short ones take longer than
/// a long one.
const EACH_COUNTS: usize = 1 << 10;

/// That pause. Shorter than a timer can be; it is the look that counts.
const PAUSE: Duration = Duration::from_micros(100);

/// Why a connection is of no use; empty while it is.
pub(super) type Fault = Arc<OnceLock<NotRedis>>;

/// See the head of this file.
pub(super) struct FleetWire {
    stream: Stream,
    ration: Ration,
    fault: Fault,
    /// What was read since it last waited.
    in_a_row: usize,
    /// The same, since others ran.
    at_once: usize,
    pause: Option<BoxFuture<'static, ()>>,
    /// The last read took all there was: to read again before the reactor tells of more
    /// would be a system call in vain, and the crate reads before each question.
    is_drained: bool,
}

impl FleetWire {
    pub fn new(stream: Stream, ration: Ration, fault: Fault) -> FleetWire {
        stream.send_small_at_once();
        FleetWire {
            stream,
            ration,
            fault,
            in_a_row: 0,
            at_once: 0,
            pause: None,
            is_drained: false,
        }
    }

    /// Lets others run now and then.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
            self.in_a_row = 0;
            self.at_once = 0;
        } else if self.in_a_row >= READ_IN_A_ROW {
            let mut pause = rt::sleep(PAUSE).boxed();
            let polled = pause.as_mut().poll(cx);
            self.pause = Some(pause);
            if polled.is_pending() {
                return Poll::Pending;
            }
        } else if self.at_once >= READ_AT_ONCE {
            self.at_once = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn read(&mut self, into: &mut ReadBuf<'_>) -> io::Result<usize> {
        let space = into.initialize_unfilled();
        let count = self.stream.read_now(space)?;
        self.is_drained = count < space.len();
        match self.ration.look(&space[..count]) {
            Ok(ended) => {
                let cost = count + ended * EACH_COUNTS;
                self.in_a_row += cost;
                self.at_once += cost;
            }
            Err(fault) => {
                let _first_counts = self.fault.set(fault);
            }
        }
        if let Some(fault) = self.fault.get() {
            return Err(io::Error::new(ErrorKind::InvalidData, *fault));
        }
        into.advance(count);
        Ok(count)
    }
}

impl AsyncRead for FleetWire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_turn(cx));
        loop {
            if self.is_drained {
                let Poll::Ready(readable) = self.stream.poll_readable(cx) else {
                    (self.in_a_row, self.at_once) = (0, 0);
                    return Poll::Pending;
                };
                readable?;
            }
            match self.read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_drained = true,
                read => return Poll::Ready(read.map(drop)),
            }
        }
    }
}

impl AsyncWrite for FleetWire {
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
