//! The sockets to listen on, and the file descriptors that clients may use.

mod inherited;

use super::addrs::explain_refusal;
use inherited::{Inherited, Passed};
use poetry::addr::ListenAddr;
use poetry::error::Error;
use poetry::net::Listener;
use poetry::rt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::num::NonZeroUsize;

/// The sockets of a service.
pub(super) struct Sockets {
    /// Where clients connect; at least one.
    pub listeners: Vec<Listener>,
    /// Where operators connect.
    pub admin: Vec<Listener>,
    /// A warning for each inherited descriptor that is left alone.
    pub left_alone: Vec<String>,
}

impl Sockets {
    /// Opens the sockets: those from a service manager, and if none of them is for
    /// clients, one for each of `addrs`; for operators one for each of `admin` in any
    /// case. Starts the runtime's threads before, so that a service is not reachable
    /// without the threads that serve.
    ///
    /// Call this before any thread is started: it removes the service manager's
    /// environment variables, and another thread could be reading the environment.
    ///
    /// # Errors
    /// [`Error::Local`] or [`Error::Unresolved`] if a socket cannot be used, or if
    /// there is no thread left.
    pub async fn open(addrs: &[ListenAddr], admin: &[ListenAddr]) -> Result<Sockets, Error> {
        let passed = Passed::from_env();
        rt::start()?;
        let Inherited {
            mut listeners,
            admin: mut operators,
            left_alone,
        } = passed.sort()?;

        if listeners.is_empty() {
            listeners = bind(addrs).await?;
        }
        operators.extend(bind(admin).await?);
        Ok(Sockets {
            listeners,
            admin: operators,
            left_alone,
        })
    }
}

async fn bind(addrs: &[ListenAddr]) -> Result<Vec<Listener>, Error> {
    let mut listeners = Vec::new();
    for addr in addrs {
        let listener = Listener::bind(addr).await;
        listeners.push(listener.map_err(|error| explain_refusal(&addr.addr, error))?);
    }
    Ok(listeners)
}

/// The file descriptors that a command needs beside one for each client.
#[derive(Clone, Copy, Default)]
pub(super) struct FdBudget {
    /// However many clients there are.
    pub fixed: u64,
    /// For each client.
    pub per_client: u64,
}

/// Descriptors that every service needs: 3 standard streams, 3 for the reactor of the
/// process, 13 for signals, 1 for a service manager, 2 for poems being read again, 8
/// for names being resolved, and 4 to spare. The first process of a container needs
/// these for its children's signal and the list of processes.
const OTHER_DESCRIPTORS: u64 = 34;

/// Descriptors of each thread, beside its listeners: 2 for its reactor, and 1 for the
/// connection being answered at once.
const THREAD_DESCRIPTORS: u64 = 3;

impl FdBudget {
    /// How many clients this process has descriptors for, at least 1.
    ///
    /// Raises the soft limit to the hard limit first. The soft limit protects programs
    /// that use select(2), which this one does not.
    pub fn max_clients(self, listeners: usize, threads: NonZeroUsize) -> u64 {
        let limit = raise_limit().unwrap_or(u64::MAX);
        let of_a_thread = THREAD_DESCRIPTORS + listeners as u64;
        let others = OTHER_DESCRIPTORS
            .saturating_add(self.fixed)
            .saturating_add(of_a_thread * threads.get() as u64);

        (limit.saturating_sub(others) / (1 + self.per_client)).max(1)
    }
}

/// Raises the limit on open files as far as allowed, and returns it.
fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        maximum
    } else {
        current
    }
}
