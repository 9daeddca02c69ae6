//! Options from `POEM_*` variables.

use crate::support::{ServerProcess, command, run, text, unused_addr};
use std::process::{Command, Output};

type Variables<'a> = &'a [(&'a str, &'a str)];

fn command_with(variables: Variables, args: &[&str]) -> Command {
    let mut command = command(args);
    command.envs(variables.iter().copied());
    command
}

fn run_with(variables: Variables, args: &[&str]) -> Output {
    run(command_with(variables, args))
}

#[test]
fn options_can_come_from_the_environment() {
    let listen = [("POEM_SERVE_LISTEN", "127.0.0.1:0")];
    let server = ServerProcess::start_command(command_with(&listen, &["serve"]));
    assert_ne!(server.addr.port(), 0);

    let refused = unused_addr().to_string();
    let quiet = run_with(&[("POEM_FETCH_QUIET", "1")], &["fetch", &refused]);
    assert_eq!(quiet.status.code(), Some(7));

    let wrong = run_with(&[("POEM_FETCH_MAX_POEM", "none")], &["fetch", &refused]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn a_flag_of_serve_wins_over_a_variable_that_it_excludes() {
    let poem = std::fs::read("poetry/furuike.txt").unwrap();
    let cases: [(Variables, &[&str]); 5] = [
        (&[("POEM_SERVE_DELAY", "1h")], &["--script", "ok"]),
        (
            &[("POEM_SERVE_SCRIPT", "empty")],
            &["--delay", "1ms", "--num-bytes", "1000"],
        ),
        (&[("POEM_SERVE_NUM_BYTES", "5")], &[]),
        (
            &[("POEM_SERVE_NUM_BYTES", "5"), ("POEM_SERVE_DELAY", "1h")],
            &["--script", "ok"],
        ),
        (
            &[("POEM_SERVE_QUIET", "no"), ("POEM_SERVE_VERBOSE", "yes")],
            &[],
        ),
    ];

    for (variables, args) in cases {
        let args = [&["serve", "--port", "0", "poetry/furuike.txt"], args].concat();
        let server = ServerProcess::start_command(command_with(variables, &args));
        assert_eq!(server.get().as_ref(), Ok(&poem), "{variables:?} {args:?}");
    }
}

#[test]
fn a_flag_of_proxy_wins_over_a_variable_that_it_excludes() {
    let upstream = unused_addr().to_string();
    let cases: [(Variables, &[&str]); 3] = [
        (
            &[
                ("POEM_PROXY_VIA", &upstream),
                ("POEM_PROXY_ON_TRANSFORM_FAILURE", "original"),
            ],
            &["builtin"],
        ),
        (&[("POEM_PROXY_PROTOCOL", "line")], &["builtin"]),
        (
            &[("POEM_PROXY_TRANSFORM", "shout")],
            &["--protocol", "netstring", &upstream],
        ),
    ];

    for (variables, args) in cases {
        let args = [&["proxy", "--port", "0"], args].concat();
        let server = ServerProcess::start_command(command_with(variables, &args));
        assert!(
            server.ready.starts_with("Proxying "),
            "{variables:?} {args:?}"
        );
    }
}

#[test]
fn a_filter_or_a_fetch_wins_over_a_variable_it_excludes() {
    let listen = [("POEM_TRANSFORM_LISTEN", "0")];
    let filter = run_with(&listen, &["transform", "shout", "poetry/furuike.txt"]);
    assert_eq!(filter.status.code(), Some(0));
    assert_eq!(text(&filter.stderr), "");

    let refused = unused_addr().to_string();
    let fetch = run_with(&[("POEM_FETCH_VIA", &refused)], &["fetch", &refused]);
    assert_eq!(fetch.status.code(), Some(7), "{}", text(&fetch.stderr));
}

#[test]
fn the_flag_verbose_wins_over_the_variable_quiet() {
    let quiet = [("POEM_SERVE_QUIET", "1")];
    for args in [
        ["-v", "serve", "--port", "0"],
        ["serve", "-v", "--port", "0"],
    ] {
        let mut server = ServerProcess::start_command(command_with(&quiet, &args));
        server.get().unwrap();

        let log = server.stop_and_read_log();
        assert!(log.contains(" bytes, whole"), "{args:?}");
    }
}

#[test]
fn an_error_in_a_variable_names_it() {
    let cases: [(Variables, &[&str], &str); 10] = [
        (
            &[("POEM_FETCH_MAX_POEM", "none")],
            &["fetch", "1"],
            "'none' for 'POEM_FETCH_MAX_POEM'",
        ),
        (
            &[("POEM_SERVE_PICK", "all")],
            &["serve"],
            "'all' for 'POEM_SERVE_PICK'",
        ),
        (
            &[("POEM_SERVE_QUIET", "perhaps")],
            &["serve"],
            "'perhaps' for 'POEM_SERVE_QUIET'",
        ),
        (
            &[("POEM_SERVE_QUIET", "1"), ("POEM_SERVE_VERBOSE", "1")],
            &["serve"],
            "the variable POEM_SERVE_QUIET cannot be used with POEM_SERVE_VERBOSE",
        ),
        (
            &[("POEM_SERVE_SCRIPT", "ok"), ("POEM_SERVE_DELAY", "1s")],
            &["serve"],
            "the variable POEM_SERVE_DELAY cannot be used with POEM_SERVE_SCRIPT",
        ),
        (
            &[
                ("POEM_PROXY_TRANSFORM", "shout"),
                ("POEM_PROXY_PROTOCOL", "netstring"),
            ],
            &["proxy"],
            "the variable POEM_PROXY_TRANSFORM cannot be used with POEM_PROXY_PROTOCOL",
        ),
        (
            &[("POEM_PROXY_TRANSFORM", "shuot")],
            &["proxy"],
            "POEM_PROXY_TRANSFORM: unknown transformation 'shuot'",
        ),
        (
            &[("POEM_PROXY_REJECT", "")],
            &["proxy"],
            "'' for 'POEM_PROXY_REJECT': it matches every poem",
        ),
        (
            &[("POEM_FETCH_VIA", "1")],
            &["fetch", "--max-poem", "none", "1"],
            "'none' for '--max-poem <SIZE>'",
        ),
        (
            &[("POEM_TRANSFORM_VIA", "1")],
            &["transform"],
            "required arguments were not provided",
        ),
    ];

    for (variables, args, expected) in cases {
        let out = run_with(variables, args);
        let error = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{variables:?}");
        assert_eq!(text(&out.stdout), "", "{variables:?}");
        assert!(error.contains(expected), "{variables:?}: {error}");
    }
}

#[test]
fn servers_can_come_from_the_environment() {
    let refused = [unused_addr(), unused_addr()].map(|addr| addr.to_string());
    for separator in [",", " ", ", "] {
        let addrs = refused.join(separator);
        let out = run_with(&[("POEM_FETCH_ADDR", &addrs)], &["fetch"]);
        let error = text(&out.stderr);
        assert_eq!(out.status.code(), Some(7));
        assert_eq!(error.lines().count(), 2, "{error}");
        assert!(error.contains(&refused[0]) && error.contains(&refused[1]));
    }

    let other = unused_addr().to_string();
    let out = run_with(&[("POEM_FETCH_ADDR", &refused[0])], &["fetch", &other]);
    assert!(!text(&out.stderr).contains(&refused[0]), "the line wins");

    let builtin = [("POEM_PROXY_UPSTREAM", "builtin")];
    let server = ServerProcess::start_command(command_with(&builtin, &["proxy", "-l", "0"]));
    assert!(server.ready.starts_with("Proxying builtin on "));
}

#[test]
fn a_bad_server_in_the_environment_is_told_with_its_variable() {
    for (variables, args, expected) in [
        (
            [("POEM_FETCH_ADDR", "1, h")],
            ["fetch"],
            "'h' for 'POEM_FETCH_ADDR': no port given; try h:10000",
        ),
        (
            [("POEM_PROXY_UPSTREAM", "builtin,1")],
            ["proxy"],
            "builtin cannot be used with other upstreams",
        ),
    ] {
        let out = run_with(&variables, &args);
        let error = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn help_is_printed_whatever_the_variables_are() {
    let out = run_with(&[("POEM_FETCH_MAX_POEM", "none")], &["fetch", "--help"]);

    assert!(out.status.success());
    assert!(text(&out.stdout).contains("[env: POEM_FETCH_MAX_POEM]"));
}
