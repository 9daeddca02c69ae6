//! The numbers of a soak, each with its reason: small enough that every limit of the proxy is met within seconds.

use std::time::Duration;

/// What the requests ask for: so many names that they don't all fit, and so few that many ask for the same at once.
pub const KEYS: usize = 200;

/// Short, so that poems grow stale and die all the time.
pub const TTL: Duration = Duration::from_secs(2);
pub const GRACE: Duration = Duration::from_secs(3);
pub const FAIL_TTL: Duration = Duration::from_millis(300);

/// A stall costs the proxy this long, and a fetch in all that long.
pub const IDLE_TIMEOUT: Duration = Duration::from_millis(700);
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Few, so that fetches have to wait for their turn.
pub const UPSTREAM_CONNS: usize = 8;

/// Fewer than come at once in a storm: some wait in the kernel's queue.
pub const MAX_CLIENTS: usize = 40;

pub const MAX_POEM: usize = 1 << 20;

/// Less than all names' poems together, so that some are evicted; more than all flights together
/// (`UPSTREAM_CONNS` times `MAX_POEM` and a chunk), so that lack of room excuses no second fetch of a key.
pub const CAPACITY: usize = 12 << 20;

/// Less than one poem can be: here lack of room is the rule.
pub const TIGHT_CAPACITY: usize = 256 << 10;

/// Client threads, and how many connections one of them opens at once in a storm. With more storms at a time than
/// this, all there would be is storms.
pub const THREADS: usize = 32;
pub const STORM: usize = 50;
pub const STORMS: usize = 3;

/// How far apart things that are simultaneous may be seen on a machine with other work.
pub const SLACK: Duration = Duration::from_secs(1);

/// Nobody may wait this long for a byte or an end: a whole fetch and a stuck client before it, for each of the two
/// proxies in a row and once more in the queue for `MAX_CLIENTS`, come to less.
pub const HANG: Duration = Duration::from_secs(30);

/// How long a text's record is needed: a client may be busy with it for so long and no longer.
pub const MEMORY: Duration = Duration::from_secs(120);

/// The pause between two signals to forget everything.
pub const SIGNAL_PAUSE: std::ops::Range<u64> = 2_000..6_000; // ms

/// One of these, each with its share and its name, at random.
pub fn choose<T: Copy>(
    rng: &mut fastrand::Rng,
    from: &[(T, u32, &'static str)],
) -> (T, &'static str) {
    let all: u32 = from.iter().map(|(_, charge, _)| charge).sum();
    let mut left = rng.u32(..all);
    let chosen = from
        .iter()
        .find(|(_, charge, _)| match left.checked_sub(*charge) {
            Some(less) => {
                left = less;
                false
            }
            None => true,
        });
    chosen
        .map(|(what, _, name)| (*what, *name))
        .expect("less than all shares together is within one of them")
}
