//! `proxy`: poems of another server, each fetched at most once at a time, kept for a while, and shared as they come.
//!
//! | the cache says | the client gets | and |
//! |---|---|---|
//! | hit | the kept poem | nothing |
//! | stale | the kept poem | where it was handed the lead, a fetch is started |
//! | coalesced | the flight, from its beginning | nothing |
//! | miss | the flight, from its beginning | a fetch is started |
//!
//! The fetch is a task of its own and belongs to no client. `FlightGuard` orders its end: the cache's entry is settled
//! before any reader learns of the end.

mod landing;

use crate::cache::{Cache, Fill, Lookup, Policy};
use crate::client::{Query, Timeouts};
use crate::error::{Error, Stage};
use crate::flight::{self, Flight, PendingReaders, Reader, Writer};
use crate::poem::{Poem, packed};
use crate::protocol::{Protocol, netstring};
use crate::rt::{self, CoopBudget};
use crate::semaphore::Semaphore;
use crate::server::{Handler, Response};
use crate::stats::{CacheStatus, Event, Observer, Stats};
use crate::transform::{PREFIX_BYTES_MAX, Pipeline};
use crate::upstream::{Reply, Upstream};
use bytes::Bytes;
use landing::FlightGuard;
use regex::bytes::Regex;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What is asked for: the protocol, the upstreams, the transformations and the request, each as a netstring, so that no
/// two different questions have the same key. A long request is there by its [`name`].
type Key = Bytes;
type Poems = Cache<Key, Poem, Flight>;
type Lead = crate::cache::Lead<Key, Poem, Flight, Writer>;

/// Everything a proxy is told.
pub struct ProxySettings {
    /// What its clients speak, and its upstream.
    pub protocol: Protocol,
    /// Where poems come from.
    pub upstream: Upstream,
    /// The deadlines of a fetch.
    pub timeouts: Timeouts,
    /// How long and how much is kept.
    pub policy: Policy,
    /// The longest poem that is kept, in bytes; a longer one passes through a window of this size.
    pub max_poem: u64,
    /// Whether nothing is sent before the poem is complete; then a longer one is a failure.
    pub whole: bool,
    /// What is passed on and not kept.
    pub rejects: Rejects,
    /// How many fetches may be connected, or connecting, to the upstream at once; at least one.
    pub upstream_conns: usize,
    /// How long readers of a poem over the window, or without room, may keep other fetches waiting for the upstream.
    pub patience: Duration,
    /// What is done to poems before they are kept.
    pub workshop: Option<Pipeline>,
    /// Whether the original is sent on, and not kept, when that fails.
    pub original_on_failure: bool,
}

/// So long others wait for readers, whatever their pace.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What readers have at least for each [`PACE`] when others have waited for so long: this part of the patience, a tenth
/// of a second.
const BREATHS: u32 = 50;

/// When others have waited for twice as long, only those readers are waited for who need no more than their turn on our
/// thread: even the fastest does, for it reads after we have written.
const A_TURN: Duration = Duration::from_millis(1);

/// What an upstream is read by, in bytes.
const PACE: u64 = 64 << 10;

/// What a reply must not be, to be kept: an upstream's error comes as text like any other.
#[derive(Debug, Default)]
pub struct Rejects {
    /// What it must not match.
    pub pattern: Option<Regex>,
    /// The fewest bytes it must have.
    pub min_bytes: u64,
}

/// A caching proxy.
pub struct Proxy {
    settings: ProxySettings,
    cache: Arc<Poems>,
    /// Before the upstream.
    semaphore: Semaphore,
    /// The part of every key that is the same; in the poem protocol, all of it.
    scope: Bytes,
    name: String,
    report: Arc<dyn Observer>,
    stats: Arc<Stats>,
}

