//! What runs out: descriptors, places, capacity, disk, and the patience of whoever reads what we print.

use crate::bard::{
    Bard, Client, Daemon, LIMITS, LONG, Running, command, many_descriptors, poetry, reset,
    settings, text, until,
};
use poetry::handler::proxy::ProxySettings;
use poetry::protocol::Protocol;
use poetry::server::Limits;
use poetry::transform::Registry;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn over_max_clients_the_backlog_waits_and_nobody_is_turned_away() {
    let bard = Bard::new();
    let proxy = Running::proxy_with(
        settings(&bard),
        Limits {
            max_clients: 2,
            ..LIMITS
        },
    );
    let mut clients: Vec<_> = (0..10).map(|_| proxy.connect()).collect();
    proxy.open(2);
    bard.call().say(b"poem").finish();
    for client in &mut clients {
        assert_eq!(client.rest().unwrap(), b"poem");
    }
    assert_eq!(bard.callers(), 1);
}

#[test]
fn who_waited_for_a_place_is_answered_by_the_time_of_getting_it() {
    let bard = Bard::new();
    const TTL: Duration = Duration::from_secs(1);
    let mut settings = settings(&bard);
    settings.policy.ttl = TTL;
    let proxy = Running::proxy_with(
        settings,
        Limits {
            max_clients: 1,
            ..LIMITS
        },
    );
    let poem = vec![b'x'; 4 << 20];
    let mut first = proxy.connect();
    bard.call().say(&poem).finish();
    assert_eq!(first.rest().unwrap(), poem);
    drop(first);
    proxy.open(0);
    let kept = Instant::now();
    let stuck = Client::narrow(proxy.addr); // with a hit that it does not read, in the only place
    proxy.open(1);
    let mut waiting = proxy.connect();
    until("the poem is too old", || kept.elapsed() > TTL);
    drop(stuck);
    bard.call().say(b"a newer poem").finish();
    assert_eq!(waiting.rest().unwrap(), b"a newer poem");
}

#[test]
fn with_few_descriptors_fewer_clients_are_looked_after_and_all_are_served() {
    let bard = Bard::new();
    let mut daemon =
        Daemon::start_with_descriptors(64, &["proxy", "--port", "0", &bard.addr.to_string()]);
    let mut clients: Vec<_> = (0..200).map(|_| Client::connect(daemon.addr)).collect();
    let call = bard.call().say(b"half ");
    assert_eq!(clients[0].take(5), b"half ");
    call.say(b"whole").finish();
    assert_eq!(clients[0].rest().unwrap(), b"whole");
    for client in &mut clients[1..] {
        assert_eq!(client.rest().unwrap(), b"half whole");
    }
    assert_eq!(bard.callers(), 1);
    assert!(
        daemon.cpu_time() < Duration::from_secs(1),
        "it did not spin: {:?}",
        daemon.cpu_time()
    );
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
    let told = daemon.stderr();
    assert!(
        told.contains("serving at most 31 clients at once") && !told.contains("accepting pauses"),
        "{told}"
    );
    assert!(told.lines().count() < 12, "it is no flood: {told}");
}

#[test]
fn where_descriptors_run_out_all_the_same_accepting_pauses_without_spinning_and_recovers() {
    let mut daemon = Daemon::start(&["serve", "-q", "--port", "0", "poetry/furuike.txt"]);
    let poem = std::fs::read("poetry/furuike.txt").unwrap();
    let none = Rlimit {
        current: Some(0),
        ..getrlimit(Resource::Nofile)
    };
    let before = prlimit(Some(daemon.pid()), Resource::Nofile, none).unwrap();
    let (cpu, told) = (daemon.cpu_time(), daemon.stderr_lines());
    let mut clients: Vec<Client> = (0..50).map(|_| Client::connect(daemon.addr)).collect();
    for pause in ["50ms", "100ms", "200ms", "400ms"] {
        let line = told.recv_timeout(LONG).unwrap();
        assert_eq!(
            line,
            format!("poetry: accepting pauses for {pause}: too many open files")
        );
    }
    let busy = daemon.cpu_time() - cpu;
    assert!(busy < Duration::from_millis(200), "it spins: {busy:?}");
    prlimit(Some(daemon.pid()), Resource::Nofile, before).unwrap();
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.rest().unwrap(), poem));
}

