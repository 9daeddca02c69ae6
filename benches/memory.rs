//! What a client costs that waits, and one that never reads.

use crate::Context;
use crate::figures::{Figure, Measured, Unit, Wanted};
use crate::load::mute;
use crate::machine::{own_memory, tcp_memory};
use crate::peers::{Server, poetry};
use crate::upstream::{Upstream, keep_waiting};
use std::io;
use std::time::Duration;

/// How long a process that has just started, or has just been asked by many, is given to come to rest.
const REST: Duration = Duration::from_millis(500);

pub fn measure(context: &Context) -> io::Result<Vec<Figure>> {
    let (mut waiting, mut stuck, mut system) = (Vec::new(), Vec::new(), Vec::new());
    let silent = Upstream::start(|_, caller| keep_waiting(caller))?
        .addr
        .to_string();
    let (one, ten) = (context.poem(1 << 20)?, context.poem(10 << 20)?);
    for _ in 0..context.scaled(5, 2) {
        waiting.push(each(context, &["proxy", &silent], context.scaled(10_000, 1000))?.own);
        stuck.push(each(context, &["serve", &one], context.scaled(1000, 200))?.own);
        let cost = each(context, &["serve", &ten], context.scaled(500, 100))?;
        system.push(cost.own + cost.kernel);
    }
    let figure = |work, figure, most, samples| {
        let wanted = Wanted::AtMost(most);
        Figure::new(
            "memory",
            Measured {
                work,
                figure,
                wanted,
                unit: Unit::Bytes,
                samples: Ok(samples),
            },
        )
    };
    Ok(vec![
        figure(
            "10,000 clients wait on a cold cache",
            "user space, each",
            700.0,
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
    ])
}

/// What one client costs, in bytes.
struct Cost {
    /// Of the server process itself.
    own: f64,
    /// Of the kernel's TCP buffers.
    kernel: f64,
}

/// A new server, and clients that never read from it.
fn each(context: &Context, args: &[&str], clients: usize) -> io::Result<Cost> {
    let server = poetry(context.cores, args)?;
    std::thread::sleep(REST);
    let memory = |server: &Server| Ok::<_, io::Error>([own_memory(server.pid())?, tcp_memory()?]);
    let before = memory(&server)?;
    let held = mute(&server, clients)?;
    std::thread::sleep(REST);
    let after = memory(&server)?;
    drop(held);
    let per_client = |at: usize| (after[at] as f64 - before[at] as f64) / clients as f64;
    Ok(Cost {
        own: per_client(0),
        kernel: per_client(1),
    })
}
