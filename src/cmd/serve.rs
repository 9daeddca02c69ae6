//! `poetry serve`.

use crate::cmd::report::{self, Log};
use crate::cmd::{
    Descriptors, Listening, Output, Service, duration, listen, listen_addr, number, open,
};
use clap::ValueEnum;
use poetry::addr::Addr;
use poetry::anthology::PoemSource;
use poetry::error::Error;
use poetry::handler::serve::{Pick, Serve, ServeSettings};
use poetry::protocol::Protocol;
use poetry::script::{Script, Step};
use poetry::trickle::Pace;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Serve poems: files, folders, or the built-in ones
///
/// Whoever connects is sent a poem, and the connection is closed. Of a folder, all files ending in .txt are served.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files or folders of poems; with none, the built-in poems
    #[arg(value_name = "POEM")]
    poems: Vec<PathBuf>,
    /// Where to listen: [HOST:]PORT, [IPV6]:PORT or unix:PATH; port 0 picks a free one
    #[arg(short, long, visible_alias = "port", value_name = "ADDR", default_value = "127.0.0.1:10001",
          value_parser = listen_addr)]
    listen: Vec<Addr>,
    /// What clients speak
    #[arg(long, value_name = "PROTOCOL", value_enum, default_value = "poem")]
    protocol: ServeProtocol,
    /// Wait this long between pieces of a poem: a slow server
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    delay: Option<Duration>,
    /// The size of a piece, in bytes
    #[arg(long, value_name = "N", default_value = "10", requires = "delay",
          value_parser = number(1u32))]
    num_bytes: u32,
    /// Which poem a client gets when there are several
    #[arg(long, value_name = "HOW", value_enum, default_value = "random")]
    pick: PickArg,
    /// Rehearse trouble, connection by connection, the last step repeating: ok, empty, reset@N, eof@N, stall@N,
    /// slow@N, refuse
    #[arg(long, value_name = "STEP", value_delimiter = ',', conflicts_with = "delay",
          value_parser = |text: &str| text.trim().parse::<Step>().map_err(|e| e.to_string()))]
    script: Vec<Step>,
    #[command(flatten)]
    listening: Listening,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ServeProtocol {
    /// The server speaks first, and only it
    Poem,
    /// A request line names the poem; an empty one lists the names
    Line,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PickArg {
    /// Any of them
    Random,
    /// One after the other
    Cycle,
}

/// Serves until a signal.
pub async fn run(args: Args, output: &Output) -> Result<ExitCode, Error> {
    let protocol = match args.protocol {
        ServeProtocol::Poem => Protocol::Poem,
        ServeProtocol::Line => Protocol::Line,
    };
    let source = match protocol {
        _ if args.poems.is_empty() => PoemSource::BuiltIn,
        Protocol::Line => PoemSource::Named(args.poems, report::error),
        Protocol::Poem | Protocol::Netstring => PoemSource::Paths(args.poems),
    };
    let pace = args
        .delay
        .filter(|delay| !delay.is_zero())
        .map(|delay| Pace {
            bytes: args.num_bytes as usize,
            delay,
        });
    let pick = match args.pick {
        PickArg::Random => Pick::Random,
        PickArg::Cycle => Pick::Cycle,
    };
    let serve = Serve::new(
        source,
        ServeSettings {
            protocol,
            pick,
            pace,
        },
        Script::new(args.script),
    )?;
    let count = serve.len();
    let doing = format!(
        "Serving {count} {}",
        if count == 1 { "poem" } else { "poems" }
    );
    let log = Log::start(output);
    let needs = Descriptors::default();
    let listeners = open(&args.listen).await?;
    listen(
        Service {
            listeners,
            listening: &args.listening,
            log,
            doing,
            needs,
        },
        |_, _| Ok(serve),
    )
    .await
}