impl Proxy {
    /// A proxy with an empty cache.
    pub fn new(
        settings: ProxySettings,
        report: Arc<dyn Observer>,
        stats: Arc<Stats>,
    ) -> Arc<Proxy> {
        let cache = Cache::weighing(settings.policy, |key: &Key| key.len() as u64);
        let (scope, name) = (scope(&settings), settings.upstream.to_string());
        let semaphore = Semaphore::new(settings.upstream_conns);
        Arc::new(Proxy {
            settings,
            cache,
            semaphore,
            scope,
            name,
            report,
            stats,
        })
    }

    fn key(&self, request: &[u8]) -> Key {
        match self.settings.protocol {
            Protocol::Poem => self.scope.clone(),
            Protocol::Line | Protocol::Netstring => {
                [&self.scope[..], &name(request)].concat().into()
            }
        }
    }

    fn fly(self: &Arc<Self>, lead: Lead, request: Bytes) {
        let landing = FlightGuard::new(lead.fill, lead.writer);
        self.stats.fetches.fetch_add(1, Ordering::Relaxed);
        rt::spawn(self.clone().fetch(landing, request));
    }

    /// One fetch, from the connect to its end.
    async fn fetch(self: Arc<Self>, mut landing: FlightGuard, request: Bytes) {
        let begun = Instant::now();
        self.report.notice(Event::Fetching(&self.name));
        let total = self.settings.timeouts.total;
        let work = async {
            self.attempt(&mut landing, &request).await?;
            self.verify_refresh(&mut landing, &request).await
        };
        let late = || Error::Timeout {
            subject: self.name.clone(),
            stage: Stage::Complete,
            limit: total,
        };
        let result = rt::within(total, work).await.unwrap_or_else(|| Err(late()));
        let uncounted = landing.uncounted();
        match result {
            Ok(()) => self.land(landing, begun),
            Err(error) => {
                self.report
                    .notice(Event::FetchFailed(&error, landing.writer.readers()));
                landing.fail(error, Instant::now());
                self.stats.failed_fetches.fetch_add(1, Ordering::Release);
            }
        }
        if let Some((readers, _permit)) = uncounted {
            self.await_the_last(readers).await;
        }
    }

    fn land(&self, landing: FlightGuard, begun: Instant) {
        let (bytes, objection) = (landing.writer.len(), landing.objection);
        let kept = landing.land(Instant::now());
        if kept {
            self.stats.kept.fetch_add(1, Ordering::Release);
        }
        if let Some(why) = objection {
            self.report.notice(Event::Rejected(&self.name, why));
            self.stats.failed_fetches.fetch_add(1, Ordering::Release);
        }
        self.report
            .notice(Event::Fetched(bytes, begun.elapsed(), kept));
    }

    async fn attempt(&self, landing: &mut FlightGuard, request: &Bytes) -> Result<(), Error> {
        match &self.settings.workshop {
            Some(workshop) => self.transformed(landing, request, workshop).await,
            None if self.settings.whole => {
                let poem = self.collect(landing, request).await?;
                landing.writer.append(poem);
                Ok(())
            }
            None => self.stream(landing, request).await,
        }
    }

    /// A refresh that brings a strict prefix of the poem it would replace is taken for a cut one, and one more fetch
    /// decides: the same text again is believed, and so is anything that is no prefix. Transformed poems can't be
    /// compared like that (the end may come first), so there any shorter one is doubted, and the originals decide.
    async fn verify_refresh(
        &self,
        landing: &mut FlightGuard,
        request: &Bytes,
    ) -> Result<(), Error> {
        if landing.objection.is_some() {
            return Ok(()); // it won't be kept, whatever it is
        }
        let Some(old) = landing.fill.as_ref().and_then(Fill::replaces) else {
            return Ok(());
        };
        let transformed = self.settings.workshop.is_some();
        let is_doubtful = |new: &Poem| {
            if transformed {
                new.len() < old.len()
            } else {
                new.is_cut_from(&old)
            }
        };
        let original = |landing: &FlightGuard, poem: &Poem| match transformed {
            true => landing.original.clone(),
            false => poem.bytes(),
        };
        let Some(first) = landing.writer.so_far().filter(is_doubtful) else {
            return Ok(());
        };
        let first = original(landing, &first);
        if !landing.writer.rewind() {
            landing.pass_through(); // its readers have it; it can't be decided whether it is whole
            return Ok(());
        }
        self.attempt(landing, request).await?;
        let Some(second) = landing.writer.so_far().filter(is_doubtful) else {
            return Ok(());
        };
        let second = original(landing, &second);
        match first != second && (first.starts_with(&second) || second.starts_with(&first)) {
            true => Err(Error::Doubtful {
                subject: self.name.clone(),
            }),
            false => Ok(()),
        }
    }

