//! Many clients ask three proxies for few texts, which expire all the time: how many
//! fetches there are, and whether every answer is right.

use super::members::{FleetPlan, Member};
use super::redis::Redis;
use super::{Of, get, name, read_name};
use crate::context::{Context, verse};
use crate::figures::Figure;
use crate::upstream::Upstream;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PROXIES: usize = 3;
const CLIENTS: usize = 24;
const TEXTS: usize = 40;

/// The length of a text, in bytes.
const TEXT: usize = 20_000;

/// How long a fetch takes: this pause is in the middle of a text.
const FETCH: Duration = Duration::from_millis(40);

const TTL: Duration = Duration::from_secs(2);

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let redis = Redis::start(&context.allowed_cores)?;
    let upstream = Upstream::start(|_, mut caller| {
        let Ok(name) = read_name(&mut caller) else {
            return;
        };
        let text = text_of(&name);
        let (first, second) = text.as_bytes().split_at(TEXT / 2);
        let _proxy_gone = caller.write_all(first);
        std::thread::sleep(FETCH);
        let _proxy_gone = caller.write_all(second);
    })?;
    let ttl = humantime::format_duration(TTL).to_string();
    let plan = FleetPlan {
        cores: &context.allowed_cores,
        redis: &redis,
        upstream: upstream.addr,
        more: &["--ttl", &ttl],
    };
    let members = (0..PROXIES).map(|_| Member::start(&plan));
    let members: Vec<Member> = members.collect::<io::Result<_>>()?;

    let addrs: Vec<SocketAddr> = members.iter().map(Member::addr).collect();
    let begun = Instant::now();
    let time = context.scaled(Duration::from_secs(10), Duration::from_secs(3));
    let answers = storm(&addrs, time);
    let took = begun.elapsed().as_secs_f64();

    let mut alone = 0;
    for member in &members {
        alone += member.fetches("alone")?;
    }
    let each = took / (TTL + FETCH).as_secs_f64() + 1.0;
    let most = TEXTS as f64 * each + alone as f64;
    let fetches = upstream.calls() as f64;
    eprintln!(
        "  {fetches} fetches, {alone} of them alone, {} answers",
        answers.right
    );
    let work = Of("a storm of 24 clients on 40 texts at 3 proxies");
    let wrong = answers.wrong as f64;
    let short = answers.short as f64;
    Ok(vec![
        work.ratio(
            "fetches / those of one ttl after the other",
            1.0,
            vec![fetches / most],
        ),
        work.ratio("wrong answers", 0.0, vec![wrong]),
        work.ratio("short answers", 0.0, vec![short]),
    ])
}

/// The text of a name, which no other has.
fn text_of(name: &str) -> String {
    let mut text = name.repeat(3);
    text.push_str(&verse(TEXT - text.len()));
    text
}

#[derive(Default)]
struct Answers {
    right: usize,
    wrong: usize,
    /// They ended too early, by a reset or without one.
    short: usize,
}

/// Each client asks one proxy after the other.
fn storm(addrs: &[SocketAddr], time: Duration) -> Answers {
    let right_ones: Vec<String> = (0..TEXTS).map(|number| text_of(&name(number))).collect();
    let [right, wrong, short] = [(); 3].map(|()| AtomicUsize::new(0));
    let ask_on = |client: usize| {
        let begun = Instant::now();
        for round in client.. {
            if begun.elapsed() >= time {
                return;
            }
            let number = (client * 7 + round * 3) % TEXTS;
            let count = match get(addrs[round % addrs.len()], &name(number)) {
                Ok(text) if text == right_ones[number].as_bytes() => &right,
                Ok(text) if right_ones[number].as_bytes().starts_with(&text) => &short,
                Ok(_) => &wrong,
                Err(_) => &short,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    };
    let ask_on = &ask_on;
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || ask_on(client));
        }
    });
    Answers {
        right: right.into_inner(),
        wrong: wrong.into_inner(),
        short: short.into_inner(),
    }
}
