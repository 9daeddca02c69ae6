//! What a service manager passes, and what it is told.

use crate::support::{
    Client, Folder, Manager, Process, SHORT, ServerProcess, Signal, command, inheriting, run,
    shell, text,
};
use rustix::time::{ClockId, clock_gettime};
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

/// Starts it with this manager, and waits until it is ready.
fn start(manager: &Manager, mut command: std::process::Command) -> ServerProcess {
    manager.hears(&mut command);
    let server = ServerProcess::start_command(command);
    manager.next("READY=1");
    server
}

fn monotonic_micros() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000
}

#[test]
fn a_service_manager_is_shown_how_the_service_is() {
    let manager = Manager::new();
    let _server = start(&manager, command(&SERVE));
    assert_eq!(manager.next("STATUS="), "STATUS=0 clients\n");
}

#[test]
fn a_service_manager_hears_when_a_reload_begins_and_when_it_is_over() {
    let manager = Manager::new();
    let server = start(&manager, command(&SERVE));
    for _ in 0..2 {
        let before = monotonic_micros();
        server.signal(Signal::HUP);

        let begin = manager.next("RE");
        let time = begin.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        let time: i64 = time.trim_end().parse().unwrap();
        assert!((before..=monotonic_micros()).contains(&time), "{begin}");
        let end = manager.next("RE");
        assert_eq!(end, "READY=1\nSTATUS=read 1 poem again\n");
    }
}

#[test]
fn a_service_manager_hears_that_a_reload_has_failed() {
    let folder = Folder::new();
    folder.write("a.txt", "a poem");
    folder.write("b\n.txt", "its name fits no line");
    let path = folder.path("").display().to_string();
    let serve = ["serve", "--port", "0", "--protocol", "line", &path];
    let manager = Manager::new();
    let server = start(&manager, command(&serve));

    std::fs::remove_file(folder.path("a.txt")).unwrap();
    server.signal(Signal::HUP);
    assert!(manager.next("RE").starts_with("RELOADING=1\n"));
    let end = manager.next("RE");
    assert!(end.starts_with("READY=1\nSTATUS=not reloaded: "), "{end}");
}

#[test]
fn a_watchdog_is_fed_until_the_process_is_stopped() {
    let manager = Manager::new();
    let script = "WATCHDOG_USEC=100000 WATCHDOG_PID=$$ exec \"$0\" \"$@\"";
    let server = start(&manager, shell(script, &SERVE));
    for _ in 0..3 {
        manager.next("WATCHDOG=1");
    }

    server.freeze();
    while manager.next_within(SHORT, "WATCHDOG=1").is_some() {}
    server.signal(Signal::CONT);
    manager.next("WATCHDOG=1");
}

#[test]
fn no_watchdog_is_fed_that_is_not_for_this_process() {
    for script in [
        "WATCHDOG_USEC=1000 WATCHDOG_PID=1 exec \"$0\" \"$@\"",
        "WATCHDOG_USEC=0 exec \"$0\" \"$@\"",
    ] {
        let manager = Manager::new();
        let _server = start(&manager, shell(script, &SERVE));
        assert_eq!(manager.next_within(SHORT, "WATCHDOG=1"), None);
    }
}