    /// Waits for its turn, then asks.
    async fn ask<'a>(
        &self,
        landing: &mut FlightGuard,
        request: &'a [u8],
    ) -> Result<Reply<'a>, Error> {
        let ProxySettings {
            protocol,
            timeouts,
            max_poem,
            ..
        } = self.settings;
        if landing.permit.is_none() {
            landing.permit = Some(self.semaphore.acquire(Instant::now()).await);
        }
        let question = Query {
            protocol,
            request,
            limit: max_poem,
            timeouts,
        };
        self.settings.upstream.ask(&question, &*self.report).await
    }

    /// Passes the poem on as it comes.
    async fn stream(&self, landing: &mut FlightGuard, request: &[u8]) -> Result<(), Error> {
        let mut reply = self.ask(landing, request).await?;
        let mut turns = CoopBudget::default();
        while let Some(bytes) = reply.next().await? {
            turns.take().await;
            self.await_readers(landing).await?;
            self.make_room(landing, bytes.len() as u64);
            match reply.is_over() {
                true => landing.writer.append_end(bytes),
                false => landing.writer.append(bytes),
            }
        }
        if let Some(poem) = landing.fill.as_ref().and_then(|_| landing.writer.so_far()) {
            landing.objection = self.objection(poem).await;
        }
        Ok(())
    }

    /// A poem over the window goes at the pace of its fastest reader, and without a limit as long as nobody else wants
    /// the upstream. But others wait for readers no longer than twice the patience: whoever can't keep up with the
    /// upstream by then would cost them their poems.
    async fn await_readers(&self, landing: &FlightGuard) -> Result<(), Error> {
        loop {
            match rt::within(self.patience(), landing.writer.writable()).await {
                Some(room) => return room,
                None if self.is_out_of_patience() => {
                    return Err(Error::TooSlow {
                        subject: self.name.clone(),
                    });
                }
                None => {}
            }
        }
    }

    /// The end of a poem for which there was no room. Until it is read it keeps its place, so that no more than
    /// `upstream_conns` such poems are there at a time; with the patience of [`Proxy::await_readers`].
    async fn await_the_last(&self, readers: PendingReaders) {
        let mut before = readers.remaining();
        while rt::within(self.patience(), readers.finished())
            .await
            .is_none()
        {
            let left = readers.remaining();
            if self.is_out_of_patience() && !left.has_shrunk(before, PACE) {
                return readers.release();
            }
            before = left;
        }
    }

    /// How long to wait for readers before looking again who waits for them.
    fn patience(&self) -> Duration {
        let patience = self.settings.patience;
        let waited = self
            .semaphore
            .oldest_waiter()
            .map_or(Duration::ZERO, |since| since.elapsed());
        match waited < 2 * patience {
            true => patience.saturating_sub(waited).max(patience / BREATHS),
            false => A_TURN,
        }
    }

    fn is_out_of_patience(&self) -> bool {
        self.semaphore
            .oldest_waiter()
            .is_some_and(|since| since.elapsed() >= self.settings.patience)
    }

    /// Once a poem is too long to be kept, or there is no room for it, it passes through, and its key is free again
    /// before its beginning leaves the window.
    fn make_room(&self, landing: &mut FlightGuard, more: u64) {
        let total = landing.writer.len() + more;
        let Some(fill) = &mut landing.fill else {
            return;
        };
        if total > self.longest() {
            landing.too_long(Instant::now());
        } else if !fill.reserve(total) {
            landing.pass_unaccounted();
        }
    }

    /// Transforming needs the whole poem, so there is nothing to pass on before.
    async fn transformed(
        &self,
        landing: &mut FlightGuard,
        request: &[u8],
        workshop: &Pipeline,
    ) -> Result<(), Error> {
        let poem = self.collect(landing, request).await?;
        // The original is held only where it may be of use: it is not counted. A second attempt's always is, for it is
        // compared with the first's.
        if !landing.original.is_empty() || landing.fill.as_ref().and_then(Fill::replaces).is_some()
        {
            landing.original = poem.clone();
        }
        let spare = self.settings.original_on_failure.then(|| poem.clone());
        let limit = self.settings.max_poem;
        let done = match (
            workshop.apply(poem, limit, self.settings.timeouts).await,
            spare,
        ) {
            (Ok(done), _) => done,
            (Err(error), None) => return Err(error),
            (Err(error), Some(original)) => {
                self.report.notice(Event::Untransformed(&error));
                landing.pass_through(); // the next request may have more luck
                original
            }
        };
        if done.is_empty() {
            return Err(Error::Empty {
                subject: self.name.clone(),
            }); // what a client would have to take for a failure
        }
        self.hold(landing, done.len())?;
        landing.writer.append(done);
        Ok(())
    }

    /// The whole reply, when it is complete.
    async fn collect(&self, landing: &mut FlightGuard, request: &[u8]) -> Result<Bytes, Error> {
        let limit = self.longest();
        let mut reply = self.ask(landing, request).await?;
        let (mut poem, mut turns) = (Vec::new(), CoopBudget::default());
        while let Some(bytes) = reply.next().await? {
            turns.take().await;
            if (poem.len() + bytes.len()) as u64 > limit {
                return Err(Error::TooLong {
                    subject: self.name.clone(),
                    limit,
                });
            }
            self.hold(landing, poem.len() + bytes.len())?;
            poem.extend_from_slice(&bytes);
        }
        let poem = packed(poem);
        landing.objection = self.objection(poem.clone().into()).await;
        Ok(poem)
    }

    /// Reserves room for so many bytes that nobody can be sent yet.
    fn hold(&self, landing: &mut FlightGuard, bytes: usize) -> Result<(), Error> {
        match landing
            .fill
            .as_mut()
            .is_none_or(|fill| fill.reserve(bytes as u64))
        {
            true => Ok(()),
            false => Err(Error::NoRoom {
                subject: self.name.clone(),
                capacity: self.settings.policy.capacity,
            }),
        }
    }

    /// The longest reply that is kept: a poem, and its framing where it has one.
    fn longest(&self) -> u64 {
        const FRAMING: u64 = 22; // the digits of the largest length there is, a colon and a comma
        match self.settings.protocol {
            Protocol::Netstring => self.settings.max_poem.saturating_add(FRAMING),
            Protocol::Poem | Protocol::Line => self.settings.max_poem,
        }
    }

    /// Why this reply is not to be kept, if it is not.
    async fn objection(&self, reply: Poem) -> Option<&'static str> {
        let Rejects { pattern, min_bytes } = &self.settings.rejects;
        if pattern.is_none() && *min_bytes == 0 {
            return None;
        }
        let poem = self.settings.protocol.payload(reply.bytes());
        if (poem.len() as u64) < *min_bytes {
            return Some("shorter than --min-bytes");
        }
        let pattern = pattern.clone()?;
        let matches = rt::busy(poem.len(), move || pattern.is_match(&poem)).await;
        matches.then_some("matches --reject")
    }
}

