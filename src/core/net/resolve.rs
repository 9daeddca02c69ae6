//! Host names: their addresses, and whether an address leads back to our own listener.

use crate::addr::Addr;
use crate::error::{Error, Stage, reason};
use crate::rt::{BLOCKING_MAX, unblock, within};
use crate::semaphore::Semaphore;
use socket2::SockAddr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// The longest path of a unix socket, in bytes: the kernel's `sun_path` without its
/// final NUL.
const UNIX_PATH_BYTES_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Name look-ups at the same time. A look-up can't be cancelled: if the resolver hangs,
/// it goes on long after its caller has given up. This limit leaves half of the threads
/// for blocking work to other work.
const LOOKUPS_MAX: usize = BLOCKING_MAX / 2;

static LOOKUP_PERMITS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(LOOKUPS_MAX));

/// How long a look-up may take that only checks whether a name leads to ourselves.
const LEADS_TO_TIMEOUT: Duration = Duration::from_secs(1);

/// The addresses of a name, in the resolver's order; at least one.
///
/// # Errors
/// [`Error::Unresolved`]; [`Error::Timeout`] if the resolver is silent;
/// [`Error::Local`] for the path of a unix socket that is too long.
pub(super) async fn resolve(addr: &Addr, limit: Duration) -> Result<Vec<SockAddr>, Error> {
    let subject = || addr.to_string();

    match addr {
        Addr::Unix(path) => match unix_addr(path) {
            Ok(found) => Ok(vec![found]),
            Err(why) => Err(Error::Local {
                subject: subject(),
                why,
            }),
        },
        Addr::Tcp { host, port } => match within(limit, resolve_host(host, *port)).await {
            Some(Ok(found)) => Ok(found),
            Some(Err(why)) => Err(Error::Unresolved {
                subject: subject(),
                why,
            }),
            None => Err(Error::Timeout {
                subject: subject(),
                stage: Stage::Resolve,
                limit,
            }),
        },
    }
}

/// The address of a path, or why there is none.
fn unix_addr(path: &Path) -> Result<SockAddr, String> {
    SockAddr::unix(path).map_err(|e| {
        if path.as_os_str().len() > UNIX_PATH_BYTES_MAX {
            format!("the path is longer than {UNIX_PATH_BYTES_MAX} bytes")
        } else {
            reason(&e)
        }
    })
}

/// The addresses of a host, by name or by number, or why there is none.
async fn resolve_host(host: &str, port: u16) -> Result<Vec<SockAddr>, String> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port).into()]);
    }

    let host = host.to_string();
    let work = move || {
        let found = (host, port).to_socket_addrs()?;
        Ok(found.map(SockAddr::from).collect::<Vec<_>>())
    };

    match look_up(&LOOKUP_PERMITS, work).await {
        Err(e) => Err(resolver_reason(&e)),
        Ok(found) if found.is_empty() => Err("the name has no address".into()),
        Ok(found) => Ok(found),
    }
}

/// The resolver's reason, without the words that std puts before it.
fn resolver_reason(error: &io::Error) -> String {
    reason(error)
        .trim_start_matches("failed to lookup address information: ")
        .to_lowercase()
}

/// Runs a look-up with a permit, which is held until the look-up ends, also if the
/// caller stops waiting.
async fn look_up<T: Send + 'static>(
    permits: &Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let permit = permits.acquire(Instant::now()).await;
    unblock(move || {
        let found = work();
        drop(permit);
        found
    })
    .await
}

/// Whether a connection to `target` would reach a listener on `listening`, which may
/// take IPv4 clients if it listens on all IPv6 addresses.
pub(super) async fn leads_to(target: &Addr, listening: &Addr, takes_ipv4: bool) -> bool {
    match (target, listening) {
        (Addr::Unix(target), Addr::Unix(listening)) => real_path(target) == real_path(listening),
        (Addr::Tcp { port, .. }, Addr::Tcp { port: own, .. }) if port == own => {
            let targets = ips(target).await;
            let own = ips(listening).await;
            targets
                .iter()
                .any(|target| own.iter().any(|own| reaches(*target, *own, takes_ipv4)))
        }
        _ => false,
    }
}

