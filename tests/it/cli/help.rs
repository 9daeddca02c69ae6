//! Help, the version and warnings: what they say, and where.

use crate::support::{FakeUpstream, RESET, ServerProcess, command, poetry, run, text, unused_addr};

const COMMANDS: [&str; 4] = ["serve", "proxy", "fetch", "transform"];

fn stdout(args: &[&str]) -> String {
    let out = poetry(args);
    assert_eq!(out.status.code(), Some(0), "{args:?}");
    text(&out.stdout)
}

#[test]
fn every_command_has_a_version() {
    for command in COMMANDS {
        for flag in ["-V", "--version"] {
            let version = stdout(&[command, flag]);
            assert!(version.contains(env!("CARGO_PKG_VERSION")), "{command}");
        }
    }
}

#[test]
fn the_long_help_has_a_description_variables_and_examples() {
    for command in COMMANDS {
        let short = stdout(&[command, "-h"]);
        let long = stdout(&[command, "--help"]);
        let usage = long.find("Usage:").unwrap();
        let variable = format!("POEM_{}_", command.to_uppercase());

        assert!(!short.contains(&variable), "{short}");
        assert!(long.contains(&variable), "{long}");
        assert!(!short.contains("Examples:"), "{short}");
        assert!(long.contains("\nExamples:\n"), "{long}");
        assert!(long[..usage].lines().count() > 3, "{long}");
    }

    let help = stdout(&["help", "proxy"]);
    assert_eq!(help, stdout(&["proxy", "--help"]));
}

#[test]
fn options_are_under_headings() {
    for (command, headings) in [
        ("proxy", "Cache Upstream Transformation Clients Output"),
        ("fetch", "Servers Transformation Output"),
        ("serve", "Rehearsal Clients Output"),
        ("transform", "Transformation Clients Output"),
    ] {
        for flag in ["-h", "--help"] {
            let help = stdout(&[command, flag]);
            for heading in headings.split(' ') {
                let heading = format!("\n{heading}:\n");
                assert!(help.contains(&heading), "{command} {flag}: {heading}");
            }
        }
    }
}

#[test]
fn color_is_for_the_messages_of_the_parser_too() {
    let is_coloured = |args: &[&str], variable: &str| {
        let mut command = command(args);
        command.env("POEM_FETCH_COLOR", variable);
        text(&run(command).stderr).contains('\u{1b}')
    };

    assert!(is_coloured(
        &["fetch", "--color", "always", "--no"],
        "never"
    ));
    assert!(is_coloured(&["fetch", "--color=always", "--no"], "auto"));
    assert!(is_coloured(&["fetch", "--no"], "always"));
    assert!(!is_coloured(&["fetch", "--color=never", "--no"], "always"));
    assert!(!is_coloured(&["fetch", "--no"], "auto"));
}

#[test]
fn what_is_probably_a_mistake_is_warned_of() {
    let refused = unused_addr().to_string();
    let fetch = |flags: &[&str]| {
        let args = [&["fetch", &refused], flags].concat();
        text(&poetry(&args).stderr)
    };
    let month = "poetry: --timeout 1M: M is a month; for minutes, type 1m\n";
    assert!(fetch(&["--timeout", "1M"]).starts_with(month));
    assert!(!fetch(&["--timeout", "1month"]).contains("month"));
    assert!(!fetch(&["--timeout", "1M", "-q"]).contains("month"));

    let sizes = ["--max-poem", "2MiB", "--capacity", "1MiB"];
    let args = [&["proxy", "--port", "0", &refused], &sizes[..]].concat();
    let log = ServerProcess::start(&args).stop_and_read_log();
    let warning = "--max-poem is over --capacity: a poem that long cannot be kept";
    assert!(log.contains(warning), "{log}");
}

#[test]
fn an_unknown_variable_is_warned_of_with_the_nearest() {
    let refused = unused_addr().to_string();
    for (variable, nearest) in [
        ("POEM_FETCH_TIMOUT", "did you mean POEM_FETCH_TIMEOUT?"),
        ("POEM_TTL", "did you mean POEM_PROXY_TTL?"),
        ("POEM_OF_THE_DAY", "see poetry COMMAND --help"),
    ] {
        let mut fetch = command(&["fetch", &refused]);
        fetch.env(variable, "1");
        let error = text(&run(fetch).stderr);
        let warning = format!("poetry: {variable}: no such variable; {nearest}\n");
        assert!(error.starts_with(&warning), "{error}");
    }
}

#[test]
fn the_log_names_the_option_behind_a_deadline() {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.to_string();
    let args = ["proxy", "-l", "0", &addr, "--idle-timeout", "50ms"];
    let mut server = ServerProcess::start(&args);

    assert_eq!(server.connect().rest(), RESET);

    let log = server.stop_and_read_log();
    assert!(
        log.contains("no reply within 50ms (--idle-timeout)"),
        "{log}"
    );
}
