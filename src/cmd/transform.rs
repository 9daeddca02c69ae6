//! `poetry transform`: a filter, and the service.

use crate::cmd::environment;
use crate::cmd::report::Log;
use crate::cmd::{
    Connecting, Descriptors, Listening, Output, Service, connect_addr, listen, listen_addr, open,
    positive_duration, signals, size, usage_error, workshop,
};
use async_signal::Signal;
use clap::error::ErrorKind;
use futures::StreamExt;
use poetry::addr::Addr;
use poetry::client::Timeouts;
use poetry::error::{Error, reason};
use poetry::escape;
use poetry::handler::transform::TransformService;
use poetry::rt;
use poetry::transform::{BadProgram, Pipeline, Program, Registry, Transform};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Transform a poem, or be the service that transforms them
///
/// As a filter, reads standard input or FILE and writes the transformed poem to standard output. With --listen, answers
/// requests of the form NAME.POEM, as netstrings.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The transformations, with commas between them, applied in order
    #[arg(value_name = "NAMES", required_unless_present_any = ["listen", "list"])]
    names: Option<String>,
    /// The poem; standard input where it is left out or -
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Be the transformation service at this address
    #[arg(short, long, visible_alias = "port", value_name = "ADDR", num_args = 0..=1,
          default_missing_value = "127.0.0.1:11000", conflicts_with_all = ["names", "via"], value_parser = listen_addr)]
    listen: Option<Vec<Addr>>,
    /// Add a transformation NAME that a program does, without a shell: poem on its stdin, result on its stdout;
    /// repeatable, as in up='tr a-z A-Z'
    #[arg(long, value_name = "NAME=COMMAND", conflicts_with = "via", value_parser = program)]
    exec: Vec<Program>,
    /// List the transformations: the built-in ones, and what --exec adds
    #[arg(long, conflicts_with_all = ["names", "listen"])]
    list: bool,
    /// Have it done by the netstring service at this address
    #[arg(long, value_name = "ADDR", value_parser = connect_addr)]
    via: Option<Addr>,
    /// The longest poem that is taken, and the most a program of --exec may make of one
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = size)]
    max_poem: u64,
    /// How long a service (--via) or a program (--exec) may take for a transformation
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = positive_duration)]
    timeout: Duration,
    #[command(flatten)]
    connecting: Connecting,
    #[command(flatten)]
    listening: Listening,
}

fn program(text: &str) -> Result<Program, String> {
    text.parse().map_err(|e: BadProgram| e.to_string())
}

fn repertoire(added: Vec<Program>) -> Registry {
    let mut repertoire = Registry::default();
    for program in added {
        if let Err(program) = repertoire.add(program) {
            let text = format!(
                "invalid value '{}={}' for '--exec <NAME=COMMAND>': the name was given before; wanted another",
                program.name(),
                program.command()
            );
            usage_error("transform", ErrorKind::ValueValidation, text);
        }
    }
    repertoire
}

/// What is said of a name that is no transformation.
pub fn unknown(name: &str, repertoire: &Registry) -> String {
    let origin = environment::origin("transform")
        .map(|name| format!(" in {name}"))
        .unwrap_or_default();
    if name.is_empty() {
        return format!(
            "a name is missing{origin}; wanted names of transformations with commas between them"
        );
    }
    let nearness = |craft: &Transform| strsim::jaro_winkler(name, craft.name());
    let crafts: Vec<Transform> = repertoire.transforms().collect();
    let nearest = crafts
        .iter()
        .max_by(|a, b| nearness(a).total_cmp(&nearness(b)));
    let names: Vec<&str> = crafts.iter().map(Transform::name).collect();
    let hint = nearest
        .filter(|craft| nearness(craft) > 0.7)
        .map(|craft| {
            format!(
                "\n\n  tip: a similar transformation exists: '{}'",
                craft.name()
            )
        })
        .unwrap_or_default();
    format!(
        "unknown transformation '{name}'{origin}\n  [transformations: {}]{hint}",
        names.join(", ")
    )
}

