//! A real Prometheus scrapes a real proxy and evaluates the rules.

use super::sample::series;
use super::{is_installed, path};
use crate::support::{
    Client, FakeUpstream, Folder, LONG, Process, ServerProcess, request, unused_addr, wait_until,
};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::Receiver;

/// A proxy whose first server is dead, and which has kept a text of the second. It has
/// answered from the cache twice.
fn proxy_in_trouble() -> (ServerProcess, SocketAddr) {
    let upstream = FakeUpstream::new();
    let (dead, alive) = (unused_addr().to_string(), upstream.addr.to_string());
    let args = ["proxy", "--port", "0", "--admin", "0", &dead, &alive];
    let proxy = ServerProcess::start(&args);
    let admin = proxy.next_line().unwrap();
    let admin = admin.strip_prefix("Admin on ").unwrap().parse().unwrap();

    let mut miss = Client::connect(proxy.addr);
    upstream.accept().send(b"poem").close();
    assert_eq!(miss.rest().unwrap(), b"poem");
    for _ in 0..2 {
        assert_eq!(proxy.get().unwrap(), b"poem");
    }
    wait_until("both are counted", || {
        let text = request(admin, "GET /metrics").body;
        series(&text)[r#"poetry_requests_total{class="hit"}"#] == 2.0
    });
    (proxy, admin)
}

/// A Prometheus that scrapes one address each second.
struct Prometheus {
    addr: SocketAddr,
    _process: Process,
    /// Its log: it ends when that is closed.
    _lines: Receiver<String>,
    _folder: Folder,
}

impl Prometheus {
    fn start(target: SocketAddr) -> Prometheus {
        let folder = Folder::new();
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [path("dist/poetry.rules.yml")],
            "scrape_configs": [{
                "job_name": "poetry",
                "static_configs": [{"targets": [target.to_string()]}],
            }],
        });
        let config = folder.write("prometheus.yml", config.to_string());

        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={config}"))
            .arg(format!("--storage.tsdb.path={}", folder.arg("data")))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = Process::spawn(command);
        let lines = process.stderr_lines();
        let addr = loop {
            let line = lines.recv_timeout(LONG).unwrap();
            if let Some((_, addr)) = line.split_once("msg=\"Listening on\" address=") {
                break addr.trim().parse().unwrap();
            }
        };
        Prometheus {
            addr,
            _process: process,
            _lines: lines,
            _folder: folder,
        }
    }

    /// What its API answers; nothing while it isn't ready.
    fn get(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        write!(stream, "GET /api/v1/{path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_default()
    }

    /// The one number that a query finds.
    fn query(&self, query: &str) -> Option<String> {
        let answer = self.get(&format!("query?query={query}"));
        let number = answer["data"]["result"][0]["value"][1].as_str();
        number.map(str::to_string)
    }

    fn rules(&self) -> Vec<Value> {
        let answer = self.get("rules");
        let rules = answer["data"]["groups"][0]["rules"].as_array().cloned();
        rules.unwrap_or_default()
    }
}

#[test]
fn prometheus_scrapes_every_series_and_evaluates_every_rule() {
    if !is_installed("prometheus") {
        return;
    }
    let (_proxy, target) = proxy_in_trouble();
    let prometheus = Prometheus::start(target);

    let healthy = || {
        let targets = prometheus.get("targets");
        targets["data"]["activeTargets"][0]["health"] == "up"
    };
    wait_until("the target is up", healthy);
    let rules = || {
        let rules = prometheus.rules();
        rules.len() >= 12 && rules.iter().all(|rule| rule["health"] == "ok")
    };
    wait_until("each rule is evaluated without an error", rules);

    let text = request(target, "GET /metrics").body;
    let count = series(&text).len().to_string();
    let stored =
        prometheus.query("count(%7Bjob=%22poetry%22,__name__=~%22(poetry|process)_.*%22%7D)");
    assert_eq!(stored, Some(count));
    let hits = prometheus.query("poetry_requests_total%7Bclass=%22hit%22%7D");
    assert_eq!(hits.as_deref(), Some("2"));

    let fires = || {
        let mut rules = prometheus.rules().into_iter();
        rules.any(|rule| rule["name"] == "PoetryUpstreamFailing" && rule["state"] == "pending")
    };
    wait_until("the alert of an upstream that is down", fires);
}
