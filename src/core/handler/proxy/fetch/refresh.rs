//! May a refresh have been cut?

use super::{Fetch, Stop};
use crate::error::Error;
use crate::poem::Poem;
use bytes::Bytes;
use std::time::Instant;

impl Fetch {
    /// Doubts a refresh that brings a strict prefix of the text it would replace: it
    /// may have been cut. One more fetch decides: the same prefix again is believed,
    /// and so is anything that is no prefix. Transformed texts can't be compared like
    /// that (the end may come first), so there any shorter one is doubted, and the
    /// originals decide. Where whole texts end in a marker there is no doubt.
    pub(super) async fn verify_refresh(&mut self) -> Result<(), Stop> {
        let has_marker = self.ask.target.ends.marker.is_some();
        if has_marker || self.rejected.is_some() {
            return Ok(()); // it is whole, or won't be kept
        }
        let Some(old) = self.guard.replaces().cloned() else {
            return Ok(());
        };
        let Some(first) = self.doubtful(&old) else {
            return Ok(());
        };

        if !self.guard.rewind() {
            self.guard.pass(Instant::now()); // readers have it; whether it is whole is open
            return Ok(());
        }
        self.attempt().await?;
        let Some(second) = self.doubtful(&old) else {
            return Ok(());
        };

        let is_prefix = first.starts_with(&second) || second.starts_with(&first);
        if first != second && is_prefix {
            let subject = self.ask.target.name.clone();
            return Err(Error::Doubtful { subject }.into());
        }
        Ok(())
    }

    /// Whether a text from elsewhere looks like a part of the one that it would
    /// replace. A transformed text can't be compared like that, and its original is not
    /// here.
    pub(super) fn is_cut_refresh(&self, text: &Poem) -> bool {
        let old = self.guard.replaces();
        let old = old.filter(|_| self.proxy.settings.pipeline.is_none());
        old.is_some_and(|old| text.is_cut_from(old))
    }

    /// What came, before its transformation, if it looks like a part of the old text.
    fn doubtful(&self, old: &Poem) -> Option<Bytes> {
        let new = self.guard.writer().so_far()?;

        if self.proxy.settings.pipeline.is_some() {
            let is_shorter = new.len() < old.len();
            return is_shorter.then(|| self.original.clone());
        }
        new.is_cut_from(old).then(|| new.bytes())
    }
}
