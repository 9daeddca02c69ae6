//! Servers that are not Redis, or that lie: they cost 50 ms, three times, and neither
//! memory nor a wrong text.

use super::parts::{Told, ask, word};
use crate::support::{join, wait_until};
use poetry::fleet::{ANSWER_WAIT, Fleet};
use poetry::observe::Silent;
use poetry::tier::Tier;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::spawn;
use std::time::{Duration, Instant};

/// What a server does with a connection.
type Act = Box<dyn Fn(TcpStream) + Send + Sync>;

fn server(act: Act) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let act = Arc::new(act);
    spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let act = act.clone();
            spawn(move || act(stream));
        }
    });
    addr
}

/// Sends these bytes at once, and then waits for the end.
fn says(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Act {
    Box::new(move |mut stream| {
        let _hung_up = stream.write_all(bytes.as_ref());
        let _end = stream.read(&mut [0; 64 << 10]);
        std::thread::sleep(Duration::from_secs(1));
    })
}

/// Sends this again and again, as fast as it is taken.
fn floods(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Act {
    let bytes = bytes.as_ref().repeat((64 << 10) / bytes.as_ref().len() + 1);
    Box::new(move |mut stream| while stream.write_all(&bytes).is_ok() {})
}

/// Answers the greeting as Redis does, and every other command by these bytes.
fn answers(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Act {
    behaves(move |words| {
        if words[0] != "PING" && is_greeting(words) {
            return greets(words);
        }
        bytes.as_ref().to_vec()
    })
}

/// Answers each command by what `reply` says.
fn behaves(reply: impl Fn(&[String]) -> Vec<u8> + Send + Sync + 'static) -> Act {
    Box::new(move |stream| {
        let mut writer = stream.try_clone().unwrap();
        let mut reader = BufReader::new(stream);
        while let Some(words) = read_command(&mut reader) {
            if writer.write_all(&reply(&words)).is_err() {
                return;
            }
        }
    })
}

/// Whether a command is neither a question of a fetch nor about pieces.
fn is_greeting(words: &[String]) -> bool {
    match words[0].as_str() {
        "HELLO" | "CLIENT" | "SELECT" | "SUBSCRIBE" | "PING" => true,
        // How many purges there were: two names, and one argument.
        "EVALSHA" => words[2] == "2" && words.len() == 6,
        _ => false,
    }
}

/// What Redis answers to such a command.
fn greets(words: &[String]) -> Vec<u8> {
    let reply: &[u8] = match words[0].as_str() {
        "HELLO" => b"%1\r\n+proto\r\n:3\r\n",
        "SUBSCRIBE" => b">3\r\n+subscribe\r\n$14\r\npoetry:1:purge\r\n:1\r\n",
        "PING" => b"+PONG\r\n",
        "EVALSHA" => b"*2\r\n:0\r\n:0\r\n",
        _ => b"+OK\r\n",
    };
    reply.to_vec()
}

/// LOOK's answer of this kind, with a token and a record.
fn looked(kind: &str, token: &str, record: &str) -> Vec<u8> {
    let string = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let (kind, token, record) = (string(kind), string(token), string(record));
    format!("*8\r\n{kind}:1\r\n:0\r\n:0\r\n{token}:0\r\n{record}:0\r\n").into()
}

fn read_command(reader: &mut impl BufRead) -> Option<Vec<String>> {
    let mut number = |mark: char| {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let count: usize = line.trim_end().strip_prefix(mark)?.parse().ok()?;
        if mark == '*' {
            return Some((count, String::new()));
        }
        let mut bytes = vec![0; count + 2];
        reader.read_exact(&mut bytes).ok()?;
        bytes.truncate(count);
        Some((count, String::from_utf8_lossy(&bytes).into_owned()))
    };
    let (count, _) = number('*')?;
    (0..count).map(|_| Some(number('$')?.1)).collect()
}

/// A proxy in the fleet of this server gets nothing wrong, and is not kept waiting.
fn costs_little(what: &str, act: Act) -> Arc<Fleet> {
    let place = format!("redis://{}", server(act));
    let fleet = join(&place, Arc::new(Silent), |fleet| {
        fleet.answer_wait = ANSWER_WAIT;
    });
    std::thread::sleep(Duration::from_millis(100)); // for the greeting
    let mut slow = 0;
    for round in 0..8 {
        let begun = Instant::now();
        let answer = ask(&fleet, b"k");
        let took = begun.elapsed();
        assert_eq!(word(&answer), "alone", "{what}, {round}");
        assert!(took < Duration::from_secs(3), "{what}, {round}: {took:?}");
        slow += u32::from(took >= ANSWER_WAIT);
    }
    assert!(slow <= 4, "{what}: {slow} were slow"); // one more for a loaded machine
    fleet
}

#[test]
fn a_server_that_is_not_redis_costs_little() {
    let noise: Vec<u8> = (0..100_000u32)
        .map(|at| (at * 7 + at / 251) as u8)
        .collect();
    let http = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    let servers: [(&str, Act); 14] = [
        ("HTTP", says(http)),
        ("noise", says(noise.clone())),
        ("noise without end", floods(noise)),
        ("an end", Box::new(drop)),
        ("silence", says("")),
        ("a line without end", floods("+xxxxxxxx")),
        ("a long string", says("$1000000000\r\n")),
        ("a string without end", floods("$-1\r\n$1000000000\r\n")),
        ("a long list", says("*1000000000\r\n")),
        ("lists in lists", floods("*1\r\n")),
        ("a long map", says("%4611686018427387904\r\n")),
        ("replies without end", floods("+OK\r\n")),
        (
            "messages without end",
            floods(">3\r\n+message\r\n$1\r\na\r\n$1\r\nb\r\n"),
        ),
        ("half a reply", says("%3\r\n+proto\r\n:3\r\n")),
    ];
    for (what, act) in servers {
        costs_little(what, act);
    }
}

#[test]
fn a_server_that_answers_strangely_costs_little() {
    let messages = ">3\r\n+message\r\n$14\r\npoetry:1:purge\r\n$7\r\nx 1 all\r\n".repeat(1000);
    let text = "$6\r\nPOEM1 \r\n";
    let servers: [(&str, Act); 11] = [
        ("a number", answers(":1\r\n")),
        ("OK", answers("+OK\r\n")),
        ("nil", answers("_\r\n")),
        ("an error", answers("-ERR strange\r\n")),
        ("a list that is too short", answers("*2\r\n+K\r\n:1\r\n")),
        (
            "numbers for words",
            answers("*8\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n"),
        ),
        (
            "a text of nobody",
            answers(format!(
                "*8\r\n+X\r\n:1\r\n:0\r\n:0\r\n+\r\n:0\r\n{text}:0\r\n"
            )),
        ),
        (
            "no text",
            answers("*8\r\n+K\r\n:1\r\n:0\r\n:0\r\n+\r\n:0\r\n_\r\n:0\r\n"),
        ),
        (
            "a strange token",
            answers("*8\r\n+L\r\n:1\r\n:0\r\n:0\r\n+a b\r\n:0\r\n_\r\n:0\r\n"),
        ),
        ("a thousand messages", answers(format!("{messages}+OK\r\n"))),
        ("two replies", answers("+OK\r\n+OK\r\n")),
    ];
    for (what, act) in servers {
        costs_little(what, act);
    }
}

#[test]
fn a_reply_may_have_just_so_many_bytes() {
    // LOOK's answer with a record that is none. It asks once more, for none.
    let answer = |length: usize| {
        let record = "x".repeat(length);
        let head = "*8\r\n+N\r\n:1\r\n:0\r\n:0\r\n$0\r\n\r\n:0\r\n";
        format!("{head}${length}\r\n{record}\r\n:0\r\n")
    };
    const RATION: usize = 64 << 10;
    let framing = answer(10_000).len() - 10_000;
    let whole = RATION - framing;
    let fleet = costs_little("one byte too many", answers(answer(whole + 1)));
    wait_until("the connection is given up", || !fleet.counts().is_open);

    let place = format!("redis://{}", server(answers(answer(whole))));
    let fleet = join(&place, Arc::new(Silent), |_| {});
    wait_until("it joins", || fleet.counts().is_open);
    assert_eq!(word(&ask(&fleet, b"k")), "alone", "it is no text");
    assert!(fleet.counts().is_open, "it was read");
}

#[test]
fn a_server_that_is_always_too_slow_is_left_alone() {
    let slow = behaves(|words| {
        std::thread::sleep(Duration::from_millis(80));
        if is_greeting(words) {
            return greets(words);
        }
        looked("N", "", "")
    });
    let place = format!("redis://{}", server(slow));
    let told = Arc::new(Told::default());
    let fleet = join(&place, told.clone(), |fleet| {
        fleet.answer_wait = ANSWER_WAIT;
    });
    wait_until("it joins", || fleet.counts().is_open);
    // On a loaded machine the time runs out late, and some answers count as good.
    for _ in 0..40 {
        ask(&fleet, b"k");
        std::thread::sleep(Duration::from_millis(25));
    }
    let late = fleet.counts().late;
    assert!((3..9).contains(&late), "{late} were asked in vain");
    assert!(told.all().len() <= 6, "{:?}", told.all());
}

#[test]
fn a_server_that_reads_its_file_is_not_taken_for_another_service() {
    let loading = "LOADING Redis is loading the dataset in memory";
    let place = format!("redis://{}", server(answers(format!("-{loading}\r\n"))));
    let told = Arc::new(Told::default());
    let fleet = join(&place, told.clone(), |_| {});
    wait_until("it joins", || fleet.counts().is_open);
    for _ in 0..4 {
        assert_eq!(word(&ask(&fleet, b"k")), "alone");
    }
    wait_until("it is told", || told.all().len() >= 2);
    assert!(told.all()[1].starts_with(loading), "{:?}", told.all());
}

#[test]
fn a_text_that_comes_byte_by_byte_is_not_waited_for() {
    let digest = "a".repeat(64);
    let record = format!("POEM1 0 1 1000 1:x {digest} - 1\nk");
    let drips = behaves(move |words| {
        if is_greeting(words) {
            return greets(words);
        }
        let after = words.get(2).and_then(|from| from.strip_prefix('('));
        match (words[0].as_str(), after) {
            ("XRANGE", Some(from)) => {
                std::thread::sleep(Duration::from_millis(20));
                let at: u64 = from.strip_suffix("-0").unwrap().parse().unwrap();
                let id = format!("{}-0", at + 1);
                let length = id.len();
                let fields = "*2\r\n$1\r\nb\r\n$1\r\nx\r\n";
                format!("*1\r\n*2\r\n${length}\r\n{id}\r\n{fields}").into()
            }
            // The second time, no text that is there will do.
            _ if words[0] == "EVALSHA" && words.last().is_some_and(|last| last == "1") => {
                looked("N", "", "")
            }
            _ => looked("K", "", &record),
        }
    });
    let place = format!("redis://{}", server(drips));
    let fleet = join(&place, Arc::new(Silent), |fleet| {
        fleet.answer_wait = ANSWER_WAIT;
    });
    wait_until("it joins", || fleet.counts().is_open);
    let begun = Instant::now();
    assert_ne!(word(&ask(&fleet, b"k")), "found");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
}
