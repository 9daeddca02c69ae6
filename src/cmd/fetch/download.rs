//! Downloads of `fetch`: each fetches from one server, with retries, into a flight.

use super::progress::Progress;
use crate::cmd::deadlines::explain;
use crate::cmd::log;
use bytes::Bytes;
use futures::channel::oneshot;
use poetry::addr::Addr;
use poetry::client::{ConnectRetry, Exchange, Query, Timeouts, ask};
use poetry::error::{Error, Stage};
use poetry::flight::{self, NoReaders, Reader, Writer};
use poetry::protocol::{EndRule, Protocol};
use poetry::rt;
use poetry::transform::Pipeline;
use std::future::Future;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How far a download may be ahead of the printer, in bytes.
const AHEAD: u64 = 16 << 20;

/// The longest poem that is held in memory, in bytes.
const HELD_MAX: u64 = 1 << 30;

/// The pause before the first retry. It doubles with each one, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(64);

/// What is the same for all servers.
#[derive(Clone)]
pub(super) struct Plan {
    /// The total is for all attempts together.
    pub timeouts: Timeouts,
    pub ask: Option<String>,
    pub half_close: bool,
    pub ends: EndRule,
    /// How long each attempt is begun again while the server refuses.
    pub connect_retry: Duration,
    pub retry: u32,
    pub pipeline: Option<Pipeline>,
    pub max_poem: u64,
    /// Whether a poem is held in memory until it has ended.
    pub json: bool,
    /// Whether the printer can take back what it has written of a poem.
    pub can_take_back: bool,
    pub progress: Progress,
    /// Whether retries are announced on stderr.
    pub has_notices: bool,
}

/// How long a download took and what it brought.
#[derive(Default)]
pub(super) struct Timing {
    pub bytes: u64,
    pub first_byte: Option<Duration>,
    pub total: Duration,
}

/// A poem that the printer waits for.
pub(super) struct Pending {
    pub addr: Addr,
    pub reader: Reader,
    /// The readers of retries. A retry's reader is sent before the reader in use fails.
    pub retries: mpsc::Receiver<Reader>,
    /// Sent when the download has ended.
    pub timing: oneshot::Receiver<Timing>,
}

/// A download under way.
struct Download<'a> {
    addr: &'a Addr,
    writer: Writer,
    /// Where the printer can take back what it has written: takes the readers of
    /// retries.
    retries: Option<mpsc::Sender<Reader>>,
    /// When it was its turn.
    started: Instant,
    timing: Timing,
}

