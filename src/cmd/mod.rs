//! The command line: one file a subcommand, and here what they share.

mod environment;
mod fetch;
mod generate;
mod proxy;
mod report;
mod serve;
mod transform;

use crate::cmd::report::{ColorWhen, Log, LogFormat};
use async_signal::{Signal, Signals};
use bytesize::ByteSize;
use clap::builder::BoolishValueParser;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use futures::StreamExt;
use futures::channel::mpsc;
use listenfd::ListenFd;
use poetry::addr::Addr;
use poetry::error::Error;
use poetry::net::Listener;
use poetry::process;
use poetry::rt;
use poetry::server::{Handler, Limits, Server};
use poetry::stats::{Event, Observer, Stats};
use poetry::transform::{Pipeline, Registry};
use sd_notify::NotifyState;
use std::fmt::Display;
use std::io::Write;
use std::num::{IntErrorKind, ParseIntError};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// Serve, cache and fetch poems over plain TCP
///
/// A toolkit for services that answer a TCP connection with text and hang up. The three commands of a first try need
/// no argument and find each other: `poetry serve`, `poetry proxy`, `poetry fetch`.
#[derive(Debug, Parser)]
#[command(name = "poetry", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve poems: files, folders, or the built-in ones
    Serve(serve::Args),
    /// Serve another server's poems from a cache that fetches each at most once
    Proxy(proxy::Args),
    /// Print the poems of one or many servers
    Fetch(fetch::Args),
    /// Transform a poem, or be the service that transforms them
    Transform(transform::Args),
    /// Write the man pages and the shell completions into a folder
    #[command(hide = true)]
    Generate(generate::Args),
}

/// How much is told, and in what form.
#[derive(Debug, Clone, Args)]
struct Output {
    /// Tell nothing but errors
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Tell more: every connection
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    verbose: bool,
    /// When to use colours on stderr
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        value_enum,
        default_value = "auto"
    )]
    color: ColorWhen,
    /// The form of the log on stderr
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        default_value = "text"
    )]
    log_format: LogFormat,
}

/// What every listening command bounds.
#[derive(Debug, Clone, Args)]
struct Listening {
    /// Connections looked after at once; over it the kernel's backlog waits
    #[arg(long, value_name = "N", default_value = "10000", value_parser = number(1u64))]
    max_clients: u64,
    /// How long a client may neither send what it owes nor take what it is sent
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = positive_duration)]
    client_timeout: Duration,
    /// How long running connections may take to finish after SIGTERM or SIGINT
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    drain_timeout: Duration,
}

/// What the commands that connect share.
#[derive(Debug, Clone, Args)]
struct Connecting {
    /// How long to wait for a name, and for a connection to each of its addresses
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = positive_duration)]
    connect_timeout: Duration,
    /// How long a server may be silent
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = positive_duration)]
    idle_timeout: Duration,
}

/// Parses, runs, and says how it went.
pub fn main() -> ExitCode {
    let _once = INHERITED.set(Mutex::new(ListenFd::from_env()));
    // Only the command that is called needs its environment variables: building all four costs as much as all parsing.
    let called =
        std::env::args_os().find_map(|arg| SUBCOMMANDS.into_iter().find(|name| arg == *name));
    let matches = environment::matches(called);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    report::set_color(cli.output.color);
    let result = match cli.command {
        Command::Serve(args) => rt::block_on(serve::run(args, &cli.output)),
        Command::Proxy(args) => rt::block_on(proxy::run(args, &cli.output)),
        // It exits within: a runtime that is left starts its own thread first, a tenth of a small poem's time.
        Command::Fetch(args) => rt::block_on(async {
            let code = fetch::run(args, &cli.output).await.unwrap_or_else(|error| {
                report::error(&error);
                error.exit_code()
            });
            std::process::exit(code.into())
        }),
        Command::Transform(args) => rt::block_on(transform::run(args, &cli.output)),
        Command::Generate(args) => generate::run(&args),
    };
    process::kill_all(); // in another process group than ours, they would live on
    match result {
        Ok(code) => code,
        Err(error) => {
            report::error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// A bug in one task is told in a line, without a backtrace; the task's clients are reset and all else lives on.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(|at| format!("{}:{}", at.file(), at.line()))
            .unwrap_or_default();
        let _ = writeln!(
            std::io::stderr(),
            "poetry: internal error: a task ended at {place}"
        );
    }));
}

