//! Environment variables: every option has one, `POEM_COMMAND_OPTION`, and so have the
//! servers of `proxy` and `fetch`: several in one variable, by spaces or commas.
//!
//! clap treats a variable like an option on the command line. But what a user types
//! must win, also over a variable for a different option that conflicts with it. So a
//! variable is ignored if the command line conflicts with it, or if it needs an option
//! that is missing. Two variables that conflict are an error, because neither is
//! preferred.

use super::proxy::EXEC;
use super::values;
use clap::builder::{BoolishValueParser, Resettable, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, Error};
use std::collections::BTreeSet;
use std::ffi::OsStr;

/// Finds two options with values that cannot be used together. clap knows only of
/// options that conflict with any value.
pub(super) type Clash = fn(&ArgMatches) -> Option<[&'static str; 2]>;

/// Gives each option of the subcommand `name` its variable. The global options are
/// copied into the subcommand for that. The help names the variables if `in_help`.
pub(super) fn with_variables(command: Command, name: &str, in_help: bool) -> Command {
    let globals: Vec<Arg> = command
        .get_arguments()
        .filter(|arg| arg.is_global_set())
        .map(|arg| arg.clone().global(false).display_order(1000))
        .collect();

    command.mut_subcommand(name, |subcommand| {
        subcommand
            .args(globals)
            .mut_args(|arg| with_variable(values::with_minus(arg), name).hide_env(!in_help))
    })
}

/// The variable of this option, or of this list of servers.
pub(super) fn variable_name(subcommand: &str, option: &str) -> String {
    let name = format!("POEM_{subcommand}_{option}");
    name.to_uppercase().replace('-', "_")
}

fn with_variable(arg: Arg, subcommand: &str) -> Arg {
    let option = match arg.get_long() {
        Some("help" | "version" | "list") => return arg,
        Some(long) => long.to_string(),
        None => match servers(&arg) {
            Some(name) => name.to_string(),
            None => return arg,
        },
    };
    let variable = variable_name(subcommand, &option);
    let arg = arg.env(variable).hide_env_values(true);

    // Otherwise POEM_FETCH_QUIET=1 is not understood.
    if is_flag(&arg) {
        arg.value_parser(BoolishValueParser::new())
    } else {
        arg
    }
}

/// The name of the values, if this argument is a list of servers.
fn servers(arg: &Arg) -> Option<&str> {
    let name = arg.get_value_names()?.first()?.as_str();
    let is_list = arg.is_positional() && ["UPSTREAM", "ADDR"].contains(&name);
    is_list.then_some(name)
}

/// The servers in a variable. What follows a command belongs to it.
fn split(value: &OsStr) -> Vec<String> {
    let value = value.to_string_lossy();
    let is_between = |c: char| c == ',' || c.is_whitespace();
    let is_word = |at: usize| value[..at].ends_with(is_between) || at == 0;
    let command = value
        .match_indices(EXEC)
        .map(|(at, _)| at)
        .find(|at| is_word(*at));
    let (servers, command) = value.split_at(command.unwrap_or(value.len()));

    let parts = servers.split(is_between).chain([command.trim_end()]);
    let parts = parts.filter(|part| !part.is_empty());
    parts.map(String::from).collect()
}

/// The variables of all subcommands.
pub(super) fn all_variables(command: &Command) -> BTreeSet<String> {
    let options = command.get_subcommands().flat_map(Command::get_arguments);
    let variables = options.filter_map(Arg::get_env);
    variables
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

fn is_flag(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::SetTrue)
}

/// The variable that the value of `option` came from, if it came from one.
pub(super) fn variable(subcommand: &Command, matches: &ArgMatches, option: &str) -> Option<String> {
    let (_, matches) = matches.subcommand()?;
    let mut options = subcommand.get_arguments();
    let variable = options.find(|arg| arg.get_id() == option)?.get_env()?;

    let source = matches.value_source(option)?;
    (source == ValueSource::EnvVariable).then(|| variable.to_string_lossy().into_owned())
}

/// Parses the command line of this process, for the subcommand `called`, with its
/// variables.
///
/// # Errors
/// clap's, which include help and the version.
pub(super) fn matches(
    command: Command,
    called: Option<&'static str>,
    clash: Clash,
) -> Result<ArgMatches, Error> {
    let Some(called) = called else {
        return command.try_get_matches();
    };
    let variables = command.find_subcommand(called).map(set_variables);
    let variables = variables.unwrap_or_default();
    if variables.is_empty() {
        return command.try_get_matches();
    }

    let parsing = Parsing {
        command,
        called,
        clash,
    };
    parsing.matches(variables)
}

/// A variable that is set, and its option.
#[derive(Clone)]
struct Variable {
    option: Arg,
    name: String,
}

/// The variables that are set for this subcommand. A flag set to "no" counts as unset.
fn set_variables(subcommand: &Command) -> Vec<Variable> {
    let mut variables = Vec::new();
    for option in subcommand.get_arguments() {
        let Some(name) = option.get_env() else {
            continue;
        };
        let Some(value) = std::env::var_os(name) else {
            continue;
        };

        let is_no = || {
            let value = BoolishValueParser::new().parse_ref(subcommand, None, &value);
            value.is_ok_and(|yes| !yes)
        };
        if is_flag(option) && is_no() {
            continue;
        }

        variables.push(Variable {
            option: option.clone(),
            name: name.to_string_lossy().into_owned(),
        });
    }
    variables
}

struct Parsing {
    command: Command,
    called: &'static str,
    clash: Clash,
}

impl Parsing {
    fn matches(&self, mut variables: Vec<Variable>) -> Result<ArgMatches, Error> {
        let line = self.with(&[]).ignore_errors(true).try_get_matches();
        let line = line.ok().and_then(|mut line| line.remove_subcommand());
        let Some((_, line)) = line else {
            return self.command.clone().try_get_matches(); // help or the version
        };

        self.drop_overruled(&line, &mut variables);
        self.refuse_conflicts(&variables)?;
        self.drop_needy(&mut variables);
        self.parse(variables)
    }

    fn subcommand(&self) -> &Command {
        self.command
            .find_subcommand(self.called)
            .expect("matches() found this subcommand")
    }

    /// Drops the variables of options that are on the command line, or that conflict
    /// with an option there.
    fn drop_overruled(&self, line: &ArgMatches, variables: &mut Vec<Variable>) {
        let subcommand = self.subcommand();
        let on_line = |option: &Arg| {
            let source = line.value_source(option.get_id().as_str());
            source == Some(ValueSource::CommandLine)
        };
        let options: Vec<&Arg> = subcommand
            .get_arguments()
            .filter(|option| on_line(option))
            .collect();

        variables.retain(|variable| {
            let conflicts = |option: &&Arg| conflict(subcommand, &variable.option, option);
            !on_line(&variable.option) && !options.iter().any(conflicts)
        });
    }

    fn refuse_conflicts(&self, variables: &[Variable]) -> Result<(), Error> {
        for (at, one) in variables.iter().enumerate() {
            let conflicts =
                |other: &&Variable| conflict(self.subcommand(), &one.option, &other.option);
            if let Some(other) = variables[at..].iter().find(conflicts) {
                return Err(self.refusal(one, other));
            }
        }
        Ok(())
    }

    fn refusal(&self, one: &Variable, other: &Variable) -> Error {
        let mut command = self.command.clone();
        command.build();
        let subcommand = command
            .find_subcommand_mut(self.called)
            .expect("matches() found this subcommand");

        let text = format!(
            "the variable {} cannot be used with {}",
            one.name, other.name
        );
        subcommand.error(ErrorKind::ArgumentConflict, text)
    }

    /// The command line where only these variables are read.
    fn with(&self, variables: &[Variable]) -> Command {
        let is_read = |option: &Arg| {
            let mut read = variables.iter().map(|variable| variable.option.get_id());
            read.any(|id| id == option.get_id())
        };
        let without = |option: Arg| {
            if !is_read(&option) {
                return option.env(Resettable::Reset);
            }
            if servers(&option).is_none() {
                return option;
            }
            // clap takes a variable for a single value.
            let value = option.get_env().and_then(std::env::var_os);
            let listed = split(&value.unwrap_or_default());
            let option = option.env(Resettable::Reset);
            if listed.is_empty() {
                option
            } else {
                option.default_values(listed)
            }
        };
        self.command
            .clone()
            .mut_subcommand(self.called, |subcommand| subcommand.mut_args(without))
    }

    /// The options that are missing when these variables are read.
    fn missing(&self, variables: &[Variable]) -> Vec<String> {
        let Err(error) = self.with(variables).try_get_matches() else {
            return Vec::new();
        };
        if error.kind() != ErrorKind::MissingRequiredArgument {
            return Vec::new();
        }
        match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::Strings(options)) => options.clone(),
            _ => Vec::new(),
        }
    }

    /// Drops the variables that need an option which is neither on the command line nor
    /// given by another variable.
    fn drop_needy(&self, variables: &mut Vec<Variable>) {
        let missing_anyway = self.missing(&[]);
        loop {
            let mut missing = self.missing(variables);
            missing.retain(|option| !missing_anyway.contains(option));
            if missing.is_empty() {
                return;
            }

            let before = variables.len();
            variables.retain(|one| {
                let needed = self.missing(std::slice::from_ref(one));
                !needed.iter().any(|option| missing.contains(option))
            });
            if variables.len() == before {
                return;
            }
        }
    }

    /// Parses with these variables, but without those that clash with an
    /// option on the command line. An error about the value of a variable names the
    /// variable.
    fn parse(&self, mut variables: Vec<Variable>) -> Result<ArgMatches, Error> {
        loop {
            let found = self.with(&variables).try_get_matches();
            let found = found.map_err(|error| self.name_variable(error, &variables))?;

            match self.clashing(&variables, &found)? {
                None => return Ok(found),
                Some(at) => variables.remove(at),
            };
        }
    }

    fn name_variable(&self, mut error: Error, variables: &[Variable]) -> Error {
        if let Some(variable) = self.blamed(&error, variables) {
            let name = ContextValue::String(variable.name.clone());
            error.insert(ContextKind::InvalidArg, name);
        }
        error
    }

    /// The variable that holds the value to blame.
    fn blamed<'a>(&self, error: &Error, variables: &'a [Variable]) -> Option<&'a Variable> {
        if !matches!(
            error.kind(),
            ErrorKind::InvalidValue | ErrorKind::ValueValidation
        ) {
            return None; // it is about the command line
        }
        let Some(ContextValue::String(blamed)) = error.get(ContextKind::InvalidArg) else {
            return None;
        };

        let mut command = self.command.clone();
        command.build(); // an option cannot be displayed before that
        let mut options = command.find_subcommand(self.called)?.get_arguments();
        let option = options.find(|option| option.to_string() == *blamed)?;

        variables
            .iter()
            .find(|variable| variable.option.get_id() == option.get_id())
    }

    /// The index of a variable that clashes with an option on the command line.
    ///
    /// # Errors
    /// A usage error if both values came from variables.
    fn clashing(&self, variables: &[Variable], found: &ArgMatches) -> Result<Option<usize>, Error> {
        let Some(options) = (self.clash)(found) else {
            return Ok(None);
        };
        let index = |option: &str| {
            let mut ids = variables.iter().map(|variable| variable.option.get_id());
            ids.position(|id| id == option)
        };

        let [one, other] = options.map(index);
        match (one, other) {
            // The value of one variable clashes with itself: the command refuses it.
            (Some(one), Some(other)) if one == other => Ok(None),
            (Some(one), Some(other)) => Err(self.refusal(&variables[one], &variables[other])),
            _ => Ok(one.or(other)),
        }
    }
}

/// Whether these two options conflict. Either may be the one that declares it.
fn conflict(subcommand: &Command, one: &Arg, other: &Arg) -> bool {
    let declares = |one: &Arg, other: &Arg| {
        let conflicts = subcommand.get_arg_conflicts_with(one);
        conflicts.iter().any(|arg| arg.get_id() == other.get_id())
    };
    declares(one, other) || declares(other, one)
}
