//! The core of **poetry**: everything that decides and does, and nothing that prints, exits or reads arguments.
//!
//! A fetch is a *flight*, and everyone is a reader of it. A client connects; the [`server`] asks a [`handler`] for
//! the answer; the proxy's handler looks it up in the [`cache`], which says at once, under one lock: hit, stale,
//! coalesced or miss. A miss makes a task that fetches from the [`upstream`] and writes a [`flight`]; the client who
//! caused it, those who join while it lasts and those who come when it has long landed read it by the same code. When
//! the poem is whole the connection ends in a polite close, and in any other case in a reset.
//!
//! # The modules, and who may know whom
//!
//! A module knows only those above it; a test holds this list.
//!
//! * locks: `sync` is the standard library's, and in one test a scheduler's that tries their orders.
//! * values: [`error`], [`escape`], [`addr`], [`poem`], [`transform`], [`script`], [`stats`] are what things are.
//! * machinery: [`cache`], [`flight`], [`gate`], [`commons`], [`protocol`] do no I/O, know no runtime, and are told the time.
//! * the world: [`net`], [`program`], [`anthology`], [`upstream`], [`server`] do all I/O; `net` alone names the runtime.
//! * [`handler`]: the story of one request each for `serve`, `proxy` and `transform`.
//!
//! # The seed's lesson: Deferred, and what stands here for it
//!
//! This program began as a proxy in a tutorial on Twisted whose point was that a function is sometimes synchronous
//! (the poem is cached) and sometimes not, and that a Deferred hides the difference. Here the difference is a value.
//!
//! | Twisted | here | shown by |
//! |---|---|---|
//! | a Deferred that has already fired (`succeed`) | [`flight::Reader::of`] a kept poem: ready at its first look | `flight::tests::a_late_reader_sees_the_whole_poem` |
//! | a Deferred that waits | a [`flight::Reader`] of a flight aloft: `Pending`, then woken | `flight::tests::a_reader_waits_until_there_is_more_and_no_longer` |
//! | callbacks added late see the result | [`flight::Flight::join`] begins at byte 0, whenever | `flight::tests::any_split_of_a_poem_reads_the_same` |
//! | failed before it was returned (`fail`) | a failed flight: the first look says `Failed` | `flight::tests::a_dropped_writer_is_a_failure_and_never_an_end` |
//! | many waiters on one fetch (exercise 2) | [`cache::Lookup::Coalesced`] | `coalesce::five_hundred_cold_clients_cost_the_upstream_one_connection` |
//! | `pause` and `unpause` | [`flight::Writer::room`]: backpressure to the upstream | `flight::tests::a_poem_over_the_window_goes_at_the_pace_of_its_fastest_reader` |
//! | `maybeDeferred` | not needed: [`cache::Cache::lookup`] answers with one type in every case | `cache::tests::one_leads_and_the_others_join_until_the_poem_is_kept` |
//! | cancelling a Deferred that others wait for | cannot be written: a fetch belongs to no client | `coalesce::who_caused_the_fetch_may_vanish` |
//!
//! Exercise 5 asks whether a function that is only sometimes asynchronous should return a Deferred always. It should
//! return the same *type* always, and say in it which case it is: callers that can act at once then do (a hit is
//! written on the socket just accepted, without an await), and no caller can forget the other case.

#![warn(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

pub mod addr;
pub mod anthology;
pub mod budget;
pub mod cache;
pub mod client;
pub mod error;
pub mod escape;
pub mod flight;
pub mod handler;
pub mod net;
pub mod poem;
pub mod process;
pub mod protocol;
pub mod rt;
pub mod script;
pub mod semaphore;
pub mod server;
pub mod stats;
mod sync;
pub mod transform;
pub mod trickle;
pub mod upstream;
