//! Poems of 700 bytes in a fleet: its misses and hits, one at a time, and what they
//! cost Redis.
//!
//! In each round A fetches texts; then B, which has not been asked for them, is asked
//! twice. Another proxy has no store, and fetches as many.

use super::members::{FleetPlan, Member};
use super::redis::Redis;
use super::site::beside;
use super::{Of, ask_all, median};
use crate::context::Context;
use crate::figures::Figure;
use crate::hits::POEM;
use crate::peers::{Server, own, poetry};
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Longer than a poem is on its way to Redis behind its client.
const COMMITTED: Duration = Duration::from_millis(100);

/// Options of all proxies.
const KEPT: [&str; 2] = ["--ttl", "1h"];

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let site = Small::start(context)?;
    let count = context.scaled(500, 100);
    let mut next = 0;
    let mut names = || {
        next += count;
        next - count..next
    };
    site.round(names())?; // a first time, for tables and caches of all kinds
    site.redis.forget_commands()?;

    let mut rounds = Vec::new();
    for _ in 0..context.scaled(9, 2) {
        rounds.push(site.round(names())?);
    }
    let commands = site.commands(names())?;
    figures(&site, &rounds, commands)
}

struct Small {
    redis: Redis,
    plain: Server,
    a: Member,
    b: Member,
    _upstream: Server,
}

/// Medians of times, and other means; in seconds or bytes.
struct Round {
    miss: f64,
    fleet_miss: f64,
    fleet_hit: f64,
    memory_hit: f64,
    ping: f64,
    /// Of Redis, for a miss and for a hit.
    miss_cpu: f64,
    hit_cpu: f64,
    /// Of Redis, for a poem, with its key.
    memory: f64,
}

impl Small {
    fn start(context: &Context) -> io::Result<Small> {
        let cores = context.cores;
        let upstream = own(beside(cores), "line", &context.poem(POEM)?)?;
        let redis = Redis::start(&[cores.load])?;
        let plan = FleetPlan {
            cores: &[cores.server],
            redis: &redis,
            upstream: upstream.addr,
            more: &KEPT,
        };
        let (a, b) = (Member::start(&plan)?, Member::start(&plan)?);
        let from = upstream.addr.to_string();
        let args = [&["proxy", &from, "--protocol", "line"], &KEPT[..]].concat();
        Ok(Small {
            plain: poetry(cores, &args)?,
            redis,
            a,
            b,
            _upstream: upstream,
        })
    }

    fn round(&self, names: Range<usize>) -> io::Result<Round> {
        let count = names.len() as f64;
        let time = |server: &Server| -> io::Result<f64> {
            Ok(median(ask_all(server.addr, names.clone(), POEM)?))
        };
        let memory = || self.redis.info("used_memory");

        let miss = time(&self.plain)?;
        let (cpu, bytes) = (self.redis.cpu()?, memory()?);
        let fleet_miss = time(&self.a.server)?;
        std::thread::sleep(COMMITTED);
        let (after_misses, more) = (self.redis.cpu()?, memory()?);
        let fleet_hit = time(&self.b.server)?;
        let after_hits = self.redis.cpu()?;
        Ok(Round {
            miss,
            fleet_miss,
            fleet_hit,
            memory_hit: time(&self.b.server)?,
            ping: self.ping(names.len())?,
            miss_cpu: (after_misses - cpu) / count,
            hit_cpu: (after_hits - after_misses) / count,
            memory: (more - bytes) / count,
        })
    }

    /// The median time of a PING.
    fn ping(&self, count: usize) -> io::Result<f64> {
        let mut client = self.redis.connect()?;
        let times = (0..count).map(|_| {
            let begun = Instant::now();
            client.ask(&["PING"])?;
            Ok(begun.elapsed().as_secs_f64())
        });
        Ok(median(times.collect::<io::Result<_>>()?))
    }

    /// How many commands about it Redis gets for each poem that A fetches. Those of a
    /// script are not counted, but the one that runs it.
    fn commands(&self, names: Range<usize>) -> io::Result<Vec<f64>> {
        let lines = self.redis.connect()?.commands(COMMITTED, || {
            ask_all(self.a.addr(), names, POEM).map(|_times| ())
        })?;

        // All names in Redis that belong to a poem have its digest in braces.
        let mut counts: HashMap<&str, f64> = HashMap::new();
        for line in lines.iter().filter(|line| !line.contains(" lua]")) {
            let digest = line
                .split_once(":{")
                .and_then(|(_, rest)| rest.split_once('}'));
            if let Some((digest, _)) = digest {
                *counts.entry(digest).or_default() += 1.0;
            }
        }
        Ok(counts.into_values().collect())
    }

    /// The length of a key: the last word of the first line of a record.
    fn key_len(&self) -> io::Result<f64> {
        for _ in 0..1000 {
            let name = self.redis.ask(&["RANDOMKEY"])?;
            if !name.ends_with(":p") {
                continue;
            }
            let record = self.redis.ask(&["GET", &name])?;
            let line = record.lines().next().unwrap_or_default();
            let length = line.rsplit(' ').next().unwrap_or_default();
            return length.parse().map_err(io::Error::other);
        }
        Err(io::Error::other("no poem is in Redis"))
    }
}

fn figures(site: &Small, rounds: &[Round], commands: Vec<f64>) -> io::Result<Vec<Figure>> {
    let each = |value: &dyn Fn(&Round) -> f64| rounds.iter().map(value).collect::<Vec<f64>>();
    let beside = site.key_len()? + POEM as f64 * 1.03;
    let longest = site.redis.longest_command();
    let miss = Of("a miss of 700 bytes in a fleet");
    let hit = Of("a hit of 700 bytes in a fleet, not in memory");

    let mut figures = vec![
        miss.ratio(
            "median time / without a store",
            2.5,
            each(&|round| round.fleet_miss / round.miss),
        ),
        miss.seconds(
            "median time beyond that without a store and a PING",
            200e-6,
            each(&|round| round.fleet_miss - round.miss - round.ping),
        ),
        miss.seconds(
            "processor time of Redis",
            200e-6,
            each(&|round| round.miss_cpu),
        ),
        miss.ratio("commands to Redis", 2.0, commands),
        miss.bytes(
            "memory in Redis beside key and 1.03 poems",
            350.0,
            each(&|round| round.memory - beside),
        ),
        hit.ratio(
            "median time / a miss without a store",
            1.0,
            each(&|round| round.fleet_hit / round.miss),
        ),
        hit.ratio(
            "median time / from memory",
            5.0,
            each(&|round| round.fleet_hit / round.memory_hit),
        ),
        hit.seconds(
            "processor time of Redis",
            60e-6,
            each(&|round| round.hit_cpu),
        ),
    ];
    match longest {
        Ok(longest) => {
            let work = Of("misses and hits of 700 bytes in a fleet");
            figures.push(work.seconds("longest command of Redis", 5e-3, vec![longest]));
        }
        Err(why) => eprintln!("  Redis: {why}"),
    }
    Ok(figures)
}
