//! What the listening commands share: the ready line, signals, reloads and the drain.

use super::admin::AdminSockets;
use super::announce::Announcer;
use super::flags::{Listening, Output};
use super::log::{self, Log};
use super::reload::{Reloading, reloads};
use super::signals::{self, ServiceSignals, Terminals};
use super::sockets::{FdBudget, Sockets};
use async_signal::{Signal, Signals};
use futures::FutureExt;
use futures::channel::{mpsc, oneshot};
use poetry::admin::status::About;
use poetry::admin::{Admin, AdminParts, Lookout};
use poetry::admission::{Admission, AdmissionSettings};
use poetry::budget::Budget;
use poetry::control::Control;
use poetry::error::Error;
use poetry::heartbeat::Heartbeat;
use poetry::host::Host;
use poetry::observe::{Event, Observer};
use poetry::server::{Handler, Limits, MOST_TOLD, Parts, Server, Wire};
use poetry::stats::Stats;
use poetry::{process, rt};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

/// The memory for the requests of all clients together, in bytes, and for answers made
/// from a single request. In the netstring protocol these can be as long as poems.
/// Equal to the default of `--capacity`, the memory for poems.
const REQUEST_MEMORY: u64 = 256 << 20;

/// A service that is ready to start.
pub(super) struct Service<'a> {
    pub sockets: Sockets,
    /// Where operators ask.
    pub admin: AdminSockets,
    /// What they are told that it is; the addresses are added.
    pub about: About,
    pub listening: &'a Listening,
    /// What limits clients; `None` if nothing does.
    pub admission: Option<AdmissionSettings>,
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
/// [`Error::Local`] if signals cannot be listened to, or a thread cannot be had.
pub(super) async fn listen<H: Handler + Control>(
    mut service: Service<'_>,
    handler: impl FnOnce(&Shared) -> (Arc<H>, Wire),
) -> Result<u8, Error> {
    service.warn();
    let signals = ServiceSignals::new()?;
    let terminals = Terminals::now();
    reap_orphans()?;

    let selection = service.listening.requests.selection();
    let log = Log::start(service.output, selection)?;
    let lookout = Lookout::new(Arc::new(log.clone()));
    let shared = Shared {
        observer: service.observer(&log, &lookout),
        stats: Arc::default(),
        budget: Budget::new(REQUEST_MEMORY),
    };
    let (handler, wire) = handler(&shared);
    let threads = service.listening.threads();
    let heartbeat = Arc::new(Heartbeat::new(threads, Instant::now()));
    let announcer = announcer(&handler, &shared.stats, &heartbeat)?;

    let addrs = service.addrs();
    let about = About {
        listen: addrs.clone(),
        ..service.about.clone()
    };
    let admin = service.admin.start(|access| AdminParts {
        control: handler.clone(),
        stats: shared.stats.clone(),
        heartbeat: heartbeat.clone(),
        access,
        about,
        lookout,
        lost_log_lines: log.lost(),
    })?;

    let limits = service.limits(&log);
    let admission = service.admission.take();
    let admission = admission
        .map(|settings| Admission::new(settings, shared.stats.clone(), Instant::now()))
        .map(Arc::new);
    let server = Server::new(Parts {
        handler: handler.clone(),
        wire,
        limits,
        admission: admission.clone(),
        budget: shared.budget,
        observer: shared.observer.clone(),
        stats: shared.stats.clone(),
    });
    let beat = beating(heartbeat);
    beat(0);
    let listeners = std::mem::take(&mut service.sockets.listeners);
    let host = Host::start(server, listeners, threads, beat)?;
    service.announce(&addrs, &announcer, &*shared.observer);

    let (stop, stopped) = oneshot::channel();
    let levers = Levers {
        reload: reloads(
            Reloading {
                handler: handler.clone(),
                lists: admission.map(|it| (it, service.listening.admitting.clone())),
            },
            shared.observer.clone(),
            announcer.reloads(),
        ),
        stop,
    };
    let operator = Operator {
        observer: shared.observer.clone(),
        terminals,
        handler: handler.clone(),
        stats: shared.stats.clone(),
        log,
        announcer: &announcer,
        admin: admin.as_ref(),
    };
    let serving = host.run(stopped.map(drop));

    let ended = rt::race_apart(serving, operator.obey(signals, levers)).await;
    if let Some(admin) = admin {
        admin.finish();
    }
    match ended {
        Ok(()) => {
            log::flush();
            announcer.finish();
            Ok(0)
        }
        Err(signal) => Ok(signals::exit_code(signal)),
    }
}

/// Starts what tells a service manager of this service.
fn announcer<H: Handler + Control>(
    handler: &Arc<H>,
    stats: &Arc<Stats>,
    heartbeat: &Arc<Heartbeat>,
) -> Result<Announcer, Error> {
    let (handler, stats) = (handler.clone(), stats.clone());
    let look = move |now| handler.snapshot(&stats, now);
    Announcer::start(Box::new(look), || heartbeat.clone())
}

