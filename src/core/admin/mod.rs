//! The endpoint for operators: what a running service does, and purging or fetching one
//! text. One socket, two languages: the first line says whether it is HTTP or a command
//! (`first.rs`).
//!
//! It has a thread of its own, so that it answers while the service's executor is
//! stuck, while as many clients are open as may be, and during a drain.
//!
//! | limit | value | where |
//! |---|---|---|
//! | connections at once, for each address | 16; 64 more wait in the kernel | here |
//! | the head of a request | 8 KiB, 64 fields, 5 s | `first.rs`, `http.rs`, here |
//! | the body of a request | none | `http.rs` |
//! | a query | 8 parameters | `route.rs` |
//! | a command | 1 KiB, 5 s | `first.rs`, here |
//! | a whole answer | 10 s | `http.rs`, here |
//! | answers without an end | 4 | `watching.rs` |
//! | keys of one answer | 1000 | `action.rs` |

pub mod action;
pub mod clock;
mod endpoint;
pub mod first;
pub mod health;
pub mod history;
mod http;
pub mod keys;
pub mod line;
mod lookout;
pub mod metrics;
pub mod notices;
pub mod page;
pub mod process;
pub mod rights;
pub mod route;
#[cfg(test)]
mod sample;
mod socket;
pub mod status;
pub mod tail;
mod text;
pub mod top;
mod watching;

use crate::control::Control;
use crate::error::{Error, reason};
use crate::heartbeat::Heartbeat;
use crate::net::{Accepted, Listener, Stream};
use crate::rt;
use crate::stats::Stats;
use endpoint::{Content, Endpoint, Spoken};
use first::{Opening, look};
use futures::StreamExt;
use futures::channel::oneshot;
use futures::future::{FutureExt, join_all, pending};
use futures::stream::FuturesUnordered;
use history::SAMPLE_INTERVAL;
pub use lookout::Lookout;
use rights::{AdminAccess, Rights, Via};
use socket::Rejoined;
use status::About;
use std::io::ErrorKind;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Connections that are answered at once, for each address: a flood of one keeps no
/// operator off another. A page and a scraper need two.
pub const CONNECTIONS_MAX: usize = 16;

/// Connections that wait in the kernel, for each address.
const BACKLOG: u16 = 64;

/// How long a client may take for its head or its command.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a whole answer to a command may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long accepting pauses if it fails for lack of a resource.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long the end of the process waits for the thread's end.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// What an endpoint is made of.
pub struct AdminParts {
    /// The service.
    pub control: Arc<dyn Control>,
    /// Its totals.
    pub stats: Arc<Stats>,
    /// That of the service's executor.
    pub heartbeat: Arc<Heartbeat>,
    /// Which clients are let in.
    pub access: AdminAccess,
    /// What the service is.
    pub about: About,
    /// Has seen all that has happened.
    pub lookout: Arc<Lookout>,
    /// Lines of the log that were lost since the start.
    pub lost_log_lines: Arc<AtomicU64>,
}

/// A running endpoint. Dropped, it ends.
pub struct Admin {
    endpoint: Arc<Endpoint>,
    stop: oneshot::Sender<()>,
    /// Disconnected once the thread has ended.
    ended: Receiver<()>,
}

impl Admin {
    /// Starts to answer on these sockets, on a thread of its own.
    ///
    /// # Errors
    /// [`Error::Local`] if the system has no thread left, or for a socket.
    pub fn start(listeners: Vec<Listener>, parts: AdminParts) -> Result<Admin, Error> {
        let local = |subject: &str, error: std::io::Error| Error::Local {
            subject: subject.into(),
            why: reason(&error),
        };
        for listener in &listeners {
            let limited = listener.set_backlog(BACKLOG);
            limited.map_err(|error| local("admin socket", error))?;
        }

        let endpoint = Arc::new(Endpoint::new(parts));
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = channel::<()>();
        let serving = endpoint.clone();
        let run = move || {
            // Not `rt::run`: what a purge or a refresh starts belongs to the service.
            let _stopped = rt::block_on(rt::race(serve(&serving, &listeners), stopped));
            drop(listeners); // first: their socket files are removed with them
            drop(end);
        };
        match thread::Builder::new().name("admin".into()).spawn(run) {
            Ok(_detached) => Ok(Admin {
                endpoint,
                stop,
                ended,
            }),
            Err(error) => Err(local("admin thread", error)),
        }
    }