impl Handler for Proxy {
    fn protocol(&self) -> Protocol {
        self.settings.protocol
    }

    /// As long as the service takes it that is asked by it.
    fn request_limit(&self) -> u64 {
        self.settings.max_poem.saturating_add(PREFIX_BYTES_MAX)
    }

    /// Forgets every kept poem; those who wait for one still get it.
    fn reload(&self) -> Result<&'static str, Error> {
        self.cache.purge();
        Ok("forgot all kept poems")
    }

    fn answer(self: Arc<Self>, request: Bytes, now: Instant) -> Response {
        let key = self.key(&request);
        loop {
            let flight = match self
                .cache
                .lookup(&key, now, || flight::launch(self.longest()))
            {
                Lookup::Hit(poem, until) => {
                    return Response {
                        reader: Reader::of(poem),
                        how: CacheStatus::Hit(until),
                    };
                }
                Lookup::Stale(poem, lead) => {
                    if let Some(lead) = lead {
                        self.fly(lead, request);
                    }
                    return Response {
                        reader: Reader::of(poem),
                        how: CacheStatus::Stale,
                    };
                }
                Lookup::Miss(lead) => {
                    let reader = lead
                        .flight
                        .join()
                        .expect("a flight just launched has its beginning");
                    self.fly(lead, request);
                    return Response {
                        reader,
                        how: CacheStatus::Miss,
                    };
                }
                Lookup::Coalesced(flight) => flight,
            };
            if let Some(reader) = flight.join() {
                let how = if reader.is_over() {
                    CacheStatus::Remembered
                } else {
                    CacheStatus::Coalesced
                };
                return Response { reader, how };
            }
            // Its beginning left the window between the look-up and the joining. The key was freed before that, so
            // the next look-up does not meet this flight again.
        }
    }
}

