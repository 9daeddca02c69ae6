//! The proxy that fetches is killed, and two others follow it: when the next connection
//! comes upstream, and how many do.

use super::members::{FleetPlan, Member};
use super::redis::Redis;
use super::{Of, read_name, send, send_whole};
use crate::context::{Context, verse};
use crate::figures::Figure;
use crate::hits::POEM;
use crate::machine::LONG;
use crate::upstream::{Upstream, keep_waiting};
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// How long a lease runs that is not renewed, and a little, in seconds.
const LEASE: f64 = 2.25;

/// How much of the poem comes at first.
const HALF: usize = POEM / 2;

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let redis = Redis::start(&context.allowed_cores)?;
    let (called, calls) = channel();
    let begun = Mutex::new(HashSet::new());
    let upstream = Upstream::start(move |_, mut caller| {
        let _benches_over = called.send(Instant::now());
        let poem = verse(POEM);
        let name = read_name(&mut caller).unwrap_or_default();
        let is_first = begun.lock().is_ok_and(|mut begun| begun.insert(name));
        if is_first {
            let _proxy_gone = caller.write_all(&poem.as_bytes()[..HALF]);
            keep_waiting(caller);
        } else {
            send_whole(caller, poem.as_bytes());
        }
    })?;
    let plan = FleetPlan {
        cores: &context.allowed_cores,
        redis: &redis,
        upstream: upstream.addr,
        more: &["--idle-timeout", "1m"],
    };
    let others = [Member::start(&plan)?, Member::start(&plan)?];

    let (mut times, mut connections) = (Vec::new(), Vec::new());
    for round in 0..context.scaled(5, 1) {
        let name = format!("taken{round}");
        let before = upstream.calls();
        calls.try_iter().for_each(drop);
        let holder = Member::start(&plan)?;
        let mut clients = Vec::new();
        for member in [&holder, &others[0], &others[1]] {
            let mut client = send(member.addr(), &name)?;
            client.read_exact(&mut [0; HALF])?;
            clients.push(client);
        }
        calls.recv_timeout(LONG).map_err(io::Error::other)?;

        let killed = Instant::now();
        drop(holder);
        let next = calls.recv_timeout(LONG).map_err(io::Error::other)?;
        times.push(next.duration_since(killed).as_secs_f64());
        for client in &mut clients[1..] {
            let mut rest = Vec::new();
            client.read_to_end(&mut rest)?;
            if rest != verse(POEM).as_bytes()[HALF..] {
                return Err(io::Error::other("the rest is not what it was"));
            }
        }
        std::thread::sleep(Duration::from_millis(200)); // for one that should not come
        connections.push((upstream.calls() - before - 1) as f64);
    }

    let work = Of("the proxy that fetches is killed");
    Ok(vec![
        work.seconds("next connection upstream", LEASE, times),
        work.ratio("connections upstream then", 1.0, connections),
    ])
}