    /// Says from now on that the service takes no new clients.
    pub fn drain(&self) {
        self.endpoint.drain();
    }

    /// Ends it, and waits until its socket files are removed, at most a second.
    pub fn finish(self) {
        drop(self.stop);
        let _late = self.ended.recv_timeout(LAST_WAIT);
    }
}

/// Answers on all sockets, for ever.
async fn serve(endpoint: &Arc<Endpoint>, listeners: &[Listener]) {
    let accepting = listeners.iter().map(|listener| accept(endpoint, listener));
    futures::join!(join_all(accepting), sample(endpoint));
}

/// Takes samples of the figures, for ever.
async fn sample(endpoint: &Arc<Endpoint>) {
    loop {
        let sample = || endpoint.sample(Instant::now());
        let _bug_in_a_figure = panic::catch_unwind(AssertUnwindSafe(sample));
        rt::sleep(SAMPLE_INTERVAL).await;
    }
}

/// Answers on one socket, for ever.
async fn accept(endpoint: &Arc<Endpoint>, listener: &Listener) {
    let via = Via::of(listener.addr());
    let mut open = FuturesUnordered::new();
    loop {
        if open.len() == CONNECTIONS_MAX {
            open.next().await;
        }

        let wait = match listener.accept() {
            Ok(client) => {
                open.push(AssertUnwindSafe(connection(endpoint, via, client)).catch_unwind());
                continue;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => listener.ready().map(drop).boxed(),
            Err(_) => rt::sleep(ACCEPT_PAUSE).boxed(),
        };
        let serving = async {
            while open.next().await.is_some() {}
            pending::<()>().await
        };
        let _one = rt::race(wait, serving).await;
    }
}

/// Answers the one question of a connection.
async fn connection(endpoint: &Arc<Endpoint>, via: Via, client: Accepted) {
    let Ok(stream) = client.register() else {
        return; // the connection is gone
    };

    let mut first = Vec::new();
    let opening = rt::within(HEAD_TIMEOUT, socket::read_first(&stream, &mut first)).await;
    match opening {
        Some(Ok(Opening::Http)) => answer_http(endpoint, via, &stream, &first).await,
        Some(Ok(Opening::Command(_))) => answer_line(endpoint, via, &stream, &first).await,
        Some(Ok(Opening::Refused(status))) => refuse(&stream, status).await,
        None if is_http(&first) => refuse(&stream, 408).await,
        _ => {} // nothing that has an answer: a reset
    }
}

/// Whether the first line is there, and is HTTP's.
fn is_http(first: &[u8]) -> bool {
    first.contains(&b'\n') && look(first, false) == Opening::Unfinished
}

async fn refuse(stream: &Stream, status: u16) {
    let sent = socket::send_all(stream, &http::refusal(status)).await;
    if sent.is_ok() {
        socket::close_politely(stream).await;
    }
}

async fn answer_http(endpoint: &Arc<Endpoint>, via: Via, stream: &Stream, first: &[u8]) {
    if let Err(status) = http::check(first) {
        return refuse(stream, status).await;
    }
    if http::serve(endpoint, via, Rejoined::new(first, stream)).await {
        socket::close_politely(stream).await;
    }
}

async fn answer_line(endpoint: &Arc<Endpoint>, via: Via, stream: &Stream, command: &[u8]) {
    let spoken = match line::parse(command) {
        Ok(action) => endpoint.speak(&action, Rights::of(via)).await,
        Err(why) => Spoken::Badly(why),
    };

    match spoken {
        Spoken::Well(Content::Whole(text)) => {
            let sending = rt::within(ANSWER_TIMEOUT, socket::send_all(stream, &text));
            if matches!(sending.await, Some(Ok(()))) {
                socket::close_politely(stream).await;
            }
        }
        Spoken::Well(Content::Endless(mut lines)) => {
            while let Some(lines) = lines.next().await {
                if socket::send_all(stream, &lines).await.is_err() {
                    return;
                }
            }
            socket::close_politely(stream).await;
        }
        Spoken::Badly(why) => {
            let text = format!("{why}\n");
            if socket::send_all(stream, text.as_bytes()).await.is_ok() {
                socket::reset(stream).await;
            }
        }
    }
}
