//! What happens to a fleet and its server during a soak, one thing after the other,
//! and how many fetches that excuses. The proxy with a file is killed and purged
//! among them.

use crate::ledger::{Ledger, Purges};
use crate::plan::{KEYS_OF_FLEET, TROUBLE_PAUSE, TTL, UPSTREAM_CONNS, Weighted, choose};
use crate::proxies::Proxy;
use crate::server::Server;
use fastrand::Rng;
use rustix::process::Signal;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Clone, Copy)]
enum Trouble {
    Stop,
    PauseWrites,
    PauseAll,
    RestartEmpty,
    RestartWithData,
    Flush,
    DeleteSome,
    Disconnect,
    KillProxy,
    Purge,
    Reload,
    None,
}

/// The kinds of trouble, their weights, and the names they are counted by.
const TROUBLES: [Weighted<Trouble>; 12] = [
    (Trouble::Stop, 4, "stops the server"),
    (Trouble::PauseWrites, 2, "pauses its writes"),
    (Trouble::PauseAll, 2, "pauses all its commands"),
    (Trouble::RestartEmpty, 3, "kills it, restarts it empty"),
    (Trouble::RestartWithData, 3, "kills it, restores a snapshot"),
    (Trouble::Flush, 1, "empties it"),
    (Trouble::DeleteSome, 3, "deletes some of its names"),
    (Trouble::Disconnect, 2, "ends its connections"),
    (Trouble::KillProxy, 4, "kills a proxy"),
    (Trouble::Purge, 3, "purges a proxy"),
    (Trouble::Reload, 2, "sends SIGHUP"),
    (Trouble::None, 5, "leaves all in peace"),
];

/// How long after a trouble the fleet may be on its own: until its connections are
/// opened again and its breakers are closed.
const RECOVERY: Duration = Duration::from_secs(4);

/// Within how long a purge of one proxy reaches all, on a loaded machine.
const PURGE_REACHES_ALL: Duration = Duration::from_millis(500);

/// The server and its proxies, and what was done to them.
pub struct Fleet {
    pub server: Server,
    /// The proxies, and their purges. The last one has a file, and no part in the
    /// fleet.
    pub proxies: Vec<(Arc<Proxy>, Arc<Purges>)>,
    pub excuses: Excuses,
    last_trouble: Instant,
}

/// Why there may be more fetches than one for each key and ttl.
#[derive(Default)]
pub struct Excuses {
    /// Of all keys: after a purge, or when the server has lost all.
    all_lost: u64,
    /// Of single keys.
    names_deleted: u64,
    /// Proxies that were killed amid their fetches.
    kills: u64,
    /// What killed proxies had counted.
    counted: Counted,
}

/// What the proxies of the fleet count.
#[derive(Clone, Copy, Default)]
pub struct Counted {
    alone: u64,
    taken_over: u64,
    deposed: u64,
    /// Texts that could not be shared.
    dropped: u64,
    follow: u64,
    lead: u64,
}

impl Counted {
    fn of(proxy: &Proxy) -> io::Result<Counted> {
        let status = proxy.status()?;
        let number = |path: &str| status.pointer(path).and_then(|n| n.as_u64());
        let number = |path| number(path).ok_or_else(|| io::Error::other(format!("no {path}")));
        Ok(Counted {
            alone: number("/fleet/alone")?,
            taken_over: number("/fleet/takeover")?,
            deposed: number("/fleet/deposed")?,
            dropped: number("/store/dropped")?,
            follow: number("/fleet/follow")?,
            lead: number("/fleet/lead")?,
        })
    }

    fn add(&mut self, other: Counted) {
        self.alone += other.alone;
        self.taken_over += other.taken_over;
        self.deposed += other.deposed;
        self.dropped += other.dropped;
        self.follow += other.follow;
        self.lead += other.lead;
    }
}

impl Fleet {
    pub fn new(server: Server, proxies: Vec<(Arc<Proxy>, Arc<Purges>)>) -> Fleet {
        Fleet {
            server,
            proxies,
            excuses: Excuses::default(),
            last_trouble: Instant::now(),
        }
    }

    /// How many of the proxies share the server.
    fn sharing(&self) -> usize {
        self.proxies.len() - 1
    }

    /// Troubles it until the soak is over.
    pub fn trouble(&mut self, ledger: &Ledger, rng: &mut Rng) -> io::Result<()> {
        while !ledger.is_over() {
            std::thread::sleep(Duration::from_millis(rng.u64(TROUBLE_PAUSE)));
            let (trouble, name) = choose(rng, &TROUBLES);
            ledger.count(name, "times");
            let begun = Instant::now();
            let failed = |e| {
                let seconds = begun.elapsed().as_secs_f64();
                io::Error::other(format!("what {name} failed after {seconds:.1} s: {e}"))
            };
            self.cause(trouble, rng).map_err(failed)?;

            if !matches!(trouble, Trouble::None | Trouble::Purge | Trouble::Reload) {
                self.last_trouble = Instant::now();
            }
        }
        Ok(())
    }