#[test]
fn connections_to_the_upstream_are_counted_among_the_descriptors() {
    let bard = Bard::new();
    let upstream = bard.addr.to_string();
    let args = [
        "proxy",
        "--port",
        "0",
        "--protocol",
        "line",
        "--upstream-conns",
        "40",
        &upstream,
    ];
    let mut daemon = Daemon::start_with_descriptors(100, &args);
    let ask = |number: usize| {
        let mut client = Client::connect(daemon.addr);
        client.say(format!("name{number:03}\n").as_bytes());
        client
    };
    let mut clients: Vec<Client> = (0..150).map(ask).collect();
    for _ in 0..150 {
        let (call, name) = bard.call().try_recv(9);
        call.say(&name[..7]).finish();
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(
            client.rest().unwrap(),
            format!("name{number:03}").as_bytes()
        );
    }
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
    let told = daemon.stderr();
    assert!(
        told.contains("serving at most 35 clients at once"),
        "{told}"
    );
    assert!(!told.contains("too many open files"), "{told}");
}

#[test]
fn a_stuck_client_leaves_little_in_the_kernels_send_queue() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large.txt");
    std::fs::write(&file, vec![b'x'; 8 << 20]).unwrap();
    let daemon = Daemon::start(&["serve", "--port", "0", file.to_str().unwrap()]);
    for client in [Client::connect(daemon.addr), Client::narrow(daemon.addr)] {
        let here = client.stream.local_addr().unwrap();
        let (mut queued, mut since) = (0, Instant::now());
        until(
            "the queue has been the same for longer than an acknowledgement takes",
            || {
                let before = std::mem::replace(&mut queued, queues(daemon.addr, here).0);
                if queued != before || queued == 0 {
                    since = Instant::now();
                }
                since.elapsed() > Duration::from_millis(100)
            },
        );
        assert!(queued <= 64 << 10, "{queued} bytes");
    }
}

/// What the kernel holds at the near end: sent and not acknowledged, or not sent yet; and come and not read yet.
fn queues(near: SocketAddr, far: SocketAddr) -> (u64, u64) {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let ports = format!(":{:04X} 0100007F:{:04X} ", near.port(), far.port());
    let line = table.lines().find(|line| line.contains(&ports));
    let (sent, come) = line
        .and_then(|line| line.split_whitespace().nth(4)?.split_once(':'))
        .unwrap_or(("0", "0"));
    (
        u64::from_str_radix(sent, 16).unwrap(),
        u64::from_str_radix(come, 16).unwrap(),
    )
}

#[test]
fn requests_share_a_room_and_one_that_finds_none_is_reset_while_the_others_go_on() {
    let limits = Limits {
        request_room: 1 << 20,
        ..LIMITS
    };
    let service = Running::transform(Registry::default(), limits);
    let (begin, rest) = (
        [&b"900006:shout."[..], &[b'a'; 600_000]].concat(),
        [&[b'a'; 300_000][..], b","].concat(),
    );
    let mut first = service.connect();
    first.say(&begin);
    let here = first.stream.local_addr().unwrap();
    until("all of it is read", || {
        queues(here, service.addr).0 == 0 && queues(service.addr, here).1 == 0
    });
    assert_eq!(
        Client::ask(service.addr, &begin),
        Err(ErrorKind::ConnectionReset)
    );
    assert_eq!(
        Client::ask(service.addr, b"9:shout.abc,").unwrap(),
        b"3:ABC,",
        "a small one is no burden"
    );
    first.say(&rest);
    let answer = [&b"900000:"[..], &[b'A'; 900_000], b","].concat();
    assert!(first.rest().unwrap() == answer);
    drop(first);
    service.open(0);
    assert!(
        Client::ask(service.addr, &[begin, rest].concat()).unwrap() == answer,
        "there is room again"
    );
}

#[test]
fn answers_share_the_room_of_requests_until_they_are_read_and_one_that_finds_none_is_declined() {
    const LENGTH: usize = 900_000;
    let mut repertoire = Registry::default();
    repertoire
        .add(format!("big=head -c {LENGTH} /dev/zero").parse().unwrap())
        .unwrap();
    // The longest poem, of 1 MiB, has room together with its answer, so two of these answers fit, and no three.
    let service = Running::transform(
        repertoire,
        Limits {
            request_room: 1 << 20,
            ..LIMITS
        },
    );
    let mut stuck: Vec<Client> = (0..2)
        .map(|_| {
            let mut client = Client::narrow(service.addr);
            client.say(b"5:big.x,");
            client.take(7); // it is made
            client
        })
        .collect();
    assert_eq!(
        Client::ask(service.addr, b"5:big.x,"),
        Ok(Vec::new()),
        "a polite no"
    );
    let poem = [&b"900006:shout."[..], &[b'a'; LENGTH], b","].concat();
    let refused = Client::ask(service.addr, &poem[..20_000]);
    assert_eq!(
        refused,
        Err(ErrorKind::ConnectionReset),
        "requests find no room either"
    );
    assert_eq!(
        Client::ask(service.addr, b"9:shout.abc,").unwrap(),
        b"3:ABC,",
        "a small one is no burden"
    );
    assert_eq!(stuck[0].rest().unwrap().len(), LENGTH + 1);
    let mut next = service.connect();
    next.say(b"5:big.x,");
    assert_eq!(
        next.rest().unwrap().len(),
        LENGTH + 8,
        "there is room again"
    );
    reset(stuck.remove(1).stream); // and where a client leaves what it does not read
    drop((stuck, next));
    service.open(0);
    assert_eq!(Client::ask(service.addr, &poem).unwrap().len(), LENGTH + 8);
}

