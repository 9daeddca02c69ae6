//! Programs in the filter.

use super::{error, filter, group_of_program, hanging_program, outcome, wait_until_group_is_dead};
use crate::support::{Folder, Process, Signal, command, poetry, text};

#[test]
fn a_program_works_beside_the_built_in_transformations() {
    let folder = Folder::new();
    let out = filter(&folder, "tr a-z A-Z", b"here\n", &[]);
    assert_eq!(outcome(&out), ("HERE\n".into(), Some(0)));

    let programs = ["--exec", "up=tr a-z A-Z", "--exec", "twice=sed p"];
    let more = ["up,number,twice", &folder.arg("poem")];
    let out = poetry(&[&["transform"], &programs[..], &more].concat());
    assert_eq!(
        text(&out.stdout),
        "1  HERE\n1  HERE\n",
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn quotes_hold_words_together_and_nothing_is_expanded() {
    let program = r#"printf '%s|' 'a  b' "c'd" e\ f $HOME * '' ';'"#;
    let out = filter(&Folder::new(), program, b"", &[]);

    assert_eq!(text(&out.stdout), "a  b|c'd|e f|$HOME|*||;|");
}

#[test]
fn a_program_that_hangs_ends_with_its_group_at_the_deadline() {
    let folder = Folder::new();

    let timeout = ["--timeout", "300ms"];
    let out = filter(&folder, &hanging_program(&folder), b"poem", &timeout);

    let expected = "poetry: x: the program did not end within 300ms (--timeout)\n";
    assert_eq!(error(&out), (expected.into(), Some(28)));
    wait_until_group_is_dead(&folder);
}

#[test]
fn a_program_that_closes_its_output_and_hangs_has_not_ended() {
    let program = "sh -c 'exec >&-; sleep 100'";
    let out = filter(&Folder::new(), program, b"poem", &["--timeout", "300ms"]);

    assert_eq!(out.status.code(), Some(28));
}

#[test]
fn a_program_that_floods_is_too_long() {
    let poem = vec![b'a'; 1 << 20]; // more than a pipe holds, and `yes` takes none of it
    let out = filter(&Folder::new(), "yes", &poem, &["--max-poem", "2MiB"]);

    let expected = "poetry: x: longer than 2097152 bytes\n";
    assert_eq!(error(&out), (expected.into(), Some(63)));
}

#[test]
fn a_program_may_print_as_much_as_the_limit_and_no_more() {
    let folder = Folder::new();

    let exactly = filter(&folder, "cat", b"12345678", &["--max-poem", "8"]);
    assert_eq!(outcome(&exactly), ("12345678".into(), Some(0)));

    let more = filter(&folder, "printf 123456789", b"", &["--max-poem", "8"]);
    assert_eq!(more.status.code(), Some(63));
}

#[test]
fn a_program_need_not_read_its_input() {
    let poem = vec![b'a'; 8 << 20];
    let programs = [
        ("head -c 1", "a"),
        ("true", ""),
        ("echo hi", "hi\n"),
        ("sh -c 'exec <&-; echo x'", "x\n"),
    ];

    for (program, printed) in programs {
        let out = filter(&Folder::new(), program, &poem, &[]);
        assert_eq!(outcome(&out), (printed.into(), Some(0)), "{program}");
    }
}

#[test]
fn a_long_poem_goes_through_a_program_both_ways_at_once() {
    let poem: Vec<u8> = (0..8u32 << 20).map(|at| (at % 251) as u8).collect();
    let folder = Folder::new();
    let stdout = |program: &str| filter(&folder, program, &poem, &[]).stdout;

    assert!(stdout("cat") == poem);

    let more = stdout("sh -c 'head -c 1000000 /dev/zero; cat'");
    assert!(more.len() == poem.len() + 1_000_000 && more[1_000_000..] == poem);
}

#[test]
fn what_a_program_leaves_running_is_killed_without_a_wait() {
    let folder = Folder::new();
    let note = folder.arg("group");

    let program = format!("sh -c 'sleep 100 & echo $$ >{note}; echo hi'");
    let out = filter(&folder, &program, b"", &[]);

    assert_eq!(outcome(&out), ("hi\n".into(), Some(0)));
    wait_until_group_is_dead(&folder);
}

#[test]
fn a_program_that_does_not_end_well_has_failed() {
    let folder = Folder::new();
    let cases = [
        (
            "sh -c 'echo a part; exit 3'",
            "poetry: x: the program ended with exit code 3\n",
        ),
        (
            "sh -c 'kill -9 $$'",
            "poetry: x: the program was ended by signal 9\n",
        ),
        (
            "'no such' a b",
            "poetry: x: could not run 'no such': no such file or directory\n",
        ),
    ];

    for (program, expected) in cases {
        let out = filter(&folder, program, b"poem", &[]);
        assert_eq!(error(&out), (expected.into(), Some(1)));
    }
}

#[test]
fn a_failed_program_prints_its_reason_and_no_poem() {
    let folder = Folder::new();

    let out = filter(&folder, "sh -c 'echo why >&2; exit 1'", b"poem", &[]);
    assert_eq!(text(&out.stderr).lines().next(), Some("why"));

    let out = filter(&folder, "false", b"poem", &[]);
    assert!(out.stdout.is_empty());
}

#[test]
fn a_filter_that_is_interrupted_ends_its_program() {
    let folder = Folder::new();
    let exec = format!("hang={}", hanging_program(&folder));
    let mut filter = Process::spawn(command(&["transform", "--exec", &exec, "hang"]));
    group_of_program(&folder);

    filter.signal(Signal::INT);

    assert_eq!(filter.exit_code(), Some(130));
    wait_until_group_is_dead(&folder);
}
