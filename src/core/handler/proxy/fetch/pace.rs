//! The pace of a text over the window: that of its readers, within limits.

use super::{Fetch, Stop};
use crate::control::Phase;
use crate::error::Error;
use crate::handler::proxy::patience::{PACE_BYTES, Patience};
use crate::rt;
use bytes::Bytes;
use std::time::{Duration, Instant};

impl Fetch {
    /// Passes on the next bytes, but not those that readers have from a fetch that was
    /// lost. The last ones wake no reader: the end will.
    pub(super) async fn pass_on(&mut self, bytes: Bytes, is_last: bool) -> Result<(), Stop> {
        let is_proof = self.fleet.proof.is_some();
        let bytes = self.prove(bytes)?;
        if is_proof {
            self.publish();
            if bytes.is_empty() {
                return Ok(());
            }
        }

        self.await_readers().await?;
        let more = bytes.len() as u64;
        let longest = self.proxy.settings.longest();
        self.guard.reserve_or_pass(more, longest, Instant::now());
        self.give_back_if_passing();
        self.listed.is(if self.guard.is_keeping() {
            Phase::Streaming
        } else {
            Phase::Passing
        });
        self.listed.came(self.guard.writer().len() + more);

        if is_last {
            self.guard.append_last(bytes);
        } else {
            self.guard.append(bytes);
        }
        Ok(())
    }

    /// Waits for the readers of a text over the window. It flows at the pace of its
    /// slowest reader as far as that is good enough, and else of its fastest; but other
    /// fetches wait for that no longer than [`Patience`] says.
    pub(super) async fn await_readers(&mut self) -> Result<(), Stop> {
        if self.guard.is_keeping() {
            return Ok(()); // it fits the window
        }
        let proxy = self.proxy.clone();
        let patience = Patience(proxy.settings.patience);
        self.await_slowest(patience).await?;

        loop {
            let look = patience.next_look(self.ask.target.waited());
            if let Some(writable) = rt::within(look, self.guard.writable()).await {
                return Ok(writable?);
            }
            if patience.is_exhausted(self.ask.target.waited()) {
                let subject = self.ask.target.name.clone();
                return Err(Error::TooSlow { subject }.into());
            }
        }
    }

    /// Waits for the slowest reader while it takes 64 KiB every tenth of a second, and
    /// for slower ones as long as the patience in all. Then they are left behind.
    async fn await_slowest(&mut self, patience: Patience) -> Result<(), Stop> {
        self.guard.wait_for_all(true);
        while !patience.is_exhausted(self.ask.target.waited()) {
            let begun = Instant::now();
            let look = patience.pace_look();
            if let Some(writable) = rt::within(look, self.guard.writable()).await {
                return Ok(writable?);
            }
            if self.guard.keeps_pace(PACE_BYTES) {
                continue;
            }

            self.held_up += begun.elapsed();
            if self.held_up >= patience.0 {
                self.held_up = Duration::ZERO;
                self.guard.leave_laggards();
                break;
            }
        }

        self.guard.wait_for_all(false);
        Ok(())
    }
}