fn real_path(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

/// The IP addresses of a name; none if it can't be resolved in time.
async fn ips(addr: &Addr) -> Vec<IpAddr> {
    let found = resolve(addr, LEADS_TO_TIMEOUT).await.unwrap_or_default();
    found
        .iter()
        .filter_map(|addr| Some(addr.as_socket()?.ip()))
        .collect()
}

/// Whether a connection to `target` arrives at a socket of this machine that listens on
/// `own`, at the same port.
fn reaches(target: IpAddr, own: IpAddr, takes_ipv4: bool) -> bool {
    // The kernel takes an unspecified target for loopback.
    let target = match target.to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };

    match own {
        IpAddr::V4(own) if own.is_unspecified() => target.is_ipv4() && is_ours(target),
        IpAddr::V6(own) if own.is_unspecified() => {
            (takes_ipv4 || target.is_ipv6()) && is_ours(target)
        }
        own => own.to_canonical() == target,
    }
}

/// Whether this is an address of this machine: what is sent to it is sent from it.
fn is_ours(ip: IpAddr) -> bool {
    ip.is_loopback() || source_for(ip).is_ok_and(|source| source == ip)
}

/// The address this machine would send from. Connecting a UDP socket sends nothing: it
/// only consults the routing table. The port does not matter.
fn source_for(ip: IpAddr) -> io::Result<IpAddr> {
    const ANY_PORT: u16 = 9;
    let unspecified = match ip {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };

    let socket = std::net::UdpSocket::bind((unspecified, 0))?;
    socket.connect((ip, ANY_PORT))?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::block_on;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    #[test]
    fn a_listener_on_all_ipv6_addresses_is_not_reached_by_ipv4() {
        let leads = |target: &str, own: &str, takes_ipv4: bool| {
            let (target, own) = (target.parse().unwrap(), own.parse().unwrap());
            block_on(leads_to(&target, &own, takes_ipv4))
        };

        assert!(leads("127.0.0.1:9", "0.0.0.0:9", false));
        assert!(!leads("[::1]:9", "0.0.0.0:9", false));
        assert!(!leads("127.0.0.1:9", "[::]:9", false));
        assert!(leads("127.0.0.1:9", "[::]:9", true));
        assert!(leads("[::1]:9", "[::]:9", false));
        assert!(leads("[::]:9", "[::1]:9", false));
        assert!(!leads("[::1]:10", "[::]:9", true));
    }

    #[test]
    fn a_silent_resolver_is_an_error_with_the_deadline() {
        const BRIEF: Duration = Duration::from_millis(20);
        let name = "localhost:1".parse().unwrap();
        let found = block_on(async {
            let mut held = Vec::new(); // as if as many look-ups hung
            for _ in 0..LOOKUPS_MAX {
                held.push(LOOKUP_PERMITS.acquire(Instant::now()).await);
            }
            resolve(&name, BRIEF).await
        });

        let error = found.unwrap_err().to_string();
        assert_eq!(
            error,
            "localhost:1: the resolver did not answer within 20ms"
        );
    }

    #[test]
    fn a_resolver_that_hangs_costs_only_its_deadline_and_permits() {
        const BRIEF: Duration = Duration::from_millis(20);
        const LONG: Duration = Duration::from_secs(20);
        let permits = Semaphore::new(2);
        let started = Arc::new(AtomicUsize::new(0));

        let mut hung = Vec::new();
        for _ in 0..5 {
            let (hang_up, hangs) = channel::<()>();
            let started = started.clone();
            let work = move || {
                started.fetch_add(1, Ordering::AcqRel);
                hangs.recv().is_ok()
            };
            assert_eq!(block_on(within(BRIEF, look_up(&permits, work))), None);
            hung.push(hang_up);
        }
        assert!(started.load(Ordering::Acquire) <= 2);

        drop(hung);
        assert_eq!(
            block_on(within(LONG, look_up(&permits, || "found"))),
            Some("found"),
            "no permit was lost"
        );
    }
}
