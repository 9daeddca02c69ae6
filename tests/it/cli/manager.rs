//! What a service manager passes, and what it is told.

use crate::support::{Client, Folder, Manager, Process, ServerProcess, inheriting, run, text};
use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

const SERVE: [&str; 4] = ["serve", "--port", "0", "poetry/furuike.txt"];

fn tcp() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[test]
fn a_service_manager_passes_a_socket_and_hears_when_it_is_ready() {
    let manager = Manager::new();
    let socket = tcp();
    let addr = socket.local_addr().unwrap();

    let mut command = inheriting(socket.into(), "poetry-proxy.socket", &SERVE);
    manager.hears(&mut command);
    let mut server = ServerProcess::start_command(command);
    manager.next("READY=1");

    let poem = Client::connect(addr).rest().unwrap();
    assert_eq!(poem, std::fs::read("poetry/furuike.txt").unwrap());

    server.stop();
    manager.next("STOPPING=1");
    assert_eq!(server.ready, format!("Serving 1 poem on {addr}"));
    assert_eq!(server.next_line(), None);
}

#[test]
fn a_passed_socket_serves_clients_whatever_its_name_but_admin() {
    for name in ["", "unknown", "poems", "stored"] {
        let socket = tcp();
        let addr = socket.local_addr().unwrap();
        let server = ServerProcess::start_command(inheriting(socket.into(), name, &SERVE));
        assert_eq!(server.addr, addr, "{name}");
        assert!(server.get().is_ok(), "{name}");
    }
}

#[test]
fn the_socket_named_admin_is_none_for_clients() {
    let folder = Folder::new();
    let socket = UnixListener::bind(folder.path("admin")).unwrap();
    let server = ServerProcess::start_command(inheriting(socket.into(), "admin", &SERVE));

    assert_ne!(server.addr.port(), 0, "{}", server.ready);
    assert!(server.get().is_ok());
}

/// Whether programs that this process starts don't get this descriptor.
fn is_closed_in_programs(process: &Process, descriptor: u32) -> bool {
    const O_CLOEXEC: u32 = 0o2_000_000;
    let path = format!("/proc/{}/fdinfo/{descriptor}", process.child.id());
    let info = std::fs::read_to_string(path).unwrap();

    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
    flags & O_CLOEXEC != 0
}

#[test]
fn a_passed_descriptor_that_is_no_socket_and_not_for_us_is_left_alone() {
    for name in ["cache", "stored"] {
        let file = OwnedFd::from(File::open("poetry/furuike.txt").unwrap());
        let mut server = ServerProcess::start_command(inheriting(file, name, &SERVE));
        assert!(server.get().is_ok(), "{name}");
        assert!(is_closed_in_programs(&server, 3), "{name}");

        let warning = format!("inherited descriptor 3 ({name}): not a socket; it is left alone");
        let log = server.stop_and_read_log();
        assert!(log.contains(&warning), "{log}");
    }
}

#[test]
fn a_passed_descriptor_that_should_be_a_socket_and_is_none_is_an_error() {
    for (name, shown) in [
        ("admin", " (admin)"),
        ("poetry-proxy.socket", " (poetry-proxy.socket)"),
        ("unknown", " (unknown)"),
        ("", ""),
    ] {
        let file = OwnedFd::from(File::open("poetry/furuike.txt").unwrap());
        let out = run(inheriting(file, name, &SERVE));
        let expected = format!("poetry: inherited descriptor 3{shown}: not a socket\n");
        assert_eq!(out.status.code(), Some(1), "{name}");
        assert_eq!(text(&out.stderr), expected);
    }

    let datagrams = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
    let out = run(inheriting(datagrams, "cache", &SERVE));
    let expected = "poetry: inherited descriptor 3 (cache): \
                    not a TCP socket or a unix stream socket\n";
    assert_eq!(text(&out.stderr), expected);
}
