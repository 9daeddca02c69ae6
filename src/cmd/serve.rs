//! `poetry serve`.

use super::addrs::{SERVE_PORT, listen_addr};
use super::admin::{Administration, about};
use super::admitting::Refusing;
use super::failure::Failure;
use super::flags::{Listening, Output};
use super::service::{Service, listen};
use super::sockets::{FdBudget, Sockets};
use super::values::{duration, number};
use clap::ValueEnum;
use poetry::addr::ListenAddr;
use poetry::anthology::{Anthology, PoemSource};
use poetry::handler::serve::{Pick, Serve, ServeSettings};
use poetry::protocol::Protocol;
use poetry::script::{Script, Step};
use poetry::trickle::Pace;
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  poetry serve                                  the built-in poems
  poetry serve -l 0.0.0.0:10001 poems/          a folder, for other machines too
  poetry serve --delay 500ms poem.txt           a slow server
  poetry serve --script ok,reset@100,stall@0    rehearse an outage";

/// Serve poems: files, folders, or the built-in ones
///
/// Each client is sent one poem, then the connection is closed. In a folder, all files
/// ending in .txt are served.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Files or folders of poems; without any, the built-in poems
    #[arg(value_name = "POEM")]
    poems: Vec<PathBuf>,
    /// Where to listen: [HOST:]PORT, [IPV6]:PORT or unix:PATH; port 0 picks a free one
    #[arg(short, long, visible_alias = "port", value_name = "ADDR",
          default_value = "127.0.0.1:10001", value_parser = listen_addr(SERVE_PORT))]
    listen: Vec<ListenAddr>,
    /// The protocol that clients speak
    #[arg(long, value_name = "PROTOCOL", value_enum, default_value = "poem")]
    protocol: ServeProtocol,
    /// Wait this long between the pieces of a poem, to act as a slow server
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    delay: Option<Duration>,
    /// Size of a piece in bytes; needs --delay
    #[arg(long, value_name = "N", default_value = "10", requires = "delay",
          value_parser = number(1u32))]
    num_bytes: u32,
    /// Which poem a client gets if there are several
    #[arg(long, value_name = "HOW", value_enum, default_value = "random")]
    pick: PickArg,
    /// Fail on purpose, one step per connection; the last step repeats: ok, empty,
    /// reset@N, eof@N, stall@N, slow@N, refuse
    #[arg(long, value_name = "STEP", value_delimiter = ',', conflicts_with = "delay",
          value_parser = step)]
    script: Vec<Step>,
    #[command(flatten)]
    refusing: Refusing,
    #[command(flatten)]
    listening: Listening,
    #[command(flatten)]
    admin: Administration,
}

fn step(text: &str) -> Result<Step, String> {
    text.trim()
        .parse::<Step>()
        .map_err(|error| error.to_string())
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ServeProtocol {
    /// The client sends nothing and is sent a poem
    Poem,
    /// The client sends a line with the name of a poem; an empty line lists the names
    Line,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PickArg {
    /// Any of them
    Random,
    /// One after the other
    Cycle,
}

/// Serves until a signal.
pub(super) async fn run(mut args: Args, output: &Output) -> Result<u8, Failure> {
    if !args.script.is_empty() || args.pick == PickArg::Cycle {
        args.listening.in_order();
    }
    let settings = ServeSettings {
        protocol: args.protocol.into(),
        pick: args.pick.into(),
        pace: pace(args.delay, args.num_bytes),
    };
    let refusal = args.refusing.text(args.protocol.into())?;
    let admission = args.listening.admitting.settings(refusal)?;
    let admin = args.admin.addrs(&args.listen)?;
    let mut sockets = Sockets::open(&args.listen, &admin).await?;
    let anthology = Anthology::read(source(args.protocol, args.poems))?;
    let fds = FdBudget {
        fixed: 0,
        per_client: u64::from(anthology.has_large_files()),
    };

    let count = anthology.poem_count();
    let poems = if count == 1 { "poem" } else { "poems" };
    let service = Service {
        admin: args.admin.take(&mut sockets)?,
        about: about("serve", args.protocol.into()),
        sockets,
        listening: &args.listening,
        admission,
        output,
        verb: format!("Serving {count} {poems}"),
        fds,
    };
    let code = listen(service, |shared| {
        let script = Script::new(args.script);
        let serve = Serve::new(anthology, settings, script, shared.observer.clone());
        let wire = serve.wire();
        (serve, wire)
    });
    Ok(code.await?)
}

fn source(protocol: ServeProtocol, paths: Vec<PathBuf>) -> PoemSource {
    if paths.is_empty() {
        return PoemSource::BuiltIn;
    }
    match protocol {
        ServeProtocol::Poem => PoemSource::Paths(paths),
        ServeProtocol::Line => PoemSource::Named(paths),
    }
}

fn pace(delay: Option<Duration>, bytes: u32) -> Option<Pace> {
    let delay = delay.filter(|delay| !delay.is_zero())?;
    Some(Pace {
        bytes: bytes as usize,
        delay,
    })
}

impl From<ServeProtocol> for Protocol {
    fn from(protocol: ServeProtocol) -> Protocol {
        match protocol {
            ServeProtocol::Poem => Protocol::Poem,
            ServeProtocol::Line => Protocol::Line,
        }
    }
}

impl From<PickArg> for Pick {
    fn from(pick: PickArg) -> Pick {
        match pick {
            PickArg::Random => Pick::Random,
            PickArg::Cycle => Pick::Cycle,
        }
    }
}
