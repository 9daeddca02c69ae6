//! A little server that stands in for the admin endpoint: the page's own files and
//! headers, and JSON made by the renderers from figures that the test sets.

use poetry::admin::clock::Clock;
use poetry::admin::history::{History, SAMPLE_INTERVAL};
use poetry::admin::keys;
use poetry::admin::notices::Notices;
use poetry::admin::page;
use poetry::admin::status::{About, StatusParts, status};
use poetry::control::{FlightView, KeyList, KeyView, Phase, Snapshot};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::spawn;
use std::time::{Duration, Instant, SystemTime};

/// What it tells.
pub struct Scene {
    pub about: About,
    pub snapshot: Snapshot,
    pub history: History,
    pub notices: Notices,
    pub flights: Vec<FlightView>,
    pub keys: Vec<KeyView>,
    /// The number of all keys, shown or not.
    pub total: u64,
    /// How many keys one page looks at.
    pub looked_at: usize,
    pub is_draining: bool,
    /// Whether it closes connections without an answer.
    pub is_down: bool,
    /// Whether it wants a token.
    pub is_closed: bool,
    pub now: Instant,
    pub wall: SystemTime,
    /// Each request: its method and target.
    pub asked: Vec<(String, String)>,
    /// What the browser said of where a change came from.
    pub sites: Vec<String>,
}

impl Scene {
    /// A service of which nothing is known yet. It started five minutes ago.
    pub fn new(command: &'static str, snapshot: Snapshot) -> Scene {
        let started = Instant::now();
        let caches = snapshot.cache.is_some();
        let time = |seconds| caches.then(|| Duration::from_secs(seconds));
        let about = About {
            command,
            version: env!("CARGO_PKG_VERSION"),
            pid: 4711,
            protocol: "line".to_string(),
            listen: vec!["192.0.2.10:43".to_string()],
            ttl: time(86_400),
            grace: time(7 * 86_400),
        };
        Scene {
            about,
            snapshot,
            history: History::new(started),
            notices: Notices::new(),
            flights: Vec::new(),
            keys: Vec::new(),
            total: 0,
            looked_at: 1000,
            is_draining: false,
            is_down: false,
            is_closed: false,
            now: started,
            wall: SystemTime::now(),
            asked: Vec::new(),
            sites: Vec::new(),
        }
    }

    /// Lets five minutes pass: `change` happens before each sample.
    pub fn pass(&mut self, change: impl Fn(&mut Scene, u32)) {
        for number in 1..=150 {
            self.now += SAMPLE_INTERVAL;
            change(self, number);
            self.history.take(&self.snapshot, self.now);
        }
    }

    /// The status; the fetches have gone on for a second.
    fn status(&mut self) -> String {
        for flight in &mut self.flights {
            flight.age += Duration::from_secs(1);
            if flight.phase == Phase::Streaming {
                flight.bytes += 182_000;
            }
        }
        status(&StatusParts {
            about: &self.about,
            snapshot: &self.snapshot,
            history: &self.history,
            span: Duration::from_secs(300),
            notices: &self.notices,
            flights: Some(&self.flights),
            is_draining: self.is_draining,
            clock: &Clock::at(self.now, self.wall),
        })
    }

    /// The keys of a prefix. A page of them ends after `looked_at` keys of all.
    fn key_list(&self, query: &str) -> String {
        let field = |name: &str| query.split('&').find_map(|field| field.strip_prefix(name));
        let prefix = field("prefix=").unwrap_or_default();
        let begin = field("cursor=").map_or(0, |cursor| cursor.parse().unwrap());
        let end = self.keys.len().min(begin + self.looked_at);

        let fits = |key: &&KeyView| keys::encoded(&key.name).starts_with(prefix);
        let list = KeyList {
            keys: self.keys[begin..end].iter().filter(fits).cloned().collect(),
            next: (end < self.keys.len()).then_some(end as u64),
            total: self.total,
        };
        keys::keys(&list).to_string()
    }

    /// Purges what the query names, and says how many that were.
    fn purge(&mut self, query: &str) -> String {
        let before = self.keys.len();
        match query.strip_prefix("key=") {
            Some(id) => self.keys.retain(|key| keys::encoded(&key.name) != id),
            None => self.keys.clear(),
        }
        format!("{{\"purged\":{}}}", before - self.keys.len())
    }
}

/// The server.
pub struct StandIn {
    pub addr: SocketAddr,
    scene: Arc<Mutex<Scene>>,
}

impl StandIn {
    pub fn start(scene: Scene) -> StandIn {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let scene = Arc::new(Mutex::new(scene));

        let shared = scene.clone();
        spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = shared.clone();
                spawn(move || answer(stream, &shared));
            }
        });
        StandIn { addr, scene }
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.addr)
    }

    pub fn scene(&self) -> MutexGuard<'_, Scene> {
        self.scene.lock().unwrap()
    }

    /// How often this was asked for, by the beginning of its target.
    pub fn count(&self, method: &str, target: &str) -> usize {
        let scene = self.scene();
        let is_it = |(m, t): &&(String, String)| m == method && t.starts_with(target);
        scene.asked.iter().filter(is_it).count()
    }
}

/// Answers one request, and closes.
fn answer(mut stream: TcpStream, scene: &Mutex<Scene>) -> Option<()> {
    let mut head = Vec::new();
    let mut reader = BufReader::new((&stream).take(8 << 10));
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end().to_string();
        if line.is_empty() {
            break;
        }
        head.push(line);
    }

    let mut words = head.first()?.split(' ').map(str::to_string);
    let (method, target) = (words.next()?, words.next()?);
    let mut scene = scene.lock().unwrap();
    scene.asked.push((method.clone(), target.clone()));
    if scene.is_down {
        return None;
    }
    if method == "POST" {
        let lines = head.iter().map(|line| line.to_lowercase());
        let mut site = lines.filter_map(|line| Some(line.strip_prefix("sec-fetch-site: ")?.into()));
        scene.sites.push(site.next().unwrap_or_default());
    }

    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let json = "application/json";
    let is_open = !scene.is_closed || page::file(path).is_some();
    let status = if is_open { "200 OK" } else { "403 Forbidden" };
    let (kind, body) = match (method.as_str(), path) {
        _ if !is_open => ("text/plain", "a token is needed".to_string()),
        ("GET", "/status") => (json, scene.status()),
        ("GET", "/keys") => (json, scene.key_list(query)),
        ("POST", "/purge") => (json, scene.purge(query)),
        ("POST", "/refresh") => (json, "{}".to_string()),
        _ => {
            let (kind, text) = page::file(path)?;
            (kind, text.to_string())
        }
    };
    drop(scene);

    let headers = page::HEADERS.map(|(name, value)| format!("{name}: {value}\r\n"));
    let reply = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n{}connection: \
         close\r\n\r\n{body}",
        body.len(),
        headers.concat()
    );
    stream.write_all(reply.as_bytes()).ok()
}
