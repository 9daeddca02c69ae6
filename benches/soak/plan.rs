//! The numbers of a soak, each with its reason: small enough to reach every limit of
//! the proxy within seconds.

use std::time::Duration;

/// How many names there are to ask for: too many for all to fit, few enough that many
/// clients ask for the same one at once.
pub const KEYS: usize = 200;

/// Short, so that poems go stale and expire all the time.
pub const TTL: Duration = Duration::from_secs(2);
pub const GRACE: Duration = Duration::from_secs(3);
pub const FAIL_TTL: Duration = Duration::from_millis(300);

/// How long a stall costs the proxy.
pub const IDLE_TIMEOUT: Duration = Duration::from_millis(700);
/// How long a fetch may take in all.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Few, so that fetches have to queue.
pub const UPSTREAM_CONNS: usize = 8;

/// Fewer than a storm opens at once: some clients wait in the kernel's queue.
pub const MAX_CLIENTS: usize = 40;

pub const MAX_POEM: usize = 1 << 20;

/// Less than the poems of all names together, so that some are evicted. More than all
/// flights together (`UPSTREAM_CONNS` times `MAX_POEM` and a chunk), so that lack of
/// memory never excuses a second fetch of a key.
pub const CAPACITY: usize = 12 << 20;

/// Less than one poem may need: here a poem often does not fit.
pub const TIGHT_CAPACITY: usize = 256 << 10;

/// Number of client threads.
pub const THREADS: usize = 32;
/// How many connections one thread opens in a storm.
pub const STORM: usize = 50;
/// How many storms there may be at once. With more, there would be nothing but storms.
pub const STORMS: usize = 3;

/// How far apart simultaneous events may appear on a machine with other work.
pub const SLACK: Duration = Duration::from_secs(1);

/// The longest wait for a byte or an end. A whole fetch and a stuck client before it,
/// for each of the two proxies in a row and once more in the queue for `MAX_CLIENTS`,
/// take less.
pub const HANG: Duration = Duration::from_secs(30);

/// How long the record of a text is kept. No client is busy with a text for longer.
pub const MEMORY: Duration = Duration::from_secs(120);

/// How many clients a fleet has, and the proxy with a file beside it.
pub const FLEET_THREADS: usize = 300;
/// How many names they ask for: few, so that all proxies want the same at once.
pub const KEYS_OF_FLEET: usize = 20;
/// The longest pause between two requests of such a client, in milliseconds. Without it
/// the machine would be too busy for the store to answer in time.
pub const PAUSE_MS: u64 = 1_000;
/// `--max-clients` there. Some clients of a storm wait.
pub const FLEET_CLIENTS: usize = 120;
/// How long a key of the fleet keeps its text, so that a fetch that takes over from
/// another mostly brings the same, and sometimes not.
pub const SAME_FOR: Duration = Duration::from_secs(5);
/// The pause between two troubles of a fleet, in milliseconds.
pub const TROUBLE_PAUSE: std::ops::Range<u64> = 500..3_000;

/// The pause between two purges of everything, in milliseconds.
pub const SIGNAL_PAUSE: std::ops::Range<u64> = 2_000..6_000;

/// A choice, its weight, and its name.
pub type Weighted<T> = (T, u32, &'static str);

/// One of the choices and its name, at random by weight.
pub fn choose<T: Copy>(rng: &mut fastrand::Rng, from: &[Weighted<T>]) -> (T, &'static str) {
    let all: u32 = from.iter().map(|(_, weight, _)| weight).sum();
    let mut left = rng.u32(..all);

    for (choice, weight, name) in from {
        if left < *weight {
            return (*choice, name);
        }
        left -= weight;
    }
    unreachable!("a number below the sum of all weights falls within one of them")
}
