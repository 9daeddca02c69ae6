//! The program from its arguments to its exit code.

use super::failure::{Failure, Usage};
use super::flags::{ColorWhen, Output};
use super::help::{self, Asked};
use super::{advice, env, fetch, generate, log, proxy, serve, transform};
use clap::{
    ArgMatches, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
};
use poetry::{process, rt};
use std::pin::pin;

const EXAMPLES: &str = "\
Examples:
  poetry proxy builtin    a first try, without a server
  poetry fetch            the poem of that proxy
  poetry help proxy       all that the proxy can do";

/// Serve, cache and fetch poems over plain TCP
///
/// A toolkit for services that answer a TCP connection with text and hang up. Three
/// commands are enough for a first try; without arguments they find each other: `poetry
/// serve`, `poetry proxy`, `poetry fetch`.
#[derive(Debug, Parser)]
#[command(
    name = "poetry",
    version,
    propagate_version = true,
    max_term_width = 100
)]
#[command(after_long_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    // Not documented here: a comment here would hide the one on the arguments.
    Serve(serve::Args),
    Proxy(Box<proxy::Args>), // it has far more options than the others
    Fetch(fetch::Args),
    Transform(transform::Args),
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
        Ok((cli, matches)) => {
            // Pinned here, because it is large, and would be copied on its way.
            let work = pin!(async { exit(run(cli, &matches).await) });
            rt::run(work)
        }
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
    if !cli.output.quiet {
        warn(matches);
    }

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
        Command::Proxy(args) => proxy::run(*args, output).await,
        Command::Fetch(args) => fetch::run(args, output).await,
        Command::Transform(args) => transform::run(args, output).await,
        Command::Generate(args) => Ok(generate::run(&args, definition(None, Asked::Short))?),
    }
}

/// Parses the arguments and the environment variables.
///
/// Only the called subcommand gets its variables: adding those of all four takes as
/// long as parsing.
fn parse() -> Result<(Cli, ArgMatches), clap::Error> {
    let args: Vec<String> = std::env::args_os()
        .skip(1)
        .filter_map(|arg| arg.into_string().ok())
        .collect();
    let args = || args.iter().map(String::as_str);
    let called = args().find_map(|arg| SUBCOMMANDS.into_iter().find(|name| arg == *name));

    let definition = definition(called, help::asked(args()));
    let definition = definition.color(color_of_messages(args(), called));
    let matches = env::matches(definition, called, clashing_options)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    if let (Command::Proxy(args), Some((_, found))) = (&mut cli.command, matches.subcommand()) {
        args.settle(found);
    }
    Ok((cli, matches))
}

/// The definition of the command line, with the environment variables of the subcommand
/// `called`, or of all.
fn definition(called: Option<&str>, help: Asked) -> clap::Command {
    let mut command = Cli::command();
    if called.is_none_or(|called| called == "proxy") {
        command = proxy::arrange(command);
    }
    for name in SUBCOMMANDS {
        if called.is_none_or(|called| called == name) {
            command = env::with_variables(command, name, help == Asked::Long);
        }
    }

    if help == Asked::No && called.is_some() {
        command
    } else {
        help::arrange(command)
    }
}

/// Whether clap's own messages have colours. They may be about a command line that
/// cannot be parsed, so `--color` and its variable are looked for before that.
fn color_of_messages<'a>(
    mut args: impl Iterator<Item = &'a str>,
    called: Option<&str>,
) -> ColorChoice {
    let mut color = called
        .map(|called| env::variable_name(called, "color"))
        .and_then(|name| std::env::var(name).ok());
    while let Some(arg) = args.next() {
        match arg.strip_prefix("--color") {
            Some("") => color = args.next().map(String::from),
            Some(value) if value.starts_with('=') => color = Some(value[1..].to_string()),
            _ => {}
        }
    }

    choice(color.and_then(|color| ColorWhen::from_str(&color, false).ok()))
}

fn choice(when: Option<ColorWhen>) -> ColorChoice {
    match when {
        Some(ColorWhen::Always) => ColorChoice::Always,
        Some(ColorWhen::Never) => ColorChoice::Never,
        Some(ColorWhen::Auto) | None => ColorChoice::Auto,
    }
}

/// Warns of what is probably a mistake: durations in months, unknown variables.
fn warn(matches: &ArgMatches) {
    let months = matches.subcommand().map(|(_, found)| advice::months(found));
    for text in months.unwrap_or_default() {
        log::warning(&text);
    }

    let variables = advice::own_variables();
    if variables.is_empty() {
        return;
    }
    let known = env::all_variables(&definition(None, Asked::No));
    for variable in variables.difference(&known) {
        log::warning(&advice::unknown(variable, &known));
    }
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
    let color = matches.get_one::<ColorWhen>("color").copied();
    let mut command = definition(Some(name), Asked::No).color(choice(color));
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
