//! The program: its flags, its sockets, and itself as the client.

use crate::support::{
    Folder, ServerProcess, Signal, TOKEN, poetry, request, shell, text, wait_until,
};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Command;

/// What `poetry fetch --ask` prints, and its exit code.
fn ask(command: &str, addr: &str) -> (String, Option<i32>) {
    let out = poetry(&["fetch", "--ask", command, addr]);
    (text(&out.stdout), out.status.code())
}

#[test]
fn fetch_is_the_client_of_all_three_services() {
    let folder = Folder::new();
    for service in ["proxy", "serve", "transform"] {
        let addr = format!("unix:{}", folder.arg(service));
        let mut server = ServerProcess::start(&[service, "--listen", "0", "--admin", &addr]);
        assert_eq!(server.next_line(), Some(format!("Admin on {addr}")));

        let (status, code) = ask("status", &addr);
        assert!(
            status.starts_with("state         ok\n"),
            "{service}: {status}"
        );
        assert_eq!(code, Some(0));
        assert_eq!(ask("ready", &addr), ("ready\n".into(), Some(0)));
        let (refusal, code) = ask("nonsense", &addr);
        assert_eq!(refusal, "no such command: nonsense; try help\n");
        assert_eq!(code, Some(56), "a refusal is a failure");

        let mode = std::fs::metadata(folder.path(service))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        server.stop();
        assert!(
            !folder.path(service).exists(),
            "the socket's file is removed"
        );
    }
}

#[test]
fn a_drain_can_be_watched_to_its_end() {
    let folder = Folder::new();
    let addr = format!("unix:{}", folder.arg("admin"));
    let args = ["serve", "--listen", "0", "--delay", "1d", "--admin", &addr];
    let mut server = ServerProcess::start(&[&args[..], &["--drain-timeout", "1h"]].concat());
    let mut client = server.connect();
    client.read(1);

    server.signal(Signal::TERM);
    wait_until("it drains", || {
        ask("ready", &addr) == ("draining\n".into(), Some(56))
    });
    let (status, _) = ask("status", &addr);
    assert!(status.starts_with("state         draining\n"), "{status}");

    drop(client);
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_mode_and_a_token_are_as_given() {
    let folder = Folder::new();
    let token = folder.write("token", format!("{TOKEN}\n"));
    let (first, second) = (folder.arg("first"), folder.arg("second"));
    let server = ServerProcess::start(&[
        "proxy",
        "builtin",
        "--listen",
        "0",
        "--admin",
        &format!("unix:{first}"),
        "--admin",
        &format!("unix:{second},mode=0640"),
        "--admin",
        "0.0.0.0:0",
        "--admin-mode",
        "0660",
        "--admin-token",
        &token,
        "--admin-host",
        "poems.example",
    ]);
    let lines: Vec<String> = (0..3).map(|_| server.next_line().unwrap()).collect();
    let port = lines[2].rsplit(':').next().unwrap();
    let addr = format!("127.0.0.1:{port}").parse().unwrap();

    for (path, mode) in [(&first, 0o660), (&second, 0o640)] {
        let meta = std::fs::metadata(path).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, mode, "{path}");
    }
    assert_eq!(request(addr, "GET /metrics").status, 200);
    assert_eq!(request(addr, "GET /status").status, 401);
    let purge = format!(
        "POST /purge?all HTTP/1.1\r\nHost: poems.example\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    );
    assert_eq!(crate::support::http(addr, &purge).status, 200);
}

#[test]
fn an_address_that_is_not_safe_is_a_usage_error() {
    let folder = Folder::new();
    let socket = format!("unix:{}", folder.arg("a"));
    let cases: [(&[&str], &str); 7] = [
        (
            &["--admin", "0.0.0.0:0"],
            "other machines reach --admin 0.0.0.0:0, so it takes a secret",
        ),
        (&["--admin", "[::]:0"], "add --admin-token FILE"),
        (
            &["--admin", &socket, "--listen", &socket],
            "is an address of --listen, too",
        ),
        (&["--admin", "localhost"], "try localhost:10002"),
        (&["--admin-mode", "rw"], "wanted an octal number up to 777"),
        (&["--admin-host", "a:1"], "without a port"),
        (&["--admin-host", ""], "without a port"),
    ];
    for (args, expected) in cases {
        for service in ["proxy", "serve", "transform"] {
            let listen: &[&str] = if args.contains(&"--listen") {
                &[]
            } else {
                &["--listen", "0"]
            };
            let out = poetry(&[&[service], listen, args].concat());
            let error = text(&out.stderr);
            assert_eq!(out.status.code(), Some(2), "{service} {args:?}: {error}");
            assert!(error.contains(expected), "{service} {args:?}: {error}");
        }
    }
}

#[test]
fn a_token_that_protects_nothing_is_refused() {
    let folder = Folder::new();
    let short = folder.write("short", "secret\n");
    let long = folder.write("long", "x".repeat(4097));
    for (file, why) in [
        (long.as_str(), "a token has at most 4096 characters"),
        (short.as_str(), "a token has at least 16 characters"),
        ("no/such/file", "no such file or directory"),
    ] {
        let out = poetry(&[
            "serve",
            "--listen",
            "0",
            "--admin",
            "0",
            "--admin-token",
            file,
        ]);
        let expected = format!("poetry: {file}: {why}\n");
        assert_eq!((out.status.code(), text(&out.stderr)), (Some(1), expected));
    }
}

#[test]
fn a_host_or_a_token_without_a_socket_for_operators_is_told() {
    let log = ServerProcess::start(&["serve", "-l", "0", "--admin-host", "poems.example"])
        .stop_and_read_log();
    let warning = "poetry: --admin-token and --admin-host need --admin\n";
    assert!(log.contains(warning), "{log}");
}

#[test]
fn an_inherited_socket_named_admin_is_for_operators() {
    let folder = Folder::new();
    let socket = UnixListener::bind(folder.path("admin")).unwrap();
    let script = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=admin \
                  exec \"$0\" \"$@\"";
    let mut inheriting = shell(script, &["serve", "--listen", "0"]);
    inheriting.stdin(OwnedFd::from(socket));
    let server = ServerProcess::start_command(inheriting);

    assert!(server.get().is_ok(), "clients have the address of --listen");
    let addr = format!("unix:{}", folder.arg("admin"));
    assert_eq!(server.next_line(), Some(format!("Admin on {addr}")));
    assert_eq!(ask("live", &addr), ("live\n".into(), Some(0)));
}

#[test]
fn curl_speaks_to_the_unix_socket() {
    let folder = Folder::new();
    let path = folder.arg("admin");
    let addr = format!("unix:{path}");
    let _server = ServerProcess::start(&["proxy", "builtin", "-l", "0", "--admin", &addr]);

    let curl = |args: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "30", "--unix-socket", &path]);
        curl.args(args).output()
    };
    let Ok(ready) = curl(&["http://poetry/health/ready"]) else {
        println!("skipped: curl is not installed");
        return;
    };
    assert_eq!(text(&ready.stdout), "ready\n", "{}", text(&ready.stderr));

    let purge = ["-X", "POST", "http://poetry/purge?all"];
    assert_eq!(text(&curl(&purge).unwrap().stdout), "{\"purged\":0}\n");
    let named = ["--data-urlencode", "key=a b&c", "-G", "http://poetry/keys"];
    let unknown = curl(&named).unwrap();
    assert_eq!(text(&unknown.stdout), "nothing is known of this key\n");
}
