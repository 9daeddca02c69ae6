//! The program from its arguments to its exit code.

use super::failure::{Failure, Usage};
use super::flags::Output;
use super::{env, fetch, generate, log, proxy, serve, transform};
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use poetry::{process, rt};

/// Serve, cache and fetch poems over plain TCP
///
/// A toolkit for services that answer a TCP connection with text and hang up. Three
/// commands are enough for a first try; without arguments they find each other: `poetry
/// serve`, `poetry proxy`, `poetry fetch`.
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
    /// Serve another server's poems from a cache; clients share each fetch
    Proxy(proxy::Args),
    /// Print the poems of one or many servers
    Fetch(fetch::Args),
    /// Transform a poem, or run the transformation service
    Transform(transform::Args),
    /// Write the man pages and the shell completions into a folder
    #[command(hide = true)]
    Generate(generate::Args),
}

/// The subcommands with a man page and environment variables.
const SUBCOMMANDS: [&str; 4] = ["serve", "proxy", "fetch", "transform"];

/// Parses the arguments, runs the command and exits.
///
/// It exits inside `block_on` because leaving that starts a thread, which takes a tenth
/// of the time of fetching a small poem.
pub(crate) fn main() {
    log::report_panics_in_one_line();

    match parse() {
        Ok((cli, matches)) => rt::block_on(async { exit(run(cli, &matches).await) }),
        Err(error) => exit(print(&error)),
    }
}

/// Ends the process. Programs run in process groups of their own and would outlive it,
/// so they are killed first.
fn exit(code: u8) -> ! {
    process::kill_all();
    std::process::exit(code.into())
}

/// Runs the command; returns the exit code.
async fn run(cli: Cli, matches: &ArgMatches) -> u8 {
    log::configure(&cli.output);

    match execute(cli.command, &cli.output).await {
        Ok(code) => code,
        Err(Failure::Work(error)) => {
            log::error(&error);
            error.exit_code()
        }
        Err(Failure::Usage(usage)) => print(&usage_error(usage, matches)),
    }
}

async fn execute(command: Command, output: &Output) -> Result<u8, Failure> {
    match command {
        Command::Serve(args) => serve::run(args, output).await,
        Command::Proxy(args) => proxy::run(args, output).await,
        Command::Fetch(args) => fetch::run(args, output).await,
        Command::Transform(args) => transform::run(args, output).await,
        Command::Generate(args) => Ok(generate::run(&args, definition(None))?),
    }
}

/// Parses the arguments and the environment variables.
///
/// Only the called subcommand gets its variables: adding those of all four takes as
/// long as parsing.
fn parse() -> Result<(Cli, ArgMatches), clap::Error> {
    let called =
        std::env::args_os().find_map(|arg| SUBCOMMANDS.into_iter().find(|name| arg == *name));

    let matches = env::matches(definition(called), called, clashing_options)?;
    let cli = Cli::from_arg_matches(&matches)?;
    Ok((cli, matches))
}

/// The definition of the command line, with the environment variables of the subcommand
/// `called`, or of all.
fn definition(called: Option<&str>) -> clap::Command {
    let mut command = Cli::command();
    for name in SUBCOMMANDS {
        if called.is_none_or(|called| called == name) {
            command = env::with_variables(command, name);
        }
    }
    command
}

/// Two options with values that cannot be used together. clap does not know of these.
fn clashing_options(matches: &ArgMatches) -> Option<[&'static str; 2]> {
    let ("proxy", found) = matches.subcommand()? else {
        return None;
    };
    let args = proxy::Args::from_arg_matches(found).ok()?;
    proxy::clash(&args).map(|clash| clash.options)
}

/// A usage error in clap's form. It names the environment variable if the value to
/// blame came from one.
fn usage_error(usage: Usage, matches: &ArgMatches) -> clap::Error {
    let name = matches
        .subcommand_name()
        .expect("clap requires a subcommand");
    let mut command = definition(Some(name));
    command.build();
    let subcommand = command
        .find_subcommand_mut(name)
        .expect("the subcommand that ran is defined");

    let variable = usage
        .option
        .and_then(|option| env::variable(subcommand, matches, option));
    let text = match variable {
        Some(variable) => format!("{variable}: {}", usage.text),
        None => usage.text,
    };
    subcommand.error(usage.kind, text)
}

/// Prints what clap has to say, which may be help or the version; returns the exit
/// code.
fn print(error: &clap::Error) -> u8 {
    let _closed = error.print();
    if error.use_stderr() { 2 } else { 0 }
}
