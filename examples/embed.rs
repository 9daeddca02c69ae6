//! A caching proxy inside another program, here in front of a server of its own. It
//! asks through the proxy three times and prints how often the server was asked.
//!
//! Run it with `cargo run --example embed`.

use poetry::budget::Budget;
use poetry::cache::KeepTimes;
use poetry::client::Timeouts;
use poetry::error::Error;
use poetry::handler::proxy::{
    KeyFold, PATIENCE, Proxy, ProxySettings, Rejects, ServeStale, TargetSettings, TtlRules,
};
use poetry::net::Listener;
use poetry::observe::Silent;
use poetry::protocol::{EndRule, Protocol};
use poetry::rt;
use poetry::server::{Limits, Parts, Server};
use poetry::stats::Stats;
use poetry::upstream::Upstream;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn main() -> Result<(), Error> {
    let stats = Arc::new(Stats::default());
    let proxy = Proxy::new(settings(origin()), Arc::new(Silent), stats.clone());
    let server = Server::new(Parts {
        wire: proxy.wire(),
        handler: proxy,
        limits: Limits {
            max_clients: 1000,
            max_half_closed: 1000,
            client_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
        },
        admission: None,
        budget: Budget::new(64 << 20),
        observer: Arc::new(Silent),
        stats: stats.clone(),
    });

    let listener = rt::block_on(Listener::bind(&"0".parse().expect("any free port")))?;
    let addr = listener.addr().to_string();
    let clients = rt::unblock(move || {
        for _ in 0..3 {
            let mut text = String::new();
            let mut stream = TcpStream::connect(&addr).expect("the proxy listens");
            stream.read_to_string(&mut text).expect("it ends cleanly");
            print!("{text}");
        }
    });
    rt::block_on(server.run(vec![listener], clients));

    println!("3 clients, {} fetch", stats.fetches.load(Ordering::Relaxed));
    Ok(())
}

/// A server that is slow and sends one poem.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::sleep(Duration::from_millis(300));
            let _client_left = stream.and_then(|mut s| s.write_all(b"a poem\n"));
        }
    });
    addr
}

fn settings(origin: SocketAddr) -> ProxySettings {
    ProxySettings {
        protocol: Protocol::Poem,
        target: TargetSettings {
            upstream: Upstream::servers(vec![origin.into()]),
            send: None,
            route: None,
            times: KeepTimes {
                ttl: Duration::from_secs(7200),
                grace: Duration::ZERO,
                fail_ttl: Duration::ZERO,
            },
            ttls: TtlRules::default(),
            rejects: Rejects::default(),
            conns: 8,
            ends: EndRule::default(),
            connect_retry: Duration::ZERO,
        },
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(30),
            total: Duration::from_secs(600),
        },
        half_close: false,
        routing: None,
        capacity: 64 << 20,
        serve_stale: ServeStale::Always,
        refresh_ahead: 0.0,
        warm: None,
        max_poem: 16 << 20,
        whole: false,
        upstream_queue: 1000,
        fold: KeyFold::default(),
        patience: PATIENCE,
        pipeline: None,
        original_on_failure: false,
    }
}
