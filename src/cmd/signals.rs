//! Signals: which to listen to, and what a SIGHUP means.

use async_signal::{Signal, Signals};
use futures::StreamExt;
use poetry::error::{Error, reason};
use rustix::process::{Resource, getrlimit};
use std::future::pending;
use std::io;

/// What ends a command that is no service.
const ENDING: [Signal; 4] = [Signal::Term, Signal::Int, Signal::Hup, Signal::Quit];

/// What a listening command listens to.
///
/// Signals wait in a pipe, and the 279th is lost (measured). So each kind that matters
/// has a pipe of its own: a flood of SIGHUPs must not cost a SIGTERM.
pub(super) struct ServiceSignals {
    /// SIGTERM and SIGINT.
    pub stop: Signals,
    /// SIGHUP.
    pub reload: Signals,
    /// SIGUSR1, and the signals that do nothing: SIGUSR2, SIGQUIT, and SIGXFSZ, so that
    /// writing a log beyond a limit on the size of files is an error and not the end.
    pub other: Signals,
}

impl ServiceSignals {
    /// Starts to listen.
    ///
    /// # Errors
    /// [`Error::Local`] if there is no descriptor for it.
    pub fn new() -> Result<ServiceSignals, Error> {
        Ok(ServiceSignals {
            stop: listen(&[Signal::Term, Signal::Int])?,
            reload: listen(&[Signal::Hup])?,
            other: listen(&[Signal::Usr1, Signal::Usr2, Signal::Quit, Signal::Xfsz])?,
        })
    }
}

/// Starts to listen to these.
///
/// # Errors
/// [`Error::Local`] if there is no descriptor for it.
pub(super) fn listen(signals: &[Signal]) -> Result<Signals, Error> {
    Signals::new(signals).map_err(|error| Error::Local {
        subject: "signals".into(),
        why: reason(&error),
    })
}

/// The signals that end a program by default and can be listened to, beside SIGPIPE,
/// which std ignores, and SIGXFSZ: see [`outlive_file_limit`].
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

/// SIGTERM, SIGINT, SIGHUP and SIGQUIT.
pub(super) fn all() -> Result<Signals, Error> {
    listen(&ENDING)
}

/// Every signal that would end this process, but for those that were ignored when it
/// started, as by nohup(1): they stay ignored. Only Linux tells which those are;
/// elsewhere none counts as ignored.
pub(super) fn not_ignored() -> io::Result<Signals> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);

    let is_ignored = |signal: &Signal| ignored >> (*signal as u32 - 1) & 1 == 1;
    Signals::new(DEADLY.into_iter().filter(|signal| !is_ignored(signal)))
}

/// Makes writing beyond a limit on the size of files an error instead of the end of the
/// process, for as long as the result is held. Costs nothing if there is no limit.
pub(super) fn outlive_file_limit() -> Option<Signals> {
    getrlimit(Resource::Fsize).current?;
    Signals::new([Signal::Xfsz]).ok()
}

/// Waits for the next of these signals.
pub(super) async fn wait(signals: &mut Signals) -> Signal {
    match signals.next().await {
        Some(Ok(signal)) => signal,
        _ => pending().await, // the pipe is ours, and open
    }
}

/// Waits for the next of these signals; for ever, if they could not be listened to.
pub(super) async fn next<E>(signals: Result<Signals, E>) -> Signal {
    match signals {
        Ok(mut signals) => wait(&mut signals).await,
        Err(_) => pending().await,
    }
}

/// The exit code of a process that `signal` ended, as a shell reports it.
pub(super) fn exit_code(signal: Signal) -> u8 {
    128 + signal as u8
}

/// The signal's name, as kill(1) lists it.
pub(super) fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::Term => "SIGTERM",
        Signal::Int => "SIGINT",
        Signal::Hup => "SIGHUP",
        _ => "a signal",
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use poetry::rt;
    use rustix::process::{self, getpid, kill_process};
    use std::time::Duration;

    #[test]
    fn a_flood_of_hangups_costs_no_sigterm() {
        rt::block_on(async {
            let mut signals = ServiceSignals::new().expect("there are descriptors");
            let send = |signal| kill_process(getpid(), signal).expect("to ourselves");

            for _ in 0..5000 {
                send(process::Signal::HUP); // 278 of them fill the pipe
            }
            send(process::Signal::TERM);
            send(process::Signal::USR1);

            let limit = Duration::from_secs(30);
            let stop = rt::within(limit, wait(&mut signals.stop)).await;
            assert_eq!(stop, Some(Signal::Term));
            let other = rt::within(limit, wait(&mut signals.other)).await;
            assert_eq!(other, Some(Signal::Usr1));
        });
    }
}
