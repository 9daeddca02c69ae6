//! Ten thousand requests, and every place that tells of them says the same.

use crate::support::{
    Client, FakeUpstream, Folder, LONG, ServerProcess, Signal, request, text, wait_until,
};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::mpsc::Receiver;
use std::thread;

/// What a text is like here: all are as long.
const TEXT: &[u8] = b"a text\n";
const KEYS: u64 = 10;
const THREADS: u64 = 4;

const COLLAPSED: u64 = 60;
const STALE: u64 = 40;
const UNASKED: u64 = 500;
const FAILURES: u64 = 389;
const MISSES: u64 = KEYS + 1;
const HITS: u64 = 10_000 - COLLAPSED - STALE - UNASKED - FAILURES - MISSES;

/// How many ended so, by the words of all places.
const CLASSES: [(&str, u64); 7] = [
    ("hit", HITS),
    ("stale", STALE),
    ("collapsed", COLLAPSED),
    ("miss", MISSES),
    ("own", 0),
    ("failure", FAILURES),
    ("unasked", UNASKED),
];

struct Scene {
    upstream: FakeUpstream,
    proxy: ServerProcess,
    log: Receiver<String>,
    admin: SocketAddr,
}

impl Scene {
    fn start() -> Scene {
        let upstream = FakeUpstream::new();
        let folder = Folder::new();
        let token = folder.write("token", crate::support::TOKEN);
        let addr = upstream.addr.to_string();
        let mut proxy = ServerProcess::start(&[
            "proxy",
            "--listen",
            "127.0.0.1:0",
            "--protocol",
            "line",
            "--grace",
            "1h",
            "--log-format",
            "json",
            "--admin",
            "127.0.0.1:0",
            "--admin-token",
            &token,
            &addr,
        ]);
        let admin = proxy.next_line().expect("it says where operators ask");
        Scene {
            upstream,
            log: proxy.stderr_lines(),
            proxy,
            admin: admin.rsplit(' ').next().unwrap().parse().unwrap(),
        }
    }

    fn status(&self) -> Value {
        request(self.admin, "GET /status").json()
    }

    fn post(&self, path: &str) -> String {
        let token = crate::support::TOKEN;
        let fields = format!("Host: localhost\r\nAuthorization: Bearer {token}\r\n");
        crate::support::http(self.admin, &format!("POST {path} HTTP/1.1\r\n{fields}\r\n")).body
    }

    fn ask(&self, name: &str) -> Client {
        let mut client = self.proxy.connect();
        client.send(format!("{name}\n").as_bytes());
        client
    }

    /// Brings the text that the next fetch asks for.
    fn bring(&self, name: &str) {
        let asked = self.upstream.accept().skip(name.len() + 2);
        asked.send(TEXT).close();
    }

    fn miss_all(&self) {
        for key in 0..KEYS {
            let mut client = self.ask(&key.to_string());
            self.bring(&key.to_string());
            assert_eq!(client.rest().unwrap(), TEXT);
        }
    }

    fn join(&self) {
        let clients = (0..=COLLAPSED).map(|_| self.ask("joined"));
        let mut clients: Vec<Client> = clients.collect();
        wait_until("all have joined", || {
            let flights = request(self.admin, "GET /flights").json();
            flights[0]["readers"] == COLLAPSED + 1
        });
        self.bring("joined");
        for client in &mut clients {
            assert_eq!(client.rest().unwrap(), TEXT);
        }
    }

