//! How long a slow reader may delay other fetches.
//!
//! A text over the window, or without room, flows at its readers' pace, and holds its
//! place before the upstream meanwhile. Of several readers the slowest sets the pace:
//!
//! | the slowest reader | it |
//! |---|---|
//! | takes 64 KiB every fiftieth of the patience (0.1 s) | sets the pace |
//! | is slower | holds the others up for the patience (5 s) in all, and is left behind then |
//!
//! While no client waits for a place, the fastest may take as long as it likes. From
//! the moment a client waits, none holds the others up, and the fastest has limits,
//! too:
//!
//! | the client has waited | the readers have |
//! |---|---|
//! | less than the patience (5 s) | until then |
//! | up to twice the patience | a fiftieth of it (0.1 s) for each 64 KiB |
//! | longer | 1 ms: time for a reader that keeps up to get its turn on the thread |

use std::time::Duration;

/// How long a slow reader may delay other fetches.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The part of the patience that readers have for each [`PACE_BYTES`] once a client has
/// waited for the whole of it.
const PACE_PARTS: u32 = 50;

/// What an upstream is read by, in bytes, and what a reader must take to make progress.
pub(super) const PACE_BYTES: u64 = 64 << 10;

/// What readers have at last. Even the fastest needs it: it reads after we have
/// written.
const TURN: Duration = Duration::from_millis(1);

/// The rule, without a clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience(pub(super) Duration);

impl Patience {
    /// How long to wait for readers before the next look. `waited` is how long the
    /// oldest client has waited for a place, if any does.
    pub(super) fn next_look(self, waited: Option<Duration>) -> Duration {
        let waited = waited.unwrap_or_default();
        if waited >= 2 * self.0 {
            return TURN;
        }

        let rest = self.0.saturating_sub(waited);
        rest.max(self.0 / PACE_PARTS)
    }

    /// How long to wait for the slowest reader before its pace is looked at.
    pub(super) fn pace_look(self) -> Duration {
        self.0 / PACE_PARTS
    }

    /// Whether readers that make no progress lose the text.
    pub(super) fn is_exhausted(self, waited: Option<Duration>) -> bool {
        waited.is_some_and(|waited| waited >= self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[test]
    fn readers_have_time_while_no_client_waits() {
        let patience = Patience(LIMIT);
        assert_eq!(patience.next_look(None), LIMIT);
        assert!(!patience.is_exhausted(None));
    }

    #[test]
    fn readers_are_hurried_in_three_steps() {
        let patience = Patience(LIMIT);
        for (waited, look, exhausted) in [
            (Duration::ZERO, LIMIT, false),
            (LIMIT / 2, LIMIT / 2, false),
            (LIMIT - TURN, Duration::from_millis(100), false),
            (LIMIT, Duration::from_millis(100), true),
            (2 * LIMIT - TURN, Duration::from_millis(100), true),
            (2 * LIMIT, TURN, true),
            (20 * LIMIT, TURN, true),
        ] {
            assert_eq!(patience.next_look(Some(waited)), look, "{waited:?}");
            assert_eq!(patience.is_exhausted(Some(waited)), exhausted, "{waited:?}");
        }
    }
}
