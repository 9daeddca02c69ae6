//! The store over restarts, with clocks that a test sets, and with damage.

mod ages;
mod damage;
mod files;
mod originals;
mod purges;
mod space;

use super::*;
use crate::observe::AccessRecord;
use crate::rt::block_on;
use crate::tier::Term;
use std::path::Path;

const MINUTE: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(60);
const MINUTE_MS: i64 = 60_000;

fn question(key: &str, wish: Wish) -> Question<'_> {
    Question {
        key: key.as_bytes(),
        wish,
        may_lead: true,
        ttl: 10 * MINUTE,
        grace: 10 * MINUTE,
    }
}

/// A clock that stands where a test puts it.
#[derive(Clone)]
struct Clocks(Arc<Mutex<ClockReading>>);

impl Clocks {
    fn new() -> Clocks {
        Clocks(Arc::new(Mutex::new(ClockReading {
            boot: [1; 16],
            boot_ms: 1000,
            wall_ms: 1_000_000_000,
        })))
    }

    fn clock(&self) -> ReadClocks {
        let clocks = self.clone();
        Arc::new(move || *clocks.0.lock().expect("a clock"))
    }

    /// Time passes.
    fn pass(&self, ms: i64) {
        let mut now = self.0.lock().expect("a clock");
        now.boot_ms += ms;
        now.wall_ms += ms;
    }

    /// The wall clock is set.
    fn set_wall(&self, by: i64) {
        self.0.lock().expect("a clock").wall_ms += by;
    }

    /// The machine is started again.
    fn reboot(&self) {
        let mut now = self.0.lock().expect("a clock");
        now.boot[0] += 1;
        now.boot_ms = 10;
    }
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Told {
    fn has(&self, word: &str) -> bool {
        let told = self.0.lock().expect("a list");
        told.iter().any(|other| other.contains(word))
    }
}

impl Observer for Told {
    fn request(&self, _: &AccessRecord<'_>) {}

    fn event(&self, event: Event<'_>) {
        if let Event::Store { news, .. } = event {
            let line = format!("{} {news}", news.word());
            self.0.lock().expect("a list").push(line);
        }
    }
}

/// A folder with a store, and clocks.
struct StoreSite {
    folder: tempfile::TempDir,
    clocks: Clocks,
    told: Arc<Told>,
    capacity: u64,
}

impl StoreSite {
    fn new() -> StoreSite {
        StoreSite {
            folder: tempfile::tempdir().expect("a folder"),
            clocks: Clocks::new(),
            told: Arc::default(),
            capacity: 1 << 30,
        }
    }

    /// On a file system in memory, if there is one: for a thousand stores in a row.
    fn in_memory() -> StoreSite {
        let mut site = StoreSite::new();
        if let Ok(folder) = tempfile::tempdir_in("/dev/shm") {
            site.folder = folder;
        }
        site
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("poems")
    }

    fn settings(&self) -> StoreSettings {
        StoreSettings {
            path: self.path(),
            capacity: self.capacity,
            ttl: 10 * MINUTE,
            longest_ttl: 20 * MINUTE,
            grace: 10 * MINUTE,
            answer_wait: LONG,
            clock: self.clocks.clock(),
        }
    }

    fn try_open(&self) -> Result<Arc<Store>, Error> {
        Ok(OpenStore::open(self.settings())?.start(self.told.clone()))
    }

    fn open(&self) -> Arc<Store> {
        self.try_open().expect("a store")
    }

    /// Opens, works, closes.
    fn run<T>(&self, work: impl FnOnce(&Store) -> T) -> T {
        let store = self.open();
        let done = work(&store);
        assert!(block_on(store.close(LONG)));
        done
    }

    fn keep(&self, texts: &[(&str, &[u8])]) {
        self.run(|store| texts.iter().for_each(|(key, text)| put(store, key, text)));
    }

    fn get(&self, key: &str) -> Option<(Vec<u8>, bool)> {
        self.run(|store| get(store, key))
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.path()).expect("a file")
    }
}

fn put(store: &Store, key: &str, text: &[u8]) {
    put_for(store, key, text, None);
}

fn put_for(store: &Store, key: &str, text: &[u8], ttl: Option<Duration>) {
    let claim = block_on(store.claim(question(key, Wish::Newer)));
    let Claim::Lead(mut lease) = claim else {
        panic!("no lease")
    };
    lease.fence();
    lease.commit(text.to_vec().into(), ttl);
}

/// A text, and whether it is fresh.
fn get(store: &Store, key: &str) -> Option<(Vec<u8>, bool)> {
    match block_on(store.claim(question(key, Wish::Text))) {
        Claim::Found(found) => {
            let Term::Until(freshness) = found.term else {
                panic!("the store knows how long")
            };
            let is_fresh = freshness.fresh_until > Instant::now();
            Some((found.text.to_vec(), is_fresh))
        }
        _ => None,
    }
}

fn wait_for_written(store: &Store, texts: u64) {
    let begun = Instant::now();
    while store.counts().written < texts {
        assert!(begun.elapsed() < LONG, "{:?}", store.counts());
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