#[test]
fn requests_that_wait_for_their_answers_are_held_once() {
    const LENGTH: usize = 4 << 20;
    let bard = Bard::new();
    let upstream = bard.addr.to_string();
    let daemon = Daemon::start(&["proxy", "--port", "0", "--protocol", "netstring", &upstream]);
    let before = daemon.memory();
    let clients: Vec<Client> = (0..6u8)
        .map(|number| {
            let mut client = Client::connect(daemon.addr);
            client.say(&[format!("{LENGTH}:").as_bytes(), &vec![number; LENGTH], b","].concat());
            client
        })
        .collect();
    let calls: Vec<_> = clients.iter().map(|_| bard.call().try_recv(8).0).collect();
    let more = daemon.memory().saturating_sub(before);
    assert!(more < 36 << 20, "{more} bytes for six requests of 4 MiB");
    drop(calls);
}

#[test]
fn large_transformations_take_the_memory_of_their_poems_and_a_few_results() {
    const LINES: usize = 2 << 20;
    let daemon = Daemon::start(&["transform", "--port", "0"]);
    let before = daemon.peak_memory();
    let request = [
        format!("{}:reverse.", LINES + 8).as_bytes(),
        &[b'\n'; LINES],
        b",",
    ]
    .concat();
    let answer = [format!("{LINES}:").as_bytes(), &[b'\n'; LINES], b","].concat();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(Client::ask(daemon.addr, &request).unwrap() == answer));
        }
    });
    let more = daemon.peak_memory() - before;
    assert!(more < 80 << 20, "{more} bytes for eight poems of 2 MiB");
}

#[test]
fn a_thousand_keys_in_flight_stay_within_the_capacity() {
    many_descriptors();
    let bard = Bard::new();
    let upstream = bard.addr.to_string();
    let args = [
        "proxy",
        "--port",
        "0",
        "--protocol",
        "line",
        "--capacity",
        "4MiB",
        "--upstream-conns",
        "8",
    ];
    let daemon = Daemon::start(&[&args[..], &[&upstream]].concat());
    let poem = |name: &[u8]| name.repeat(16 << 10); // 7 bytes each: 112 KiB, a hundred MiB together
    let memory = daemon.memory();
    bard.each(move |_, call| {
        let (call, name) = call.try_recv(9);
        call.try_say(&poem(&name[..7])).finish();
    });
    let mut clients = Vec::new();
    for number in 0..1000 {
        let mut client = Client::connect(daemon.addr);
        client.say(format!("key{number:04}\n").as_bytes());
        clients.push(client);
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let got = client.rest().unwrap();
        assert!(
            got == poem(format!("key{number:04}").as_bytes()),
            "{number}: {} bytes",
            got.len()
        );
    }
    let more = daemon.memory().saturating_sub(memory);
    assert!(more < 24 << 20, "{more} bytes for a capacity of 4 MiB");
}

#[test]
fn a_full_disk_is_told_by_23_and_a_poem_that_was_there_survives() {
    let bard = Bard::new();
    let addr = bard.addr.to_string();
    bard.trickle(&[b'x'; 64 << 10]);
    let out = poetry(&["fetch", &addr, "-o", "/dev/full"]);
    let told = "poetry: /dev/full: could not be written: no space left on device\n";
    assert_eq!(
        (out.status.code(), text(&out.stderr).as_str()),
        (Some(23), told)
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("poem");
    std::fs::write(&file, "the old one").unwrap();
    // A limit on the size of files stands in for a full disk: 8 blocks of 512 bytes.
    let mut fetch = std::process::Command::new("sh");
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" fetch \"$1\" -o \"$2\"";
    fetch.args([
        "-c",
        script,
        env!("CARGO_BIN_EXE_poetry"),
        &addr,
        file.to_str().unwrap(),
    ]);
    let out = fetch.output().unwrap();
    assert_eq!(out.status.code(), Some(23), "{}", text(&out.stderr));
    assert!(
        text(&out.stderr).ends_with("could not be written: file too large\n"),
        "{}",
        text(&out.stderr)
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "the old one");
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing is left lying about"
    );
}

