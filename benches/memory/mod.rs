//! The memory a client costs, one that waits and one that never reads; and the memory
//! of a cached answer.

mod cached;

use crate::context::Context;
use crate::figures::{Figure, Measured, Wanted};
use crate::load::silent_clients;
use crate::machine::{own_memory, tcp_memory};
use crate::peers::{Server, poetry};
use crate::upstream::{Upstream, keep_waiting};
use std::io;
use std::time::Duration;

/// How long a process gets to settle after its start and after many requests.
const REST: Duration = Duration::from_millis(500);

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let silent = Upstream::start(|_, caller| keep_waiting(caller))?
        .addr
        .to_string();
    let mib = context.poem(1 << 20)?;
    let ten_mib = context.poem(10 << 20)?;

    let mut waiting = Vec::new();
    let mut stuck = Vec::new();
    let mut system = Vec::new();
    for _ in 0..context.scaled(5, 2) {
        let clients = context.scaled(10_000, 1000);
        waiting.push(per_client(context, &["proxy", &silent], clients)?.own);
        stuck.push(per_client(context, &["serve", &mib], context.scaled(1000, 200))?.own);
        let cost = per_client(context, &["serve", &ten_mib], context.scaled(500, 100))?;
        system.push(cost.own + cost.kernel);
    }

    let figure = |work, what, most, samples| {
        let wanted = Wanted::AtMost(most);
        Figure::new("memory", Measured::bytes(work, what, wanted, Ok(samples)))
    };
    let mut figures = vec![
        figure(
            "10,000 clients wait on a cold cache",
            "user space, each",
            600.0,
            waiting,
        ),
        figure(
            "stuck clients of a 1 MiB poem",
            "user space, each",
            300.0,
            stuck,
        ),
        figure(
            "stuck clients of a 10 MiB poem",
            "whole system, each",
            300_000.0,
            system,
        ),
    ];
    figures.extend(cached::measure(context)?);
    Ok(figures)
}

/// What one client costs, in bytes.
pub struct Cost {
    /// In the server process.
    pub own: f64,
    /// In the kernel's TCP buffers.
    kernel: f64,
}

/// The cost of each client of a new server, where none of `count` clients reads.
pub fn per_client(context: &Context, args: &[&str], count: usize) -> io::Result<Cost> {
    let server = poetry(context.cores, args)?;
    std::thread::sleep(REST);
    let memory = |server: &Server| Ok::<_, io::Error>([own_memory(server.pid())?, tcp_memory()?]);

    let before = memory(&server)?;
    let held = silent_clients(&server, count)?;
    std::thread::sleep(REST);
    let after = memory(&server)?;
    drop(held);

    let each = |at: usize| (after[at] as f64 - before[at] as f64) / count as f64;
    Ok(Cost {
        own: each(0),
        kernel: each(1),
    })
}
