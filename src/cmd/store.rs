//! The flags of what outlives the process.

use super::values::size;
use clap::Args;
use poetry::error::Error;
use poetry::store::{ANSWER_WAIT, CAPACITY_MIN, OpenStore, StoreSettings, system_clock};
use std::path::PathBuf;
use std::time::Duration;

/// Where poems are kept over a restart.
#[derive(Debug, Clone, Args)]
pub(super) struct Storing {
    /// File in which to keep poems over a restart; it is made if it does not exist
    #[arg(long, value_name = "PATH", value_parser = path)]
    store: Option<PathBuf>,
    /// Disk space for --store
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = capacity)]
    store_capacity: u64,
}

fn path(text: &str) -> Result<PathBuf, String> {
    const SERVERS: [&str; 4] = ["redis:", "redis+unix:", "rediss:", "unix:"];
    if text.is_empty() {
        return Err("empty; wanted the path of a file".into());
    }
    if SERVERS.iter().any(|scheme| text.starts_with(scheme)) {
        return Err("a server can't be used yet; wanted the path of a file".into());
    }
    Ok(text.into())
}

fn capacity(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    if bytes < CAPACITY_MIN {
        return Err("too small for a store; wanted 1MiB or more".into());
    }
    Ok(bytes)
}

impl Storing {
    /// Opens the store, if there is to be one. `longest_ttl` is the longest that a poem
    /// may have.
    ///
    /// # Errors
    /// Those of [`OpenStore::open`].
    pub fn open(
        &self,
        ttl: Duration,
        longest_ttl: Duration,
        grace: Duration,
    ) -> Result<Option<OpenStore>, Error> {
        let Some(path) = &self.store else {
            return Ok(None);
        };

        let settings = StoreSettings {
            path: path.clone(),
            capacity: self.store_capacity,
            ttl,
            longest_ttl,
            grace,
            answer_wait: ANSWER_WAIT,
            clock: system_clock(),
        };
        OpenStore::open(settings).map(Some)
    }

    /// What makes no sense with these flags.
    pub fn oddity(&self, ttl: Duration) -> Option<&'static str> {
        let keeps_nothing = self.store.is_some() && ttl.is_zero();
        keeps_nothing.then_some("--store with --ttl 0: no poem is kept")
    }
}