/// Those that people call.
const SUBCOMMANDS: [&str; 4] = ["serve", "proxy", "fetch", "transform"];

/// The definition of the command line, with an environment variable for every option: of all subcommands, or only of
/// the one that is called.
pub fn command(called: Option<&str>) -> clap::Command {
    let mut command = Cli::command();
    let shared: Vec<clap::Arg> = command
        .get_arguments()
        .filter(|arg| arg.is_global_set())
        .cloned()
        .collect();
    for name in SUBCOMMANDS
        .into_iter()
        .filter(|name| called.is_none_or(|called| called == *name))
    {
        let shared = shared.clone();
        command = command.mut_subcommand(name, |sub| {
            sub.args(
                shared
                    .into_iter()
                    .map(|arg| arg.global(false).display_order(1000)),
            )
            .mut_args(|arg| {
                match arg.get_long() {
                    Some("help" | "version" | "list") | None => arg,
                    Some(long) => {
                        let flag = matches!(arg.get_action(), clap::ArgAction::SetTrue);
                        let variable = format!("POEM_{name}_{long}")
                            .to_uppercase()
                            .replace('-', "_");
                        let arg = arg.env(variable).hide_env_values(true);
                        // So that POEM_FETCH_QUIET=1 means what people mean by it.
                        if flag {
                            arg.value_parser(BoolishValueParser::new())
                        } else {
                            arg
                        }
                    }
                }
            })
        });
    }
    command
}

/// A usage error in clap's own form, about a subcommand.
fn usage_error(subcommand: &str, kind: clap::error::ErrorKind, text: impl std::fmt::Display) -> ! {
    let mut command = command(Some(subcommand));
    command.build();
    let named = command
        .find_subcommand(subcommand)
        .cloned()
        .unwrap_or(command);
    named.clone().error(kind, text).exit()
}

/// As long as no clock overflows: who asks for more means for ever.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let time = humantime::parse_duration(text);
    time.map(|time| time.min(MAX_DURATION))
        .map_err(|e| format!("{e}; wanted a duration like 500ms, 30s or 2h"))
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("wanted more than nothing, like 500ms, 30s or 2h".into()),
        time => Ok(time),
    }
}

fn size(text: &str) -> Result<u64, String> {
    const WANTED: &str = "wanted a size like 65536, 16MiB or 1GB";
    let size: ByteSize = text.parse().map_err(|_| WANTED.to_string())?;
    match size.as_u64() {
        0 => Err(format!("no room for a single byte; {WANTED}")),
        u64::MAX => Err(format!("more than there can be; {WANTED}")), // bytesize saturates without a word
        bytes => Ok(bytes),
    }
}

/// A whole number, `least` or more.
fn number<T>(least: T) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr<Err = ParseIntError> + PartialOrd + Display + Copy,
{
    move |text| {
        let wanted = || format!("wanted a whole number, {least} or more");
        match text.parse::<T>() {
            Ok(number) if number >= least => Ok(number),
            Err(e) if *e.kind() == IntErrorKind::PosOverflow => {
                Err(format!("more than there can be; {}", wanted()))
            }
            _ => Err(wanted()),
        }
    }
}

fn listen_addr(text: &str) -> Result<Addr, String> {
    text.parse()
        .map_err(|e: poetry::addr::BadAddr| e.to_string())
}

fn connect_addr(text: &str) -> Result<Addr, String> {
    match listen_addr(text)? {
        Addr::Tcp { port: 0, .. } => {
            Err("nobody listens on port 0; wanted a port from 1 to 65535".into())
        }
        addr => Ok(addr),
    }
}

