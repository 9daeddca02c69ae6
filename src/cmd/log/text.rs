//! The log for people. Each line names what was asked for, if there was a request.

mod summary;

use super::lines::{Answer, thousands};
use crate::cmd::deadlines::explain;
use bytesize::ByteSize;
use colored::{Color, Colorize};
use poetry::error::{Error, reason};
use poetry::escape;
use poetry::observe::{AccessRecord, CacheStatus, Event, FeedNote, Outcome, Reloaded, StoreNews};
use std::net::IpAddr;
use std::time::Duration;
pub(super) use summary::summary;

/// The option that limits the time of a whole fetch.
const FETCH_OPTION: &str = "--fetch-timeout";

/// A request's line with `-v`. It stands for `sample` requests like it.
pub(super) fn request(record: &AccessRecord<'_>, sample: u64) -> String {
    let status = match record.status {
        CacheStatus::Hit(_) => "hit",
        CacheStatus::Stale => "stale",
        CacheStatus::Coalesced => "coalesced",
        CacheStatus::Miss => "miss",
        CacheStatus::Negative => "cached failure",
        CacheStatus::Own => "own",
        CacheStatus::Live => "live",
        CacheStatus::NoRequest => "no request",
    };
    let end = match &record.outcome {
        Outcome::Failed(error) => format!("failed: {}", escape::text(&error.to_string())),
        other => other.word().replace('_', " "),
    };
    let (peer, asked, bytes) = (record.peer, asked(record.request), record.bytes);
    let mut line = format!("{peer}: {asked}{status}, {bytes} bytes, {end}");

    if let Some(feed) = record.feed {
        line += &format!(", {}", lines(feed.lines));
        if feed.lost > 0 {
            line += &format!(", {} lost", thousands(feed.lost));
        }
    } else if record.wait.as_millis() > 0 {
        line += &format!(", waited {}", short(record.wait));
    }
    if sample > 1 {
        line += &format!(" (one of {})", thousands(sample));
    }
    line
}

/// A request's line without `-v`. Lines of one kind are folded.
pub(super) fn answer(answer: Answer, record: &AccessRecord<'_>) -> String {
    let what = match answer {
        Answer::Hit => "using the cached poem",
        Answer::Coalesced => "joining the fetch under way",
        Answer::Own => "sending a poem",
        Answer::Live => "a reader has left the feed",
        Answer::Stale => "using a stale poem",
        Answer::CachedFailure => "using a cached failure",
    };
    let line = asked(record.request) + what;
    line.dimmed().to_string()
}

/// A poem of our own that could not be sent whole.
pub(super) fn own_failure(error: &Error, record: &AccessRecord<'_>) -> String {
    warning(&(asked(record.request) + &error.to_string()))
}

/// A reader of a feed that has ended and was too slow.
pub(super) fn lost_by_reader(note: FeedNote, record: &AccessRecord<'_>) -> String {
    let (lost, all) = (lines(note.lost), thousands(note.lines + note.lost));
    warning(&format!("{}: too slow: lost {lost} of {all}", record.peer))
}

/// The error that ends the process.
pub(super) fn error(text: &str) -> String {
    let text = escape::text(text);
    format!("{} {text}", "poetry:".color(Color::Red).bold())
}

/// Something went wrong.
pub(super) fn warning(text: &str) -> String {
    let text = escape::text(text);
    format!("{} {text}", "poetry:".color(Color::Yellow))
}

/// A bug that ended a task.
pub(super) fn panic(reason: &str) -> String {
    warning(&format!("internal error: {reason}"))
}

/// How many lines were lost: the queue was full, or they could not be written.
pub(super) fn lost(lines: u64) -> String {
    warning(&match lines {
        1 => "1 log line was lost".to_string(),
        lines => format!("{} log lines were lost", thousands(lines)),
    })
}

fn lines(count: u64) -> String {
    let noun = if count == 1 { "line" } else { "lines" };
    format!("{} {noun}", thousands(count))
}

/// An event.
pub(super) fn event(event: &Event<'_>) -> String {
    let asked = event.fetch().map(|fetch| asked(fetch.request));
    let line = asked.unwrap_or_default() + &words(event);

    if event.is_trouble() {
        warning(&line)
    } else {
        escape::text(&line)
    }
}

