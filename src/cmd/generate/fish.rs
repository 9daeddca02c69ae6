//! The completions for fish.

use super::completions::{Completable, Program, Value};

const FUNCTIONS: &str = r#"# Completions of poetry for fish, made by `poetry generate`.

function __poetry_addr
    set -l token (commandline -ct | string replace -r '^--[a-z-]+=' '')
    if string match -q 'unix:*' -- $token
        for path in (__fish_complete_path (string sub -s 6 -- $token))
            echo unix:$path
        end
    else
        echo unix:
    end
end

complete -c poetry -f
"#;

pub(super) fn script(program: &Program) -> String {
    let mut script = FUNCTIONS.to_string();
    let names = program.names().join(" ");
    let before = format!("not __fish_seen_subcommand_from {names}");

    for command in &program.commands {
        let about = quoted(&command.about);
        script += &format!(
            "complete -c poetry -n '{before}' -a {} -d {about}\n",
            command.name
        );
    }
    script +=
        &format!("complete -c poetry -n '{before}' -a help -d 'Print the help of a command'\n");
    script += &format!("complete -c poetry -n '__fish_seen_subcommand_from help' -a '{names}'\n");

    for option in &program.options {
        script += &line(&before, option);
    }
    for command in &program.commands {
        let within = format!("__fish_seen_subcommand_from {}", command.name);
        for argument in command.options.iter().chain(&command.positionals) {
            script += &line(&within, argument);
        }
    }
    script
}

fn line(condition: &str, argument: &Completable) -> String {
    let mut line = format!("complete -c poetry -n '{condition}'");
    for name in &argument.names {
        line += &match name.strip_prefix("--") {
            Some(long) => format!(" -l {long}"),
            None => format!(" -s {}", &name[1..]),
        };
    }

    let is_option = !argument.names.is_empty();
    line += &argument
        .value
        .as_ref()
        .map_or_else(String::new, |value| values(value, is_option));
    if is_option {
        line += &format!(" -d {}", quoted(&argument.help));
    }
    line + "\n"
}

fn values(value: &Value, is_option: bool) -> String {
    let exclusive = if is_option { " -x" } else { "" };
    match value {
        Value::Word(words) => format!("{exclusive} -a '{}'", words.join(" ")),
        Value::List(words) => format!("{exclusive} -a '(__fish_append , {})'", words.join(" ")),
        Value::Path if is_option => " -r -F".into(),
        Value::Path => " -F".into(),
        Value::Addr => format!("{exclusive} -a '(__poetry_addr)'"),
        Value::Upstream => format!("{exclusive} -a '(__poetry_addr) builtin'"),
        Value::Free => exclusive.into(),
    }
}

/// In single quotes, as fish reads it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}
