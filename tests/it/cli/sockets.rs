//! Where the program listens, the ready line, and an orderly end.

use crate::support::{Folder, ServerProcess, Signal, poetry, run, shell, text, unused_addr};
use rustix::process::geteuid;
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

#[test]
fn the_ready_line_has_the_real_port_and_sigterm_ends_with_0() {
    let upstream = unused_addr().to_string();
    let proxying = format!("Proxying {upstream} on 127.0.0.1:");
    let cases: [(&[&str], &str); 5] = [
        (
            &["serve", "--port", "0", "poetry/fascination.txt"],
            "Serving 1 poem on 127.0.0.1:",
        ),
        (&["serve", "--port", "0"], "Serving 12 poems on 127.0.0.1:"),
        (&["proxy", "--port", "0", &upstream], &proxying),
        (
            &["proxy", "builtin", "--port", "0"],
            "Proxying builtin on 127.0.0.1:",
        ),
        (&["transform", "--port", "0"], "Transforming on 127.0.0.1:"),
    ];

    for (args, ready) in cases {
        let mut server = ServerProcess::start(args);
        assert!(
            server.ready.starts_with(ready),
            "{args:?}: {}",
            server.ready
        );
        assert_ne!(server.addr.port(), 0);

        server.signal(Signal::TERM);
        assert_eq!(server.exit_code(), Some(0), "{args:?}");
    }
}

#[test]
fn several_addresses_have_a_ready_line_each() {
    let args = ["serve", "--port", "0", "--listen", "[::1]:0"];
    let server = ServerProcess::start(&args);
    let second = server.next_line().unwrap();

    assert!(server.ready.contains(" on 127.0.0.1:"), "{}", server.ready);
    assert!(second.contains(" on [::1]:"), "{second}");
}

#[test]
fn all_addresses_of_both_families_can_be_listened_on_at_one_port() {
    let ipv4 = ServerProcess::start(&["serve", "--port", "0.0.0.0:0", "poetry/furuike.txt"]);
    let port = ipv4.addr.port();
    let ipv6 = format!("[::]:{port}");
    let ipv6 = ServerProcess::start(&["serve", "--port", &ipv6, "poetry/furuike.txt"]);

    let poem = std::fs::read("poetry/furuike.txt").unwrap();
    let ports = [
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
    ];
    for addr in ports {
        let mut stream = TcpStream::connect(addr).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert_eq!(received, poem, "{addr}");
    }
    drop(ipv6);
}

#[test]
fn a_unix_socket_has_the_mode_it_was_given() {
    let folder = Folder::new();
    let path = folder.path("socket").display().to_string();
    for (mode, wanted) in [("0660", 0o660), ("600", 0o600), ("0777", 0o777)] {
        let addr = format!("unix:{path},mode={mode}");
        let script = "umask 077; exec \"$0\" \"$@\"";
        let start = shell(script, &["serve", "--port", &addr, "poetry/furuike.txt"]);
        let server = ServerProcess::start_command(start);
        assert_eq!(server.ready, format!("Serving 1 poem on unix:{path}"));

        let meta = std::fs::metadata(&path).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, wanted, "{mode}");
        drop(server);
    }

    let out = poetry(&["fetch", &format!("unix:{path},mode=0660")]);
    assert_eq!(out.status.code(), Some(2));
    let error = text(&out.stderr);
    assert!(
        error.contains("a mode is only for an address to listen on"),
        "{error}"
    );
}

/// A group that this process may give a file: any, for root, and else one of its own.
fn other_group() -> Option<u32> {
    let groups = rustix::process::getgroups().unwrap();
    let own = rustix::process::getegid();
    let mut others = groups.iter().filter(|group| **group != own);
    let other = others.next().map(|group| group.as_raw());
    other.or(geteuid().is_root().then_some(12))
}

#[test]
fn a_unix_socket_has_the_owner_and_the_group_it_was_given() {
    let Some(group) = other_group() else {
        eprintln!("skipped: this user has no second group");
        return;
    };
    let owner = if geteuid().is_root() {
        7
    } else {
        geteuid().as_raw()
    };

    let folder = Folder::new();
    let path = folder.path("socket").display().to_string();
    let addr = format!("unix:{path},mode=0660,owner={owner},group={group}");
    let args = ["serve", "--port", &addr, "poetry/furuike.txt"];
    let server = ServerProcess::start(&args);
    assert_eq!(server.ready, format!("Serving 1 poem on unix:{path}"));

    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (owner, group));
    assert_eq!(meta.permissions().mode() & 0o777, 0o660);
}

#[test]
fn rights_that_a_unix_socket_cannot_have_are_an_error_that_says_why() {
    let folder = Folder::new();
    let path = folder.path("socket").display().to_string();
    for (rights, code, why) in [
        ("owner=no-such-user", 1, "there is no user 'no-such-user'"),
        (
            "group=no-such-group",
            1,
            "there is no group 'no-such-group'",
        ),
        (
            "owner=4294967295",
            1,
            "4294967295 is too large for the number of a user",
        ),
        ("owner=", 2, "no user after owner="),
        ("mode=0660,mode=0600", 2, "the mode is given twice"),
        (
            "mode=0660,user=a",
            2,
            "beside mode=, owner= and group= a socket's file has no rights",
        ),
    ] {
        let out = poetry(&["serve", "--port", &format!("unix:{path},{rights}")]);
        let error = text(&out.stderr);
        assert!(error.contains(why), "{rights}: {error}");
        assert_eq!(out.status.code(), Some(code), "{rights}");
        assert!(!folder.path("socket").exists(), "{rights}");
    }
}

#[test]
fn a_socket_file_goes_if_its_rights_cannot_be_set() {
    // Root may give files away, unless it has lost that right.
    let is_root = geteuid().is_root();
    let script = if is_root {
        "exec setpriv --bounding-set=-chown --inh-caps=-chown \"$0\" \"$@\""
    } else {
        "exec \"$0\" \"$@\""
    };
    if is_root && !run(shell("setpriv --version", &[])).status.success() {
        eprintln!("skipped: there is no setpriv");
        return;
    }

    let folder = Folder::new();
    let path = folder.path("socket").display().to_string();
    let addr = format!("unix:{path},owner=7");
    let out = run(shell(script, &["serve", "--port", &addr]));

    let why = "its owner and group could not be set: operation not permitted";
    let expected = format!("poetry: unix:{path}: could not listen: {why}\n");
    assert_eq!(text(&out.stderr), expected);
    assert_eq!(out.status.code(), Some(1));
    assert!(!folder.path("socket").exists());
}

#[test]
fn an_address_in_use_is_refused_and_its_holder_serves_on() {
    let server = ServerProcess::start(&["serve", "--port", "0", "poetry/furuike.txt"]);
    let addr = server.addr.to_string();
    let expected = format!("poetry: {addr}: could not listen: address already in use\n");

    for command in ["serve", "proxy", "transform"] {
        let out = poetry(&[command, "--listen", &addr]);
        assert_eq!(out.status.code(), Some(1), "{command}");
        assert_eq!(text(&out.stderr), expected, "{command}");
    }

    assert!(server.get().is_ok());
}

#[test]
fn a_missing_file_is_an_error_of_one_line() {
    let out = poetry(&["serve", "--port", "0", "no/such/poem"]);

    let expected = "poetry: no/such/poem: no such file or directory\n";
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(text(&out.stdout), "");
    assert_eq!(text(&out.stderr), expected);
}
