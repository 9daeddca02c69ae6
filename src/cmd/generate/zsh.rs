//! The completions for zsh.

use super::completions::{Completable, Program, Subcommand, Value};

const FUNCTIONS: &str = r#"#compdef poetry
# Completions of poetry for zsh, made by `poetry generate`.

_poetry_addr() {
    if compset -P unix:; then
        _files
    else
        compadd -S '' -- unix:
    fi
}

_poetry_upstream() {
    [[ $PREFIX == unix:* ]] || compadd -- builtin
    _poetry_addr
}

"#;

const TAIL: &str = r#"
if [ "$funcstack[1]" = "_poetry" ]; then
    _poetry "$@"
else
    compdef _poetry poetry
fi
"#;

pub(super) fn script(program: &Program) -> String {
    let mut script = FUNCTIONS.to_string();

    script += "_poetry_commands() {\n    local commands=(\n";
    for command in &program.commands {
        let about = command.about.replace(':', "\\:");
        script += &format!("        {}\n", quoted(&format!("{}:{about}", command.name)));
    }
    script += "        'help:Print the help of a command'\n    )\n";
    script += "    _describe -t commands command commands\n}\n\n";

    script += "_poetry() {\n    local curcontext=\"$curcontext\" state line\n";
    script += "    _arguments -s -S -C \\\n";
    script += &specs(&program.options);
    script += "        '1: :_poetry_commands' \\\n        '*:: :->rest' && return\n\n";
    script += "    case $line[1] in\n";
    for command in &program.commands {
        script += &arguments(command);
    }
    script += "        help) _arguments '1: :_poetry_commands' ;;\n    esac\n}\n";
    script + TAIL
}

fn arguments(command: &Subcommand) -> String {
    let mut text = format!(
        "        {})\n            _arguments -s -S \\\n",
        command.name
    );
    text += &specs(&command.options).replace("        '", "                '");

    let last = command.positionals.len().saturating_sub(1);
    for (at, positional) in command.positionals.iter().enumerate() {
        let place = if at == last {
            "*".into()
        } else {
            (at + 1).to_string()
        };
        let spec = format!("{place}:{}:{}", positional.value_name, action(positional));
        text += &format!("                {} \\\n", quoted(&spec));
    }
    let text = text.trim_end_matches([' ', '\\', '\n']);
    format!("{text}\n            ;;\n")
}

fn specs(options: &[Completable]) -> String {
    let mut text = String::new();
    for option in options {
        for name in &option.names {
            text += &format!("        {} \\\n", quoted(&spec(name, option)));
        }
    }
    text
}

/// An option in the form of `_arguments`.
fn spec(name: &str, option: &Completable) -> String {
    let repeats = if option.repeats { "*" } else { "" };
    let help = option
        .help
        .replace('[', "\\[")
        .replace(']', "\\]")
        .replace(':', "\\:");
    if option.value.is_none() {
        return format!("{repeats}{name}[{help}]");
    }

    let joined = if name.starts_with("--") { "=" } else { "+" };
    let action = action(option);
    format!(
        "{repeats}{name}{joined}[{help}]:{}:{action}",
        option.value_name
    )
}

fn action(of: &Completable) -> String {
    match &of.value {
        Some(Value::Word(words)) => format!("({})", words.join(" ")),
        Some(Value::List(words)) => format!("_sequence -d compadd - {}", words.join(" ")),
        Some(Value::Path) => "_files".into(),
        Some(Value::Addr) => "_poetry_addr".into(),
        Some(Value::Upstream) => "_poetry_upstream".into(),
        Some(Value::Free) | None => " ".into(),
    }
}

/// In single quotes, as a shell reads it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