/// What an event is folded by.
pub(super) fn kind(event: &Event<'_>) -> String {
    let word = event.word();
    match event {
        Event::PoemSkipped { error } => format!("{word} {error}"),
        Event::AcceptPaused { pause, .. } => format!("{word} {pause:?}"),
        Event::UpstreamDown { upstream, .. }
        | Event::UpstreamPaused { upstream, .. }
        | Event::ProgramSaid { upstream, .. }
        | Event::Feed { upstream, .. }
        | Event::UpstreamUp { upstream, .. } => {
            format!("{word} {upstream}")
        }
        Event::FromStore { is_stale, .. } => format!("{word} {is_stale}"),
        Event::ClientsRefused { why, .. } => format!("{word} {why}"),
        _ => format!("{word} {}", event.error().map_or("", Error::word)),
    }
}

/// An event in plain words, as they come: control characters may be among them.
pub(super) fn words(event: &Event<'_>) -> String {
    match event {
        Event::Started { verb, addrs } => format!("{verb} on {}", addrs.join(" and ")),
        Event::Stopping { signal, .. } => format!("stopping: {signal}"),
        Event::Fetching { fetch } if fetch.request.is_empty() => {
            format!("fetching a poem from {}", fetch.upstream)
        }
        Event::Fetching { fetch } => format!("fetching from {}", fetch.upstream),
        Event::FetchDelayed { fetch } => {
            format!("waiting until {} may be asked", fetch.upstream)
        }
        Event::Fetched {
            bytes, time, kept, ..
        } => {
            let kept = if *kept { "kept" } else { "not kept" };
            format!("fetched {bytes} bytes in {}, {kept}", short(*time))
        }
        Event::FromStore { is_stale, .. } => {
            let stale = if *is_stale { "stale " } else { "" };
            format!("using the store's {stale}copy")
        }
        Event::Warmed {
            path,
            texts,
            failed,
            time,
        } => warmed(path, *texts, *failed, *time),
        Event::Following { .. } => "following another proxy's fetch".into(),
        Event::TakenOver { .. } => "took over another proxy's fetch".into(),
        Event::Store { path, news } => format!("{path}: {}", store_news(news)),
        Event::Feed { upstream, news } => format!("{upstream}: {news}"),
        Event::FetchFailed { error, .. } => explain(error, FETCH_OPTION),
        Event::GivenUp { bytes, .. } => {
            format!("gave up after {bytes} bytes: no client is left, and the poem can't be kept")
        }
        Event::Rejected { fetch, why } => format!("{}: rejected: {why}", fetch.upstream),
        Event::NextUpstream { error, next, .. } => {
            format!("{}; trying {next}", explain(error, FETCH_OPTION))
        }
        Event::UpstreamDown { error, pause, .. } => {
            let error = explain(error, FETCH_OPTION);
            format!("{error}; not asked first for {}", short(*pause))
        }
        Event::UpstreamPaused { upstream, pause } => {
            let pause = short(*pause);
            format!("{upstream}: its answer matches --reject; not asked for {pause}")
        }
        Event::ProgramSaid { upstream, line } => format!("{upstream} said: {line}"),
        Event::UpstreamUp { upstream, after } => {
            format!("{upstream}: answers again, after {}", short(*after))
        }
        Event::SentOriginal { error, .. } => {
            format!("sending the original: {}", explain(error, FETCH_OPTION))
        }
        Event::Declined { error } => explain(error, "--timeout"),
        Event::PoemSkipped { error } => error.to_string(),
        Event::FewDescriptors { clients } => format!(
            "serving at most {clients} clients at once: the limit on open files allows no more"
        ),
        Event::AcceptPaused { error, pause } => {
            format!("accepting pauses for {}: {}", short(*pause), reason(error))
        }
        Event::ClientsRefused { why, from, count } => refused(why, *from, *count),
        Event::Draining { open } => format!(
            "stopping: finishing {}; Ctrl-C again stops at once",
            connections(*open)
        ),
        Event::Cut { open } => format!("out of time: cutting {}", connections(*open)),
        Event::Purged {
            scope,
            name,
            how,
            texts,
        } => format!("{} ({how})", answers_purged(scope, name, *texts)),
        Event::Reloaded { what } => reloaded(*what),
        Event::ReloadFailed { error } => format!("not reloaded: {error}"),
    }
}

