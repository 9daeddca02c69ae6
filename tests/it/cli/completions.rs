//! The completions, in the shells themselves where they are installed.

use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What `shell` prints with `script`; nothing if it is not installed.
fn printed(shell: &str, script: &str, line: &str) -> Option<Vec<String>> {
    let mut command = Command::new(shell);
    command
        .current_dir(ROOT)
        .args(["-c", script])
        .env("LINE", line);
    let out = command.output().ok()?;

    let text = String::from_utf8(out.stdout).unwrap();
    Some(text.lines().map(str::to_string).collect())
}

/// What bash offers for this line.
fn bash(line: &str) -> Option<Vec<String>> {
    let script = "source completions/poetry.bash; COMP_LINE=$LINE; COMP_POINT=${#LINE}; \
                  _poetry; ((${#COMPREPLY[@]})) && printf '%s\\n' \"${COMPREPLY[@]}\"";
    printed("bash", script, line)
}

/// What fish offers for this line, without descriptions.
fn fish(line: &str) -> Option<Vec<String>> {
    let script = "source completions/poetry.fish; complete -C $LINE | string split -f1 \\t";
    printed("fish", script, line)
}

fn assert_offers(line: &str, expected: &[&str]) {
    for (shell, offered) in [("bash", bash(line)), ("fish", fish(line))] {
        let Some(mut offered) = offered else {
            continue; // it is not installed
        };
        offered.sort();
        assert_eq!(offered, expected, "{shell}: {line}");
    }
}

#[test]
fn commands_are_completed_without_the_hidden_one() {
    let commands = ["fetch", "help", "proxy", "serve", "transform"];
    assert_offers("poetry g", &[]);
    assert_offers("poetry help ", &commands);
    assert_offers("poetry f", &["fetch"]);
    assert_offers("poetry help f", &["fetch"]);
}

#[test]
fn values_are_completed_by_what_they_are() {
    assert_offers("poetry proxy ", &["builtin", "unix:"]);
    assert_offers("poetry proxy --ttl ", &[]);
    assert_offers("poetry proxy --max-poem ", &[]);
    assert_offers("poetry proxy --color a", &["always", "auto"]);
    assert_offers("poetry fetch ", &["unix:"]);
    assert_offers("poetry fetch -o Cargo.", &["Cargo.lock", "Cargo.toml"]);
    assert_offers("poetry transform shout Cargo.t", &["Cargo.toml"]);
    assert_offers("poetry transform sh", &["shout"]);
}

#[test]
fn lists_are_completed_after_a_comma() {
    let reversed = ["shout,reverse", "shout,rot13"];
    assert_offers("poetry proxy --transform shout,r", &reversed);
    assert_offers("poetry serve --script ok,re", &["ok,refuse", "ok,reset@"]);
}

#[test]
fn a_path_is_completed_after_unix() {
    let socket = "/Cargo.t";
    let path = |prefix: &str| format!("{prefix}{ROOT}/Cargo.toml");

    // bash replaces only what follows the colon.
    if let Some(offered) = bash(&format!("poetry fetch unix:{ROOT}{socket}")) {
        assert_eq!(offered, [path("")]);
    }
    if let Some(offered) = fish(&format!("poetry fetch unix:{ROOT}{socket}")) {
        assert_eq!(offered, [path("unix:")]);
    }
}

#[test]
fn the_script_for_zsh_can_be_read() {
    let mut zsh = Command::new("zsh");
    let out = zsh
        .current_dir(ROOT)
        .args(["-n", "completions/_poetry"])
        .output();
    assert!(out.is_err() || out.is_ok_and(|out| out.status.success()));
}
