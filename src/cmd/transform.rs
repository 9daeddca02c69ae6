//! `poetry transform`: a filter, and the transformation service.

use super::addrs::{TRANSFORM_PORT, connect_addr, listen_addr};
use super::admin::{Administration, about};
use super::failure::Failure;
use super::flags::{Connecting, Listening, Output};
use super::service::{Service, listen};
use super::signals;
use super::sockets::{FdBudget, Sockets};
use super::transforms::pipeline;
use super::values::{positive_limit, size};
use async_signal::Signal;
use poetry::addr::{Addr, ListenAddr};
use poetry::error::{Error, reason};
use poetry::escape;
use poetry::handler::transform::{TransformLimits, TransformService};
use poetry::protocol::Protocol;
use poetry::rt;
use poetry::transform::{BadProgram, Pipeline, Program, Registry, Transform};
use std::future::pending;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  poetry transform cummingsify,number poem.txt        a filter
  poetry transform --listen                           the service, on port 11000
  echo HELLO | poetry transform shout --via 11000     a client of the service
  poetry transform --exec up='tr a-z A-Z' up poem.txt";

/// Transform a poem, or run the transformation service
///
/// As a filter, reads standard input or FILE and writes the transformed poem to
/// standard output. With --listen, answers requests of the form NAME.POEM, as
/// netstrings.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Transformations, separated by commas, applied in order
    #[arg(value_name = "NAMES", required_unless_present_any = ["listen", "list"])]
    names: Option<String>,
    /// The poem; standard input if left out or -
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Run the transformation service at this address
    #[arg(short, long, visible_alias = "port", value_name = "ADDR", num_args = 0..=1,
          default_missing_value = "127.0.0.1:11000", conflicts_with_all = ["names", "via"],
          value_parser = listen_addr(TRANSFORM_PORT))]
    listen: Option<Vec<ListenAddr>>,
    /// Add a transformation NAME that runs a program, without a shell: the poem is its
    /// stdin, its stdout the result; repeatable; for example up='tr a-z A-Z'
    #[arg(long, value_name = "NAME=COMMAND", conflicts_with = "via", value_parser = program)]
    exec: Vec<Program>,
    /// List the transformations: the built-in ones and those that --exec adds
    #[arg(long, conflicts_with_all = ["names", "listen"])]
    list: bool,
    /// Have the netstring service at ADDR transform the poem
    #[arg(long, value_name = "ADDR", value_parser = connect_addr(TRANSFORM_PORT))]
    via: Option<Addr>,
    /// Longest poem to accept, and longest result of a program (--exec)
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = size)]
    max_poem: u64,
    /// How long a service (--via) or a program (--exec) may take for each
    /// transformation
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = positive_limit)]
    timeout: Duration,
    #[command(flatten)]
    connecting: Connecting,
    #[command(flatten)]
    listening: Listening,
    #[command(flatten)]
    admin: Administration,
}

fn program(text: &str) -> Result<Program, String> {
    text.parse().map_err(|error: BadProgram| error.to_string())
}

/// Filters, lists the transformations, or serves until a signal.
pub(super) async fn run(args: Args, output: &Output) -> Result<u8, Failure> {
    let registry = registry(&args.exec)?;
    if args.list {
        return Ok(list(&registry)?);
    }
    if let Some(addrs) = &args.listen {
        return serve(addrs, &args, registry, output).await;
    }
    filter(args, &registry).await
}

/// The built-in transformations and these programs.
fn registry(programs: &[Program]) -> Result<Registry, Failure> {
    let mut registry = Registry::default();
    for program in programs {
        if let Err(program) = registry.add(program.clone()) {
            let text = format!(
                "invalid value '{}={}' for '--exec <NAME=COMMAND>': the name was given before",
                program.name(),
                program.command()
            );
            return Err(Failure::value("exec", text));
        }
    }
    Ok(registry)
}

