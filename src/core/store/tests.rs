//! The store over restarts, with clocks that a test sets, and with damage.

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

#[test]
fn a_text_is_there_after_a_restart() {
    let site = StoreSite::new();
    site.keep(&[("a", b"one"), ("b", b"two"), ("a", b"three")]);
    assert_eq!(site.get("a"), Some((b"three".to_vec(), true)));
    assert_eq!(site.get("b"), Some((b"two".to_vec(), true)));
    assert_eq!(site.get("c"), None);
    assert!(site.told.has("store_open 2 poems"));
}

#[test]
fn a_text_keeps_its_age_over_a_restart_whatever_the_clock_says() {
    let site = StoreSite::new();
    site.keep(&[("a", b"text")]);

    site.clocks.pass(9 * MINUTE_MS);
    for set in [60 * MINUTE_MS, -120 * MINUTE_MS, 60 * MINUTE_MS] {
        site.clocks.set_wall(set);
        assert_eq!(site.get("a"), Some((b"text".to_vec(), true)));
    }
    site.clocks.pass(MINUTE_MS);
    assert_eq!(site.get("a"), Some((b"text".to_vec(), false)), "stale");
    site.clocks.pass(10 * MINUTE_MS);
    assert_eq!(site.get("a"), None, "past its grace");
}

#[test]
fn a_text_keeps_its_age_over_a_start_of_the_machine() {
    let site = StoreSite::new();
    site.keep(&[("a", b"text")]);
    site.clocks.reboot();
    site.clocks.pass(9 * MINUTE_MS);
    assert_eq!(site.get("a"), Some((b"text".to_vec(), true)));

    site.clocks.set_wall(-10 * MINUTE_MS);
    assert_eq!(site.get("a"), None, "before its end");
    site.clocks.set_wall(11 * MINUTE_MS);
    assert_eq!(site.get("a"), Some((b"text".to_vec(), false)));
}

#[test]
fn texts_past_their_ttl_are_told_at_the_start() {
    let site = StoreSite::new();
    site.keep(&[("a", b"1"), ("b", b"2")]);
    site.clocks.pass(11 * MINUTE_MS);
    site.keep(&[("c", b"3"), ("d", b"4"), ("e", b"5")]);
    site.clocks.pass(MINUTE_MS);
    site.run(|_| ());
    assert!(site.told.has("store_open 5 poems"), "{:?}", site.told.0);
    assert!(site.told.has(" 2 past their ttl"), "{:?}", site.told.0);
}

#[test]
fn a_hard_purge_of_all_leaves_nothing() {
    let site = StoreSite::new();
    site.keep(&[("a", b"one"), ("b", b"two")]);
    site.run(|store| {
        put(store, "c", b"on its way");
        store.purge_begins();
        store.purge(Erase::All, Purge::Hard);
        assert_eq!(get(store, "a"), None);
        put(store, "d", b"new");
    });
    for key in ["a", "b", "c"] {
        assert_eq!(site.get(key), None, "{key}");
    }
    assert_eq!(site.get("d"), Some((b"new".to_vec(), true)));
}

#[test]
fn a_soft_purge_of_all_leaves_stale_texts_for_the_grace() {
    let site = StoreSite::new();
    site.keep(&[("a", b"one")]);
    site.run(|store| {
        store.purge_begins();
        store.purge(Erase::All, Purge::Soft);
        assert_eq!(get(store, "a"), Some((b"one".to_vec(), false)));
        put(store, "b", b"new");
    });
    assert_eq!(site.get("a"), Some((b"one".to_vec(), false)));
    assert_eq!(site.get("b"), Some((b"new".to_vec(), true)));

    site.clocks.pass(10 * MINUTE_MS);
    assert_eq!(site.get("a"), None);
    assert_eq!(site.get("b"), Some((b"new".to_vec(), false)));
}

