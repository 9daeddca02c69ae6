//! A follower that has lost what it follows, and has to prove what it passed on: see
//! [`Proof`].

use super::{Fetch, Stop};
use crate::error::Error;
use crate::tier::{Differs, Proof};
use bytes::Bytes;
use std::sync::atomic::Ordering;

impl Fetch {
    /// Drops what has come, for another source. What readers have seen stays, and has
    /// to come again.
    pub(super) fn begin_again(&mut self) -> Result<(), Stop> {
        if self.rewind() {
            return Ok(());
        }

        let got = self.guard.writer().len();
        let Some(old) = self.guard.writer().so_far() else {
            return Err(self.lost(got, "its beginning is gone, and can't be compared"));
        };
        self.fleet.proof = Some(Proof::new(old));
        Ok(())
    }

    /// Drops what has come, if that can be: what no reader has seen, or has yet to be
    /// proven.
    pub(super) fn rewind(&mut self) -> bool {
        match &mut self.fleet.proof {
            Some(proof) => {
                proof.begin_again();
                true
            }
            None => self.guard.rewind(),
        }
    }

    /// What of these bytes is to be passed on: all of them, unless readers have the
    /// first ones already.
    pub(super) fn prove(&mut self, bytes: Bytes) -> Result<Bytes, Stop> {
        let Some(proof) = &mut self.fleet.proof else {
            return Ok(bytes);
        };

        let got = proof.len();
        let compared = proof.compare(bytes);
        if proof.is_done() {
            self.fleet.proof = None;
        }
        compared.map_err(|Differs| self.unproven(got))
    }

    /// The source is complete: so must the proof be.
    pub(super) fn is_proven(&self) -> Result<(), Stop> {
        match &self.fleet.proof {
            Some(proof) => Err(self.unproven(proof.len())),
            None => Ok(()),
        }
    }

    fn unproven(&self, got: u64) -> Stop {
        let counts = &self.proxy.fleet;
        counts.proofs_failed.fetch_add(1, Ordering::Relaxed);
        self.lost(got, "fetched again, it is another text")
    }

    fn lost(&self, got: u64, why: &'static str) -> Stop {
        let subject = self.ask.target.name.clone();
        Stop::Lost(Error::Lost { subject, got, why })
    }
}