/// Who does these transformations: a service where one is named, ourselves where not. An unknown name is a usage
/// error that offers the nearest.
fn workshop(
    subcommand: &str,
    names: &[String],
    via: Option<&Addr>,
    repertoire: &Registry,
) -> Option<Pipeline> {
    if names.is_empty() {
        return None;
    }
    let refuse = |name: &str| -> ! {
        usage_error(
            subcommand,
            clap::error::ErrorKind::InvalidValue,
            transform::unknown(name, repertoire),
        )
    };
    if let Some(addr) = via {
        if names.iter().any(String::is_empty) {
            refuse("");
        }
        return Some(Pipeline::Via(addr.clone(), names.to_vec()));
    }
    let crafts = names
        .iter()
        .map(|name| repertoire.named(name).unwrap_or_else(|| refuse(name)));
    Some(Pipeline::Own(crafts.collect()))
}

/// What a listening command needs to start.
struct Service<'a> {
    listeners: Vec<Listener>,
    listening: &'a Listening,
    log: Log,
    /// What the ready line says before ` on ADDR`.
    doing: String,
    needs: Descriptors,
}

/// The descriptors a command needs beside one for each client.
#[derive(Clone, Copy, Default)]
struct Descriptors {
    /// Whatever the number of clients.
    fixed: u64,
    /// For each client.
    per_client: u64,
}

/// The sockets to listen on: those that a service manager has opened, or else these.
async fn open(addrs: &[Addr]) -> Result<Vec<Listener>, Error> {
    let mut listeners = inherited()?;
    if listeners.is_empty() {
        for addr in addrs {
            listeners.push(Listener::bind(addr).await?);
        }
    }
    Ok(listeners)
}

/// Says where it listens, serves until a signal, drains.
async fn listen<H: Handler>(
    service: Service<'_>,
    handler: impl FnOnce(Arc<dyn Observer>, Arc<Stats>) -> Result<Arc<H>, Error>,
) -> Result<ExitCode, Error> {
    let (mut signals, terminals) = (signals()?, Terminals::now());
    let report: Arc<dyn Observer> = Arc::new(service.log.clone());
    let stats = Arc::new(Stats::default());
    let handler = handler(report.clone(), stats.clone())?;
    let room = service.needs.room(service.listeners.len());
    if room < service.listening.max_clients {
        report.notice(Event::FewDescriptors(room));
    }
    for listener in &service.listeners {
        let line = writeln!(
            std::io::stdout(),
            "{} on {}",
            service.doing,
            listener.addr()
        );
        let _unread = line.and_then(|()| std::io::stdout().flush()); // whoever closed stdout does not want to know
    }
    let _no_service_manager = sd_notify::notify(&[NotifyState::Ready]);
    let limits = Limits {
        max_clients: service.listening.max_clients.min(room),
        client_timeout: service.listening.client_timeout,
        drain_timeout: service.listening.drain_timeout,
        request_room: REQUEST_ROOM,
    };
    let mut reloads = reloads(handler.clone(), report.clone());
    let server = Server::new(handler, limits, report, stats);
    server
        .run(service.listeners, async move {
            while let Some(Ok(Signal::Hup)) = signals.next().await {
                if terminals.are_gone() {
                    break; // they mean that the terminal was closed, and not that we are to begin anew
                }
                let _one_is_to_come = reloads.try_send(());
            }
            let _no_service_manager = sd_notify::notify(&[NotifyState::Stopping]);
            next_signal_ends_at_once(signals);
        })
        .await;
    service.log.flush();
    Ok(ExitCode::SUCCESS)
}

/// Begins anew each time it is told, beside all else: a disk may be slow, and neither clients nor the next signal are to
/// wait for it. What is asked for while one such beginning is still to come asks for nothing more.
fn reloads<H: Handler>(handler: Arc<H>, report: Arc<dyn Observer>) -> mpsc::Sender<()> {
    let (tell, mut told) = mpsc::channel(0); // and one place for each sender
    rt::spawn(async move {
        while told.next().await.is_some() {
            let handler = handler.clone();
            match rt::unblock(move || handler.reload()).await {
                Ok(done) => report.notice(Event::Reloaded(done)),
                Err(error) => report::error(&error), // what was there stays
            }
        }
    });
    tell
}

