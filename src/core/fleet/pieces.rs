//! How others get what a fetch of this proxy brings: in pieces, as it comes, and then
//! its end.
//!
//! | what | when it is sent |
//! |---|---|
//! | the first bytes | 20 ms after the fetch began, or once a piece is full. A fetch that ends before with at most 8 KiB is one command |
//! | later bytes | at once if nothing was sent for 20 ms, else together after 20 ms |
//! | a full piece | at once; eight may be under way |
//! | the end | behind the pieces, with length and SHA-256 |
//!
//! So a drip costs 50 commands a second at most, and a lone piece waits for nothing.
//! Clients wait for none of this.
//!
//! A piece is an entry of a stream, and its id is the offset of its end. So one that is
//! sent twice is refused, one that is missing shows, and a reader's cursor is what it
//! is in a flight: an offset. The last entry's id is the length, and 1.

use super::leases::Held;
use super::link::LinkError;
use super::record::TextMark;
use super::{Shared, lock};
use crate::flight::{Read, Reader};
use crate::poem::Poem;
use crate::rt;
use futures::StreamExt;
use futures::channel::oneshot;
use futures::future::{BoxFuture, FutureExt, pending};
use futures::stream::FuturesUnordered;
use futures_lite::future::or;
use redis::{Cmd, Value};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest piece: 64 KiB less 512. The server's allocator has classes of 64 and 80
/// KiB: with pieces of 65,536 bytes a text takes 1.251 times its length there, with
/// these 1.009.
pub(super) const PIECE: usize = 65_024;

/// Pieces that may be under way.
const WINDOW: usize = 8;

/// How long bytes wait for more.
const GATHER: Duration = Duration::from_millis(20);

/// How long the pieces of a fetch that goes on are kept without a renewal.
const FLIGHT_MS: &str = "60000";

/// How a lease ends.
pub(super) enum LeaseEnd {
    /// The text is kept: it was complete then.
    Keep {
        text: Poem,
        ttl: Option<Duration>,
        at: Instant,
    },
    /// The text is complete, and not kept.
    Pass { text: Poem },
    /// There is no text.
    Fail { how: &'static str, why: String },
    /// What becomes of it is not known.
    GiveBack,
}

/// Publishes what `reader` brings, and then the end.
pub(super) async fn publish(
    shared: Arc<Shared>,
    held: Arc<Held>,
    reader: Option<Reader>,
    mut ended: oneshot::Receiver<LeaseEnd>,
) {
    let mut publisher = Publisher {
        shared,
        held,
        gathered: Vec::new(),
        sent: 0,
        pieces: 0,
        digest: Sha256::new(),
        under_way: FuturesUnordered::new(),
        last: Instant::now(),
    };
    let end = match reader {
        Some(reader) => publisher.read_along(reader, &mut ended).await,
        None => publisher.end_of(&mut ended).await,
    };
    let end = end.unwrap_or(LeaseEnd::GiveBack);
    publisher.finish(end).await;
}

/// Its text can't be published any further.
pub(super) struct Stuck;

/// What sends the pieces of one fetch.
pub(super) struct Publisher {
    pub(super) shared: Arc<Shared>,
    pub(super) held: Arc<Held>,
    /// Bytes that have not been sent.
    gathered: Vec<u8>,
    /// Bytes that have.
    pub(super) sent: u64,
    /// The pieces that they were.
    pub(super) pieces: u64,
    /// Of all of them.
    digest: Sha256,
    /// Whether each has arrived.
    pub(super) under_way: FuturesUnordered<BoxFuture<'static, Result<(), Stuck>>>,
    /// When it began, or sent the last piece.
    last: Instant,
}

/// What the publisher was woken by.
enum Woken {
    Ended(Option<LeaseEnd>),
    /// There are bytes, or it is time to send them.
    More,
    Arrived(Result<(), Stuck>),
    Over,
}

impl Publisher {
    /// What was sent, as a text.
    pub(super) fn mark(&self) -> TextMark {
        TextMark {
            length: self.sent,
            digest: self.digest.clone().finalize().into(),
        }
    }

