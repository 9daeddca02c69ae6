//! The progress line of `fetch`.

use crate::cmd::signals;
use async_signal::Signal;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use poetry::addr::Addr;
use poetry::rt;
use std::future::pending;
use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a fetch runs before the line appears. Most are over by then.
const APPEARS_AFTER: Duration = Duration::from_secs(1);

/// The time between two drawings while nothing arrives.
const TICK: Duration = Duration::from_millis(100);

/// A line on stderr: the bytes so far, their rate, the time, and the server
/// that the poem being printed comes from. Clones share it.
#[derive(Clone)]
pub(super) struct Progress {
    bar: ProgressBar,
    /// Whether the line may appear.
    is_wanted: Arc<AtomicBool>,
}

impl Progress {
    /// A line that is not shown yet. It never is if stderr is no terminal, or one that
    /// cannot erase.
    pub fn new(quiet: bool) -> Progress {
        let can_erase = || std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        let is_wanted = !quiet && stderr().is_terminal() && can_erase();

        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if is_wanted {
            let style = "{spinner} {bytes}, {bytes_per_sec}, {elapsed} {wide_msg}";
            let style = ProgressStyle::with_template(style);
            bar.set_style(style.expect("the template is well formed"));
        }
        Progress {
            bar,
            is_wanted: Arc::new(is_wanted.into()),
        }
    }

    fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    /// Never shows the line: it would mix with the poems.
    pub fn hide(&self) {
        self.is_wanted.store(false, Ordering::Relaxed);
    }

    /// Counts bytes.
    pub fn received(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Names the server that the poem being printed comes from, number `at` of
    /// `count`.
    pub fn printing(&self, addr: &Addr, at: usize, count: usize) {
        if !self.is_wanted() {
            return;
        }
        let place = if count > 1 {
            format!(" ({at} of {count})")
        } else {
            String::new()
        };
        self.bar.set_message(format!("from {addr}{place}"));
    }

    /// Takes the line away while `print` prints others.
    pub fn suspend(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// Shows the line after a second, and keeps it moving. Returns at a signal that
    /// ends the process, so that the line can be taken away first.
    pub async fn show(&self) -> Signal {
        if !self.is_wanted() {
            return pending().await;
        }
        rt::sleep(APPEARS_AFTER).await;
        if !self.is_wanted() {
            return pending().await;
        }

        let draw = async {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            loop {
                self.bar.tick();
                rt::sleep(TICK).await;
            }
        };
        match rt::race(signals::next(signals::not_ignored()), draw).await {
            Ok(signal) => signal,
            Err(never) => never,
        }
    }

    /// Takes the line away for good.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
