//! What `proxy` and `fetch` are told of the answers of their servers.

use super::values::duration;
use clap::Args;
use poetry::protocol::{BadMarker, EndMarker, EndRule};
use std::time::Duration;

/// When an answer is whole, and when a server is asked again.
#[derive(Debug, Clone, Args)]
pub(super) struct Answers {
    /// What each whole answer ends with: a regular expression for the end of its last
    /// 4 KiB, or gopher for a lone dot
    ///
    /// An answer that ends in it is whole however the connection ends, also by a reset.
    /// One that does not is cut, also at a clean end.
    #[arg(long, value_name = "REGEX", value_parser = end_marker)]
    pub end_marker: Option<EndMarker>,
    /// Take an answer without a byte for a whole one, if its connection ends cleanly
    #[arg(long)]
    pub allow_empty: bool,
    /// How long to try again while a server refuses the connection, or resets it before
    /// it has sent a byte
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub connect_retry: Duration,
}

impl Answers {
    /// The same, for what reads the answers.
    pub fn rule(&self) -> EndRule {
        EndRule {
            marker: self.end_marker.clone(),
            allow_empty: self.allow_empty,
        }
    }
}

pub(super) fn end_marker(text: &str) -> Result<EndMarker, String> {
    text.parse().map_err(|error: BadMarker| error.to_string())
}