impl Plan {
    /// The poem of this server, and the work that downloads it.
    pub fn start<'a>(&'a self, addr: &'a Addr) -> (Pending, impl Future<Output = ()> + 'a) {
        let (writer, reader) = flight::pipe(if self.json { u64::MAX } else { AHEAD });
        let (send_retry, retries) = mpsc::channel();
        let (send_timing, timing) = oneshot::channel();

        let download = Download {
            addr,
            writer,
            retries: self.can_take_back.then_some(send_retry),
            started: Instant::now(),
            timing: Timing::default(),
        };
        let pending = Pending {
            addr: addr.clone(),
            reader,
            retries,
            timing,
        };
        (pending, self.download(download, send_timing))
    }

    async fn download(&self, mut download: Download<'_>, timing: oneshot::Sender<Timing>) {
        download.started = Instant::now();
        let limit = self.timeouts.total;
        let result = rt::within(limit, self.attempts(&mut download)).await;
        let result = result.unwrap_or_else(|| {
            Err(Error::Timeout {
                subject: download.addr.to_string(),
                stage: Stage::Complete,
                limit,
            })
        });

        let total = download.started.elapsed();
        let _printer_left = timing.send(Timing {
            total,
            ..download.timing
        });

        match result {
            Ok(()) => download.writer.finish(false),
            Err(error) => download.writer.fail(error),
        }
    }

    /// Tries, and retries while what arrived can be taken back.
    async fn attempts(&self, download: &mut Download<'_>) -> Result<(), Error> {
        let mut pause = FIRST_PAUSE;
        let mut retries_left = self.retry;
        loop {
            let error = match self.unrefused_attempt(download).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if retries_left == 0 || !error.is_worth_another_try() || !download.take_back(&error) {
                return Err(error);
            }

            retries_left -= 1;
            self.announce_retry(&error, pause, retries_left);
            rt::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn announce_retry(&self, error: &Error, pause: Duration, left: u32) {
        if !self.has_notices {
            return;
        }
        let error = explain(error, "--timeout");
        let pause = humantime::format_duration(pause);
        let text = format!("{error}; retrying in {pause}, {left} left");
        self.progress.suspend(|| log::warning(&text));
    }

    /// An attempt. It is begun again while the server refuses: nothing has come then.
    async fn unrefused_attempt(&self, download: &mut Download<'_>) -> Result<(), Error> {
        let mut refusals = ConnectRetry::new(self.connect_retry);
        loop {
            let result = self.attempt(download).await;
            let pause = match &result {
                Err(error) if error.is_refusal() => refusals.refused(Instant::now()),
                _ => None,
            };
            match pause {
                Some(pause) => rt::sleep(pause).await,
                None => return result,
            }
        }
    }

    async fn attempt(&self, download: &mut Download<'_>) -> Result<(), Error> {
        download.timing = Timing::default();
        let mut reply = ask(download.addr, &self.query()).await?;

        let Some(pipeline) = &self.pipeline else {
            while let Some(bytes) = self.next(&mut reply, download).await? {
                let abandoned = |NoReaders| Error::Abandoned; // the printer has stopped
                download.writer.writable().await.map_err(abandoned)?;
                download.writer.append(bytes);
            }
            return Ok(());
        };

        let mut poem = Vec::new();
        while let Some(bytes) = self.next(&mut reply, download).await? {
            poem.extend_from_slice(&bytes);
        }
        drop(reply); // its descriptor is free for the connection to a service
        let transformed = pipeline.apply(poem.into(), HELD_MAX, self.timeouts);
        download.writer.append(transformed.await?);
        Ok(())
    }

    fn query(&self) -> Query<'_> {
        let (protocol, request) = match &self.ask {
            Some(line) => (Protocol::Line, line.as_bytes()),
            None => (Protocol::Poem, &b""[..]),
        };
        Query {
            protocol,
            request,
            limit: self.max_poem,
            timeouts: self.timeouts,
            half_close: self.half_close,
            ends: &self.ends,
        }
    }

    /// The next bytes of the reply, counted.
    async fn next(
        &self,
        reply: &mut Exchange<'_>,
        download: &mut Download<'_>,
    ) -> Result<Option<Bytes>, Error> {
        let Some(bytes) = reply.next().await? else {
            return Ok(None);
        };

        let (timing, started) = (&mut download.timing, download.started);
        timing.first_byte.get_or_insert_with(|| started.elapsed());
        timing.bytes += bytes.len() as u64;
        self.progress.received(bytes.len() as u64);

        let limit = self.limit();
        if timing.bytes > limit {
            let subject = download.addr.to_string();
            return Err(Error::TooLong { subject, limit });
        }
        Ok(Some(bytes))
    }

    /// The longest poem to accept, in bytes.
    fn limit(&self) -> u64 {
        if self.json || self.pipeline.is_some() {
            self.max_poem.min(HELD_MAX)
        } else {
            self.max_poem
        }
    }
}

impl Download<'_> {
    /// Takes back what arrived before `error`, and returns whether that was possible:
    /// nothing of it has been read yet, or it was written to a file.
    fn take_back(&mut self, error: &Error) -> bool {
        if self.writer.rewind() {
            return true;
        }
        let Some(retries) = &self.retries else {
            return false;
        };

        let (writer, reader) = flight::pipe(AHEAD);
        let is_read = retries.send(reader).is_ok();
        std::mem::replace(&mut self.writer, writer).fail(error.clone());
        is_read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poem_held_in_memory_has_a_limit_without_max_poem() {
        let timeouts = Timeouts {
            connect: Duration::MAX,
            idle: Duration::MAX,
            total: Duration::MAX,
        };
        let plan = |json, max_poem| Plan {
            timeouts,
            has_notices: false,
            ask: None,
            half_close: false,
            ends: EndRule::default(),
            connect_retry: Duration::ZERO,
            retry: 0,
            pipeline: None,
            max_poem,
            json,
            can_take_back: false,
            progress: Progress::new(true),
        };

        assert_eq!(plan(true, u64::MAX).limit(), HELD_MAX);
        assert_eq!(plan(true, 5).limit(), 5);
        assert_eq!(plan(false, u64::MAX).limit(), u64::MAX);
    }
}
