//! A fetches, and B follows: how far B's client is behind A's.
//!
//! A poem of 64,000 bytes comes in 100 pieces, each after a pause that is longer than
//! pieces are gathered for. One of 16 MiB comes as fast as it is taken.

use super::members::{FleetPlan, Member};
use super::redis::Redis;
use super::{Of, get, median, read_name, send, send_whole};
use crate::context::{Context, verse};
use crate::figures::Figure;
use crate::upstream::Upstream;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The pieces of the small poem.
const PIECES: usize = 100;
const PIECE: usize = 640;
const PAUSE: Duration = Duration::from_millis(30);

/// The length of the large poem, in MiB.
const MIB: usize = 16;

/// Longer than the end of a poem is on its way to Redis behind its clients.
const COMMITTED: Duration = Duration::from_millis(500);

/// Options of both proxies.
const ROOM: [&str; 6] = ["--ttl", "1h", "--max-poem", "32MiB", "--capacity", "512MiB"];

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let mut figures = pieces(context)?;
    figures.extend(large(context)?);
    Ok(figures)
}

/// Redis, and two proxies; each text is fetched from A, and B follows.
struct Pair {
    redis: Redis,
    a: Member,
    b: Member,
}

impl Pair {
    fn start(context: &Context, upstream: SocketAddr) -> io::Result<Pair> {
        let redis = Redis::start(&context.allowed_cores)?;
        let plan = FleetPlan {
            cores: &context.allowed_cores,
            redis: &redis,
            upstream,
            more: &ROOM,
        };
        let (a, b) = (Member::start(&plan)?, Member::start(&plan)?);
        Ok(Pair { redis, a, b })
    }

    /// B has followed that often: else it was no relay.
    fn has_followed(&self, rounds: usize) -> io::Result<()> {
        let followed = self.b.fetches("follow")?;
        if followed == rounds as u64 {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "B followed {followed} times in {rounds} rounds"
        )))
    }
}

fn pieces(context: &Context) -> io::Result<Vec<Figure>> {
    let upstream = Upstream::start(|_, mut caller| {
        let piece = verse(PIECE);
        let _proxy_gone = read_name(&mut caller);
        for at in 0..PIECES {
            if at > 0 {
                std::thread::sleep(PAUSE);
            }
            if io::Write::write_all(&mut caller, piece.as_bytes()).is_err() {
                return;
            }
        }
    })?;
    let pair = Pair::start(context, upstream.addr)?;
    let (mut middle, mut worst, mut end) = (Vec::new(), Vec::new(), Vec::new());
    let rounds = context.scaled(5, 2);
    for round in 0..rounds {
        let name = format!("pieces{round}");
        let mut first = send(pair.a.addr(), &name)?;
        first.read_exact(&mut [0; PIECE])?; // so A leads
        let second = send(pair.b.addr(), &name)?;

        let [at_a, at_b] = arrivals([(first, 1), (second, 0)])?;
        // The first ones had come before B was asked.
        let mut behind: Vec<f64> = (2..PIECES)
            .map(|piece| at_b[piece].duration_since(at_a[piece]).as_secs_f64())
            .collect();
        behind.sort_by(f64::total_cmp);
        worst.push(behind[behind.len() * 99 / 100]);
        middle.push(median(behind));
        end.push(at_b[PIECES].duration_since(at_a[PIECES]).as_secs_f64());
    }
    pair.has_followed(rounds)?;

    let work = Of("a piece at a client whose proxy follows");
    let whole = Of("64,000 bytes at a client whose proxy follows");
    Ok(vec![
        work.seconds("behind the first client, p50", 1.5e-3, middle),
        work.seconds("behind the first client, p99", 5e-3, worst),
        whole.seconds("end behind the first client's", 5e-3, end),
    ])
}