#[test]
fn a_closed_stdout_ends_a_filter_quietly_and_stops_no_server() {
    let mut filter = command(&["transform", "shout"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(filter.stdout.take());
    filter
        .stdin
        .take()
        .unwrap()
        .write_all(&[b'x'; 1 << 20])
        .unwrap();
    assert_eq!(filter.wait().unwrap().code(), Some(0));
    let (folder, poem) = (
        tempfile::tempdir().unwrap(),
        std::fs::read("poetry/furuike.txt").unwrap(),
    );
    let path = folder.path().join("s");
    let listen = format!("unix:{}", path.display());
    let script = "exec \"$0\" serve --listen \"$1\" poetry/furuike.txt >&- 2>&-";
    let mut server = std::process::Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_poetry"), &listen])
        .spawn()
        .unwrap();
    let mut got = Vec::new();
    until("it serves", || {
        UnixStream::connect(&path).is_ok_and(|mut stream| stream.read_to_end(&mut got).is_ok())
    });
    assert_eq!(got, poem);
    rustix::process::kill_process(rustix::process::Pid::from_child(&server), Signal::TERM).unwrap();
    assert_eq!(server.wait().unwrap().code(), Some(0));
}

#[test]
fn a_log_that_nobody_reads_stops_nobody() {
    let mut daemon = Daemon::start(&["serve", "--port", "0", "-v", "poetry/furuike.txt"]);
    let poem = std::fs::read("poetry/furuike.txt").unwrap();
    for _ in 0..6000 {
        assert_eq!(Client::connect(daemon.addr).rest().unwrap(), poem); // far more lines than a pipe and the queue hold
    }
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn a_port_in_use_is_refused_at_the_start_and_costs_its_holder_nothing() {
    let daemon = Daemon::start(&["serve", "--port", "0", "poetry/furuike.txt"]);
    let out = poetry(&["proxy", "--listen", &daemon.addr.to_string(), "1"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(
        text(&out.stderr).ends_with("could not listen: address already in use\n"),
        "{}",
        text(&out.stderr)
    );
    assert!(Client::connect(daemon.addr).rest().is_ok());
}

#[test]
fn only_a_socket_file_that_nobody_listens_on_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listen = format!("unix:{}", path.display());
    let refused = || {
        let out = poetry(&["serve", "--listen", &listen]);
        (out.status.code(), text(&out.stderr))
    };
    let told = (
        Some(1),
        format!("poetry: {listen}: could not listen: address already in use\n"),
    );
    std::fs::write(&path, "a file of somebody's").unwrap();
    assert_eq!(refused(), told);
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        "a file of somebody's"
    );
    std::fs::remove_file(&path).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    assert_eq!(refused(), told);
    assert!(
        UnixStream::connect(&path).is_ok(),
        "it is still its holder's"
    );
    drop(listener);
    let daemon = Daemon::start(&["serve", "--listen", &listen]);
    assert!(daemon.ready.ends_with(&listen));
}

#[test]
fn places_are_given_back_however_a_client_ends() {
    let bard = Bard::new();
    let proxy = Running::proxy_with(
        ProxySettings {
            protocol: Protocol::Line,
            ..settings(&bard)
        },
        Limits {
            max_clients: 1,
            client_timeout: Duration::from_millis(100),
            ..LIMITS
        },
    );
    for request in [&b"\x01\n"[..], b"slow", b""] {
        let _answer = Client::ask(proxy.addr, request); // refused, too slow, or just there
    }
    crate::bard::reset(proxy.connect().stream);
    let mut client = proxy.connect();
    client.say(b"name\n");
    bard.call().try_recv(6).0.say(b"poem").finish();
    assert_eq!(client.rest().unwrap(), b"poem");
}

/// A wall clock that is set back or forth must make nothing old, fresh or late: all times here are the monotonic
/// clock's, and the wall clock is read in one place, to date the log's lines. (Which is what can be tested without
/// setting the machine's clock.)
#[test]
fn the_wall_clock_is_read_for_the_log_and_for_nothing_else() {
    let mut readers = Vec::new();
    let mut folders = vec![std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let count = std::fs::read_to_string(&path)
                        .unwrap()
                        .matches("SystemTime")
                        .count();
                    readers.extend(std::iter::repeat_n(path, count));
                }
            }
        }
    }
    assert!(
        readers.len() == 1 && readers[0].ends_with("cmd/log/json.rs"),
        "{readers:?}"
    );
}
