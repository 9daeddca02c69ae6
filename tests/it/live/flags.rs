//! The options of `proxy --live`, and those that make no sense with it.

use crate::support::{poetry, text};

fn refused(args: &[&str]) -> String {
    let out = poetry(&[&["proxy"], args].concat());
    assert_eq!(out.status.code(), Some(2), "{args:?}");
    text(&out.stderr)
}

#[test]
fn what_makes_no_sense_with_live_is_refused_by_name() {
    for option in [
        "--ttl=1h",
        "--grace=1h",
        "--whole",
        "--transform=shout",
        "--max-poem=1MiB",
        "--upstream-conns=2",
        "--reject=x",
        #[cfg(feature = "store")]
        "--store=/nowhere",
    ] {
        let error = refused(&["--live", option]);
        let name = option.split('=').next().unwrap();
        assert!(error.contains("cannot be used with"), "{error}");
        assert!(error.contains("--live") && error.contains(name), "{error}");
    }
}

#[test]
fn only_the_poem_protocol_has_feeds() {
    let error = refused(&["--live", "--protocol", "line"]);
    assert!(error.contains("a feed is not asked for"), "{error}");
    let error = refused(&["--live", "builtin"]);
    assert!(error.contains("whose poems end"), "{error}");
}

#[test]
fn the_options_of_a_feed_need_live_and_sound_values() {
    for option in ["--backlog=1MiB", "--replay=1", "--slow=reset"] {
        assert!(refused(&[option]).contains("--live"), "{option}");
    }
    let error = refused(&["--live", "--backlog", "1000"]);
    assert!(
        error.contains("'1000'") && error.contains("1KiB or more"),
        "{error}"
    );
    let error = refused(&["--live", "--slow", "never"]);
    assert!(error.contains("drop") && error.contains("reset"), "{error}");
}

#[test]
fn a_variable_gives_way_to_live_on_the_command_line() {
    let mut command = crate::support::command(&["proxy", "--live", "--protocol", "line"]);
    command.env("POEM_PROXY_TTL", "1h");
    let error = text(&crate::support::run(command).stderr);
    assert!(error.contains("a feed is not asked for"), "{error}");
}