async fn serve(
    addrs: &[ListenAddr],
    args: &Args,
    registry: Registry,
    output: &Output,
) -> Result<u8, Failure> {
    // Two pipes of a program; their other ends and one more pipe while it starts.
    let per_client = if args.exec.is_empty() { 0 } else { 6 };
    let admission = args.listening.admitting.settings(None)?;
    let admin = args.admin.addrs(addrs)?;
    let mut sockets = Sockets::open(addrs, &admin).await?;
    let service = Service {
        admin: args.admin.take(&mut sockets)?,
        about: about("transform", Protocol::Netstring),
        sockets,
        listening: &args.listening,
        admission,
        output,
        verb: "Transforming".into(),
        fds: FdBudget {
            fixed: 0,
            per_client,
        },
    };

    let limits = TransformLimits {
        max_poem: args.max_poem,
        timeout: args.timeout,
    };
    let code = listen(service, |shared| {
        let budget = shared.budget.clone();
        let observer = shared.observer.clone();
        let service =
            TransformService::new(registry, limits, budget, observer, shared.stats.clone());
        let wire = service.wire();
        (service, wire)
    });
    Ok(code.await?)
}

async fn filter(args: Args, registry: &Registry) -> Result<u8, Failure> {
    let names: Vec<String> = args
        .names
        .iter()
        .flat_map(|names| names.split(','))
        .map(str::to_string)
        .collect();
    let Some(pipeline) = pipeline(&names, args.via.as_ref(), registry)? else {
        return Ok(0);
    };
    let _a_file_too_large_is_an_error = signals::outlive_file_limit();

    let poem = read(args.file.as_deref(), args.max_poem)?;
    let timeouts = args.connecting.timeouts(args.timeout);
    let work = pipeline.apply(poem.into(), args.max_poem, timeouts);

    match rt::race(interrupted(&pipeline), work).await {
        Ok(signal) => Ok(signals::exit_code(signal)),
        Err(result) => Ok(write(&result?)?),
    }
}

/// Waits for a signal, if the pipeline runs programs: they are in process groups of
/// their own, where Ctrl-C does not reach them, so this process must end them.
/// Otherwise a signal does what it does by default.
async fn interrupted(pipeline: &Pipeline) -> Signal {
    let runs_programs = match pipeline {
        Pipeline::Own(transforms) => transforms
            .iter()
            .any(|transform| matches!(transform, Transform::Program(_))),
        Pipeline::Via(..) => false,
    };
    if !runs_programs {
        return pending().await;
    }
    signals::next(signals::all()).await
}

/// Prints each name, in a column as wide as the longest, and what it does.
fn list(registry: &Registry) -> Result<u8, Error> {
    let transforms: Vec<Transform> = registry.transforms().collect();
    let width = transforms
        .iter()
        .map(|transform| transform.name().chars().count())
        .max()
        .unwrap_or(0);

    let mut lines = String::new();
    for transform in transforms {
        let about = escape::text(&transform.about());
        lines += &format!("{:<width$}  {about}\n", transform.name());
    }
    write(lines.as_bytes())
}

/// Reads the poem from this file, or from standard input.
fn read(file: Option<&Path>, limit: u64) -> Result<Vec<u8>, Error> {
    let file = file.filter(|path| path.as_os_str() != "-");
    let subject = file.map_or("standard input".into(), |path| path.display().to_string());

    let read = || {
        let source: Box<dyn Read> = match file {
            Some(path) => Box::new(std::fs::File::open(path)?),
            None => Box::new(io::stdin()),
        };
        let mut poem = Vec::new();
        source
            .take(limit.saturating_add(1))
            .read_to_end(&mut poem)?;
        Ok(poem)
    };
    let poem = match read() {
        Ok(poem) => poem,
        Err(error) => {
            let why = reason(&error);
            return Err(Error::Local { subject, why });
        }
    };

    if poem.len() as u64 > limit {
        return Err(Error::TooLong { subject, limit });
    }
    Ok(poem)
}

/// Writes to standard output; returns the exit code. If its reader has closed it, that
/// is a success.
fn write(bytes: &[u8]) -> Result<u8, Error> {
    let mut out = io::stdout();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::Output {
            subject: "standard output".into(),
            why: reason(&error),
        }),
        _ => Ok(0),
    }
}
