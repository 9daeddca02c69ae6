//! The completions for bash.

use super::completions::{Completable, Program, Subcommand, Value};

/// The functions that do not depend on the command line.
///
/// bash itself splits words at the characters of `COMP_WORDBREAKS`, also `unix:/tmp`
/// and `--ttl=1h`. So the line is split here at white space, and a reply leaves out
/// what bash keeps: everything up to the last such character.
const FUNCTIONS: &str = r#"# Completions of poetry for bash, made by `poetry generate`.

_poetry_words() {
    COMPREPLY=($(compgen -W "$1" -- "$cur"))
}

_poetry_list() {
    local given="${cur%"${cur##*,}"}"
    COMPREPLY=($(compgen -P "$given" -W "$1" -- "${cur##*,}"))
    compopt -o nospace 2>/dev/null
}

_poetry_files() {
    local IFS=$'\n'
    COMPREPLY=($(compgen -P "$1" -f -- "${cur#"$1"}"))
    compopt -o filenames 2>/dev/null
}

_poetry_addr() {
    if [[ $cur == unix:* ]]; then
        _poetry_files unix:
    else
        _poetry_words "unix: $1"
        [[ ${COMPREPLY[0]} == unix: ]] && compopt -o nospace 2>/dev/null
    fi
}

_poetry_keep_breaks() {
    local kept="" char i
    for ((i = 0; i < ${#cur}; i++)); do
        char="${cur:i:1}"
        [[ $COMP_WORDBREAKS == *"$char"* ]] && kept="${cur:0:i+1}"
    done
    COMPREPLY=("${COMPREPLY[@]#"$kept"}")
}

"#;

const MAIN: &str = r#"_poetry() {
    local line="${COMP_LINE:0:COMP_POINT}" words cur prev command="" given=0 i
    COMPREPLY=()
    if [[ -n $line ]]; then
        read -ra words <<<"$line"
        [[ $line == *[[:space:]] ]] && words+=("")
    else
        words=("${COMP_WORDS[@]:0:COMP_CWORD+1}")
    fi
    cur="${words[${#words[@]}-1]}"
    prev="${words[${#words[@]}-2]}"

    for ((i = 1; i < ${#words[@]} - 1; i++)); do
        if [[ -z $command ]]; then
            case "${words[i]}" in
                COMMANDS) command="${words[i]}" ;;
            esac
        elif [[ ${words[i]} != -* ]] && ! _poetry_takes_value "${words[i-1]}"; then
            ((given++))
        fi
    done
    if [[ $cur == --*=* ]]; then
        prev="${cur%%=*}"
        cur="${cur#*=}"
    fi

    _poetry_complete
    _poetry_keep_breaks
}

complete -F _poetry poetry
"#;

pub(super) fn script(program: &Program) -> String {
    let names = program.names();
    let mut script = FUNCTIONS.to_string();
    script += &takes_value(program);
    script += "_poetry_complete() {\n    case \"$command $prev\" in\n";

    let own = program
        .commands
        .iter()
        .map(|of| (of.name.as_str(), &of.options));
    for (name, options) in own.chain([("", &program.options)]) {
        for option in options {
            script += &value_of_option(name, option);
        }
    }
    script += "    esac\n    _poetry_takes_value \"$prev\" && return\n\n";
    script += "    case \"$command\" in\n";

    for command in &program.commands {
        script += &positionals(command);
    }
    let names_and_options = format!("{} {}", names.join(" "), names_of(&program.options));
    script += &format!("        help) _poetry_words \"{}\" ;;\n", names.join(" "));
    script += &format!("        *) _poetry_words \"{names_and_options}\" ;;\n");
    script += "    esac\n}\n\n";

    script + &MAIN.replace("COMMANDS", &names.join(" | "))
}

/// The function that knows which options are followed by a value.
fn takes_value(program: &Program) -> String {
    let commands = program.commands.iter().flat_map(|command| &command.options);
    let options = commands.chain(&program.options);
    let valued = options.filter(|option| option.value.is_some());

    let mut names: Vec<&str> = valued
        .flat_map(|option| &option.names)
        .map(String::as_str)
        .collect();
    names.sort();
    names.dedup();
    format!(
        "_poetry_takes_value() {{\n    case \"$1\" in\n        {}) return 0 ;;\n    esac\n    \
         return 1\n}}\n\n",
        names.join(" | ")
    )
}

fn value_of_option(command: &str, option: &Completable) -> String {
    let Some(value) = option.value.as_ref().filter(|value| **value != Value::Free) else {
        return String::new();
    };
    let patterns: Vec<String> = option
        .names
        .iter()
        .map(|name| format!("\"{command} {name}\""))
        .collect();
    format!(
        "        {}) {}; return ;;\n",
        patterns.join(" | "),
        action(value)
    )
}

/// What completes the words of a subcommand that follow no option.
fn positionals(command: &Subcommand) -> String {
    let mut text = format!(
        "        {})\n            if [[ $cur == -* ]]; then\n                \
         _poetry_words \"{}\"\n                return\n            fi\n            \
         case $given in\n",
        command.name,
        names_of(&command.options)
    );
    let last = command.positionals.len().saturating_sub(1);
    for (at, positional) in command.positionals.iter().enumerate() {
        let pattern = if at == last {
            "*".to_string()
        } else {
            at.to_string()
        };
        let action = positional.value.as_ref().map_or(":".into(), action);
        text += &format!("                {pattern}) {action} ;;\n");
    }
    text + "            esac\n            ;;\n"
}

fn names_of(options: &[Completable]) -> String {
    let names: Vec<&str> = options
        .iter()
        .flat_map(|option| &option.names)
        .map(String::as_str)
        .collect();
    names.join(" ")
}

fn action(value: &Value) -> String {
    match value {
        Value::Word(words) => format!("_poetry_words \"{}\"", words.join(" ")),
        Value::List(words) => format!("_poetry_list \"{}\"", words.join(" ")),
        Value::Path => "_poetry_files".into(),
        Value::Addr => "_poetry_addr".into(),
        Value::Upstream => "_poetry_addr builtin".into(),
        Value::Free => ":".into(),
    }
}
