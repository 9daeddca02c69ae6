//! `poetry transform`: a filter, and the service.

use crate::cmd::report::Log;
use crate::cmd::{
    connect_addr, listen, listen_addr, positive_duration, size, workshop, Connecting, Listening, Output,
    Service,
};
use poetry::addr::Addr;
use poetry::error::{reason, Error};
use poetry::handler::transform::TransformService;
use poetry::transform::Transform;
use poetry::upstream::Timeouts;
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
    /// List the built-in transformations
    #[arg(long, conflicts_with_all = ["names", "listen"])]
    list: bool,
    /// Have it done by the netstring service at this address
    #[arg(long, value_name = "ADDR", value_parser = connect_addr)]
    via: Option<Addr>,
    /// The longest poem that is taken
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = size)]
    max_poem: u64,
    /// How long a service may take, with --via
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = positive_duration)]
    timeout: Duration,
    #[command(flatten)]
    connecting: Connecting,
    #[command(flatten)]
    listening: Listening,
}

/// What is said of a name that is no transformation.
pub fn unknown(name: &str) -> String {
    let nearness = |transform: &Transform| strsim::jaro_winkler(name, transform.name());
    let nearest = Transform::ALL.into_iter().max_by(|a, b| nearness(a).total_cmp(&nearness(b)));
    let names: Vec<&str> = Transform::ALL.iter().map(|transform| transform.name()).collect();
    let hint = nearest
        .filter(|transform| nearness(transform) > 0.7)
        .map(|transform| format!("\n\n  tip: a similar transformation exists: '{transform}'"))
        .unwrap_or_default();
    format!("unknown transformation '{name}'\n  [transformations: {}]{hint}", names.join(", "))
}

/// Filters, lists, or serves until a signal.
pub async fn run(args: Args, output: &Output) -> Result<ExitCode, Error> {
    if args.list {
        return list();
    }
    if let Some(addrs) = &args.listen {
        let log = Log::start(output);
        let service = Service { addrs, listening: &args.listening, log, doing: "Transforming".into() };
        return listen(service, |_, _| Ok(TransformService::new(args.max_poem))).await;
    }
    let names: Vec<String> =
        args.names.iter().flat_map(|names| names.split(',')).map(str::to_string).collect();
    let Some(workshop) = workshop("transform", &names, args.via.as_ref()) else {
        return Ok(ExitCode::SUCCESS);
    };
    let poem = read(args.file, args.max_poem)?;
    let timeouts = Timeouts {
        connect: args.connecting.connect_timeout,
        idle: args.connecting.idle_timeout,
        total: args.timeout,
    };
    let done = workshop.apply(poem.into(), args.max_poem, timeouts).await?;
    write(&done)
}

fn list() -> Result<ExitCode, Error> {
    let lines: String = Transform::ALL
        .iter()
        .map(|transform| format!("{:<12} {}\n", transform.name(), transform.about()))
        .collect();
    write(lines.as_bytes())
}

fn read(file: Option<PathBuf>, limit: u64) -> Result<Vec<u8>, Error> {
    let what = file.as_ref().filter(|path| path.as_os_str() != "-");
    let name = what.map_or("standard input".into(), |path| path.display().to_string());
    let local = |e: std::io::Error| Error::Local { what: name.clone(), why: reason(&e) };
    let source: Box<dyn Read> = match what {
        Some(path) => Box::new(std::fs::File::open(path).map_err(local)?),
        None => Box::new(std::io::stdin()),
    };
    let mut poem = Vec::new();
    source.take(limit.saturating_add(1)).read_to_end(&mut poem).map_err(local)?;
    match poem.len() as u64 > limit {
        true => Err(Error::TooLong { addr: name.clone(), limit }),
        false => Ok(poem),
    }
}

/// A closed standard output is no error: whoever closed it has enough.
fn write(bytes: &[u8]) -> Result<ExitCode, Error> {
    let mut out = std::io::stdout();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::Output { what: "standard output".into(), why: reason(&e) })
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