/// Starts an executor's part of the heartbeat, if a watchdog or operators look at it.
fn beating(heartbeat: Arc<Heartbeat>) -> impl Fn(usize) + Clone + Send + 'static {
    let heartbeat = Arc::downgrade(&heartbeat); // held by what looks at it
    move |executor| {
        if let Some(heartbeat) = heartbeat.upgrade() {
            heartbeat.start(executor);
        }
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
    /// Tells which inherited descriptors are not used, and which options make no sense.
    fn warn(&self) {
        if self.output.quiet {
            return;
        }
        self.sockets
            .left_alone
            .iter()
            .for_each(|text| log::warning(text));
        let oddities = [
            self.listening.requests.oddity(self.output),
            self.admin.oddity(),
        ];
        oddities.into_iter().flatten().for_each(log::warning);
    }

    /// What hears of everything: the log, and where operators may ask, what they look
    /// at before it.
    fn observer(&self, log: &Log, lookout: &Arc<Lookout>) -> Arc<dyn Observer> {
        if self.admin.addrs().is_empty() {
            return Arc::new(log.clone());
        }
        lookout.clone()
    }

    /// The addresses for clients.
    fn addrs(&self) -> Vec<String> {
        let addrs = self.sockets.listeners.iter();
        addrs.map(|listener| listener.addr().to_string()).collect()
    }

    /// The limits of the server. Reports if there are descriptors for fewer clients
    /// than `--max-clients`.
    fn limits(&self, observer: &dyn Observer) -> Limits {
        let wanted = self.listening.max_clients;
        let fds = FdBudget {
            fixed: self.fds.fixed + self.admin.descriptors() + self.told(),
            ..self.fds
        };
        let threads = self.listening.threads();
        let possible = fds.max_clients(self.sockets.listeners.len(), threads);
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

    /// Descriptors of clients that are refused with a text.
    fn told(&self) -> u64 {
        let settings = self.admission.as_ref();
        let has_text = settings.is_some_and(|settings| settings.text.is_some());
        if has_text { MOST_TOLD as u64 } else { 0 }
    }

    /// Prints a ready line for each address, those of operators last, and tells the
    /// service manager.
    fn announce(&self, addrs: &[String], announcer: &Announcer, observer: &dyn Observer) {
        let lines = addrs
            .iter()
            .map(|addr| format!("{} on {addr}\n", self.verb));

        observer.event(Event::Started {
            verb: &self.verb,
            addrs,
        });
        let admin = self.admin.addrs().iter();
        let admin = admin.map(|addr| format!("Admin on {addr}\n"));
        announcer.ready(lines.chain(admin).collect());
    }
}

/// Does what signals ask for.
struct Operator<'a, H> {
    observer: Arc<dyn Observer>,
    /// The terminals when the service started.
    terminals: Terminals,
    handler: Arc<H>,
    stats: Arc<Stats>,
    log: Log,
    announcer: &'a Announcer,
    admin: Option<&'a Admin>,
}

/// What signals start.
struct Levers {
    reload: mpsc::Sender<()>,
    /// Dropped to stop the server.
    stop: oneshot::Sender<Infallible>,
}

impl<H: Handler + Control> Operator<'_, H> {
    /// Reloads on SIGHUP, logs a summary on SIGUSR1, and stops the server on SIGTERM
    /// and SIGINT. A second one of these two is to end the process at once: it is
    /// returned, and the kernel then resets what is open.
    async fn obey(self, mut signals: ServiceSignals, levers: Levers) -> Signal {
        let Levers { reload, stop } = levers;
        let stopping = async {
            let told = signals::wait(&mut signals.stop);
            let hangup = self.reload_until_hangup(&mut signals.reload, reload);
            let signal = rt::race(told, hangup).await;

            self.report_stop(signal.unwrap_or_else(|hangup| hangup));
            drop(stop);
            signals::wait(&mut signals.stop).await
        };

        let summaries = self.log_summaries(&mut signals.other);
        match rt::race(stopping, summaries).await {
            Ok(signal) => signal,
            Err(never) => match never {},
        }
    }

    /// Asks for a reload at each SIGHUP, until one comes because the terminal was
    /// closed: that one asks to stop.
    async fn reload_until_hangup(
        &self,
        signals: &mut Signals,
        mut reload: mpsc::Sender<()>,
    ) -> Signal {
        loop {
            let signal = signals::wait(signals).await;
            if self.terminals.are_gone() {
                return signal;
            }
            let _already_pending = reload.try_send(());
        }
    }

    async fn log_summaries(&self, signals: &mut Signals) -> Infallible {
        loop {
            if signals::wait(signals).await == Signal::Usr1 {
                let now = Instant::now();
                self.log.summary(&self.handler.snapshot(&self.stats, now));
            }
        }
    }

    fn report_stop(&self, signal: Signal) {
        self.observer.event(Event::Stopping {
            signal: signals::name(signal),
            open: self.stats.open_now(),
        });
        if let Some(admin) = self.admin {
            admin.drain();
        }
        self.announcer.stopping();
    }
}

/// Starts a task that reaps orphans, if this process is the one that the kernel gives
/// them to: the first of a container.
fn reap_orphans() -> Result<(), Error> {
    if std::process::id() != 1 {
        return Ok(());
    }

    let mut children = signals::listen(&[Signal::Child])?;
    rt::spawn(async move {
        loop {
            process::reap_orphans().await;
            signals::wait(&mut children).await;
        }
    });
    Ok(())
}
