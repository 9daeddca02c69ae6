//! Signals: which to listen to, and what a SIGHUP means.

use async_signal::{Signal, Signals};
use futures::StreamExt;
use poetry::error::{Error, reason};
use std::future::pending;
use std::io;

const ENDING: [Signal; 3] = [Signal::Term, Signal::Int, Signal::Hup];

/// SIGTERM, SIGINT and SIGHUP.
pub(super) fn all() -> Result<Signals, Error> {
    Signals::new(ENDING).map_err(|error| Error::Local {
        subject: "signals".into(),
        why: reason(&error),
    })
}

/// The signals that end a program by default and can be listened to, beside SIGPIPE,
/// which std ignores, and SIGXFSZ: see [`catch_size_limit`].
const DEADLY: [Signal; 10] = [
    Signal::Term,
    Signal::Int,
    Signal::Hup,
    Signal::Quit,
    Signal::Usr1,
    Signal::Usr2,
    Signal::Alarm,
    Signal::Vtalarm,
    Signal::Prof,
    Signal::Xcpu,
];

/// Every signal that would end this process, but for those that were ignored when it
/// started, as by nohup(1): they stay ignored. Only Linux tells which those are;
/// elsewhere none counts as ignored.
pub(super) fn deadly() -> io::Result<Signals> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);

    let is_ignored = |signal: &Signal| ignored >> (*signal as u32 - 1) & 1 == 1;
    Signals::new(DEADLY.into_iter().filter(|signal| !is_ignored(signal)))
}

/// While the result is held, a write beyond the limit on file sizes fails with EFBIG. By
/// default SIGXFSZ ends the process.
pub(super) fn catch_size_limit() -> io::Result<Signals> {
    Signals::new([Signal::Xfsz])
}

/// Waits for the next of these signals; for ever, if they could not be listened to.
pub(super) async fn next<E>(signals: Result<Signals, E>) -> Signal {
    if let Ok(mut signals) = signals
        && let Some(Ok(signal)) = signals.next().await
    {
        return signal;
    }
    pending().await
}

/// The exit code of a process that `signal` ended, as a shell reports it.
pub(super) fn exit_code(signal: Signal) -> u8 {
    128 + signal as u8
}

/// Which of the standard streams are terminals.
///
/// Closing a terminal sends SIGHUP to the processes in it, and its streams stop being
/// terminals. This distinguishes such a SIGHUP from one that asks for a reload.
pub(super) struct Terminals([bool; 3]);

impl Terminals {
    pub fn now() -> Terminals {
        use std::io::{IsTerminal, stderr, stdin, stdout};
        Terminals([
            stdin().is_terminal(),
            stdout().is_terminal(),
            stderr().is_terminal(),
        ])
    }

    /// Whether one of these streams was a terminal and no longer is.
    pub fn are_gone(&self) -> bool {
        let now = Terminals::now();
        self.0.iter().zip(now.0).any(|(was, is)| *was && !is)
    }
}