#[test]
fn a_purge_of_some_spares_the_others() {
    let site = StoreSite::new();
    site.keep(&[("a", b"1"), ("ab", b"2"), ("b", b"3"), ("c", b"4")]);
    site.run(|store| {
        store.purge_begins();
        store.purge(Erase::Key(b"c".to_vec()), Purge::Soft);
        store.purge_begins();
        let picks = |key: &[u8]| key.starts_with(b"a");
        store.purge(Erase::Picked(Box::new(picks)), Purge::Hard);
    });
    let left: Vec<&str> = ["a", "ab", "b", "c"]
        .into_iter()
        .filter(|key| site.get(key).is_some())
        .collect();
    assert_eq!(left, ["b"]);
}

#[test]
fn a_text_that_lands_during_a_purge_is_not_written() {
    let site = StoreSite::new();
    site.run(|store| {
        let Claim::Lead(mut lease) = block_on(store.claim(question("a", Wish::Text))) else {
            panic!("no lease")
        };
        lease.fence();
        store.purge_begins();
        assert_eq!(get(store, "a"), None, "in the middle of it, all is missing");
        store.purge(Erase::All, Purge::Hard);
        lease.commit(b"old".to_vec().into(), None);
    });
    assert_eq!(site.get("a"), None);
}

#[test]
fn a_copy_from_before_a_purge_is_not_current() {
    let site = StoreSite::new();
    site.keep(&[("a", b"one")]);
    site.run(|store| {
        let Claim::Found(found) = block_on(store.claim(question("a", Wish::Text))) else {
            panic!("not found")
        };
        assert!(store.is_current(found.epoch));
        store.purge_begins();
        assert!(!store.is_current(found.epoch));
        store.purge(Erase::Key(b"b".to_vec()), Purge::Hard);
        assert!(!store.is_current(found.epoch));
    });
}

#[test]
fn a_second_user_is_refused_and_the_first_goes_on() {
    let site = StoreSite::new();
    site.run(|store| {
        let error = site.try_open().err().expect("it is in use").to_string();
        assert!(
            error.ends_with("poems: in use by another process"),
            "{error}"
        );
        put(store, "a", b"one");
    });
    assert_eq!(site.get("a"), Some((b"one".to_vec(), true)));
}

#[test]
fn a_file_that_is_something_else_is_refused_and_left_alone() {
    let site = StoreSite::new();
    let refused = |bytes: &[u8]| {
        std::fs::write(site.path(), bytes).expect("written");
        let error = site.try_open().err().expect("refused");
        assert_eq!(site.bytes(), bytes);
        error.to_string()
    };
    let error = refused(b"Dear diary,");
    assert!(
        error.ends_with("not a store: --store never overwrites other files"),
        "{error}"
    );

    std::fs::remove_file(site.path()).expect("removed");
    let other = rusqlite::Connection::open(site.path()).expect("a database");
    other.execute_batch("CREATE TABLE t (a)").expect("a table");
    drop(other);
    let error = refused(&site.bytes());
    assert!(error.ends_with("a database of another program"), "{error}");

    std::fs::remove_file(site.path()).expect("removed");
    std::fs::create_dir(site.path()).expect("a folder");
    let error = site.try_open().err().expect("refused").to_string();
    assert!(error.ends_with("a folder; --store wants a file"), "{error}");
}

#[test]
fn a_store_of_a_newer_version_is_left_as_it_is() {
    let site = StoreSite::new();
    site.keep(&[("a", b"one")]);
    let file = rusqlite::Connection::open(site.path()).expect("a database");
    file.pragma_update(None, "user_version", 2).expect("set");
    drop(file);

    let before = site.bytes();
    site.run(|store| {
        assert!(!store.counts().is_open);
        assert!(matches!(
            block_on(store.claim(question("a", Wish::Text))),
            Claim::Alone
        ));
    });
    assert!(site.told.has("store_newer"));
    assert_eq!(site.bytes(), before);
}

