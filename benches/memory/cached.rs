//! The memory of a cached answer of 100 bytes, beside its key and its value.

use super::REST;
use crate::context::{Context, verse};
use crate::figures::{Figure, Measured, Samples, Wanted, paired};
use crate::load::{Clients, Exchange, KEY_LEN, RequestLine};
use crate::machine::{Cores, own_memory, until};
use crate::peers::{Server, memcached, own, poetry};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::net::TcpStream;

/// The length of an answer, in bytes.
const ANSWER: usize = 100;

/// How many requests are made at once. The order of answers does not matter.
const AT_ONCE: usize = 32;

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    // By the proxy's count 300,000 take some 70 MB: the default capacity is enough.
    let count = context.scaled(300_000, 30_000);
    let mut ours = Vec::new();
    let mut theirs: Samples = Ok(Vec::new());
    for _ in 0..context.scaled(3, 1) {
        ours.push(in_poetry(context, count)?);
        if let Ok(samples) = &mut theirs {
            match in_memcached(context.cores, count) {
                Ok(sample) => samples.push(sample),
                Err(e) => theirs = Err(e.to_string()),
            }
        }
    }
    if let Err(why) = &theirs {
        eprintln!("  memcached is not measured: {why}");
    }

    let ours = Ok(ours);
    let work = format!("{count} cached answers of 100 bytes");
    let each = |what, wanted, samples| Measured::bytes(&work, what, wanted, samples);
    let ratio = Measured::ratio(
        &work,
        "beside key and value, poetry proxy / memcached",
        Wanted::Shown,
        paired(&ours, &theirs),
    );
    let measured = [
        each(
            "beside key and value, poetry proxy, each",
            Wanted::AtMost(120.0),
            ours,
        ),
        each(
            "beside key and value, memcached, each",
            Wanted::Shown,
            theirs,
        ),
        ratio,
    ];
    Ok(measured.map(|m| Figure::new("memory", m)).into())
}

/// What the server's memory grew by, divided by `count`, less a key and a value.
fn overhead(
    server: &Server,
    count: usize,
    fill: impl FnOnce(&Server) -> io::Result<()>,
) -> io::Result<f64> {
    std::thread::sleep(REST);
    let before = own_memory(server.pid())?;
    fill(server)?;
    std::thread::sleep(REST);
    let after = own_memory(server.pid())?;

    let each = (after as f64 - before as f64) / count as f64;
    Ok(each - (KEY_LEN + ANSWER) as f64)
}

fn in_poetry(context: &Context, count: usize) -> io::Result<f64> {
    let exchange = Exchange::line(RequestLine::New, ANSWER);
    let upstream_cores = Cores {
        server: context.cores.load,
        ..context.cores
    };
    let upstream = own(upstream_cores, "line", &context.poem(ANSWER)?)?;
    let from = upstream.addr.to_string();
    let args = ["proxy", &from, "--protocol", "line", "--ttl", "1h"];
    let server = poetry(context.cores, &args)?;

    overhead(&server, count, |server| {
        let mut clients = Clients::of(server.target(exchange))?;
        clients.ask_times(exchange.len, count, AT_ONCE)
    })
}

fn in_memcached(cores: Cores, count: usize) -> io::Result<f64> {
    let server = memcached(cores)?;
    overhead(&server, count, |server| {
        let stream = TcpStream::connect(server.addr)?;
        let mut out = BufWriter::new(&stream);
        let answer = verse(ANSWER);
        for number in 0..count {
            write!(
                out,
                "set key{number:09} 0 3600 {ANSWER} noreply\r\n{answer}\r\n"
            )?;
        }
        out.flush()?;

        let mut lines = BufReader::new(&stream).lines();
        until("memcached has stored every answer", || {
            Ok(stored(&stream, &mut lines)? == count)
        })
    })
}

/// How many items memcached holds.
fn stored(
    mut stream: &TcpStream,
    lines: &mut impl Iterator<Item = io::Result<String>>,
) -> io::Result<usize> {
    stream.write_all(b"stats\r\n")?;

    let mut items = 0;
    for line in lines {
        let line = line?;
        if line == "END" {
            break;
        }
        if let Some(count) = line.strip_prefix("STAT curr_items ") {
            items = count.parse().map_err(io::Error::other)?;
        }
    }
    Ok(items)
}
