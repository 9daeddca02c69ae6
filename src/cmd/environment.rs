//! Environment variables, and which of them count. To clap a variable is as good as an option on the command line; to
//! people the command line wins, also over a variable of another name that can't be used with what stands there.
//!
//! So a variable is left out where the command line excludes it, and where it needs an option that isn't there. Two
//! variables that exclude each other are an error: neither is better than the other.

use crate::cmd::{command, proxy, usage_error};
use clap::builder::{BoolishValueParser, Resettable, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, Id};
use std::sync::OnceLock;

/// The variables that counted, with the options they stand for.
static COUNTED: OnceLock<Vec<(Id, String)>> = OnceLock::new();

/// The variable that this option's value came from, if one did.
pub fn origin(option: &str) -> Option<&'static str> {
    let found = COUNTED.get()?.iter().find(|(id, _)| id == option);
    found.map(|(_, name)| name.as_str())
}

/// The command line, with the variables that count.
pub fn matches(called: Option<&'static str>) -> ArgMatches {
    let all = command(called);
    let set = called.and_then(|called| Some((called, set(all.find_subcommand(called)?))));
    match set {
        Some((called, variables)) if !variables.is_empty() => {
            Parsing { all, called }.matches(variables)
        }
        _ => all.get_matches(),
    }
}

/// A variable that is set, and its option.
#[derive(Clone)]
struct Variable {
    option: Arg,
    name: String,
}

/// Those that are set for this subcommand; a flag's that says no is as good as none.
fn set(subcommand: &Command) -> Vec<Variable> {
    let mut variables = Vec::new();
    for option in subcommand.get_arguments() {
        let Some(name) = option.get_env() else {
            continue;
        };
        let Some(value) = std::env::var_os(name) else {
            continue;
        };
        let flag = matches!(option.get_action(), ArgAction::SetTrue);
        let no = || {
            BoolishValueParser::new()
                .parse_ref(subcommand, None, &value)
                .is_ok_and(|yes| !yes)
        };
        if !(flag && no()) {
            variables.push(Variable {
                option: option.clone(),
                name: name.to_string_lossy().into_owned(),
            });
        }
    }
    variables
}

struct Parsing {
    all: Command,
    called: &'static str,
}

impl Parsing {
    fn matches(&self, mut variables: Vec<Variable>) -> ArgMatches {
        let line = self.with(&[]).ignore_errors(true).try_get_matches();
        let line = line.ok().and_then(|mut line| line.remove_subcommand());
        let Some((_, line)) = line else {
            return self.all.clone().get_matches();
        }; // help, or the version
        let on_line = |option: &Arg| {
            line.value_source(option.get_id().as_str())
                .is_some_and(|from| from == ValueSource::CommandLine)
        };
        let subcommand = self
            .all
            .find_subcommand(self.called)
            .expect("it was found before");
        let options: Vec<&Arg> = subcommand
            .get_arguments()
            .filter(|option| on_line(option))
            .collect();
        variables.retain(|variable| {
            !on_line(&variable.option)
                && !options
                    .iter()
                    .any(|option| exclude(subcommand, &variable.option, option))
        });
        for (at, one) in variables.iter().enumerate() {
            let other = variables[at..]
                .iter()
                .find(|v| exclude(subcommand, &one.option, &v.option));
            if let Some(other) = other {
                self.refuse(one, other);
            }
        }
        self.leave_out_needy(&mut variables);
        let found = self.parse(&mut variables);
        let counted = variables
            .into_iter()
            .map(|v| (v.option.get_id().clone(), v.name))
            .collect();
        let _once = COUNTED.set(counted);
        found
    }

    fn refuse(&self, one: &Variable, other: &Variable) -> ! {
        let text = format!(
            "the variable {} cannot be used with {}",
            one.name, other.name
        );
        usage_error(self.called, ErrorKind::ArgumentConflict, text)
    }

    /// The command where only these variables are read.
    fn with(&self, variables: &[Variable]) -> Command {
        let read = |option: &Arg| {
            variables
                .iter()
                .any(|v| v.option.get_id() == option.get_id())
        };
        self.all.clone().mut_subcommand(self.called, |subcommand| {
            subcommand.mut_args(|arg| {
                if read(&arg) {
                    arg
                } else {
                    arg.env(Resettable::Reset)
                }
            })
        })
    }

    /// The options that are missing when these variables are read.
    fn missing(&self, variables: &[Variable]) -> Vec<String> {
        match self.with(variables).try_get_matches() {
            Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
                match error.get(ContextKind::InvalidArg) {
                    Some(ContextValue::Strings(options)) => options.clone(),
                    _ => Vec::new(),
                }
            }
            _ => Vec::new(),
        }
    }

    /// Leaves out the variables that need an option which is neither on the command line nor among the others.
    fn leave_out_needy(&self, variables: &mut Vec<Variable>) {
        let anyway = self.missing(&[]);
        loop {
            let mut missing = self.missing(variables);
            missing.retain(|option| !anyway.contains(option));
            let before = variables.len();
            variables.retain(|one| {
                missing.is_empty()
                    || !self
                        .missing(std::slice::from_ref(one))
                        .iter()
                        .any(|option| missing.contains(option))
            });
            if variables.len() == before {
                return;
            }
        }
    }

    /// The last word. An error about a variable's value names the variable.
    fn parse(&self, variables: &mut Vec<Variable>) -> ArgMatches {
        loop {
            let mut error = match self.with(variables).try_get_matches() {
                Ok(found) => match self.excluded_by_value(variables, &found) {
                    Some(at) => {
                        variables.remove(at);
                        continue;
                    }
                    None => return found,
                },
                Err(error) => error,
            };
            if let Some(variable) = self.named(&error, variables) {
                error.insert(
                    ContextKind::InvalidArg,
                    ContextValue::String(variable.name.clone()),
                );
            }
            error.exit()
        }
    }

    /// The variable whose option the error is about.
    fn named<'a>(&self, error: &clap::Error, variables: &'a [Variable]) -> Option<&'a Variable> {
        if !matches!(
            error.kind(),
            ErrorKind::InvalidValue | ErrorKind::ValueValidation
        ) {
            return None; // it is about the command line
        }
        let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidArg) else {
            return None;
        };
        let mut all = self.all.clone();
        all.build(); // before that, an option can't be shown
        let mut options = all.find_subcommand(self.called)?.get_arguments();
        let option = options
            .find(|option| option.to_string() == *named)?
            .get_id();
        variables
            .iter()
            .find(|variable| variable.option.get_id() == option)
    }

    /// The place of a variable that can't be used with the value of an option on the command line.
    fn excluded_by_value(&self, variables: &[Variable], found: &ArgMatches) -> Option<usize> {
        let (name, found) = found.subcommand()?;
        let args = (name == "proxy").then(|| proxy::Args::from_arg_matches(found).ok())??;
        let (options, _) = proxy::clash(&args)?;
        let [one, other] =
            options.map(|option| variables.iter().position(|v| v.option.get_id() == option));
        if let (Some(one), Some(other)) = (one, other) {
            self.refuse(&variables[one], &variables[other]);
        }
        one.or(other)
    }
}

/// Whether these two can't be used together; either may be the one that says so.
fn exclude(subcommand: &Command, one: &Arg, other: &Arg) -> bool {
    let says = |one, other: &Arg| {
        subcommand
            .get_arg_conflicts_with(one)
            .iter()
            .any(|arg| arg.get_id() == other.get_id())
    };
    says(one, other) || says(other, one)
}
