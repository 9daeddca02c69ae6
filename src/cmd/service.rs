//! What the listening commands share: the ready line, signals, reloads and the drain.

use super::flags::{Listening, Output};
use super::log::Log;
use super::signals::{self, Terminals};
use super::sockets::FdBudget;
use async_signal::{Signal, Signals};
use futures::channel::{mpsc, oneshot};
use futures::{FutureExt, StreamExt};
use poetry::budget::Budget;
use poetry::error::Error;
use poetry::net::Listener;
use poetry::observe::{Event, Observer};
use poetry::rt;
use poetry::server::{Handler, Limits, Parts, Server, Wire};
use poetry::stats::Stats;
use sd_notify::NotifyState;
use std::convert::Infallible;
use std::future::pending;
use std::io::{Write, stdout};
use std::sync::Arc;
use std::time::Instant;

/// The memory for the requests of all clients together, in bytes, and for answers made
/// from a single request. In the netstring protocol these can be as long as poems.
/// Equal to the default of `--capacity`, the memory for poems.
const REQUEST_MEMORY: u64 = 256 << 20;

/// A service that is ready to start.
pub(super) struct Service<'a> {
    pub listeners: Vec<Listener>,
    pub listening: &'a Listening,
    pub output: &'a Output,
    /// What it does; the ready line is `VERB on ADDR`.
    pub verb: String,
    pub fds: FdBudget,
}

/// Prints the ready lines, serves until a signal, drains; returns the exit code.
///
/// `handler` makes the handler, and says what it speaks.
///
/// # Errors
/// [`Error::Local`] if signals cannot be listened to.
pub(super) async fn listen<H: Handler>(
    service: Service<'_>,
    handler: impl FnOnce(&Shared) -> (Arc<H>, Wire),
) -> Result<u8, Error> {
    let signals = signals::all()?;
    let terminals = Terminals::now();

    let log = Log::start(service.output);
    let shared = Shared {
        observer: Arc::new(log.clone()),
        stats: Arc::default(),
        budget: Budget::new(REQUEST_MEMORY),
    };
    let (handler, wire) = handler(&shared);

    let limits = service.limits(&*shared.observer);
    service.announce();

    let (stop, stopped) = oneshot::channel();
    let control = Control {
        terminals,
        reload: reloads(handler.clone(), shared.observer.clone()),
        stop,
    };
    let server = Server::new(Parts {
        handler,
        wire,
        limits,
        budget: shared.budget,
        observer: shared.observer,
        stats: shared.stats,
    });
    let serving = server.run(service.listeners, stopped.map(drop));

    match rt::race(serving, control.obey(signals)).await {
        Ok(()) => {
            log.flush();
            Ok(0)
        }
        Err(signal) => Ok(signals::exit_code(signal)),
    }
}

/// What the parts of a service share.
pub(super) struct Shared {
    pub observer: Arc<dyn Observer>,
    pub stats: Arc<Stats>,
    /// The memory for clients' requests.
    pub budget: Budget,
}

impl Service<'_> {
    /// The limits of the server. Reports if there are descriptors for fewer clients
    /// than `--max-clients`.
    fn limits(&self, observer: &dyn Observer) -> Limits {
        let wanted = self.listening.max_clients;
        let possible = self.fds.max_clients(self.listeners.len());
        if possible < wanted {
            observer.event(Event::FewDescriptors { clients: possible });
        }

        Limits {
            max_clients: wanted.min(possible),
            max_half_closed: wanted.min(possible.saturating_sub(wanted)),
            client_timeout: self.listening.client_timeout,
            drain_timeout: self.listening.drain_timeout,
        }
    }

    /// Prints a ready line for each address, and tells the service manager.
    fn announce(&self) {
        for listener in &self.listeners {
            let line = writeln!(stdout(), "{} on {}", self.verb, listener.addr());
            let _closed = line.and_then(|()| stdout().flush());
        }
        let _no_service_manager = sd_notify::notify(&[NotifyState::Ready]);
    }
}

/// What signals control.
struct Control {
    /// The terminals when the service started.
    terminals: Terminals,
    reload: mpsc::Sender<()>,
    /// Dropped to stop the server.
    stop: oneshot::Sender<Infallible>,
}

impl Control {
    /// Reloads on SIGHUP and stops the server on any other signal. A second signal is
    /// to end the process at once: it is returned, and the kernel then resets what is
    /// open.
    async fn obey(mut self, mut signals: Signals) -> Signal {
        while let Some(Ok(Signal::Hup)) = signals.next().await {
            if self.terminals.are_gone() {
                break; // the terminal was closed: this SIGHUP asks to stop
            }
            let _already_pending = self.reload.try_send(());
        }

        let _no_service_manager = sd_notify::notify(&[NotifyState::Stopping]);
        drop(self.stop);

        while let Some(Ok(signal)) = signals.next().await {
            if signal != Signal::Hup {
                return signal;
            }
        }
        pending().await
    }
}

/// Starts a task that reloads the handler on request. It is a task because a disk may
/// be slow, and neither clients nor the next signal must wait for it. Requests that
/// arrive while one is pending are merged into it.
fn reloads<H: Handler>(handler: Arc<H>, observer: Arc<dyn Observer>) -> mpsc::Sender<()> {
    let (request, mut requests) = mpsc::channel(0); // plus one slot for each sender
    rt::spawn(async move {
        while requests.next().await.is_some() {
            let handler = handler.clone();
            match rt::unblock(move || handler.reload(Instant::now())).await {
                Ok(what) => observer.event(Event::Reloaded { what }),
                Err(error) => observer.event(Event::ReloadFailed { error: &error }),
            }
        }
    });
    request
}
