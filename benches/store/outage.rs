//! Redis hangs, is killed, or is not Redis: what a miss costs then, and how soon its
//! proxy is back in the fleet.

use super::members::{FleetPlan, Member};
use super::redis::Redis;
use super::site::beside;
use super::{Of, ask, ask_all, median};
use crate::context::Context;
use crate::figures::Figure;
use crate::hits::POEM;
use crate::machine::{peak_memory, until};
use crate::peers::{Server, own, poetry};
use rustix::process::Signal;
use std::io::{self, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// After so many slow answers in a row, a proxy asks no more.
const SLOW: usize = 3;

/// What they wait for an answer (`--store-timeout`), and a little.
const DEADLINE: f64 = 0.06;

/// How long Redis is away, so that pauses between tries have grown to their most.
const AWAY: Duration = Duration::from_secs(4);

/// How Redis goes away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Stopped,
    Killed,
}

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let mut site = Outage::start(context)?;
    let mut figures = Vec::new();
    for how in [How::Stopped, How::Killed] {
        let mut rounds = Vec::new();
        for _ in 0..context.scaled(3, 1) {
            rounds.push(site.round(how)?);
        }
        let each = |value: fn(&Round) -> f64| rounds.iter().map(value).collect::<Vec<f64>>();
        let work = match how {
            How::Stopped => Of("a miss while Redis hangs"),
            How::Killed => Of("a miss while Redis is gone"),
        };
        let ratio = each(|round| round.ratio);
        figures.push(work.ratio("median time after the third / without a store", 1.1, ratio));
        figures.push(work.seconds("longest", DEADLINE, each(|round| round.slowest)));
        figures.push(work.seconds("back in the fleet, after it is", 2.5, each(|r| r.back)));
    }
    figures.extend(garbage(context)?);
    Ok(figures)
}

struct Outage {
    redis: Redis,
    plain: Server,
    member: Member,
    _upstream: Server,
    next: usize,
    count: usize,
}

struct Round {
    ratio: f64,
    slowest: f64,
    back: f64,
}

impl Outage {
    fn start(context: &Context) -> io::Result<Outage> {
        let cores = context.cores;
        let upstream = own(beside(cores), "line", &context.poem(POEM)?)?;
        let from = upstream.addr.to_string();
        let redis = Redis::start(&[cores.load])?;
        let member = Member::start(&FleetPlan {
            cores: &[cores.server],
            redis: &redis,
            upstream: upstream.addr,
            more: &[],
        })?;
        Ok(Outage {
            redis,
            plain: poetry(cores, &["proxy", &from, "--protocol", "line"])?,
            member,
            _upstream: upstream,
            next: 0,
            count: context.scaled(500, 100),
        })
    }

    fn new_names(&mut self, count: usize) -> std::ops::Range<usize> {
        self.next += count;
        self.next - count..self.next
    }

    fn round(&mut self, how: How) -> io::Result<Round> {
        let (first, names) = (self.new_names(SLOW), self.new_names(self.count));
        let plain = ask_all(self.plain.addr, names.clone(), POEM)?;

        let begun = Instant::now();
        match how {
            How::Stopped => self.redis.signal(Signal::STOP)?,
            How::Killed => self.redis.kill()?,
        }
        let mut times = ask_all(self.member.addr(), first, POEM)?;
        let after = ask_all(self.member.addr(), names, POEM)?;
        times.extend(&after);
        let slowest = times.iter().copied().fold(0.0, f64::max);

        std::thread::sleep(AWAY.saturating_sub(begun.elapsed()));
        match how {
            How::Stopped => self.redis.signal(Signal::CONT)?,
            How::Killed => self.redis.start_again()?,
        }
        let back = self.back()?;
        Ok(Round {
            ratio: median(after) / median(plain),
            slowest,
            back: back.as_secs_f64(),
        })
    }

    /// How long it takes until a fetch is one of the fleet again.
    fn back(&mut self) -> io::Result<Duration> {
        let begun = Instant::now();
        let led = self.member.fetches("lead")?;
        until("the proxy is back in the fleet", || {
            let name = self.new_names(1).start;
            ask(self.member.addr(), name, POEM)?;
            Ok(self.member.fetches("lead")? > led)
        })?;
        Ok(begun.elapsed())
    }
}

/// What a server that is not Redis says, without end.
const FLOODS: [&[u8]; 6] = [
    b"+OK\r\n",
    b"+xxxxxxxx",
    b"*1\r\n",
    b"$1000000000\r\n",
    b"*1000000000\r\n:1\r\n",
    b">3\r\n+message\r\n$1\r\na\r\n$1\r\nb\r\n",
];

/// The worst of all floods in each round.
fn garbage(context: &Context) -> io::Result<Vec<Figure>> {
    let cores = context.cores;
    let upstream = own(beside(cores), "line", &context.poem(POEM)?)?;
    let from = upstream.addr.to_string();
    let args = ["proxy", &from, "--protocol", "line", "--ttl", "0"];
    let time = context.scaled(Duration::from_millis(600), Duration::from_millis(200));
    let loaded = |store: &[&str]| -> io::Result<(f64, f64)> {
        let server = poetry(cores, &[&args, store].concat())?;
        let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
        while begun.elapsed() < time {
            slowest = ask(server.addr, 0, POEM)?.max(slowest);
        }
        Ok((peak_memory(server.pid())? as f64, slowest.as_secs_f64()))
    };

    let (mut memory, mut slowest) = (Vec::new(), Vec::new());
    for _ in 0..context.scaled(3, 1) {
        let (plain, _) = loaded(&[])?;
        let (mut most, mut longest) = (0.0, 0.0);
        for bytes in FLOODS {
            let (peak, slow) = loaded(&["--store", &flood(bytes)?])?;
            most = f64::max(most, peak - plain);
            longest = f64::max(longest, slow);
        }
        memory.push(most);
        slowest.push(longest);
    }
    let work = Of("a miss while Redis sends garbage without end");
    let mib = 64.0 * f64::from(1 << 20);
    Ok(vec![
        work.bytes("memory beyond that without a store", mib, memory),
        work.seconds("longest", 0.5, slowest),
    ])
}

/// A server that sends these bytes without end, as `--store` takes it.
fn flood(bytes: &[u8]) -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let place = format!("redis://{}", listener.local_addr()?);
    let bytes = bytes.repeat(10_000);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let bytes = bytes.clone();
            std::thread::spawn(move || while stream.write_all(&bytes).is_ok() {});
        }
    });
    Ok(place)
}
