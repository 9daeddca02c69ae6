//! A file of texts, the proxy in front of it, and its upstream.

use super::{ask, name};
use crate::context::Context;
use crate::machine::Cores;
use crate::peers::{Server, own, poetry};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Clients that ask at the same time while a store is filled.
const CLIENTS: usize = 4;

/// Longer than texts wait until they are written.
const WRITTEN: Duration = Duration::from_millis(600);

/// A store, and the upstream of its proxies. That shares the load generator's core.
pub struct Site {
    pub cores: Cores,
    pub folder: tempfile::TempDir,
    pub upstream: Server,
    text: usize,
}

impl Site {
    /// Its texts are `text` bytes long.
    pub fn new(context: &Context, text: usize) -> io::Result<Site> {
        Ok(Site {
            cores: context.cores,
            folder: tempfile::tempdir_in(context.folder.path())?,
            upstream: own(beside(context.cores), "line", &context.poem(text)?)?,
            text,
        })
    }

    /// A proxy that keeps little in memory.
    pub fn start(&self, more: &[&str]) -> io::Result<Server> {
        self.start_before(&self.upstream.addr.to_string(), more)
    }

    fn start_before(&self, upstream: &str, more: &[&str]) -> io::Result<Server> {
        let fixed = ["proxy", upstream, "--protocol", "line", "--ttl", "1d"];
        poetry(
            self.cores,
            &[&fixed[..], &["--capacity", "16MiB"], more].concat(),
        )
    }

    pub fn path(&self) -> String {
        self.folder.path().join("poems").display().to_string()
    }

    pub fn start_with_store(&self) -> io::Result<Server> {
        self.start(&["--store", &self.path()])
    }

    /// The same, before an upstream that refuses all connections.
    pub fn start_with_store_alone(&self) -> io::Result<Server> {
        self.start_before("127.0.0.1:1", &["--store", &self.path()])
    }

    /// Asks for these texts, and waits until they are written.
    pub fn fill(&self, server: &Server, names: Range<usize>) -> io::Result<()> {
        for_each(names, |number| {
            ask(server.addr, number, self.text).map(|_time| ())
        })?;
        std::thread::sleep(WRITTEN);
        Ok(())
    }

    /// Asks for texts that nothing has.
    pub fn ask_in_vain(&self, server: &Server, names: Range<usize>) -> io::Result<()> {
        for_each(names, |number| {
            if self.has(server, number) {
                return Err(io::Error::other("a text came from nowhere"));
            }
            Ok(())
        })
    }

    /// Whether the proxy has this text, where nothing answers upstream.
    pub fn has(&self, server: &Server, number: usize) -> bool {
        super::get(server.addr, &name(number)).is_ok_and(|text| text.len() == self.text)
    }
}

/// Does this for some names, for several at a time.
fn for_each(names: Range<usize>, work: impl Fn(usize) -> io::Result<()> + Sync) -> io::Result<()> {
    let next = AtomicUsize::new(names.start);
    at_once(CLIENTS, || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= names.end {
                return Ok(());
            }
            work(number)?;
        }
    })
}

/// Does the same on several threads.
pub fn at_once(threads: usize, work: impl Fn() -> io::Result<()> + Sync) -> io::Result<()> {
    std::thread::scope(|scope| {
        let working: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        let ended = working.into_iter().map(|thread| {
            let panicked = |_| Err(io::Error::other("a client panicked"));
            thread.join().unwrap_or_else(panicked)
        });
        ended.collect::<io::Result<()>>()
    })
}

/// For what is on the load generator's core.
pub fn beside(cores: Cores) -> Cores {
    Cores {
        server: cores.load,
        ..cores
    }
}
