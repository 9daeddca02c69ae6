//! Watches the proxies: their descriptors and memory every second. At the end each must
//! be as it was at the start, use no processor time, and end when it is told to.

use crate::ledger::{Ledger, lock};
use crate::plan::{CLIENT_TIMEOUT, FETCH_TIMEOUT, MAX_POEM, SLACK, UPSTREAM_CONNS};
use crate::proxies::Proxy;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The time between two samples.
pub const EVERY: Duration = Duration::from_secs(1);

/// Beside clients and fetches: one that has just been accepted to be answered at once,
/// one that is being closed, an operator, and two connections to the server of a fleet
/// beside two that are being closed.
const OTHER_DESCRIPTORS: usize = 8;

/// What an allocator may keep beside what is in use, in bytes. The memory of a proxy
/// that leaks nothing goes up and down with what happens to be in flight. A leak of a
/// hundred bytes a request would exceed this within minutes.
const MEMORY_SLACK: u64 = 8 << 20;

/// In a shorter soak a quarter shows no trend: the caches are still filling.
const SHORTEST_TREND: Duration = Duration::from_secs(60);

/// A proxy and its samples.
pub struct Watched {
    pub proxy: Arc<Proxy>,
    /// Before the first client's request, with no connection open.
    descriptors_at_start: usize,
    memory_at_start: u64,
    samples: Mutex<Vec<Sample>>,
}

#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub descriptors: usize,
    /// In bytes.
    pub memory: u64,
}

impl Watched {
    /// Starts to watch a proxy that is warmed up and at rest.
    pub fn new(proxy: Arc<Proxy>) -> io::Result<Watched> {
        let descriptors_at_start = proxy.descriptors()?;
        let memory_at_start = proxy.memory()?;
        Ok(Watched {
            proxy,
            descriptors_at_start,
            memory_at_start,
            samples: Mutex::default(),
        })
    }

    /// The highest values of the whole soak.
    pub fn most(&self) -> Sample {
        let samples = lock(&self.samples);
        let descriptors = samples.iter().map(|sample| sample.descriptors).max();
        Sample {
            descriptors: descriptors.unwrap_or_default(),
            memory: most_memory(&samples),
        }
    }

    /// Takes one sample and checks it.
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
        self.check_descriptors(sample.descriptors, ledger);
        self.check_memory(sample.memory, ledger);
        lock(&self.samples).push(sample);
        Ok(())
    }

    fn check_descriptors(&self, open: usize, ledger: &Ledger) {
        let options = self.proxy.options();
        let clients = match options.store {
            None => options.max_clients,
            Some(_) => 2 * options.max_clients, // so many that half of them wait half-closed
        };
        let most = self.descriptors_at_start + clients + UPSTREAM_CONNS + OTHER_DESCRIPTORS;
        if open > most {
            let name = self.proxy.name;
            let what = format!("{name} has {open} descriptors, more than {most}");
            ledger.violation("descriptors", what);
        }
    }

    fn check_memory(&self, bytes: u64, ledger: &Ledger) {
        let most = self.memory_bound();
        if bytes > most {
            let name = self.proxy.name;
            let what = format!("{name} has {} kB, more than {}", bytes >> 10, most >> 10);
            ledger.violation("memory", what);
        }
    }

    /// The sum of: the capacity; what each fetch may hold beyond it where a poem does
    /// not fit (DESIGN.md, "Poems over --max-poem"), and may copy to join two chunks;
    /// and what the allocator keeps.
    fn memory_bound(&self) -> u64 {
        const BURST: usize = 128 << 10;
        let fetches = UPSTREAM_CONNS * (BURST + MAX_POEM);
        self.memory_at_start + (self.proxy.options().capacity + fetches) as u64 + MEMORY_SLACK
    }

    /// Checks a proxy that all clients have left: their descriptors are closed, memory
    /// has not grown, and the process is idle.
    pub fn check_rest(&self, ledger: &Ledger) -> io::Result<()> {
        const PAUSE: Duration = Duration::from_millis(50);
        const PATIENCE: Duration = FETCH_TIMEOUT
            .saturating_add(CLIENT_TIMEOUT)
            .saturating_add(SLACK);

        let wanted = self.descriptors_at_start;
        let start = Instant::now();
        while self.proxy.descriptors()? != wanted && start.elapsed() < PATIENCE {
            std::thread::sleep(PAUSE);
        }

        let now = self.proxy.descriptors()?;
        if now != wanted {
            let name = self.proxy.name;
            let what = format!("{name} has {now} descriptors at the end, and had {wanted}");
            ledger.violation("descriptors", what);
        }
        self.check_trend(ledger);
        self.check_idle(ledger)
    }

    /// The memory of the last quarter must not exceed that of the second.
    fn check_trend(&self, ledger: &Ledger) {
        let samples = lock(&self.samples);
        if samples.len() < SHORTEST_TREND.as_secs() as usize {
            return;
        }

        let quarter = samples.len() / 4;
        let second = most_memory(&samples[quarter..2 * quarter]);
        let last = most_memory(&samples[3 * quarter..]);
        if last > second + MEMORY_SLACK {
            let name = self.proxy.name;
            let what = format!("{name} grew from {} to {} kB", second >> 10, last >> 10);
            ledger.violation("growth", what);
        }
    }

    fn check_idle(&self, ledger: &Ledger) -> io::Result<()> {
        const MOST_TICKS: u64 = 5; // of the hundred in a second

        let before = self.proxy.ticks()?;
        std::thread::sleep(Duration::from_secs(1));
        let used = self.proxy.ticks()? - before;
        if used > MOST_TICKS {
            let name = self.proxy.name;
            let what = format!("{name} used {used} ticks of a second in which it was idle");
            ledger.violation("idle", what);
        }
        Ok(())
    }

    /// Sends SIGTERM and checks that the process exits with 0.
    pub fn check_stop(&self, ledger: &Ledger) -> io::Result<()> {
        let name = self.proxy.name;
        let (code, lines) = self.proxy.stop()?;
        if code != Some(0) {
            let what = format!("{name} was told to end, and exited with {code:?}");
            ledger.violation("exit", what);
        }

        let Sample {
            descriptors,
            memory,
        } = self.most();
        let memory = memory >> 10;
        println!("{name:<26} at most {descriptors} descriptors, {memory} kB; {lines} lines of log");
        Ok(())
    }
}

fn most_memory(samples: &[Sample]) -> u64 {
    let memory = samples.iter().map(|sample| sample.memory);
    memory.max().unwrap_or_default()
}
