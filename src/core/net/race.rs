//! Which of a server's addresses to connect to: all of them, each a little later than
//! the one before, and the first that answers wins (RFC 8305, "happy eyeballs").

use crate::addr::Addr;
use crate::rt::within;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use socket2::SockAddr;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::Duration;

/// How long an attempt has no rival (RFC 8305, section 8: 250 ms are recommended).
const HEAD_START: Duration = Duration::from_millis(250);

/// Names whose last address is known. With more, all are dropped.
const NAMES_MAX: usize = 64;

/// The address that answered last, for each name.
static WINNERS: LazyLock<Mutex<HashMap<Addr, SockAddr>>> = LazyLock::new(Mutex::default);

fn winners() -> MutexGuard<'static, HashMap<Addr, SockAddr>> {
    let guard = WINNERS.lock();
    guard.expect("no code panics while it holds the winners")
}

/// Notes the address of a name that answered.
pub(super) fn note(name: &Addr, winner: SockAddr) {
    let mut winners = winners();
    if winners.len() >= NAMES_MAX && !winners.contains_key(name) {
        winners.clear();
    }
    winners.insert(name.clone(), winner);
}

/// The addresses of a name in the order in which to try them: the one that answered
/// last, and the others by turns of IPv6 and IPv4.
pub(super) fn order(name: &Addr, found: Vec<SockAddr>) -> Vec<SockAddr> {
    let mut order = alternate(found);
    let winner = winners().get(name).cloned();
    let place = order.iter().position(|addr| Some(addr) == winner.as_ref());
    if let Some(place) = place {
        order[..=place].rotate_right(1);
    }
    order
}

/// Alternates between the kinds of addresses, and starts with the kind that is first
/// (RFC 8305, section 4).
fn alternate(found: Vec<SockAddr>) -> Vec<SockAddr> {
    let is_like_first: Vec<bool> = found
        .iter()
        .map(|addr| addr.is_ipv6() == found[0].is_ipv6())
        .collect();
    let (like_first, others): (Vec<_>, Vec<_>) = found
        .into_iter()
        .zip(is_like_first)
        .partition(|(_, is_like_first)| *is_like_first);

    let mut others = others.into_iter();
    let mut order: Vec<SockAddr> = like_first
        .into_iter()
        .flat_map(|first| [Some(first), others.next()])
        .flatten()
        .map(|(addr, _)| addr)
        .collect();
    order.extend(others.map(|(addr, _)| addr));
    order
}

/// Starts the attempts in their order, each once the one before has failed or has had
/// its head start. The first that succeeds wins, and the others are dropped.
///
/// # Errors
/// The error of the attempt that failed last; `None` if there is no attempt.
pub(super) async fn first_ok<T, E, A>(
    attempts: impl IntoIterator<Item = A, IntoIter: ExactSizeIterator>,
) -> Result<T, Option<E>>
where
    A: Future<Output = Result<T, E>>,
{
    let mut attempts = attempts.into_iter();
    let mut running = FuturesUnordered::new();
    let mut last = None;

    loop {
        let ended = match attempts.next() {
            Some(attempt) => {
                running.push(attempt);
                if attempts.len() == 0 {
                    continue; // there is no rival to wait for
                }
                match within(HEAD_START, running.next()).await {
                    Some(ended) => ended,
                    None => continue,
                }
            }
            None => running.next().await,
        };

        match ended {
            Some(Ok(winner)) => return Ok(winner),
            Some(Err(error)) => last = Some(error),
            None => return Err(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::block_on;
    use futures::future::{BoxFuture, FutureExt, pending, ready};
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    fn addrs(texts: &[&str]) -> Vec<SockAddr> {
        let parse = |text: &&str| text.parse::<SocketAddr>().expect("an address").into();
        texts.iter().map(parse).collect()
    }

    fn name(text: &str) -> Addr {
        text.parse().expect("an address")
    }

    #[test]
    fn kinds_of_addresses_alternate() {
        let found = addrs(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"]);
        let expected = addrs(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        assert_eq!(alternate(found), expected);

        let found = addrs(&["1.1.1.1:1", "[::1]:1", "[::2]:1"]);
        assert_eq!(alternate(found.clone()), found);
        assert_eq!(alternate(Vec::new()), []);
    }

    #[test]
    fn the_last_winner_comes_first() {
        let found = addrs(&["1.1.1.1:1", "2.2.2.2:1", "3.3.3.3:1"]);
        let (known, other) = (name("known.example:1"), name("other.example:1"));
        note(&known, found[2].clone());

        let expected = addrs(&["3.3.3.3:1", "1.1.1.1:1", "2.2.2.2:1"]);
        assert_eq!(order(&known, found.clone()), expected);
        assert_eq!(order(&other, found.clone()), found);
        assert_eq!(order(&known, addrs(&["1.1.1.1:1"])), addrs(&["1.1.1.1:1"]));
    }

    #[test]
    fn a_silent_address_costs_its_head_start_only() {
        let attempts: [BoxFuture<'_, Result<u8, ()>>; 2] =
            [pending().boxed(), ready(Ok(2)).boxed()];
        let start = Instant::now();
        assert_eq!(block_on(first_ok(attempts)), Ok(2));
        assert!(start.elapsed() >= HEAD_START);
    }

    #[test]
    fn the_next_address_follows_a_failure_at_once() {
        let start = Instant::now();
        let attempts = [ready(Err(1)), ready(Err(2)), ready(Ok(3)), ready(Ok(4))];
        assert_eq!(block_on(first_ok(attempts)), Ok(3));
        assert!(start.elapsed() < HEAD_START);
    }

    #[test]
    fn if_all_fail_the_last_error_counts() {
        assert_eq!(
            block_on(first_ok([ready(Err::<(), _>(1)), ready(Err(2))])),
            Err(Some(2))
        );
        let none: [BoxFuture<'_, Result<(), u8>>; 0] = [];
        assert_eq!(block_on(first_ok(none)), Err(None));
    }

    #[test]
    fn no_attempt_starts_beside_one_that_is_quick() {
        let started = AtomicUsize::new(0);
        let attempts = (0..3).map(|number| {
            started.fetch_add(1, Ordering::Relaxed);
            ready(Ok::<_, ()>(number))
        });
        assert_eq!(block_on(first_ok(attempts)), Ok(0));
        assert_eq!(started.load(Ordering::Relaxed), 1);
    }
}
