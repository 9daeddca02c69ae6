//! The core of **poetry**: it decides and does everything, and prints, exits and reads
//! arguments nowhere.
//!
//! A fetch is a *flight*, and every client reads one. Here is a text (a *poem*)
//! that two clients ask for at once and that is fetched once:
//!
//! ```
//! use poetry::cache::Policy;
//! use poetry::coalesce::{Coalescer, Found, Verdict};
//! use poetry::flight::Read;
//! use std::time::{Duration, Instant};
//!
//! let hour = Duration::from_secs(3600);
//! let policy = Policy {
//!     ttl: hour,
//!     grace: hour,
//!     fail_ttl: Duration::ZERO,
//!     capacity: 1 << 20,
//! };
//! let texts = Coalescer::<&str>::new(policy, 1 << 16);
//! let now = Instant::now();
//!
//! let Found::Missed(_first, mut fetch) = texts.find(&"name", now) else { panic!() };
//! let Found::Joined(mut second) = texts.find(&"name", now) else { panic!() };
//!
//! fetch.begin();
//! fetch.append("a text, ".into());
//! assert!(matches!(second.read(), Read::Chunk(bytes) if bytes == "a text, "));
//! fetch.append("and its end".into());
//! fetch.land(Verdict::Keep, now);
//! assert!(matches!(second.read(), Read::Chunk(bytes) if bytes == "and its end"));
//! assert!(matches!(second.read(), Read::End));
//!
//! assert!(matches!(texts.find(&"name", now), Found::Hit(..)));
//! ```
//!
//! `examples/coalesce.rs` shows that without a network, `examples/embed.rs` a whole
//! proxy inside another program.
//!
//! # Where to look
//!
//! | question | file |
//! |---|---|
//! | What happens when two clients ask at once? | [`coalesce`] |
//! | Is a text fresh, stale, or to be fetched? | [`cache`] |
//! | How do many clients read one text as it comes? | [`flight`] |
//! | How do many clients read lines that never end? | [`live`] |
//! | Which upstream is a request for? | [`routing`] |
//! | Which fetch starts next? | [`queue`], [`dispatch`] |
//! | How does a fetch go? | `handler/proxy/fetch.rs` |
//! | May a client come in? | [`admission`] |
//! | When is a reply complete? | [`protocol`] |
//! | How does a connection end? | [`server`] |
//! | What do several threads share? | [`host`] |
//!
//! # Layers
//!
//! A module knows only those above it in this list; a test holds that.
//!
//! * locks: `sync`, [`semaphore`].
//! * values: [`error`], [`escape`], [`addr`], [`script`], [`observe`], [`stats`].
//! * machinery without I/O and without a runtime, which is told the time: [`cache`],
//!   [`poem`], [`flight`], [`coalesce`], [`rate`], [`admission`], [`queue`],
//!   [`dispatch`], `slots`, [`budget`], [`protocol`], [`routing`], [`control`],
//!   [`tier`], [`live`].
//! * the world: [`rt`] (the one file that names the runtime), [`heartbeat`], [`net`],
//!   [`process`], [`client`], [`transform`], [`anthology`], [`trickle`], [`upstream`],
//!   [`server`], [`host`].
//! * `store`, with the feature of that name: texts that outlive the process; `fleet`,
//!   likewise: texts that processes share.
//! * [`handler`]: what each service does with a request.
//! * `admin`: what an operator asks of a running service (the feature "admin").

#![warn(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

pub mod addr;
#[cfg(feature = "admin")]
pub mod admin;
pub mod admission;
pub mod anthology;
pub mod budget;
pub mod cache;
pub mod client;
pub mod coalesce;
pub mod control;
pub mod dispatch;
pub mod error;
pub mod escape;
#[cfg(feature = "fleet")]
pub mod fleet;
pub mod flight;
pub mod handler;
pub mod heartbeat;
pub mod host;
pub mod live;
pub mod net;
pub mod observe;
pub mod poem;
pub mod process;
pub mod protocol;
pub mod queue;
pub mod rate;
pub mod routing;
pub mod rt;
pub mod script;
pub mod semaphore;
pub mod server;
mod slots;
pub mod stats;
#[cfg(feature = "store")]
pub mod store;
mod sync;
pub mod tier;
pub mod transform;
pub mod trickle;
pub mod upstream;