/// The store with these bytes, and what was told: a text is right or missing.
fn assert_right_or_missing(site: &StoreSite, bytes: &[u8], what: &str) -> bool {
    for suffix in ["", "-wal", "-shm", ".damaged", ".damaged-wal"] {
        let _absent = std::fs::remove_file(files::beside(&site.path(), suffix));
    }
    std::fs::write(site.path(), bytes).expect("written");
    let Ok(store) = site.try_open() else {
        return false; // it is told that this is no store
    };
    for (key, text) in [("a", b"one"), ("b", b"two")] {
        let found = get(&store, key);
        let is_right = found
            .as_ref()
            .is_none_or(|(found, is_fresh)| found == text && *is_fresh);
        assert!(is_right, "{what}: {key}: {found:?}");
    }
    if store.counts().is_open {
        put(&store, "new", b"new"); // else it is of a newer version now
    }
    assert!(block_on(store.close(LONG)), "{what}");
    true
}

#[test]
fn any_flipped_bit_costs_at_most_texts() {
    let site = StoreSite::new();
    site.keep(&[("a", b"one"), ("b", b"two")]);
    let bytes = site.bytes();
    // Each bit would take minutes; in use is what is not zero.
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    for (turn, at) in used.iter().enumerate().step_by(7) {
        let mut damaged = bytes.clone();
        damaged[*at] ^= 1 << (turn / 7 % 8);
        assert_right_or_missing(&site, &damaged, &format!("bit of byte {at}"));
    }
}

#[test]
fn a_file_that_is_cut_costs_at_most_texts() {
    let site = StoreSite::new();
    site.keep(&[("a", b"one"), ("b", b"two")]);
    let bytes = site.bytes();
    for length in (0..bytes.len()).step_by(1009).chain(1..100) {
        assert_right_or_missing(&site, &bytes[..length], &format!("cut at {length}"));
    }
}

#[test]
fn a_damaged_text_is_told_and_costs_no_other() {
    let site = StoreSite::new();
    site.keep(&[("a", b"a text of some length"), ("b", b"two")]);
    let mut bytes = site.bytes();
    let is_text = |part: &[u8]| part == b"a text of some length";
    let at = bytes.windows(21).position(is_text).expect("it is there");
    bytes[at] ^= 1;
    std::fs::write(site.path(), &bytes).expect("written");

    assert_eq!(site.get("a"), None);
    assert!(site.told.has("store_damaged_text"));
    assert_eq!(site.get("b"), Some((b"two".to_vec(), true)));
}

#[test]
fn a_damaged_file_is_put_aside() {
    let site = StoreSite::new();
    site.keep(&[("a", b"one")]);
    let mut bytes = site.bytes();
    bytes[100..8192].fill(0xff);
    std::fs::write(site.path(), &bytes).expect("written");

    assert_eq!(site.get("a"), None);
    assert!(site.told.has("store_damaged "), "{:?}", site.told.0);
    assert_eq!(
        std::fs::read(files::beside(&site.path(), ".damaged")).expect("aside"),
        bytes
    );
    site.keep(&[("a", b"again")]);
    assert_eq!(site.get("a"), Some((b"again".to_vec(), true)));
}

fn size_of(path: &Path) -> u64 {
    let size = |suffix| std::fs::metadata(files::beside(path, suffix)).map_or(0, |file| file.len());
    size("") + size("-wal")
}

#[test]
fn the_capacity_is_never_passed_and_the_oldest_texts_go() {
    let mut site = StoreSite::new();
    site.capacity = 2 << 20;
    let most = site.capacity;
    let store = site.open();
    for turn in 0..400u64 {
        let text = vec![turn as u8; 1000 + (turn as usize * 7919) % 60_000];
        put(&store, &turn.to_string(), &text);
        if turn % 10 == 0 {
            let counts = store.counts();
            wait_for_written(&store, turn + 1 - counts.dropped);
        }
        assert!(size_of(&site.path()) <= most, "{turn}");
    }
    wait_for_written(&store, 400 - store.counts().dropped);
    assert!(get(&store, "399").is_some());
    assert!(get(&store, "0").is_none());
    assert!(block_on(store.close(LONG)));

    site.capacity = 1 << 20;
    site.run(|store| assert!(get(store, "399").is_some()));
    assert!(
        size_of(&site.path()) <= 1 << 20,
        "a lower capacity holds at once"
    );
}