/// What stands for a request in its key: itself as a netstring, or, where it is long, what no netstring begins with, and
/// then its length and SHA-256. There is no other known text with the same; and as large as poems are the requests that
/// are waited for, which would be held a second time, and those of poems that are kept.
fn name(request: &[u8]) -> Vec<u8> {
    const LONGEST_LITERAL: usize = 256;
    match request.len() {
        ..=LONGEST_LITERAL => netstring(request),
        length => [format!("#{length}:").as_bytes(), &Sha256::digest(request)].concat(),
    }
}

fn scope(settings: &ProxySettings) -> Bytes {
    let mut scope = netstring(settings.protocol.name().as_bytes());
    scope.extend(netstring(settings.upstream.to_string().as_bytes()));
    if let Some(workshop) = &settings.workshop {
        scope.extend(netstring(
            format!("{workshop:?}, original: {}", settings.original_on_failure).as_bytes(),
        ));
    }
    netstring(&scope).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Silent;
    use crate::transform::{Builtin, Transform};
    use std::collections::HashMap;
    use std::io::Write;

    fn settings(
        protocol: Protocol,
        upstream: &[&str],
        workshop: Option<Pipeline>,
    ) -> ProxySettings {
        let long = Duration::from_secs(10);
        let addrs = upstream
            .iter()
            .map(|addr| addr.parse().expect("an address"))
            .collect();
        ProxySettings {
            protocol,
            upstream: Upstream::Servers(addrs),
            timeouts: Timeouts {
                connect: long,
                idle: long,
                total: long,
            },
            policy: Policy {
                ttl: long,
                grace: long,
                fail_ttl: long,
                capacity: 1 << 20,
            },
            max_poem: 1 << 20,
            whole: false,
            rejects: Rejects::default(),
            upstream_conns: 1,
            patience: long,
            workshop,
            original_on_failure: false,
        }
    }

    fn proxy(settings: ProxySettings) -> Arc<Proxy> {
        Proxy::new(settings, Arc::new(Silent), Arc::default())
    }

    /// What is asked for, as it is told to a proxy.
    fn key(
        protocol: Protocol,
        upstream: &[&str],
        workshop: Option<Pipeline>,
        original: bool,
        request: &[u8],
    ) -> Key {
        let settings = settings(protocol, upstream, workshop);
        proxy(ProxySettings {
            original_on_failure: original,
            ..settings
        })
        .key(request)
    }

    #[test]
    fn what_is_collected_keeps_no_room_for_more() {
        let poem = vec![b'x'; 70_000]; // more than comes in one go
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("it is bound").to_string();
        let proxy = proxy(settings(Protocol::Poem, &[&addr], None));
        let Lookup::Miss(lead) = proxy
            .cache
            .lookup(&proxy.key(b""), Instant::now(), || flight::launch(1 << 20))
        else {
            panic!("it is the first")
        };
        let mut landing = FlightGuard::new(lead.fill, lead.writer);
        let collected = std::thread::scope(|scope| {
            scope.spawn(|| {
                listener
                    .accept()
                    .and_then(|(mut call, _)| call.write_all(&poem))
            });
            rt::block_on(proxy.collect(&mut landing, b"")).expect("it comes whole")
        });
        assert!(collected == poem);
        assert_eq!(Vec::from(collected).capacity(), poem.len());
    }

    #[test]
    fn no_two_questions_have_the_same_key() {
        let upstreams: [&[&str]; 6] = [
            &["1"],
            &["1", "2"],
            &["2", "1"],
            &["unix:1, 127.0.0.1:2"],
            &["localhost:1"],
            &["[::1]:1"],
        ];
        let own = |transforms: &[Builtin]| {
            Some(Pipeline::Own(
                transforms
                    .iter()
                    .map(|transform| (*transform).into())
                    .collect(),
            ))
        };
        let via = |addr: &str, names: &[&str]| {
            let names = names.iter().map(|name| name.to_string()).collect();
            Some(Pipeline::Via(addr.parse().expect("an address"), names))
        };
        let program = |text: &str| {
            Some(Pipeline::Own(vec![Transform::Program(
                text.parse().expect("a program"),
            )]))
        };
        let workshops = [
            None,
            own(&[Builtin::Shout]),
            own(&[Builtin::Shout, Builtin::Reverse]),
            own(&[Builtin::Reverse, Builtin::Shout]),
            via("1", &["shout"]),
            via("2", &["shout"]),
            via("1", &["shout", "reverse"]),
            via("1", &["shout, reverse"]),
            program("x=tr a b"),
            program("x=tr 'a b'"),
        ];
        let long = [
            vec![b'x'; 256],
            vec![b'x'; 257],
            vec![b'y'; 257],
            vec![b'x'; 258],
        ];
        let names = [
            name(&long[1]),
            netstring(&name(&long[1])),
            name(&long[1])[1..].to_vec(),
        ];
        let mut requests: Vec<&[u8]> = vec![
            b"", b"a", b"1:a,", b"0:,", b"a,", b"4:line,", b"\xff", b"1:a,0:,", b"#257:",
        ];
        requests.extend(long.iter().chain(&names).map(Vec::as_slice));
        let mut seen = HashMap::new();
        for protocol in [Protocol::Poem, Protocol::Line, Protocol::Netstring] {
            let asked = if protocol == Protocol::Poem {
                &requests[..1]
            } else {
                &requests
            };
            for upstream in upstreams {
                for workshop in &workshops {
                    for original in [false, true] {
                        for request in asked {
                            let what = format!(
                                "{protocol:?} {upstream:?} {workshop:?} {original} {request:?}"
                            );
                            let key = key(protocol, upstream, workshop.clone(), original, request);
                            // Without a transformation there is no failure of one to tell apart.
                            if let Some(other) = seen.insert(key, what.clone()) {
                                let alike = other.replace("None false", "None true");
                                assert_eq!(alike, what, "the same key");
                            }
                        }
                    }
                }
            }
        }
        assert!(seen.len() > 3000);
    }

    #[test]
    fn the_key_of_a_long_request_is_short() {
        let length = |request: &[u8]| key(Protocol::Netstring, &["1"], None, false, request).len();
        assert_eq!(
            length(&[b'x'; 16 << 20]),
            length(b"") - "0:,".len() + "#16777216:".len() + 32
        );
    }
}