    fn cause(&mut self, trouble: Trouble, rng: &mut Rng) -> io::Result<()> {
        let some = |rng: &mut Rng, most| Duration::from_millis(rng.u64(50..most));
        match trouble {
            Trouble::Stop => {
                self.server.signal(Signal::STOP)?;
                std::thread::sleep(some(rng, 4_000));
                self.server.signal(Signal::CONT)
            }
            Trouble::PauseWrites => self.pause("WRITE", some(rng, 3_000)),
            Trouble::PauseAll => self.pause("ALL", some(rng, 3_000)),
            Trouble::RestartEmpty => {
                self.server.kill()?;
                std::thread::sleep(some(rng, 2_000));
                self.excuses.all_lost += 1;
                self.server.start_again(false)
            }
            Trouble::RestartWithData => {
                self.server.ask(&["SAVE"])?;
                std::thread::sleep(some(rng, 3_000));
                self.server.kill()?;
                std::thread::sleep(some(rng, 1_000));
                self.excuses.all_lost += 1; // what came since the snapshot
                self.server.start_again(true)
            }
            Trouble::Flush => {
                self.excuses.all_lost += 1;
                self.server.ask(&["FLUSHALL"]).map(|_ok| ())
            }
            Trouble::DeleteSome => self.delete_some(rng),
            Trouble::Disconnect => {
                self.server.ask(&["CLIENT", "KILL", "TYPE", "normal"])?;
                self.server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"])?;
                Ok(())
            }
            Trouble::KillProxy => self.kill_proxy(rng),
            Trouble::Purge => self.purge(rng),
            Trouble::Reload => {
                let (proxy, purges) = &self.proxies[rng.usize(..self.proxies.len())];
                self.excuses.all_lost += 1;
                purges.note_order();
                proxy.signal(Signal::HUP)
            }
            Trouble::None => {
                std::thread::sleep(RECOVERY);
                Ok(())
            }
        }
    }

    fn pause(&self, what: &str, time: Duration) -> io::Result<()> {
        let ms = time.as_millis().to_string();
        self.server.ask(&["CLIENT", "PAUSE", &ms, what])?;
        std::thread::sleep(time);
        Ok(())
    }

    fn delete_some(&mut self, rng: &mut Rng) -> io::Result<()> {
        const MOST: u64 = 20;

        for _ in 0..rng.u64(1..MOST) {
            let name = self.server.ask(&["RANDOMKEY"])?;
            self.server.ask(&["DEL", &name])?;
            self.excuses.names_deleted += 1;
            if !name.contains('{') {
                self.excuses.all_lost += 1; // a number of purges
            }
        }
        Ok(())
    }

    fn kill_proxy(&mut self, rng: &mut Rng) -> io::Result<()> {
        let number = rng.usize(..self.proxies.len());
        let is_sharing = number < self.sharing();
        let (proxy, purges) = &self.proxies[number];

        if is_sharing {
            self.excuses.counted.add(Counted::of(proxy)?);
            self.excuses.kills += 1;
            purges.clear(); // it may have owed a purge, and nobody else knows of it
        }
        proxy.kill_and_restart()
    }

    /// Purges all at one proxy. If the server was well for a while, that reaches all.
    fn purge(&mut self, rng: &mut Rng) -> io::Result<()> {
        let number = rng.usize(..self.proxies.len());
        let is_sharing = number < self.sharing();
        let is_calm = is_sharing && self.last_trouble.elapsed() > RECOVERY;

        let ordered = Instant::now();
        let told = &self.proxies[number];
        told.1.note_order();
        told.0.purge()?;
        told.1.note_gone(ordered);
        if is_sharing {
            self.excuses.all_lost += 1;
        }

        if is_calm {
            std::thread::sleep(PURGE_REACHES_ALL);
            for (_, purges) in &self.proxies[..self.sharing()] {
                purges.note_gone(ordered);
            }
        }
        Ok(())
    }

    /// Checks, at rest: how many fetches there were, and that the server holds no lease
    /// and no subscription to one.
    pub fn check(&self, whole: u64, time: Duration, ledger: &Ledger) -> io::Result<()> {
        let mut counted = self.excuses.counted;
        for (proxy, _) in &self.proxies[..self.sharing()] {
            counted.add(Counted::of(proxy)?);
        }
        let most = self.most_fetches(counted, time);
        println!(
            "\nthe fleet fetched {whole} whole texts, and might have fetched {most}; \
             {} fetches led, {} followed, {} alone, {} taken over, {} deposed, {} not shared",
            counted.lead,
            counted.follow,
            counted.alone,
            counted.taken_over,
            counted.deposed,
            counted.dropped
        );
        if whole > most {
            ledger.violation("fetches", format!("{whole}, more than {most}"));
        }

        self.check_empty(&["KEYS", "poetry:1:*:l:*"], "leases", ledger)?;
        let channels = ["PUBSUB", "CHANNELS", "poetry:1:*:l:*"];
        self.check_empty(&channels, "subscriptions", ledger)
    }

    /// One for each key and ttl, and those that are excused. The time of a fetch is not
    /// reckoned with, and allows a few more.
    fn most_fetches(&self, counted: Counted, time: Duration) -> u64 {
        let keys = KEYS_OF_FLEET as u64 + 1; // and the line without an end
        let excuses = &self.excuses;
        let terms = (time.as_millis() / TTL.as_millis()) as u64;
        let by_age = keys * (terms + 1);
        let by_loss = keys * excuses.all_lost + excuses.names_deleted;
        let by_kills = excuses.kills * UPSTREAM_CONNS as u64;
        let by_count = counted.alone + counted.taken_over + counted.deposed + counted.dropped;
        by_age + by_loss + by_kills + by_count
    }

    fn check_empty(
        &self,
        question: &[&str],
        what: &'static str,
        ledger: &Ledger,
    ) -> io::Result<()> {
        const PATIENCE: Duration = Duration::from_secs(5);
        const PAUSE: Duration = Duration::from_millis(50);

        let start = Instant::now();
        loop {
            let names = self.server.ask(question)?;
            if names.is_empty() {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                ledger.violation(what, format!("at the end there are {names}"));
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
    }
}
