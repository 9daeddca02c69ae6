//! A real Prometheus scrapes the text and evaluates the rules.

use super::sample::{busy_proxy, scrape};
use super::{is_installed, path};
use crate::support::{Folder, LONG, Process, wait_until};
use poetry::admin::metrics::{Format, render};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::thread;

/// Serves the figures of a busy proxy until this process ends, and keeps what was asked
/// for.
fn serve() -> (SocketAddr, Arc<Mutex<BTreeSet<&'static str>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let sent = Arc::new(Mutex::new(BTreeSet::new()));
    let served = sent.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let kind = answer(stream.unwrap());
            served.lock().unwrap().insert(kind);
        }
    });
    (addr, sent)
}

fn answer(mut stream: TcpStream) -> &'static str {
    let mut accept = String::new();
    for line in BufReader::new(&stream).lines() {
        let line = line.unwrap();
        if line.is_empty() {
            break;
        }
        if let Some((_, value)) = line.split_once("Accept: ") {
            accept = value.to_string();
        }
    }

    let format = Format::accepted(&accept);
    let text = render(scrape(busy_proxy()), format);
    let kind = format.content_type();
    let length = text.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all((head + &text).as_bytes()).unwrap();
    kind
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
    let (target, sent) = serve();
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

    let text = render(scrape(busy_proxy()), Format::Text);
    let series = super::sample::series(&text).len().to_string();
    let stored =
        prometheus.query("count(%7Bjob=%22poetry%22,__name__=~%22(poetry|process)_.*%22%7D)");
    assert_eq!(stored, Some(series));
    let stale = prometheus.query("poetry_requests_total%7Bclass=%22stale%22%7D");
    assert_eq!(stale.as_deref(), Some("2"));
    let sent = sent.lock().unwrap().clone();
    assert_eq!(sent, BTreeSet::from([Format::OpenMetrics.content_type()]));

    let fires = || {
        let mut rules = prometheus.rules().into_iter();
        rules.any(|rule| rule["name"] == "PoetryUpstreamFailing" && rule["state"] == "pending")
    };
    wait_until("the alert of an upstream that is down", fires);
}
