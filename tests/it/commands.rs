//! `exec:` upstreams: commands that do what they should, and commands that don't.

use crate::exec::{group_of_program, hanging_program, wait_until_group_is_dead};
use crate::support::{
    Client, FakeUpstream, Folder, HOUR, LONG, RESET, ServerProcess, Service, ZERO, command, count,
    poetry, proxy, text, wait_for_count, wait_until,
};
use std::collections::BTreeSet;
use std::time::Duration;

/// A proxy of a command, in the line protocol.
fn line(command: &str) -> Service {
    proxy(&FakeUpstream::new()).line().command(command).start()
}

/// A script that notes its start, writes `first`, and goes on with `then` once the test
/// lets it. It can't hang for longer than a test.
fn gated(folder: &Folder, first: &str, then: &str) -> String {
    let (starts, go) = (folder.arg("starts"), folder.arg("go"));
    format!(
        "sh -c 'echo >>{starts}; printf \"{first}\"; i=0; \
         while [ ! -e {go} ] && [ $i -lt 3000 ]; do sleep 0.02; i=$((i+1)); done; {then}'"
    )
}

fn starts(folder: &Folder) -> usize {
    let starts = std::fs::read_to_string(folder.path("starts"));
    starts.map_or(0, |starts| starts.lines().count())
}

#[test]
fn fifty_clients_share_one_run_and_later_ones_what_is_kept() {
    let folder = Folder::new();
    let script = gated(&folder, "the be", "printf ginning");
    let proxy = proxy(&FakeUpstream::new()).command(&script).start();
    let mut clients: Vec<Client> = (0..50).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.read(6), b"the be", "it is streamed");
    }

    folder.write("go", "");
    for mut client in clients {
        assert_eq!(client.rest().unwrap(), b"ginning");
    }
    wait_for_count("kept", &proxy.stats.kept, 1);
    assert_eq!(proxy.get().unwrap(), b"the beginning");
    assert_eq!(starts(&folder), 1);
}

#[test]
fn a_failure_after_a_part_resets_all_and_nothing_is_kept() {
    let folder = Folder::new();
    let script = gated(&folder, "a part", "exit 3");
    let proxy = proxy(&FakeUpstream::new()).command(&script).start();
    let mut clients: Vec<Client> = (0..50).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.read(6), b"a part");
    }

    folder.write("go", "");
    for mut client in clients {
        assert_eq!(client.rest(), RESET);
    }
    assert_eq!(count(&proxy.stats.kept), 0);
    assert_eq!(starts(&folder), 1);
    assert_eq!(proxy.get(), RESET);
    assert_eq!(starts(&folder), 2, "the key is free");
}

#[test]
fn a_signal_and_an_empty_output_are_failures_too() {
    for script in ["sh -c 'printf part; kill -9 $$'", "true", "no-such-command"] {
        let proxy = proxy(&FakeUpstream::new()).command(script).start();
        assert_eq!(proxy.get(), RESET, "{script}");
        wait_for_count("failed", &proxy.stats.failed_fetches, 1);
    }
}

#[test]
fn a_process_that_is_left_behind_and_holds_the_output_is_not_waited_for() {
    for left in ["sleep 100", "setsid sleep 5"] {
        let script = format!("sh -c '{left} & printf poem'");
        let proxy = proxy(&FakeUpstream::new()).command(&script).start();
        assert_eq!(proxy.get().unwrap(), b"poem", "{left}");
    }
}

#[test]
fn a_long_output_is_whole() {
    let proxy = proxy(&FakeUpstream::new())
        .command("head -c 3000000 /dev/zero")
        .start();
    assert_eq!(proxy.get().unwrap().len(), 3_000_000);
}

#[test]
fn a_request_is_a_line_or_a_word_and_no_shell_sees_it() {
    let hostile = b"a  b; $HOME `id` '*'\n";
    assert_eq!(line("cat").ask(hostile).unwrap(), hostile);
    assert_eq!(line("true").ask(b"unread\n"), RESET, "it need not be read");

    let printed = line("printf %s| {} x{}").ask(hostile).unwrap();
    assert_eq!(printed, b"a  b; $HOME `id` '*'|x{}|");
    assert_eq!(line("printf %s| {} {}").ask(b"\n").unwrap(), b"||");
}

#[test]
fn a_request_that_would_be_an_option_is_declined() {
    let folder = Folder::new();
    let mark = folder.arg("mark");
    let proxy = line(&format!("touch {mark} {{}}"));
    assert_eq!(proxy.ask(b"-rf\n"), RESET);
    wait_for_count("failed", &proxy.stats.failed_fetches, 1);
    assert_eq!(folder.count(), 0, "nothing has run");

    assert_eq!(
        line("cat").ask(b"-rf\n").unwrap(),
        b"-rf\n",
        "a line is no option"
    );
}

#[test]
fn a_command_that_hangs_is_killed_with_its_group_at_each_timeout() {
    for is_idle in [true, false] {
        let folder = Folder::new();
        let builder = proxy(&FakeUpstream::new()).command(&hanging_program(&folder));
        let timeout = Duration::from_millis(500);
        let builder = if is_idle {
            builder.idle_timeout(timeout)
        } else {
            builder.fetch_timeout(timeout)
        };
        assert_eq!(builder.start().get(), RESET);
        wait_until_group_is_dead(&folder);
    }
}