    /// Sends what comes, until the end is known. `None`: it is over.
    async fn read_along(
        &mut self,
        mut reader: Reader,
        ended: &mut oneshot::Receiver<LeaseEnd>,
    ) -> Option<LeaseEnd> {
        let mut is_reading = true;
        loop {
            is_reading = is_reading && self.gather(&mut reader);
            let due = self.last + GATHER;
            let is_due = !self.gathered.is_empty() && Instant::now() >= due;
            if is_due || self.gathered.len() == PIECE {
                self.send().await.ok()?;
                continue;
            }

            let has_some = !self.gathered.is_empty();
            let held = self.held.clone();
            let shared = self.shared.clone();
            let over = shared.leases.over(&held).map(|()| Woken::Over);
            let end = (&mut *ended).map(|end| Woken::Ended(end.ok()));
            let more = async {
                if !is_reading {
                    pending::<()>().await;
                }
                reader.ready().await;
                Woken::More
            };
            let timer = async {
                if !has_some {
                    pending::<()>().await;
                }
                rt::sleep(due.saturating_duration_since(Instant::now())).await;
                Woken::More
            };
            let arrived = async {
                match self.under_way.next().await {
                    Some(arrived) => Woken::Arrived(arrived),
                    None => pending().await,
                }
            };

            match or(or(or(end, over), more), or(arrived, timer)).await {
                Woken::Ended(end) => return end,
                Woken::Over | Woken::Arrived(Err(Stuck)) => return None,
                Woken::More | Woken::Arrived(Ok(())) => {}
            }
        }
    }

    /// The end of a lease that nothing was published of.
    async fn end_of(&mut self, ended: &mut oneshot::Receiver<LeaseEnd>) -> Option<LeaseEnd> {
        let over = self.shared.leases.over(&self.held).map(|()| None);
        or(ended.map(Result::ok), over).await
    }

    /// Takes what has come, up to a piece. Whether more may come.
    fn gather(&mut self, reader: &mut Reader) -> bool {
        while self.gathered.len() < PIECE {
            match reader.peek() {
                Read::Chunk(bytes) => {
                    let count = bytes.len().min(PIECE - self.gathered.len());
                    self.take(&bytes[..count]);
                    reader.advance(count);
                }
                Read::Pending => return true,
                Read::End | Read::Failed(_) | Read::FellBehind { .. } => return false,
            }
        }
        true
    }

    fn take(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.gathered.extend_from_slice(bytes);
    }

    /// Sends what was gathered as a piece, once fewer than eight are under way.
    async fn send(&mut self) -> Result<(), Stuck> {
        while self.under_way.len() >= WINDOW {
            self.under_way.next().await.unwrap_or(Ok(()))?;
        }
        if self.held.is_over() {
            return Err(Stuck);
        }
        let links = lock(&self.shared.links).clone().ok_or(Stuck)?;

        let bytes = std::mem::take(&mut self.gathered);
        self.sent += bytes.len() as u64;
        self.pieces += 1;
        self.last = Instant::now();
        let commands = self.commands(&bytes);
        let shared = self.shared.clone();
        let sending = async move {
            let wait = shared.carry_wait();
            let answers = rt::within(wait, links.carry.ask_all(&commands)).await;
            match answers {
                // Nil: the pieces before it were evicted.
                Some(Ok(answers)) if !matches!(answers[0], Value::Nil) => Ok(()),
                Some(Err(LinkError::Refused { text, .. })) => {
                    shared.unwritable(text);
                    Err(Stuck)
                }
                _ => Err(Stuck),
            }
        };

        let mut sending = sending.boxed();
        // It is on its way from here on, before the next.
        match sending.as_mut().now_or_never() {
            Some(arrived) => arrived,
            None => {
                self.under_way.push(sending);
                Ok(())
            }
        }
    }

    fn commands(&self, bytes: &[u8]) -> Vec<Cmd> {
        let name = self.held.pieces();
        let mut add = redis::cmd("XADD");
        add.arg(&name);
        if self.pieces > 1 {
            add.arg("NOMKSTREAM");
        }
        add.arg(format!("{}-0", self.sent)).arg("b").arg(bytes);

        let mut commands = vec![add];
        if self.pieces == 1 {
            let mut expire = redis::cmd("PEXPIRE");
            expire.arg(&name).arg(FLIGHT_MS);
            commands.push(expire);
        }
        let mut tell = redis::cmd("PUBLISH");
        tell.arg(self.held.name()).arg("x");
        commands.push(tell);
        commands
    }

    /// Sends what was not published.
    pub(super) async fn send_rest(&mut self, text: &Poem) -> Result<(), Stuck> {
        let mut skip = self.sent + self.gathered.len() as u64;
        for piece in text.pieces() {
            let skipped = skip.min(piece.len() as u64);
            skip -= skipped;
            let mut rest = &piece[skipped as usize..];
            while !rest.is_empty() {
                let space = PIECE - self.gathered.len();
                let (now, later) = rest.split_at(space.min(rest.len()));
                self.take(now);
                rest = later;
                if self.gathered.len() == PIECE {
                    self.send().await?;
                }
            }
        }
        if !self.gathered.is_empty() {
            self.send().await?;
        }
        Ok(())
    }
}
