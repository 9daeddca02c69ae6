//! Names and addresses: where a name leads, and whether it leads to ourselves.

use crate::addr::Addr;
use crate::error::{Error, reason};
use crate::rt::{unblock, within};
use crate::semaphore::Semaphore;
use socket2::SockAddr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// How long the path of a unix socket may be, in bytes: the kernel's `sun_path`, without its end.
const UNIX_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// All the addresses of a name, in the resolver's order.
pub(super) async fn resolve(addr: &Addr, limit: Duration) -> Result<Vec<SockAddr>, Error> {
    let unresolved = |why: String| Error::Unresolved {
        subject: addr.to_string(),
        why,
    };
    match addr {
        Addr::Unix(path) => match SockAddr::unix(path) {
            Ok(addr) => Ok(vec![addr]),
            Err(e) => {
                let long = path.as_os_str().len() > UNIX_PATH;
                let why = if long {
                    format!("the path is longer than {UNIX_PATH} bytes")
                } else {
                    reason(&e)
                };
                Err(Error::Local {
                    subject: addr.to_string(),
                    why,
                })
            }
        },
        Addr::Tcp { host, port } => {
            if let Ok(ip) = host.parse::<IpAddr>() {
                return Ok(vec![SocketAddr::new(ip, *port).into()]);
            }
            let (host, port) = (host.clone(), *port);
            let work = move || {
                Ok((host, port)
                    .to_socket_addrs()?
                    .map(SockAddr::from)
                    .collect::<Vec<_>>())
            };
            let found = within(limit, look_up(&LOOKING_UP, work)).await;
            let found = found.ok_or_else(|| unresolved("the resolver did not answer".into()))?;
            let found = found.map_err(|e| unresolved(resolver_reason(&e)))?;
            match found.is_empty() {
                true => Err(unresolved("the name has no address".into())),
                false => Ok(found),
            }
        }
    }
}

/// Whether connecting to `target` would reach whoever listens on `listening`, as far as that can be seen from here:
/// detours through other machines can't.
pub async fn leads_to(target: &Addr, listening: &Addr) -> bool {
    match (target, listening) {
        (Addr::Unix(target), Addr::Unix(listening)) => {
            let real =
                |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
            real(target) == real(listening)
        }
        (Addr::Tcp { port, .. }, Addr::Tcp { port: own, .. }) if port == own => {
            let ips =
                |addrs: Vec<SockAddr>| addrs.into_iter().filter_map(|a| Some(a.as_socket()?.ip()));
            let targets = resolve(target, SIGHT).await.unwrap_or_default();
            let own: Vec<IpAddr> =
                ips(resolve(listening, SIGHT).await.unwrap_or_default()).collect();
            ips(targets).any(|ip| own.iter().any(|own| reaches(ip, *own)))
        }
        _ => false,
    }
}

/// How long a name may take that is only looked up to see whether it is ourselves.
const SIGHT: Duration = Duration::from_secs(1);

/// Whether a connection to `target` arrives at a socket of this machine that listens on `own`, at the same port.
fn reaches(target: IpAddr, own: IpAddr) -> bool {
    let target = match target.to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(), // as the kernel has it
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    match own {
        IpAddr::V4(own) if own.is_unspecified() => target.is_ipv4() && is_ours(target),
        IpAddr::V6(own) if own.is_unspecified() => is_ours(target), // of either family
        own => own.to_canonical() == target,
    }
}

/// Whether this is an address of this machine: what is sent to it is sent from it.
fn is_ours(ip: IpAddr) -> bool {
    let own_end = || {
        let any = if ip.is_ipv4() {
            IpAddr::from(Ipv4Addr::UNSPECIFIED)
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = std::net::UdpSocket::bind((any, 0))?;
        socket.connect((ip, 9))?; // sends nothing, and asks only the routing table
        socket.local_addr()
    };
    ip.is_loopback() || own_end().is_ok_and(|own| own.ip() == ip)
}

/// The resolver's own words.
fn resolver_reason(error: &io::Error) -> String {
    reason(error)
        .trim_start_matches("failed to lookup address information: ")
        .to_lowercase()
}

/// How many names are looked up at once. A look-up can't be cancelled: where the resolver hangs, one goes on for long
/// after whoever wanted it has given up. So many leave half of the pool's threads to other work (see `main`).
const LOOK_UPS: usize = 8;

static LOOKING_UP: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(LOOK_UPS));

/// Waits for a place, and keeps it until the work has ended, whether or not anybody still waits for it.
async fn look_up<T: Send + 'static>(
    semaphore: &Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let permit = semaphore.acquire(Instant::now()).await;
    unblock(move || {
        let found = work();
        drop(permit);
        found
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::block_on;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    #[test]
    fn a_resolver_that_hangs_costs_its_deadline_and_no_more_than_the_places() {
        const BRIEF: Duration = Duration::from_millis(20);
        const LONG: Duration = Duration::from_secs(20);
        let (semaphore, begun) = (Semaphore::new(2), Arc::new(AtomicUsize::new(0)));
        let mut hung = Vec::new();
        for _ in 0..5 {
            let ((hang_up, hangs), begun) = (channel::<()>(), begun.clone());
            let work = move || {
                begun.fetch_add(1, Ordering::AcqRel);
                hangs.recv().is_ok()
            };
            assert_eq!(block_on(within(BRIEF, look_up(&semaphore, work))), None);
            hung.push(hang_up);
        }
        assert!(begun.load(Ordering::Acquire) <= 2);
        drop(hung);
        assert_eq!(
            block_on(within(LONG, look_up(&semaphore, || "found"))),
            Some("found"),
            "no permit was lost"
        );
    }
}
