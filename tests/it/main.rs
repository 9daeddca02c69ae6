//! The integration tests: one binary, services in this process on port 0, and the
//! program itself for what only a process shows. Nothing here sleeps to let something
//! happen: tests wait for what they need, with a deadline.

mod admin;
mod admission;
mod browser;
mod calls;
mod cli;
mod coalesce;
mod commands;
mod corpus;
mod counts;
mod exec;
mod faults;
mod fetch;
#[cfg(feature = "fleet")]
mod fleet;
mod follow;
mod fresh;
mod hit;
mod limits;
mod line;
mod live;
#[cfg(feature = "admin")]
mod memo;
mod metrics;
mod model;
mod office;
mod operate;
mod patience;
mod proxy;
mod rates;
mod real_servers;
mod routes;
mod script;
mod serve;
mod stale;
#[cfg(feature = "store")]
mod store;
mod support;
mod threads;
mod tidy;
mod tier;
mod transform;
mod turns;
mod units;
mod warm;
