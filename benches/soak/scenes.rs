//! What is soaked: three proxies that share nothing, or, with `--store`, a fleet of
//! three and a proxy with a file.

use crate::clients::{Endpoint, Scene};
use crate::ledger::{Ledger, Purges};
use crate::plan::{
    FLEET_CLIENTS, FLEET_THREADS, KEYS, KEYS_OF_FLEET, PAUSE_MS, SAME_FOR, THREADS, UPSTREAM_CONNS,
};
use crate::proxies::{Proxy, ProxyOptions};
use crate::server::Server;
use crate::trouble::Fleet;
use crate::upstream::{self, FaultyUpstream, UpstreamOptions};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// All that runs in a soak.
pub struct Soaked {
    /// A proxy stands before the one that asks it.
    pub proxies: Vec<Arc<Proxy>>,
    pub scene: Scene,
    /// The purges of each proxy, where nothing else tells the proxies to purge.
    pub purges: Vec<Arc<Purges>>,
    pub fleet: Option<SoakedFleet>,
}

pub struct SoakedFleet {
    pub fleet: Fleet,
    pub upstream: Arc<FaultyUpstream>,
    /// The folder of the other proxy's file.
    _folder: tempfile::TempDir,
}

/// Starts `line`, `chain` and `poem`, and the upstreams behind them.
pub fn alone(ledger: &Arc<Ledger>, seed: u64) -> io::Result<Soaked> {
    let purges: [Arc<Purges>; 3] = Default::default();
    let options = |name, takes_line, purges: &Arc<Purges>| UpstreamOptions {
        name,
        seed,
        takes_line,
        is_single: takes_line,
        most_conns: UPSTREAM_CONNS,
        same_for: Duration::ZERO,
        purges: purges.clone(),
    };
    let upstream = |options| upstream::start(options, ledger.clone());
    let proxy = |options: ProxyOptions| Proxy::start(&options, ledger.clone()).map(Arc::new);

    let line_upstream = upstream(options("line", true, &purges[0]))?;
    let line = proxy(ProxyOptions::line("line", line_upstream.addr))?;
    let chain = proxy(ProxyOptions::line("chain", line.addr))?;
    let poem_upstream = upstream(options("poem", false, &purges[2]))?;
    let poem = proxy(ProxyOptions::poem("poem", poem_upstream.addr))?;

    let endpoints = vec![
        endpoint(&line, Some(&purges[0])),
        Endpoint {
            links: 2,
            ..endpoint(&chain, None)
        },
        Endpoint {
            takes_line: false,
            ..endpoint(&poem, Some(&purges[2]))
        },
    ];
    Ok(Soaked {
        proxies: vec![line, chain, poem],
        scene: Scene {
            endpoints,
            shares: vec![0, 0, 0, 1, 2], // the first has all the names
            threads: THREADS,
            keys: KEYS,
            pause_ms: 0,
        },
        purges: purges.to_vec(),
        fleet: None,
    })
}

/// Starts a server, three proxies that share it, and one with a file. `None` where no
/// server is installed.
pub fn with_stores(ledger: &Arc<Ledger>, seed: u64) -> io::Result<Option<Soaked>> {
    const NAMES: [&str; 3] = ["fleet-a", "fleet-b", "fleet-c"];

    let Some(server) = Server::start()? else {
        return Ok(None);
    };
    let folder = tempfile::tempdir()?;
    let options = |name, is_single, same_for| UpstreamOptions {
        name,
        seed,
        takes_line: true,
        is_single,
        most_conns: if is_single { 1 } else { NAMES.len() } * UPSTREAM_CONNS,
        same_for,
        purges: Arc::default(),
    };
    let fleet_upstream = options("fleet", false, SAME_FOR);
    let disk_upstream = options("disk", true, Duration::ZERO);
    let disk_purges = disk_upstream.purges.clone();
    let fleet_upstream = upstream::start(fleet_upstream, ledger.clone())?;
    let disk_upstream = upstream::start(disk_upstream, ledger.clone())?;

    let start = |name, upstream: &FaultyUpstream, store| {
        let options = ProxyOptions {
            max_clients: FLEET_CLIENTS,
            store: Some(store),
            ..ProxyOptions::line(name, upstream.addr)
        };
        Proxy::start(&options, ledger.clone()).map(Arc::new)
    };
    let mut proxies = Vec::new();
    for name in NAMES {
        let proxy = start(name, &fleet_upstream, server.place())?;
        proxies.push((proxy, Arc::<Purges>::default()));
    }
    let file = folder.path().join("poems").display().to_string();
    proxies.push((start("disk", &disk_upstream, file)?, disk_purges));

    let endpoints = proxies.iter().map(|(proxy, purges)| Endpoint {
        is_killed: true,
        ..endpoint(proxy, Some(purges))
    });
    Ok(Some(Soaked {
        scene: Scene {
            endpoints: endpoints.collect(),
            shares: vec![0, 1, 2, 0, 1, 2, 3],
            threads: FLEET_THREADS,
            keys: KEYS_OF_FLEET,
            pause_ms: PAUSE_MS,
        },
        proxies: proxies.iter().map(|(proxy, _)| proxy.clone()).collect(),
        purges: Vec::new(),
        fleet: Some(SoakedFleet {
            fleet: Fleet::new(server, proxies),
            upstream: fleet_upstream,
            _folder: folder,
        }),
    }))
}

fn endpoint(proxy: &Proxy, purges: Option<&Arc<Purges>>) -> Endpoint {
    Endpoint {
        name: proxy.name,
        addr: proxy.addr,
        takes_line: true,
        links: 1,
        purges: purges.cloned(),
        is_killed: false,
    }
}
