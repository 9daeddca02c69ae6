//! The log for machines: one JSON object per line, for each request and for each event.
//! docs/logs.md has the table of all fields.

use poetry::control::{
    ERRORS, FleetCounts, REASONS, REFUSALS, Snapshot, UpstreamCounts, UpstreamState,
};
use poetry::error::Error;
use poetry::observe::json::{key, line, millis, start};
pub(super) use poetry::observe::json::{lost, request};
use poetry::observe::{Event, FeedNews, Reloaded, StoreNews};
use serde_json::{Value, json};

/// An event.
pub(super) fn event(event: &Event<'_>) -> String {
    let mut object = start(event.word());
    if let Some(fetch) = event.fetch() {
        object["key"] = json!(key(fetch.request));
        object["upstream"] = json!(fetch.upstream);
        object["cause"] = json!(fetch.cause.word());
        if let Some(route) = fetch.route {
            object["route"] = json!(route);
        }
    }
    if let Some(error) = event.error() {
        object["outcome"] = json!(error.word());
        object["reason"] = json!(error.to_string());
    }
    add_fields(&mut object, event);
    line(&object)
}

/// Adds what only this kind of event has.
fn add_fields(object: &mut Value, event: &Event<'_>) {
    match event {
        Event::Started { verb, addrs } => {
            object["service"] = json!(verb);
            object["listen"] = json!(addrs);
            object["version"] = json!(env!("CARGO_PKG_VERSION"));
        }
        Event::Fetched {
            bytes, time, kept, ..
        } => {
            object["bytes"] = json!(bytes);
            object["total_ms"] = json!(millis(*time));
            object["stored"] = json!(kept);
        }
        Event::FromStore {
            bytes, is_stale, ..
        } => {
            object["bytes"] = json!(bytes);
            object["store"] = json!(if *is_stale { "stale" } else { "hit" });
        }
        Event::Warmed {
            path,
            texts,
            failed,
            time,
        } => {
            object["path"] = json!(path);
            object["texts"] = json!(texts);
            object["failed"] = json!(failed);
            object["total_ms"] = json!(millis(*time));
        }
        Event::Store { path, news } => {
            object["path"] = json!(path);
            add_store_news(object, news);
        }
        Event::Feed { upstream, news } => {
            object["upstream"] = json!(upstream);
            add_feed_news(object, news);
        }
        Event::FetchFailed { time, .. } => object["total_ms"] = json!(millis(*time)),
        Event::GivenUp { bytes, time, .. } => {
            object["bytes"] = json!(bytes);
            object["total_ms"] = json!(millis(*time));
        }
        Event::Rejected { why, .. } => object["reason"] = json!(why),
        Event::NextUpstream { next, .. } => object["next"] = json!(next.to_string()),
        Event::UpstreamDown {
            upstream, pause, ..
        } => {
            object["upstream"] = json!(upstream);
            object["pause_ms"] = json!(millis(*pause));
        }
        Event::UpstreamPaused { upstream, pause } => {
            object["upstream"] = json!(upstream);
            object["pause_ms"] = json!(millis(*pause));
        }
        Event::ProgramSaid { upstream, line } => {
            object["upstream"] = json!(upstream);
            object["reason"] = json!(line);
        }
        Event::UpstreamUp { upstream, after } => {
            object["upstream"] = json!(upstream);
            object["after_ms"] = json!(millis(*after));
        }
        Event::FewDescriptors { clients } => object["clients"] = json!(clients),
        Event::AcceptPaused { error, pause } => {
            object["reason"] = json!(poetry::error::reason(error));
            object["pause_ms"] = json!(millis(*pause));
        }
        Event::Stopping { signal, open } => {
            object["signal"] = json!(signal);
            object["open"] = json!(open);
        }
        Event::ClientsRefused { why, from, count } => {
            object["reason"] = json!(why);
            object["peer"] = json!(from.map(|ip| ip.to_string()));
            object["count"] = json!(count);
        }
        Event::Draining { open } | Event::Cut { open } => object["open"] = json!(open),
        Event::Purged {
            scope,
            name,
            how,
            texts,
        } => add_purge(object, scope, name, how, *texts),
        Event::Reloaded { what } => match what {
            Reloaded::Purged { texts } => add_purge(object, "all", b"", "soft", *texts),
            Reloaded::Poems { poems } => object["poems"] = json!(poems),
            Reloaded::Routes { routes, texts } => {
                object["routes"] = json!(routes);
                object["texts"] = json!(texts);
            }
            Reloaded::Lists { nets } => object["networks"] = json!(nets),
            Reloaded::Nothing => {}
        },
        Event::Fetching { .. }
        | Event::FetchDelayed { .. }
        | Event::Following { .. }
        | Event::TakenOver { .. }
        | Event::SentOriginal { .. }
        | Event::Declined { .. }
        | Event::ReloadFailed { .. }
        | Event::PoemSkipped { .. } => {}
    }
}

fn add_purge(object: &mut Value, scope: &str, name: &[u8], how: &str, texts: u64) {
    object["scope"] = json!(scope);
    object["key"] = json!(key(name));
    object["how"] = json!(how);
    object["texts"] = json!(texts);
}

