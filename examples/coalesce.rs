//! Ten threads ask for one text at once, and it is fetched once. No network: the cache
//! and the flights know none.
//!
//! Run it with `cargo run --example coalesce`.

use poetry::cache::Policy;
use poetry::coalesce::{Coalescer, Found, Verdict};
use poetry::flight::{Read, Reader};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

fn main() {
    let policy = Policy {
        ttl: Duration::from_secs(60),
        grace: Duration::ZERO,
        fail_ttl: Duration::ZERO,
        capacity: 1 << 20,
    };
    let texts = Coalescer::<&str>::new(policy, 1 << 16);
    let fetches = AtomicUsize::new(0);

    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| assert_eq!(ask(&texts, &fetches), "once upon a time"));
        }
    });
    println!("10 readers, {} fetch", fetches.load(Ordering::Relaxed));
}

/// What one client does.
fn ask(texts: &Coalescer<&'static str>, fetches: &AtomicUsize) -> String {
    match texts.find(&"story", Instant::now()) {
        Found::Missed(reader, mut guard) => {
            fetches.fetch_add(1, Ordering::Relaxed);
            guard.begin();
            for piece in ["once ", "upon ", "a time"] {
                thread::sleep(Duration::from_millis(50)); // a slow origin
                guard.append(piece.into());
            }
            guard.land(Verdict::Keep, Instant::now());
            read(reader)
        }
        Found::Hit(reader, _)
        | Found::Ahead(reader, _, _)
        | Found::Stale(reader, _)
        | Found::Joined(reader)
        | Found::Negative(reader) => read(reader),
    }
}

/// Reads to the end, waiting for what is still to come.
fn read(mut reader: Reader) -> String {
    let mut text = String::new();
    loop {
        match reader.read() {
            Read::Chunk(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
            Read::Pending => poetry::rt::block_on(reader.ready()),
            Read::End => return text,
            other => panic!("{other:?}"),
        }
    }
}