/// Which of the standard streams are terminals. Closing a terminal sends SIGHUP to what runs in it, and then its
/// streams are none any more; only this tells such a signal from one that was sent by hand or by a service manager.
struct Terminals([bool; 3]);

impl Terminals {
    fn now() -> Terminals {
        use std::io::{IsTerminal, stderr, stdin, stdout};
        Terminals([
            stdin().is_terminal(),
            stdout().is_terminal(),
            stderr().is_terminal(),
        ])
    }

    fn are_gone(&self) -> bool {
        self.0
            .iter()
            .zip(Terminals::now().0)
            .any(|(was, is)| *was && !is)
    }
}

/// Sockets that a service manager opened for us (sd_listen_fds(3)), read before there is any thread.
static INHERITED: OnceLock<Mutex<ListenFd>> = OnceLock::new();

/// Those sockets.
fn inherited() -> Result<Vec<Listener>, Error> {
    let Some(inherited) = INHERITED.get() else {
        return Ok(Vec::new());
    };
    let mut inherited = inherited
        .lock()
        .expect("nobody panics while he takes inherited sockets");
    let local = |e: std::io::Error| Error::Local {
        subject: "inherited sockets".into(),
        why: poetry::error::reason(&e),
    };
    let mut listeners = Vec::new();
    for at in 0..inherited.len() {
        let socket: OwnedFd = match inherited.take_unix_listener(at) {
            Ok(Some(socket)) => socket.into(),
            _ => match inherited.take_tcp_listener(at).map_err(local)? {
                Some(socket) => socket.into(),
                None => continue,
            },
        };
        listeners.push(Listener::inherit(socket).map_err(local)?);
    }
    Ok(listeners)
}

/// The most that the requests of all clients hold together, in bytes, and the answers that are made of one alone: those
/// of the netstring protocol can be as long as poems. As much as `--capacity` has by default for poems.
const REQUEST_ROOM: u64 = 256 << 20;

impl Descriptors {
    /// How many clients this process has descriptors for, at least one. Asks for as many as it may have: the soft limit
    /// is for programs that use `select`, and this is none.
    fn room(self, listeners: usize) -> u64 {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let raised = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: maximum,
                maximum,
            },
        )
        .is_ok();
        let limit = if raised { maximum } else { current }.unwrap_or(u64::MAX);
        let others = OTHER_DESCRIPTORS
            .saturating_add(self.fixed)
            .saturating_add(listeners as u64);
        (limit.saturating_sub(others) / (1 + self.per_client)).max(1)
    }
}

/// Descriptors that every service needs: three standard streams, three of the reactor and two for signals; one for a
/// hit that is just being answered, two for poems that are read again, eight for names that are looked up; and five
/// to spare.
const OTHER_DESCRIPTORS: u64 = 24;

fn signals() -> Result<Signals, Error> {
    Signals::new([Signal::Term, Signal::Int, Signal::Hup]).map_err(|e| Error::Local {
        subject: "signals".into(),
        why: poetry::error::reason(&e),
    })
}

/// The signals that end a command which is not made to go on, but for those that were ignored when it was started, as
/// by nohup(1): they stay so. (Linux tells which those are; elsewhere none is taken for ignored.)
fn interruptions() -> std::io::Result<Signals> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    let listened = |signal: &Signal| ignored >> (*signal as u32 - 1) & 1 == 0;
    Signals::new(
        [Signal::Term, Signal::Int, Signal::Hup]
            .into_iter()
            .filter(listened),
    )
}

/// While connections are being finished, another signal ends the process at once; the kernel resets what is open. It
/// may be there already, so these are the signals that were listened to before.
fn next_signal_ends_at_once(mut signals: Signals) {
    rt::spawn(async move {
        while let Some(Ok(signal)) = signals.next().await {
            if signal != Signal::Hup {
                process::kill_all();
                std::process::exit(128 + signal as i32);
            }
        }
    });
}