fn add_store_news(object: &mut Value, news: &StoreNews) {
    match news {
        StoreNews::Opened { texts, bytes, past } => {
            object["texts"] = json!(texts);
            object["bytes"] = json!(bytes);
            object["past"] = json!(past);
        }
        StoreNews::Damaged { aside } => object["aside"] = json!(aside),
        StoreNews::Answers { after, alone } => {
            object["after_ms"] = json!(millis(*after));
            object["alone"] = json!(alone);
        }
        _ => {}
    }
    if let Some(why) = news.reason() {
        object["reason"] = json!(why);
    }
}

fn add_feed_news(object: &mut Value, news: &FeedNews) {
    match news {
        FeedNews::LinesLost { lines, readers } => {
            object["feed_lost"] = json!(lines);
            object["readers"] = json!(readers);
        }
        FeedNews::LineTooLong { longest } => object["longest"] = json!(longest),
    }
}

/// The figures of the service. `lost` lines of the log were lost.
pub(super) fn summary(snapshot: &Snapshot, lost: u64) -> String {
    let mut object = start("summary");
    let connections = &snapshot.connections;
    object["uptime_ms"] = json!(millis(snapshot.uptime));
    object["lost_lines"] = json!(lost);
    object["connections"] = json!({
        "hit": connections.hit,
        "stale": connections.stale,
        "collapsed": connections.coalesced,
        "miss": connections.miss,
        "own": connections.own,
        "failure": connections.failure,
        "unasked": connections.unasked,
        "open": connections.open,
        "limit": connections.limit,
    });
    object["failures"] = counts(&REASONS, &snapshot.failures);
    object["refused"] = counts(&REFUSALS, &snapshot.refused);

    if let Some(fetches) = &snapshot.fetches {
        object["fetches"] = json!({
            "running": fetches.running,
            "waiting": fetches.waiting,
            "begun": fetches.begun,
            "kept": fetches.kept,
            "failed": fetches.failed,
            "refused": fetches.refused,
            "rate_waits": fetches.rate_waits,
        });
    }
    if let Some(cache) = &snapshot.cache {
        object["cache"] = json!({
            "keys": cache.keys,
            "bytes": cache.bytes,
            "capacity": cache.capacity,
        });
    }
    if let Some(store) = &snapshot.store {
        object["store"] = json!({
            "open": store.is_open,
            "hit": store.hits,
            "stale": store.stale,
            "missed": store.misses,
            "late": store.late,
            "written": store.written,
            "dropped": store.dropped,
            "errors": store.errors,
            "texts": store.texts,
            "bytes": store.bytes,
            "capacity": store.capacity,
        });
    }
    if let Some(warm) = &snapshot.warm {
        object["warm"] = json!({
            "fresh": warm.fresh,
            "failed": warm.failed,
            "waiting": warm.waiting,
        });
    }
    let fleet = snapshot.store.as_ref().and_then(|store| store.fleet);
    if let Some(fleet) = fleet {
        let figures = FleetCounts::WORDS.into_iter().zip(fleet.all());
        object["fleet"] = figures
            .map(|(word, count)| (word.to_string(), json!(count)))
            .collect();
        object["fleet"]["purges_owed"] = json!(fleet.purges_owed);
    }
    if let Some(feed) = &snapshot.feed {
        object["feed"] = json!({
            "connected_ms": feed.connected.map(millis),
            "connections": feed.connections,
            "readers": feed.readers,
            "slow": feed.slow,
            "lines": feed.lines,
            "bytes": feed.bytes,
            "lost": feed.lost,
            "too_long": feed.too_long,
            "cut": feed.cut,
            "held": feed.held,
            "backlog": feed.backlog,
        });
    }
    if !snapshot.upstreams.is_empty() {
        let upstreams = snapshot.upstreams.iter();
        object["upstreams"] = upstreams.map(upstream).collect();
    }
    line(&object)
}

/// The figures of one upstream.
fn upstream(figures: &UpstreamCounts) -> Value {
    let mut object = json!({
        "upstream": figures.name,
        "connections": figures.connections,
        "asked": figures.asked,
        "failures": counts(&ERRORS, &figures.failures),
        "bytes": figures.received,
    });

    object["state"] = json!(match figures.state {
        UpstreamState::Unknown => "unknown",
        UpstreamState::Up => "up",
        UpstreamState::Down(_) => "down",
    });
    if let UpstreamState::Down(time) = figures.state {
        object["down_ms"] = json!(millis(time));
    }
    if let Some(time) = figures.paused {
        object["paused_ms"] = json!(millis(time));
    }
    if let Some(ago) = figures.last_success {
        object["last_success_ms"] = json!(millis(ago));
    }
    if let Some((reason, ago)) = &figures.last_error {
        object["last_error_ms"] = json!(millis(*ago));
        object["reason"] = json!(reason);
    }
    object
}

/// Numbers by their names.
fn counts(names: &[&str], counts: &[u64]) -> Value {
    let pairs = names.iter().zip(counts);
    pairs
        .map(|(name, count)| (name.to_string(), json!(count)))
        .collect()
}

/// The error that ends the process.
pub(super) fn error(error: &Error, text: &str) -> String {
    let mut object = start("error");
    object["outcome"] = json!(error.word());
    object["reason"] = json!(text);
    line(&object)
}

/// What is probably a mistake.
pub(super) fn warning(text: &str) -> String {
    let mut object = start("warning");
    object["reason"] = json!(text);
    line(&object)
}

/// A bug that ended a task.
pub(super) fn panic(reason: &str) -> String {
    let mut object = start("panic");
    object["reason"] = json!(reason);
    line(&object)
}

#[cfg(test)]
mod tests;
