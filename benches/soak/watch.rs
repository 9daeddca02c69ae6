//! Watches the proxies: every second their descriptors and memory, and in the end that they are as they were, idle, and
//! go when they are told to.

use crate::ledger::{Ledger, lock};
use crate::plan::{CLIENT_TIMEOUT, FETCH_TIMEOUT, MAX_CLIENTS, MAX_POEM, SLACK, UPSTREAM_CONNS};
use crate::proxies::Proxy;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often is looked.
pub const EVERY: Duration = Duration::from_secs(1);

/// Beside clients and fetches: one that is accepted just now to be answered at once, and one that is being closed.
const OTHER_DESCRIPTORS: usize = 4;

/// What an allocator may keep beside what is in use. The memory of a proxy that leaks nothing goes up and down with
/// what happens to be in flight; a leak of a hundred bytes a request would be past this within minutes.
const MEMORY_SLACK: u64 = 8 << 20;

/// A quarter of a shorter soak is no measure: the caches are still filling.
const SHORTEST_TREND: Duration = Duration::from_secs(60);

/// A proxy and what was seen of it.
pub struct Watched {
    pub proxy: Arc<Proxy>,
    /// Before its first client's request, and with nothing open.
    descriptors_at_start: usize,
    memory_at_start: u64,
    samples: Mutex<Vec<Sample>>,
}

#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub descriptors: usize,
    pub memory: u64,
}

impl Watched {
    /// From now on; the proxy has been warmed up, and is at rest.
    pub fn new(proxy: Arc<Proxy>) -> io::Result<Watched> {
        let (descriptors_at_start, memory_at_start) = (proxy.descriptors()?, proxy.memory()?);
        Ok(Watched {
            proxy,
            descriptors_at_start,
            memory_at_start,
            samples: Mutex::default(),
        })
    }

    /// The most of the whole soak.
    pub fn most(&self) -> Sample {
        let samples = lock(&self.samples);
        let descriptors = samples
            .iter()
            .map(|sample| sample.descriptors)
            .max()
            .unwrap_or_default();
        Sample {
            descriptors,
            memory: samples
                .iter()
                .map(|sample| sample.memory)
                .max()
                .unwrap_or_default(),
        }
    }

    pub fn sample(&self, ledger: &Ledger) -> io::Result<()> {
        let name = self.proxy.name;
        if !self.proxy.is_running()? {
            ledger.violation("process", format!("{name} has ended by itself"));
            return Ok(());
        }
        let sample = Sample {
            descriptors: self.proxy.descriptors()?,
            memory: self.proxy.memory()?,
        };
        let most = self.descriptors_at_start + MAX_CLIENTS + UPSTREAM_CONNS + OTHER_DESCRIPTORS;
        if sample.descriptors > most {
            ledger.violation(
                "descriptors",
                format!(
                    "{name} has {} descriptors, more than {most}",
                    sample.descriptors
                ),
            );
        }
        if sample.memory > self.memory_bound() {
            ledger.violation(
                "memory",
                format!(
                    "{name} has {} kB, more than {}",
                    sample.memory >> 10,
                    self.memory_bound() >> 10
                ),
            );
        }
        lock(&self.samples).push(sample);
        Ok(())
    }

    /// The capacity; what each fetch may burst it by where there is no room (DESIGN.md, "Poems over --max-poem"), and
    /// may copy when it makes one chunk of two; and the allocator's own.
    fn memory_bound(&self) -> u64 {
        const BURST: usize = 128 << 10;
        let fetches = UPSTREAM_CONNS * (BURST + MAX_POEM);
        self.memory_at_start + (self.proxy.capacity + fetches) as u64 + MEMORY_SLACK
    }

    /// All clients have left: nothing of theirs may be left, nothing may grow, and nothing may be done.
    pub fn check_rest(&self, ledger: &Ledger) -> io::Result<()> {
        let name = self.proxy.name;
        let (begun, start) = (Instant::now(), self.descriptors_at_start);
        while self.proxy.descriptors()? != start
            && begun.elapsed() < FETCH_TIMEOUT + CLIENT_TIMEOUT + SLACK
        {
            std::thread::sleep(Duration::from_millis(50));
        }
        let now = self.proxy.descriptors()?;
        if now != start {
            ledger.violation(
                "descriptors",
                format!("{name} has {now} descriptors in the end, and had {start}"),
            );
        }
        self.check_trend(ledger);
        self.check_idle(ledger)
    }

    fn check_trend(&self, ledger: &Ledger) {
        let samples = lock(&self.samples);
        if samples.len() < SHORTEST_TREND.as_secs() as usize {
            return;
        }
        let quarter = samples.len() / 4;
        let most = |part: &[Sample]| {
            part.iter()
                .map(|sample| sample.memory)
                .max()
                .unwrap_or_default()
        };
        let (second, last) = (
            most(&samples[quarter..2 * quarter]),
            most(&samples[3 * quarter..]),
        );
        if last > second + MEMORY_SLACK {
            let name = self.proxy.name;
            ledger.violation(
                "growth",
                format!(
                    "{name} has grown from {} to {} kB",
                    second >> 10,
                    last >> 10
                ),
            );
        }
    }

    fn check_idle(&self, ledger: &Ledger) -> io::Result<()> {
        const MOST_TICKS: u64 = 5; // of the hundred in a second
        let before = self.proxy.ticks()?;
        std::thread::sleep(Duration::from_secs(1));
        let used = self.proxy.ticks()? - before;
        if used > MOST_TICKS {
            ledger.violation(
                "idle",
                format!(
                    "{} uses {used} ticks of a second in which it is idle",
                    self.proxy.name
                ),
            );
        }
        Ok(())
    }

    /// SIGTERM.
    pub fn check_stop(&self, ledger: &Ledger) -> io::Result<()> {
        let (code, lines) = self.proxy.stop()?;
        if code != Some(0) {
            ledger.violation(
                "exit",
                format!(
                    "{} was told to end, and exited with {code:?}",
                    self.proxy.name
                ),
            );
        }
        let most = self.most();
        let (descriptors, memory) = (most.descriptors, most.memory >> 10);
        println!(
            "{:<26} at most {descriptors} descriptors, {memory} kB; {lines} lines of log",
            self.proxy.name
        );
        Ok(())
    }
}
