//! The man pages: clap_mangen writes the options; the synopsis, the variables and the
//! sections in `man/more` are added here.

use clap::builder::Resettable;
use clap::{Arg, ArgAction, Command};
use std::io;
use std::path::Path;

/// The sections of each man page after its options, in roff.
const SECTIONS: [(&str, &str); 5] = [
    ("poetry", include_str!("../../../man/more/poetry.roff")),
    ("serve", include_str!("../../../man/more/serve.roff")),
    ("proxy", include_str!("../../../man/more/proxy.roff")),
    ("fetch", include_str!("../../../man/more/fetch.roff")),
    (
        "transform",
        include_str!("../../../man/more/transform.roff"),
    ),
];

/// When the pages last changed, as `man` shows it.
const DATE: &str = "2026-11-26";

/// What goes before the list of variables.
const VARIABLES: &str = "\
Each option has a variable. The command line wins. A variable is ignored if it conflicts with \
the command line or needs an option that is not set. An unknown variable that starts with \
\\fBPOEM_\\fR is warned of.
";

/// Writes the pages of `root`, the whole program.
pub(super) fn write_pages(dir: &Path, root: &Command) -> io::Result<()> {
    for (name, sections) in SECTIONS {
        let (page, definition) = match root.find_subcommand(name) {
            None => ("poetry".to_string(), root.clone()),
            Some(subcommand) => {
                let page = format!("poetry-{name}");
                (page.clone(), subcommand.clone().display_name(page))
            }
        };
        std::fs::write(dir.join(format!("{page}.1")), text(definition, sections)?)?;
    }
    Ok(())
}

fn text(definition: Command, sections: &str) -> io::Result<String> {
    let synopsis = synopsis(&definition);
    let variables = variables(&definition);

    // The examples are among the sections already.
    let definition = definition.after_long_help(Resettable::Reset);
    let mut page = Vec::new();
    clap_mangen::Man::new(definition)
        .date(DATE)
        .source("poetry")
        .manual("Poetry over TCP")
        .render(&mut page)?;

    let page = String::from_utf8_lossy(&page);
    let (before, rest) = page.split_once(".SH SYNOPSIS\n").unwrap_or((&page, ""));
    let (_, after) = rest.split_once(".SH DESCRIPTION\n").unwrap_or(("", rest));
    let sections = sections.replacen(
        ".SH EXIT STATUS\n",
        &format!("{variables}.SH EXIT STATUS\n"),
        1,
    );
    Ok(format!(
        "{before}.SH SYNOPSIS\n{synopsis}\n.SH DESCRIPTION\n{after}{sections}"
    ))
}

/// The command with its options, their values, and dots where something repeats.
fn synopsis(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let mut parts = vec![format!("\\fB{name}\\fR")];

    let options = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let (positionals, options): (Vec<&Arg>, Vec<&Arg>) =
        options.partition(|arg| arg.is_positional());
    for arg in options.into_iter().chain(positionals) {
        let repeats = matches!(arg.get_action(), ArgAction::Append);
        let dots = if repeats && arg.get_value_delimiter().is_none() {
            "..."
        } else {
            ""
        };
        parts.push(format!("[{}]{dots}", usage(arg)));
    }
    if command.has_subcommands() {
        parts.push("\\fICOMMAND\\fR".into());
    }
    parts.join("\n")
}

/// The names of an option and its value.
fn usage(arg: &Arg) -> String {
    let short = arg.get_short().map(|short| format!("\\fB\\-{short}\\fR"));
    let long = arg.get_long();
    let long = long.map(|long| format!("\\fB\\-\\-{}\\fR", long.replace('-', "\\-")));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    let names = names.join("|");
    if !arg.get_action().takes_values() {
        return names;
    }

    let value = arg.get_value_names().unwrap_or_default();
    let value = value.first().map(|name| format!("\\fI{name}\\fR"));
    let value = value.unwrap_or_default();
    let value = match arg.get_value_delimiter() {
        Some(delimiter) => format!("{value}[{delimiter}{value}]..."),
        None => value,
    };
    let is_optional = arg
        .get_num_args()
        .is_some_and(|count| count.min_values() == 0);
    match (names.is_empty(), is_optional) {
        (true, _) => value,
        (false, true) => format!("{names} [{value}]"),
        (false, false) => format!("{names} {value}"),
    }
}

/// The section that lists the variables; empty for the program itself.
fn variables(command: &Command) -> String {
    let mut list = String::new();
    for arg in command.get_arguments() {
        let Some(variable) = arg.get_env() else {
            continue;
        };
        let stands_for = match arg.get_long() {
            Some(long) => format!("\\fB\\-\\-{}\\fR", long.replace('-', "\\-")),
            None => format!("{}; several are separated by spaces or commas", usage(arg)),
        };
        let variable = variable.to_string_lossy();
        list += &format!(".TP\n.B {variable}\n{stands_for}\n");
    }

    if list.is_empty() {
        return list;
    }
    format!(".SH ENVIRONMENT\n{VARIABLES}{list}.TP\n.B NO_COLOR\nturns colours off\n")
}