#[test]
fn a_run_belongs_to_no_client() {
    let folder = Folder::new();
    let script = gated(&folder, "po", "printf em");
    let proxy = proxy(&FakeUpstream::new()).command(&script).start();
    let mut client = proxy.connect();
    assert_eq!(client.read(2), b"po");
    client.reset();
    proxy.wait_for_open(0);

    folder.write("go", "");
    wait_for_count("kept", &proxy.stats.kept, 1);
    assert_eq!(proxy.get().unwrap(), b"poem");
}

#[test]
fn after_a_failed_run_the_stale_poem_is_served() {
    let folder = Folder::new();
    let script = format!(
        "sh -c 'test -e {} && exit 1; printf good'",
        folder.arg("bad")
    );
    let builder = proxy(&FakeUpstream::new()).command(&script);
    let proxy = builder.ttl(ZERO).grace(HOUR).start();
    assert_eq!(proxy.get().unwrap(), b"good");
    wait_for_count("kept", &proxy.stats.kept, 1);

    folder.write("bad", "");
    assert_eq!(proxy.get().unwrap(), b"good");
    wait_for_count("failed", &proxy.stats.failed_fetches, 1);
    assert_eq!(proxy.get().unwrap(), b"good");
}

#[test]
fn no_more_than_upstream_conns_run_at_once() {
    let folder = Folder::new();
    let script = gated(&folder, "", "cat");
    let builder = proxy(&FakeUpstream::new()).line().upstream_conns(2);
    let proxy = builder.command(&script).start();
    let names = ["a\n", "b\n", "c\n", "d\n", "e\n"];
    let clients = names.map(|name| proxy.request(name.as_bytes()));
    proxy.wait_for_waiting(3);
    wait_until("two have started", || starts(&folder) == 2);

    folder.write("go", "");
    for (mut client, name) in clients.into_iter().zip(names) {
        assert_eq!(client.rest().unwrap(), name.as_bytes());
    }
    assert_eq!(starts(&folder), 5);
}

#[test]
fn a_command_gets_three_variables_and_the_root_folder() {
    let env = proxy(&FakeUpstream::new()).command("env").start();
    let env = text(&env.get().unwrap());
    let names = env.lines().filter_map(|line| line.split_once('='));
    let names: BTreeSet<&str> = names.map(|(name, _)| name).collect();
    assert!(names.contains("PATH"), "{env}");
    assert!(names.is_subset(&["PATH", "LANG", "TZ"].into()), "{env}");

    let folder = proxy(&FakeUpstream::new()).command("pwd").start();
    assert_eq!(folder.get().unwrap(), b"/\n");
}

#[test]
fn after_a_failed_command_the_next_upstream_is_asked() {
    let upstream = FakeUpstream::new();
    let proxy = proxy(&upstream).command_before("false").start();
    let mut client = proxy.connect();
    upstream.serve_once(b"poem");
    assert_eq!(client.rest().unwrap(), b"poem");
}

#[test]
fn a_stop_leaves_no_process_behind() {
    let folder = Folder::new();
    let upstream = format!("exec:{}", hanging_program(&folder));
    let flags = ["proxy", "--port", "0", "--drain-timeout", "100ms"];
    let mut server = ServerProcess::start(&[&flags[..], &[&upstream]].concat());
    let _client = server.connect();
    group_of_program(&folder);
    server.stop();
    wait_until_group_is_dead(&folder);
}

#[test]
fn the_log_has_the_last_line_of_standard_error() {
    for (script, said) in [
        (
            "sh -c 'echo first >&2; echo why >&2; exit 3'",
            "exit code 3: why",
        ),
        ("sh -c 'echo note >&2; echo poem'", " said: note"),
    ] {
        let upstream = format!("exec:{script}");
        let mut server = ServerProcess::start(&["proxy", "--port", "0", &upstream]);
        let log = server.stderr_lines();
        let _poem_or_reset = server.get();
        while !log.recv_timeout(LONG).unwrap().ends_with(said) {}
    }
}

#[test]
fn what_can_not_be_meant_is_a_usage_error() {
    for (args, said) in [
        (&["exec:"][..], "no command; wanted a command like"),
        (&["exec:sh -c 'a"], "a quote that is not closed"),
        (&["exec:{} a"], "the command is not for clients to choose"),
        (
            &["exec:rdap {}"],
            "the word {} can only be used with --protocol line",
        ),
        (
            &["--protocol", "netstring", "exec:cat"],
            "see poetry transform --exec",
        ),
    ] {
        let out = poetry(&[&["proxy"], args].concat());
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        let error = text(&out.stderr);
        assert!(error.contains(said), "{args:?}: {error}");
    }
}

#[test]
fn in_the_environment_what_follows_a_command_belongs_to_it() {
    let mut command = command(&["proxy", "--port", "0"]);
    command.env(
        "POEM_PROXY_UPSTREAM",
        "unix:/nowhere, exec:printf '%s,' a b",
    );
    let server = ServerProcess::start_command(command);
    assert_eq!(server.get().unwrap(), b"a,b,");
}
