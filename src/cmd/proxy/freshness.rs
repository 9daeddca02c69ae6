//! The flags that say how fresh a poem is to be.

use crate::cmd::failure::Failure;
use crate::cmd::values::{percent, positive_duration};
use clap::{Args, ValueEnum};
use poetry::handler::proxy::{ServeStale, WarmFile};
use poetry::protocol::Protocol;
use std::path::PathBuf;
use std::time::Duration;

/// How long a client waits for a new poem before it gets a stale one.
const STALE_AFTER: Duration = Duration::from_secs(2);

/// When stale poems are served.
#[derive(Debug, Clone, Args)]
pub(super) struct Freshness {
    /// When to serve a poem past its ttl and within its grace
    #[arg(long, value_name = "WHEN", value_enum, default_value = "always")]
    serve_stale: When,
    /// How long clients wait for the whole new poem before they get the stale one, with
    /// --serve-stale on-error [default: 2s]
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    stale_after: Option<Duration>,
    /// Refresh a poem that is asked for again in this last part of its ttl, before it
    /// is stale
    #[arg(long, value_name = "PERCENT", default_value = "0%", value_parser = percent)]
    pub refresh_ahead: f64,
    /// Fetch each request in FILE at the start, and again before its ttl ends; one is a
    /// line
    #[arg(long, value_name = "FILE")]
    warm: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum When {
    /// At once, while it is refreshed
    Always,
    /// If the refresh fails or takes longer than --stale-after
    OnError,
}

impl Freshness {
    /// The same, for a proxy.
    pub fn serve_stale(&self) -> ServeStale {
        match self.serve_stale {
            When::Always => ServeStale::Always,
            When::OnError => ServeStale::OnError(self.stale_after.unwrap_or(STALE_AFTER)),
        }
    }

    /// Whether there is a wait, and nothing that waits.
    pub fn waits_in_vain(&self) -> bool {
        self.stale_after.is_some() && self.serve_stale == When::Always
    }

    /// Reads the requests that are to be kept warm.
    ///
    /// # Errors
    /// [`Failure::Usage`], which names the line.
    pub fn warm(&self, protocol: Protocol) -> Result<Option<WarmFile>, Failure> {
        let Some(path) = &self.warm else {
            return Ok(None);
        };
        let file = WarmFile::read(path.clone(), protocol);
        let file = file.map_err(|bad| {
            let path = path.display();
            Failure::value(
                "warm",
                format!("invalid value '{path}' for '--warm <FILE>': {bad}"),
            )
        })?;
        Ok(Some(file))
    }

    /// What makes no sense with these flags.
    pub fn oddities(&self, ttl: Duration, grace: Duration) -> impl Iterator<Item = &'static str> {
        let oddities = [
            (
                self.serve_stale == When::OnError && grace.is_zero(),
                "--serve-stale on-error without --grace: no poem is served past its ttl",
            ),
            (
                self.refresh_ahead == 1.0,
                "--refresh-ahead 100%: each poem is refreshed when it is asked for again",
            ),
            (
                self.warm.is_some() && ttl.is_zero(),
                "--warm with --ttl 0: no poem is kept",
            ),
        ];
        let odd = oddities.into_iter().filter(|(is_odd, _)| *is_odd);
        odd.map(|(_, text)| text)
    }
}
