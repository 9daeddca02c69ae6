//! What things are called in the server. `N` is the fleet's name; `K` stands for a key:
//! the first 128 bits of its SHA-256.
//!
//! | name | type | holds | lives |
//! |---|---|---|---|
//! | `N:1:{K}:p` | string | the record of the kept text: [`record`](super::record) | ttl and grace |
//! | `N:1:{K}:l:EPOCH` | string | the lease: a token | 2 s, renewed |
//! | `N:1:{K}:g` | number | purges of this text | a day |
//! | `N:1:{K}:d:TOKEN` | stream | the pieces that one fetch brings | [`pieces`](super::pieces) |
//! | `N:1:gen` | number | purges of all texts | for ever |
//! | `N:1:seq` | number | purges of one text | for ever |
//! | `N:1:tok` | number | leases | for ever |
//!
//! The epoch of a lease is the purges of all texts and those of its own, when it was
//! given. So a fetch that began before a purge goes on for all that wait for it, and
//! what asks later finds no holder.
//!
//! A channel with the name of the lease tells of changes, and `N:1:purge` of
//! purges. The 1 is the version of all this: another version has other names, so
//! versions share nothing. All names of a key have it in braces: a cluster of servers
//! would keep them together.

use super::hex;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The names that a fleet shares.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: Arc<str>,
}

/// The names of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyNames {
    /// Up to the last colon.
    stem: String,
}

/// Purges before a lease was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeaseEpoch {
    /// Of all texts.
    pub generation: u64,
    /// Of this one.
    pub of_key: u64,
}

impl Names {
    pub fn of(fleet: &str) -> Names {
        Names {
            prefix: format!("{fleet}:1").into(),
        }
    }

    pub fn key(&self, key: &[u8]) -> KeyNames {
        let digest = Sha256::digest(key);
        KeyNames {
            stem: format!("{}:{{{}}}", self.prefix, hex(&digest[..16])),
        }
    }

    pub fn generation(&self) -> String {
        format!("{}:gen", self.prefix)
    }

    pub fn purges_of_one(&self) -> String {
        format!("{}:seq", self.prefix)
    }

    pub fn tokens(&self) -> String {
        format!("{}:tok", self.prefix)
    }

    pub fn purge_channel(&self) -> String {
        format!("{}:purge", self.prefix)
    }
}

impl KeyNames {
    pub fn record(&self) -> String {
        format!("{}:p", self.stem)
    }

    /// Of the lease, and of the channel.
    pub fn lease(&self, epoch: LeaseEpoch) -> String {
        let LeaseEpoch { generation, of_key } = epoch;
        format!("{}{generation}.{of_key}", self.leases())
    }

    /// What the names of all leases begin with.
    pub fn leases(&self) -> String {
        format!("{}:l:", self.stem)
    }

    pub fn purges(&self) -> String {
        format!("{}:g", self.stem)
    }

    pub fn pieces(&self, token: &str) -> String {
        format!("{}:d:{token}", self.stem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_a_key_share_a_tag_and_differ_by_fleet_and_key() {
        let key = Names::of("poetry").key(b"a");
        assert_eq!(
            key.record(),
            "poetry:1:{ca978112ca1bbdcafac231b39a23dc4d}:p"
        );
        assert_eq!(
            key.pieces("7:ab.1"),
            "poetry:1:{ca978112ca1bbdcafac231b39a23dc4d}:d:7:ab.1"
        );
        assert_ne!(key, Names::of("poetry").key(b"b"));
        assert_ne!(key, Names::of("other").key(b"a"));
    }
}
