//! What happens to a store of texts.

use std::fmt;
use std::time::Duration;

/// Something changed about a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreNews {
    /// It is open, and this is in it.
    Opened {
        /// Texts.
        texts: u64,
        /// Bytes in use.
        bytes: u64,
        /// Texts that are past their ttl.
        past: u64,
    },
    /// Its file was damaged: it was put aside, and a new one is used.
    Damaged {
        /// The path of the damaged file.
        aside: String,
    },
    /// One text was damaged, and was deleted.
    DamagedText,
    /// A newer version has written the file. It is left as it is, and not used.
    Newer,
    /// It can't be written. Texts are served, and not kept over a restart.
    Unwritable {
        /// Why.
        why: String,
    },
    /// Another program holds it, so that it can't be written.
    Held,
    /// It can be written again.
    Writable,
    /// Texts are not written because too much waits to be.
    QueueFull,
    /// A purge could not be written, so all texts were deleted.
    Discarded {
        /// Why it could not.
        why: String,
    },
    /// It can't be used any more, or at all.
    Off {
        /// Why.
        why: String,
    },
    /// A fleet: texts are shared with its other proxies.
    Joined,
    /// A fleet: its server does not answer in time, and is not asked until it does.
    Silent {
        /// The time that it has.
        limit: Duration,
    },
    /// A fleet: there is no connection to its server.
    Unreached {
        /// Why.
        why: String,
    },
    /// A fleet: its server does not let us in.
    Refused {
        /// In its words.
        why: String,
    },
    /// A fleet: what answers is no server of Redis.
    NotRedis {
        /// Why.
        why: String,
    },
    /// A fleet: its server can be asked again.
    Answers {
        /// How long it could not.
        after: Duration,
        /// Questions that were not asked meanwhile.
        alone: u64,
    },
    /// A fleet: its server takes no texts.
    Unshared {
        /// In its words.
        why: String,
    },
    /// A fleet: a purge will reach the others once its server can be asked.
    PurgeOwed,
}

impl StoreNews {
    /// The one word for this in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            StoreNews::Opened { .. } => "store_open",
            StoreNews::Damaged { .. } => "store_damaged",
            StoreNews::DamagedText => "store_damaged_text",
            StoreNews::Newer => "store_newer",
            StoreNews::Unwritable { .. } => "store_unwritable",
            StoreNews::Held => "store_held",
            StoreNews::Writable => "store_writable",
            StoreNews::QueueFull => "store_queue_full",
            StoreNews::Discarded { .. } => "store_discarded",
            StoreNews::Off { .. } => "store_off",
            StoreNews::Joined => "fleet_joined",
            StoreNews::Silent { .. } => "fleet_silent",
            StoreNews::Unreached { .. } => "fleet_unreached",
            StoreNews::Refused { .. } => "fleet_refused",
            StoreNews::NotRedis { .. } => "fleet_not_redis",
            StoreNews::Answers { .. } => "fleet_answers",
            StoreNews::Unshared { .. } => "fleet_unshared",
            StoreNews::PurgeOwed => "fleet_purge_owed",
        }
    }

    /// Why, where the system gave a reason.
    pub fn reason(&self) -> Option<&str> {
        match self {
            StoreNews::Unwritable { why }
            | StoreNews::Discarded { why }
            | StoreNews::Off { why }
            | StoreNews::Unreached { why }
            | StoreNews::Refused { why }
            | StoreNews::NotRedis { why }
            | StoreNews::Unshared { why } => Some(why),
            _ => None,
        }
    }

    /// Whether something went wrong.
    pub fn is_trouble(&self) -> bool {
        let is_good = matches!(
            self,
            StoreNews::Opened { .. }
                | StoreNews::Writable
                | StoreNews::Joined
                | StoreNews::Answers { .. }
        );
        !is_good
    }
}

impl fmt::Display for StoreNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreNews::Opened { texts, bytes, past } => {
                write!(f, "{texts} poems, {bytes} bytes, {past} past their ttl")
            }
            StoreNews::Damaged { aside } => {
                write!(f, "damaged; put aside as {aside}, starting cold")
            }
            StoreNews::DamagedText => f.write_str("a damaged poem was deleted"),
            StoreNews::Newer => f.write_str(
                "written by a newer version: not used and left as it is; \
                 nothing is kept over a restart",
            ),
            StoreNews::Unwritable { why } => {
                write!(
                    f,
                    "not written: {why}; new poems are not kept over a restart"
                )
            }
            StoreNews::Held => f.write_str(
                "not written: another program holds it open; \
                 new poems are not kept over a restart",
            ),
            StoreNews::Writable => f.write_str("written again"),
            StoreNews::QueueFull => {
                f.write_str("too slow, or a poem too long: not kept over a restart")
            }
            StoreNews::Discarded { why } => {
                write!(
                    f,
                    "a purge could not be written: {why}; all its poems were deleted"
                )
            }
            StoreNews::Off { why } => write!(f, "not used: {why}; nothing is kept over a restart"),
            StoreNews::Joined => f.write_str("sharing poems with the fleet"),
            StoreNews::Silent { limit } => {
                let limit = humantime::format_duration(*limit);
                write!(f, "no answer within {limit}: on its own until it answers")
            }
            StoreNews::Unreached { why } => write!(f, "{why}: on its own until it answers"),
            StoreNews::Refused { why } => {
                write!(
                    f,
                    "it does not let the proxy in: {why}; on its own until it does"
                )
            }
            StoreNews::NotRedis { why } => {
                write!(f, "{why}; on its own until it answers as Redis does")
            }
            StoreNews::Answers { after, alone } => {
                let after = Duration::from_secs(after.as_secs().max(1));
                let after = humantime::format_duration(after);
                write!(f, "answers again after {after}")?;
                match alone {
                    0 => Ok(()),
                    1 => f.write_str("; 1 fetch did not ask it"),
                    more => write!(f, "; {more} fetches did not ask it"),
                }
            }
            StoreNews::Unshared { why } => write!(f, "poems are not shared: {why}"),
            StoreNews::PurgeOwed => f.write_str("purged here; the others are not told yet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_store_did_is_told_in_the_right_number() {
        let told = |alone| {
            let after = Duration::from_millis(12_800);
            StoreNews::Answers { after, alone }.to_string()
        };
        assert_eq!(told(0), "answers again after 12s");
        assert_eq!(told(1), "answers again after 12s; 1 fetch did not ask it");
        assert_eq!(told(2), "answers again after 12s; 2 fetches did not ask it");
    }
}
