//! A feed, built as its scenario reads: `feed(&upstream).replay(1).start()`.

use super::service::{Builder, Service};
use super::{FakeUpstream, HOUR, LONG, wait_until};
use poetry::client::Timeouts;
use poetry::control::{Control, FeedCounts};
use poetry::handler::live::{Live, LiveSettings};
use poetry::live::{FeedLimits, Slow};
use poetry::observe::{Observer, Silent};
use poetry::upstream::{ExecCommand, Origin, Upstream};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A feed from `upstream` with a backlog of 64 KiB.
pub fn feed(upstream: &FakeUpstream) -> Builder<LiveParts> {
    Builder::new(LiveParts {
        settings: LiveSettings {
            upstream: Upstream::servers(vec![upstream.addr.into()]),
            timeouts: Timeouts {
                connect: LONG,
                idle: HOUR,
                total: HOUR, // a feed goes on
            },
            feed: FeedLimits {
                backlog: 64 << 10,
                replay: 0,
                slow: Slow::Drop,
            },
        },
        observer: Arc::new(Silent),
    })
}

pub struct LiveParts {
    settings: LiveSettings,
    observer: Arc<dyn Observer>,
}

impl Builder<LiveParts> {
    /// Runs this command instead.
    pub fn command(mut self, command: &str) -> Self {
        let command: ExecCommand = command.parse().unwrap();
        self.of.settings.upstream = Upstream::of(vec![Origin::Exec(command)]);
        self
    }

    pub fn backlog(mut self, bytes: u64) -> Self {
        self.of.settings.feed.backlog = bytes;
        self
    }

    pub fn replay(mut self, lines: u64) -> Self {
        self.of.settings.feed.replay = lines;
        self
    }

    pub fn reset_slow(mut self) -> Self {
        self.of.settings.feed.slow = Slow::Reset;
        self
    }

    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.of.settings.timeouts.idle = timeout;
        self
    }

    /// What is told of the feed.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.of.observer = observer;
        self
    }

    pub fn start(self) -> LiveService {
        let stats = self.common.stats.clone();
        let live = Live::start(self.of.settings, self.of.observer, stats);
        let service = Service::start(live.clone(), live.wire(), self.common);
        LiveService { service, live }
    }
}

/// A feed that runs until it is dropped.
pub struct LiveService {
    service: Service,
    live: Arc<Live>,
}

impl LiveService {
    /// The figures of the feed.
    pub fn feed(&self) -> FeedCounts {
        let snapshot = self.live.snapshot(&self.service.stats, Instant::now());
        snapshot.feed.expect("it is a feed")
    }

    pub fn control(&self) -> Arc<dyn Control> {
        self.live.clone()
    }

    pub fn wait_for_readers(&self, wanted: u64) {
        wait_until(&format!("{wanted} readers"), || {
            self.feed().readers == wanted
        });
    }

    /// Waits until that many lines have come, whoever reads them.
    pub fn wait_for_lines(&self, wanted: u64) {
        wait_until(&format!("{wanted} lines"), || self.feed().lines == wanted);
    }

    pub fn wait_until_connected(&self) {
        wait_until("the source is connected", || {
            self.feed().connected.is_some()
        });
    }
}

impl Deref for LiveService {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

impl DerefMut for LiveService {
    fn deref_mut(&mut self) -> &mut Service {
        &mut self.service
    }
}
