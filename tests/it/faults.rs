//! The catalogue of faults: what goes wrong, and what it must not cost anyone else. A scenario a test, its name a
//! sentence. Those that belong to one feature are with it (`coalesce`, `stale`, `limits`, `fetch`, `exec`).
//!
//! Where the man page says what happens when, it names the scenarios that show it; `tidy` holds that they exist.

mod clients;
mod lifecycle;
mod panics;
mod parsers;
mod resources;
mod upstream;
