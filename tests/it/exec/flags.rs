//! How programs are given, and what is said of those that are not.

use super::error;
use crate::support::{command, poetry, run, text};

#[test]
fn a_program_can_be_added_in_the_environment() {
    let with_program = |args: &[&str]| {
        let mut command = command(args);
        command.env("POEM_TRANSFORM_EXEC", "up=tr ' a-z' _A-Z");
        run(command)
    };

    assert_eq!(with_program(&["transform", "up"]).status.code(), Some(0));

    let list = text(&with_program(&["transform", "--list"]).stdout);
    assert!(list.ends_with("up           tr ' a-z' _A-Z\n"), "{list}");
}

#[test]
fn a_malformed_program_is_a_usage_error_that_says_why() {
    let long = format!("{}=cat", "a".repeat(256));
    let cases = [
        ("up", "no '=' between name and command"),
        ("=cat", "no name"),
        ("a.b=cat", "a dot"),
        ("a,b=cat", "a comma"),
        ("a b=cat", "white space"),
        ("shout=cat", "built-in"),
        ("up=", "no command"),
        ("up=''", "no command"),
        ("up=tr 'a", "a quote that is not closed"),
        (&long, "more than 255 bytes"),
    ];

    for (given, why) in cases {
        let (error, code) = error(&poetry(&["transform", "--exec", given, "shout"]));
        assert_eq!(code, Some(2), "{given}: {error}");
        assert!(
            error.contains(&format!("invalid value '{given}'")),
            "{error}"
        );
        assert!(error.contains(why), "{error}");
        assert!(error.contains("wanted NAME='COMMAND ARG...'"), "{error}");
    }
}

#[test]
fn a_name_given_twice_is_a_usage_error() {
    let programs = ["--exec", "up=cat", "--exec", "up=tr a b"];
    let out = poetry(&[&["transform"], &programs[..], &["up"]].concat());

    let (error, code) = error(&out);
    assert_eq!(code, Some(2));
    assert!(error.contains("'up=tr a b'"), "{error}");
    assert!(error.contains("given before"), "{error}");
}

#[test]
fn exec_and_via_exclude_each_other() {
    let out = poetry(&["transform", "--exec", "up=cat", "--via", "1", "up"]);

    assert_eq!(out.status.code(), Some(2));
}

#[test]
fn an_unknown_name_is_answered_with_all_names_and_the_nearest() {
    let exec = ["--exec", "uppercase=tr a-z A-Z"];
    let out = poetry(&[&["transform"], &exec[..], &["upercase"]].concat());

    let (error, code) = error(&out);
    assert_eq!(code, Some(2));
    assert!(error.contains("reverse, uppercase]"), "{error}");
    assert!(error.contains("exists: 'uppercase'"), "{error}");
}

#[test]
fn the_list_names_the_programs_and_their_commands() {
    let program = "a-long-name-for-it=tr 'a b' \"\n\"";
    let out = poetry(&["transform", "--list", "--exec", program]);

    let list = text(&out.stdout);
    assert!(list.starts_with("cummingsify         lower case"), "{list}");
    assert!(
        list.ends_with("\na-long-name-for-it  tr 'a b' '\\n'\n"),
        "{list}"
    );
}