/// Filters, lists, or serves until a signal.
pub async fn run(args: Args, output: &Output) -> Result<ExitCode, Error> {
    let runs_programs = !args.exec.is_empty();
    let repertoire = repertoire(args.exec);
    if args.list {
        return list(&repertoire);
    }
    if let Some(addrs) = &args.listen {
        let log = Log::start(output);
        // A program's two pipes; as it starts also their other ends, and a pipe to tell whether it does.
        let per_client = if runs_programs { 6 } else { 0 };
        let needs = Descriptors {
            fixed: 0,
            per_client,
        };
        let listeners = open(addrs).await?;
        let service = Service {
            listeners,
            listening: &args.listening,
            log,
            doing: "Transforming".into(),
            needs,
        };
        return listen(service, |report, _| {
            Ok(TransformService::new(
                repertoire,
                args.max_poem,
                args.timeout,
                report,
            ))
        })
        .await;
    }
    let names: Vec<String> = args
        .names
        .iter()
        .flat_map(|names| names.split(','))
        .map(str::to_string)
        .collect();
    let Some(workshop) = workshop("transform", &names, args.via.as_ref(), &repertoire) else {
        return Ok(ExitCode::SUCCESS);
    };
    let poem = read(args.file, args.max_poem)?;
    let timeouts = Timeouts {
        connect: args.connecting.connect_timeout,
        idle: args.connecting.idle_timeout,
        total: args.timeout,
    };
    let work = workshop.apply(poem.into(), args.max_poem, timeouts);
    match rt::race(interrupted(&workshop), work).await {
        Ok(signal) => Ok(ExitCode::from(128 + signal as u8)),
        Err(done) => write(&done?),
    }
}

/// Waits for a signal while programs may run: they are in groups of their own, where a terminal's Ctrl-C doesn't reach
/// them, and it is for us to end them. Without programs, a signal does what it always does.
async fn interrupted(workshop: &Pipeline) -> Signal {
    let programs = match workshop {
        Pipeline::Own(crafts) => crafts
            .iter()
            .any(|craft| matches!(craft, Transform::Program(_))),
        Pipeline::Via(..) => false,
    };
    if let (true, Ok(mut signals)) = (programs, signals())
        && let Some(Ok(signal)) = signals.next().await
    {
        return signal;
    }
    std::future::pending().await
}

/// Names in a column that is as wide as the longest.
fn list(repertoire: &Registry) -> Result<ExitCode, Error> {
    let width = repertoire
        .transforms()
        .map(|craft| craft.name().chars().count())
        .max()
        .unwrap_or(0);
    let lines: String = repertoire
        .transforms()
        .map(|craft| {
            format!(
                "{:<width$}  {}\n",
                craft.name(),
                escape::text(&craft.about())
            )
        })
        .collect();
    write(lines.as_bytes())
}

fn read(file: Option<PathBuf>, limit: u64) -> Result<Vec<u8>, Error> {
    let what = file.as_ref().filter(|path| path.as_os_str() != "-");
    let name = what.map_or("standard input".into(), |path| path.display().to_string());
    let local = |e: std::io::Error| Error::Local {
        subject: name.clone(),
        why: reason(&e),
    };
    let source: Box<dyn Read> = match what {
        Some(path) => Box::new(std::fs::File::open(path).map_err(local)?),
        None => Box::new(std::io::stdin()),
    };
    let mut poem = Vec::new();
    source
        .take(limit.saturating_add(1))
        .read_to_end(&mut poem)
        .map_err(local)?;
    match poem.len() as u64 > limit {
        true => Err(Error::TooLong {
            subject: name.clone(),
            limit,
        }),
        false => Ok(poem),
    }
}

/// A closed standard output is no error: whoever closed it has enough.
fn write(bytes: &[u8]) -> Result<ExitCode, Error> {
    let mut out = std::io::stdout();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Output {
            subject: "standard output".into(),
            why: reason(&e),
        }),
        _ => Ok(ExitCode::SUCCESS),
    }
}
