//! The flags that say which clients may come in, and their lists.

use crate::support::{Client, Folder, LONG, ServerProcess, Signal, poetry, text};

/// Holds that `args` are a usage error that says `wanted`.
fn assert_usage_error(args: &[&str], wanted: &str) {
    let out = poetry(args);
    let error = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{args:?}: {error}");
    assert!(error.contains(wanted), "{args:?}: {error}");
}

#[test]
fn a_value_that_can_not_be_used_is_quoted() {
    for (flag, value, wanted) in [
        (
            "--allow",
            "office",
            "invalid value 'office' for '--allow <CIDR>': wanted an address",
        ),
        (
            "--deny",
            "10.1.2.3/8",
            "'10.1.2.3/8' for '--deny <CIDR>': has bits beyond its prefix",
        ),
        ("--deny", "10.0.0.0/8,x", "invalid value 'x'"),
        ("--deny", "@", "no file after @"),
        (
            "--proxy-protocol",
            "::/200",
            "'::/200' for '--proxy-protocol <CIDR>'",
        ),
        ("--max-per-address", "0", "wanted a whole number, 1 or more"),
        ("--client-rate", "60/m", "a minute is written 'min'"),
    ] {
        assert_usage_error(&["serve", flag, value], wanted);
        assert_usage_error(&["proxy", flag, value], wanted);
        assert_usage_error(&["transform", "--listen", "0", flag, value], wanted);
    }
}

#[test]
fn a_refusal_that_can_not_be_told_is_a_usage_error() {
    let invalid = "invalid value '{minutes}' for '--refusal <TEXT>': only {seconds}";
    for (value, wanted) in [("{minutes}", invalid), ("", "it is empty")] {
        assert_usage_error(&["proxy", "--protocol", "line", "--refusal", value], wanted);
    }
    let only_line = "--refusal can only be used with --protocol line";
    assert_usage_error(&["proxy", "--refusal", "no"], only_line);
    assert_usage_error(&["serve", "--refusal", "no"], only_line);
}

#[test]
fn a_list_that_can_not_be_read_is_told_with_its_line() {
    let folder = Folder::new();
    let list = folder.write("list", "10.0.0.0/8\n# all of them\noffice\n");
    let at_list = format!("@{list}");
    let wanted = format!("invalid value '@{list}' for '--deny <CIDR>': {list}:3: 'office': wanted");
    assert_usage_error(&["serve", "--deny", &at_list], &wanted);

    let none = format!("@{}", folder.arg("none"));
    assert_usage_error(&["serve", "--allow", &none], "no such file");
    assert_usage_error(&["serve", "--deny", "@/dev/null"], "not a regular file");
    folder.write("binary", [0xff, 0xfe, 0, 10]);
    let binary = format!("@{}", folder.arg("binary"));
    assert_usage_error(&["serve", "--allow", &binary], "binary: ");
}

fn is_let_in(server: &ServerProcess, local: &str) -> bool {
    let client = Client::try_connect_from(local, server.addr);
    client.and_then(|mut client| client.rest()).is_ok()
}

#[test]
fn a_hangup_reads_the_lists_again_all_or_nothing() {
    let folder = Folder::new();
    let deny = format!("@{}", folder.write("deny", "127.0.0.2\n"));
    let allow = format!("@{}", folder.write("allow", "127.0.0.0/8\n"));
    let args = ["serve", "--port", "0", "--deny", &deny, "--allow", &allow];
    let mut server = ServerProcess::start(&args);
    let log = server.stderr_lines();
    let wait_for = |wanted: &str| {
        let mut lines = std::iter::from_fn(|| log.recv_timeout(LONG).ok());
        assert!(lines.any(|line| line.contains(wanted)), "{wanted}");
    };
    assert!(is_let_in(&server, "127.0.0.1"));
    assert!(!is_let_in(&server, "127.0.0.2"));

    folder.write("deny", "127.0.0.3\n");
    folder.write("allow", "127.0.0.0/8\n127.0.0.0/33\n");
    server.signal(Signal::HUP);
    wait_for("allow:2: '127.0.0.0/33': wanted an address or a network");
    assert!(!is_let_in(&server, "127.0.0.2"), "all is as it was");
    assert!(is_let_in(&server, "127.0.0.3"));

    folder.write("allow", "127.0.0.0/24\n");
    server.signal(Signal::HUP);
    wait_for("read 2 networks again");
    assert!(is_let_in(&server, "127.0.0.2"));
    assert!(!is_let_in(&server, "127.0.0.3"));
    assert!(!is_let_in(&server, "127.0.1.1"));
}