    /// Hits, failures and connections without a request, at the same time.
    fn crowd(&self) {
        let addr = self.proxy.addr;
        let part = |all: u64, thread| (0..all).filter(move |at| at % THREADS == thread);
        let work = move |thread| {
            for at in part(HITS, thread) {
                let name = format!("{}\n", at % KEYS);
                assert_eq!(Client::ask(addr, name.as_bytes()).unwrap(), TEXT);
            }
            for _ in part(UNASKED, thread) {
                drop(Client::connect(addr));
            }
            for _ in part(FAILURES, thread) {
                let is_answered = Client::ask(addr, &[b'x'; 2000]).is_ok();
                assert!(!is_answered, "no line is so long");
            }
        };
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| thread::spawn(move || work(thread)))
            .collect();
        threads.into_iter().for_each(|one| one.join().unwrap());
    }

    /// Stale answers, all before the refresh ends.
    fn go_stale(&self) {
        assert_eq!(self.post("/purge?key=0&soft"), "{\"purged\":1}\n");
        for _ in 0..STALE {
            assert_eq!(self.ask("0").rest().unwrap(), TEXT);
        }
        self.bring("0");
    }

    fn wait_for_rest(&self) {
        wait_until("all have ended", || {
            let status = self.status();
            let kept = &status["queue"]["kept"];
            status["requests"]["total"] == 10_000 && *kept == MISSES + 1
        });
    }

    /// What SIGUSR1 makes it log.
    fn summary(&self) -> Value {
        self.proxy.signal(Signal::USR1);
        loop {
            let line = self.log.recv_timeout(LONG).expect("a summary comes");
            let object: Value = serde_json::from_str(&line).unwrap();
            if object["event"] == "summary" {
                return object;
            }
        }
    }
}

#[test]
fn ten_thousand_requests_are_the_same_in_every_place() {
    let scene = Scene::start();
    scene.miss_all();
    scene.join();
    scene.crowd();
    scene.go_stale();
    scene.wait_for_rest();

    let status = scene.status();
    let metrics = request(scene.admin, "GET /metrics").body;
    let summary = scene.summary();
    let metric = |name: &str| -> u64 {
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("{name}: {metrics}"));
        value.parse().unwrap_or_else(|_| panic!("{name} {value}"))
    };

    for (class, count) in CLASSES {
        assert_eq!(status["requests"][class], count, "{class}");
        assert_eq!(summary["connections"][class], count, "{class}");
        let series = format!("poetry_requests_total{{class=\"{class}\"}}");
        assert_eq!(metric(&series), count, "{class}");

        let is_whole = !["failure", "unasked"].contains(&class);
        let bytes = if is_whole {
            count * TEXT.len() as u64
        } else {
            0
        };
        let series = format!("poetry_sent_bytes_total{{class=\"{class}\"}}");
        assert_eq!(metric(&series), bytes, "{class}");
    }

    assert_eq!(status["failures"]["bad_request"], FAILURES);
    assert_eq!(summary["failures"]["bad_request"], FAILURES);
    let series = "poetry_request_failures_total{reason=\"bad_request\"}";
    assert_eq!(metric(series), FAILURES);

    let cached = MISSES;
    assert_eq!(summary["cache"]["keys"], cached);
    assert_eq!(metric("poetry_cache_entries{purpose=\"kept\"}"), cached);
    assert_eq!(summary["fetches"]["kept"], MISSES + 1);
    let refreshed = "poetry_fetches_total{cause=\"stale\",result=\"kept\"}";
    assert_eq!(metric(refreshed), 1);
    assert_eq!(metric("poetry_purges_total{scope=\"key\"}"), 1);
    assert_eq!(status["clients"]["open"], 0);
    assert_eq!(summary["connections"]["open"], 0);
    assert_eq!(metric("poetry_connections"), 0);
    assert_eq!(metric("poetry_panics_total"), 0);

    let at_a_glance = glance(scene.admin).replace(',', ""); // of 1,000
    let class = |(class, count): (&str, u64)| format!("\n  {class:<12}{count}\n");
    for line in CLASSES.map(class) {
        assert!(at_a_glance.contains(&line), "{line} {at_a_glance}");
    }
}

/// What `status` says as a command.
fn glance(admin: SocketAddr) -> String {
    let mut client = Client::connect(admin);
    client.send(b"status\n");
    text(&client.rest().unwrap())
}
