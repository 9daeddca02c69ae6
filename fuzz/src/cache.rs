//! The cache: any order of look-ups, reservations, ends, purges and waits, for a few
//! keys and under many policies, beside a slow and obvious model.
//!
//! The model predicts every answer, byte and count. The most important rules are
//! checked here again, without the model:
//!
//! * a value is only returned for the key it was committed for, and no longer than it
//!   was committed for;
//! * at most one flight is under way for a key, unless every client is to fetch alone;
//! * values and negative entries never exceed the capacity. Together with the flights
//!   they may exceed it, but only by what look-ups since the last eviction started with
//!   (256 bytes and the key each), by values that are being refreshed, by what failed
//!   refreshes held, or where flights alone exceed it;
//! * when everything is dropped and purged, nothing is held.

mod model;
mod run;

use super::head;
use model::Rules;
use run::CacheRun;

/// The times of the policies, in seconds.
const TIMES: [u64; 4] = [0, 1, 10, 100];
/// In bytes. Each makes a single shard, so that the order of evictions is known.
const CAPACITIES: [u64; 8] = [0, 256, 400, 1000, 2000, 5000, 20_000, 100_000];

/// Two bytes choose the policy. After that, three bytes each are an action: what to do,
/// to which key or fill, and with how many bytes.
pub fn check(data: &[u8]) {
    let ([times, capacity], actions) = head(data);
    let time = |shift: u8| TIMES[usize::from(times >> shift & 3)];
    let mut run = CacheRun::new(Rules {
        ttl: time(0),
        grace: time(2),
        fail_ttl: time(4),
        capacity: CAPACITIES[usize::from(capacity) % CAPACITIES.len()],
    });

    for action in actions.chunks_exact(3) {
        run.act(action[0], action[1], action[2]);
        run.compare();
    }
    run.end();
}
