//! What completions know of the command line. The scripts are written here, not by
//! clap_complete, because that offers file names for every value, cannot complete lists
//! with commas, and lists hidden commands.

use clap::{Arg, ArgAction, Command};
use poetry::transform::Registry;

/// The steps of `serve --script`. A number follows those that end in `@`.
const STEPS: [&str; 7] = ["ok", "empty", "reset@", "eof@", "stall@", "slow@", "refuse"];

/// The program and its subcommands.
pub(super) struct Program {
    /// The options before a subcommand.
    pub options: Vec<Completable>,
    pub commands: Vec<Subcommand>,
}

pub(super) struct Subcommand {
    pub name: String,
    pub about: String,
    pub options: Vec<Completable>,
    /// What comes without an option; the last one repeats.
    pub positionals: Vec<Completable>,
}

/// An option or a positional argument.
pub(super) struct Completable {
    /// `-o`, `--output`; empty for a positional argument.
    pub names: Vec<String>,
    /// The first line of its help.
    pub help: String,
    /// `None` for a flag.
    pub value: Option<Value>,
    pub value_name: String,
    pub repeats: bool,
}

/// What a value can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// One of these.
    Word(Vec<String>),
    /// Some of these, with commas between them.
    List(Vec<String>),
    Path,
    /// An address; only `unix:` and a path can be completed.
    Addr,
    /// An address or `builtin`.
    Upstream,
    /// A duration, a number, a text: there is nothing to offer.
    Free,
}

impl Program {
    pub fn of(root: &Command) -> Program {
        let visible = |command: &&Command| !command.is_hide_set() && command.get_name() != "help";
        Program {
            options: options(root),
            commands: root
                .get_subcommands()
                .filter(visible)
                .map(Subcommand::of)
                .collect(),
        }
    }

    /// The names of the subcommands, and `help`.
    pub fn names(&self) -> Vec<&str> {
        let names = self.commands.iter().map(|command| command.name.as_str());
        names.chain(["help"]).collect()
    }
}

impl Subcommand {
    fn of(command: &Command) -> Subcommand {
        Subcommand {
            name: command.get_name().to_string(),
            about: command
                .get_about()
                .map(|about| about.to_string())
                .unwrap_or_default(),
            options: options(command),
            positionals: command.get_positionals().map(Completable::of).collect(),
        }
    }
}

fn options(command: &Command) -> Vec<Completable> {
    let options = command.get_arguments().filter(|arg| !arg.is_positional());
    options.map(Completable::of).collect()
}

impl Completable {
    fn of(arg: &Arg) -> Completable {
        let short = arg.get_short().map(|short| format!("-{short}"));
        let longs = arg.get_long_and_visible_aliases().unwrap_or_default();
        let longs = longs.into_iter().map(|long| format!("--{long}"));
        let help = arg.get_help().map(|help| help.to_string());
        let names = arg.get_value_names().unwrap_or_default();

        Completable {
            names: short.into_iter().chain(longs).collect(),
            help: help.unwrap_or_default(),
            value: arg.get_action().takes_values().then(|| value(arg)),
            value_name: names
                .first()
                .map(|name| name.to_string())
                .unwrap_or_default(),
            repeats: matches!(arg.get_action(), ArgAction::Append),
        }
    }
}

fn value(arg: &Arg) -> Value {
    let possible = arg.get_possible_values();
    if !possible.is_empty() {
        let words = possible.iter().map(|word| word.get_name().to_string());
        let words = words.collect();
        return match arg.get_value_delimiter() {
            Some(_) => Value::List(words),
            None => Value::Word(words),
        };
    }

    let names = arg.get_value_names().unwrap_or_default();
    match names.first().map(|name| name.as_str()) {
        Some("NAME" | "NAMES") => Value::List(transformations()),
        Some("STEP") => Value::List(STEPS.map(String::from).to_vec()),
        Some("FILE" | "POEM") => Value::Path,
        Some("ADDR") => Value::Addr,
        Some("UPSTREAM") => Value::Upstream,
        _ => Value::Free,
    }
}

fn transformations() -> Vec<String> {
    let registry = Registry::default();
    let transforms = registry.transforms();
    transforms
        .map(|transform| transform.name().to_string())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use poetry::script::Step;

    #[test]
    fn the_steps_that_are_offered_can_be_given() {
        for step in STEPS {
            let text = step.replace('@', "@1");
            assert!(text.parse::<Step>().is_ok(), "{text}");
        }
    }
}