/// Clients that were refused, and by which options.
fn refused(why: &str, from: Option<IpAddr>, count: u64) -> String {
    let options = match why {
        "denied" => "--allow, --deny",
        "per_address" => "--max-per-address",
        _ => "--client-rate",
    };
    let from = from.map(|ip| ip.to_string()).unwrap_or_default();
    match count {
        1 => format!("refused a connection from {from} ({options})"),
        count => {
            let count = thousands(count);
            format!("refused {count} connections within a minute ({options}), the last from {from}")
        }
    }
}

/// What a purge found.
fn answers_purged(scope: &str, name: &[u8], texts: u64) -> String {
    let name = String::from_utf8_lossy(name);
    let answers = if texts == 1 { "answer" } else { "answers" };
    match scope {
        "prefix" => format!("purged {texts} cached {answers} of names that begin with {name:?}"),
        "key" if name.is_empty() => format!("purged {texts} cached {answers}"),
        "key" => format!("purged {texts} cached {answers} named {name:?}"),
        _ => format!("purged {texts} cached {answers}"),
    }
}

fn warmed(path: &str, texts: u64, failed: u64, time: Duration) -> String {
    let noun = if texts == 1 { "poem" } else { "poems" };
    let texts = thousands(texts);
    let text = format!("{path}: {texts} {noun} warm after {}", short(time));
    match failed {
        0 => text,
        failed => format!("{text}; {} could not be fetched", thousands(failed)),
    }
}

fn store_news(news: &StoreNews) -> String {
    let StoreNews::Opened { texts, bytes, past } = news else {
        return news.to_string();
    };
    let noun = if *texts == 1 { "poem" } else { "poems" };
    let size = ByteSize(*bytes).display().si();
    let (texts, past) = (thousands(*texts), thousands(*past));
    format!("{texts} {noun}, {size}, {past} past their ttl")
}

fn reloaded(what: Reloaded) -> String {
    match what {
        Reloaded::Purged { texts: 1 } => "purged 1 cached answer".into(),
        Reloaded::Purged { texts } => format!("purged {texts} cached answers"),
        Reloaded::Poems { poems: 1 } => "read 1 poem again".into(),
        Reloaded::Poems { poems } => format!("read {poems} poems again"),
        Reloaded::Routes { routes, texts } => {
            let noun = if routes == 1 { "route" } else { "routes" };
            let answers = if texts == 1 { "answer" } else { "answers" };
            format!("read {routes} {noun} again, purged {texts} cached {answers}")
        }
        Reloaded::Lists { nets: 1 } => "read 1 network again".into(),
        Reloaded::Lists { nets } => format!("read {} networks again", thousands(nets as u64)),
        Reloaded::Nothing => "nothing to reload".into(),
    }
}

/// What was asked for, before the rest of a line. Nothing in the poem protocol.
fn asked(request: &[u8]) -> String {
    const LONGEST: usize = 100;

    if request.is_empty() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&request[..request.len().min(LONGEST)]);
    let dots = if request.len() > LONGEST { "..." } else { "" };
    format!("'{}{dots}': ", escape::text(&text))
}

fn connections(count: u64) -> String {
    let noun = if count == 1 {
        "connection"
    } else {
        "connections"
    };
    format!("{} {noun}", thousands(count))
}

/// A duration in whole milliseconds. One that took less took some time all the same.
fn short(time: Duration) -> String {
    let millis = time.as_millis() as u64;
    if millis == 0 && !time.is_zero() {
        return "less than 1ms".to_string();
    }

    humantime::format_duration(Duration::from_millis(millis)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_time_is_not_printed_as_none() {
        let printed = [0, 300, 1_999_999, 61_000_400].map(Duration::from_nanos);
        let printed = printed.map(short);
        assert_eq!(printed, ["0s", "less than 1ms", "1ms", "61ms"]);
    }
}
