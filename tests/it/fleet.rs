//! `--store redis://`: proxies that share a server of Redis. Without one the tests say
//! so and do nothing.

mod clocks;
mod damage;
mod garbage;
mod outage;
mod parts;
mod pauses;
mod processes;
mod proxies;
mod purges;
mod refusals;
mod texts;