#[test]
fn a_reader_that_stays_costs_texts_but_no_space() {
    let mut site = StoreSite::new();
    site.capacity = 2 << 20;
    let store = site.open();
    put(&store, "first", b"text");
    wait_for_written(&store, 1);

    let reader = rusqlite::Connection::open(site.path()).expect("a reader");
    let count = "BEGIN; SELECT count(*) FROM poems";
    reader.execute_batch(count).expect("a transaction");
    for turn in 0..200 {
        put(&store, &turn.to_string(), &[0; 50_000]);
        std::thread::park_timeout(Duration::from_millis(2));
        assert!(size_of(&site.path()) <= site.capacity * 105 / 100, "{turn}");
    }
    let begun = Instant::now();
    while !site.told.has("store_held") {
        assert!(begun.elapsed() < LONG, "{:?}", store.counts());
        put(&store, "more", &[0; 50_000]);
        std::thread::park_timeout(Duration::from_millis(2));
    }
    assert!(size_of(&site.path()) <= site.capacity * 105 / 100);

    drop(reader);
    while !site.told.has("store_writable") {
        assert!(begun.elapsed() < LONG, "{:?}", store.counts());
        put(&store, "last", b"text");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert!(block_on(store.close(LONG)));
}

#[test]
fn a_text_longer_than_the_log_is_not_kept() {
    let mut site = StoreSite::new();
    site.capacity = 1 << 20;
    site.keep(&[("a", &[1; 300_000]), ("b", b"two")]);
    assert!(site.told.has("store_queue_full"));
    assert_eq!(site.get("a"), None);
    assert_eq!(site.get("b"), Some((b"two".to_vec(), true)));
}

#[test]
fn a_store_that_can_t_be_made_is_an_error_that_names_its_path() {
    let mut settings = StoreSite::new().settings();
    settings.path = "/nonexistent/poems".into();
    let error = OpenStore::open(settings)
        .err()
        .expect("an error")
        .to_string();
    assert!(
        error.starts_with("/nonexistent/poems.lock: no such file"),
        "{error}"
    );
}

#[test]
fn texts_of_many_sizes_come_back_as_they_were() {
    let site = StoreSite::new();
    let sizes = [1, 8100, 8191, 8192, 8193, 65_025, 1 << 20, 3 << 20];
    let text = |size: usize| -> Vec<u8> { (0..size).map(|at| (at ^ (at >> 9)) as u8).collect() };
    site.run(|store| {
        for size in sizes {
            put(store, &size.to_string(), &text(size));
        }
    });
    for size in sizes {
        let found = site.get(&size.to_string()).expect("it is kept");
        assert!(found.0 == text(size), "{size}");
    }
}

#[test]
fn a_stopped_store_answers_nothing_and_takes_nothing() {
    let site = StoreSite::new();
    let store = site.open();
    assert!(block_on(store.close(LONG)));
    assert!(matches!(
        block_on(store.claim(question("a", Wish::Text))),
        Claim::Alone
    ));
    store.purge_begins();
    store.purge(Erase::All, Purge::Hard);
}

#[test]
fn a_text_with_a_ttl_of_its_own_keeps_it_within_what_this_run_allows() {
    let site = StoreSite::new();
    site.run(|store| {
        put_for(store, "short", b"text", Some(MINUTE));
        put_for(store, "long", b"text", Some(15 * MINUTE));
        put_for(store, "longer", b"text", Some(600 * MINUTE));
    });
    let is_fresh = |key| site.get(key).expect("it is kept").1;
    site.clocks.pass(2 * MINUTE_MS);
    assert!(!is_fresh("short") && is_fresh("long") && is_fresh("longer"));
    site.clocks.pass(10 * MINUTE_MS);
    assert!(is_fresh("long") && is_fresh("longer"));
    assert_eq!(site.get("short"), None);
    site.clocks.pass(8 * MINUTE_MS);
    assert!(!is_fresh("long") && !is_fresh("longer"));
}