/// When each piece had come, and the end, at both clients. Each has some already.
fn arrivals(clients: [(TcpStream, usize); 2]) -> io::Result<[Vec<Instant>; 2]> {
    let read = |(stream, had)| move || read_pieces(stream, had);
    std::thread::scope(|scope| {
        let reading = clients.map(|client| scope.spawn(read(client)));
        let [first, second] = reading.map(|reading| {
            let panicked = |_| Err(io::Error::other("a reader panicked"));
            reading.join().unwrap_or_else(panicked)
        });
        Ok([first?, second?])
    })
}

fn read_pieces(mut stream: TcpStream, had: usize) -> io::Result<Vec<Instant>> {
    let mut arrived = vec![Instant::now(); had];
    let mut got = had * PIECE;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = stream.read(&mut buffer)?;
        let now = Instant::now();
        got += count;
        arrived.resize(got / PIECE, now);
        if count > 0 {
            continue;
        }
        if got != PIECES * PIECE {
            return Err(io::Error::other(format!("{got} bytes of a poem in pieces")));
        }
        arrived.push(now);
        return Ok(arrived);
    }
}

fn large(context: &Context) -> io::Result<Vec<Figure>> {
    let mib = context.scaled(MIB, 4);
    let len = mib << 20;
    let poem = verse(len);
    let upstream = Upstream::start(move |_, mut caller| {
        let _proxy_gone = read_name(&mut caller);
        send_whole(caller, poem.as_bytes());
    })?;
    let pair = Pair::start(context, upstream.addr)?;

    let rounds = context.scaled(7, 2);
    let (mut ratios, mut cpu, mut memory, mut longest) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut held = 0.0;
    for round in 0..rounds {
        pair.redis.forget_commands()?;
        let before = pair.redis.cpu()?;
        ratios.push(behind(&pair, &format!("large{round}"), len)?);
        std::thread::sleep(COMMITTED);
        cpu.push((pair.redis.cpu()? - before) / mib as f64);
        let command = pair.redis.longest_command();
        longest.extend(command.map_err(|why| eprintln!("  Redis: {why}")));
        let now = memory_of_keys(&pair.redis)?;
        memory.push((now - held) / len as f64);
        held = now;
    }
    pair.has_followed(rounds)?;

    let work = format!("{mib} MiB that one proxy fetches and one follows");
    let work = Of(&work);
    Ok(vec![
        work.ratio("time of the one that follows / of the other", 2.0, ratios),
        work.seconds("processor time of Redis, a MiB", 3e-3, cpu),
        work.seconds("longest command of Redis", 5e-3, longest),
        work.ratio("memory in Redis / length", 1.03, memory),
    ])
}

/// The time until B's client has all, divided by that of A's.
fn behind(pair: &Pair, name: &str, len: usize) -> io::Result<f64> {
    let time = |whole: &dyn Fn() -> io::Result<usize>| -> io::Result<f64> {
        let begun = Instant::now();
        let got = whole()?;
        if got != len {
            return Err(io::Error::other(format!("{got} bytes of {len}")));
        }
        Ok(begun.elapsed().as_secs_f64())
    };
    let mut first = send(pair.a.addr(), name)?;
    let begun = Instant::now();
    first.read_exact(&mut [0])?; // so A leads
    let before = begun.elapsed().as_secs_f64();
    let rest = || Ok(1 + io::copy(&mut &first, &mut io::sink())? as usize);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| time(&|| Ok(get(pair.b.addr(), name)?.len())));
        let first = before + time(&rest)?;
        let panicked = |_| Err(io::Error::other("a reader panicked"));
        Ok(second.join().unwrap_or_else(panicked)? / first)
    })
}

/// The memory of all names in Redis, in bytes.
fn memory_of_keys(redis: &Redis) -> io::Result<f64> {
    let mut sum = 0.0;
    for name in redis.ask(&["KEYS", "*"])?.lines() {
        let bytes = redis.ask(&["MEMORY", "USAGE", name, "SAMPLES", "0"])?;
        sum += bytes.parse::<f64>().unwrap_or(0.0); // it has just expired
    }
    Ok(sum)
}
