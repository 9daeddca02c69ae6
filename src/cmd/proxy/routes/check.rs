//! What routes mean, for people: `--check`.

use humantime::format_duration;
use poetry::error::{Error, reason};
use poetry::handler::proxy::{KeyFold, RouteSet, RouteSettings};
use poetry::protocol::check_line;
use poetry::routing::RoutePattern;
use std::io::Write;

/// The columns of the table.
const HEADS: [&str; 4] = ["ROUTE", "TAKES", "ASKS", "DIFFERS IN"];

/// A table of the routes. What none of them takes is asked of `rest`.
pub(super) fn table(set: &RouteSet, rest: &str) -> String {
    let mut rows = vec![HEADS.map(String::from)];
    rows.extend(set.routes().iter().map(row));
    if !set.takes_all() {
        let takes = "all other requests".to_string();
        rows.push(["UPSTREAM".into(), takes, rest.into(), String::new()]);
    }

    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths = [0, 1, 2].map(|column| width(column).unwrap_or_default());
    let mut text = String::new();
    for row in &rows {
        let [a, b, c, d] = row;
        let [w, x, y] = widths;
        let line = format!("{a:w$}  {b:x$}  {c:y$}  {d}");
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn row(route: &RouteSettings) -> [String; 4] {
    [
        route.place.clone(),
        takes(&route.pattern),
        asks(route),
        differences(route).join(", "),
    ]
}

fn takes(pattern: &RoutePattern) -> String {
    match pattern {
        RoutePattern::Suffix(suffix) => format!("names that end in .{suffix}"),
        RoutePattern::Net(net) if net.prefix_len() == net.max_prefix_len() => {
            format!("the address {pattern}")
        }
        RoutePattern::Net(_) => format!("addresses in {pattern}"),
        RoutePattern::Matches(_) => format!("requests that match {pattern}"),
        RoutePattern::Rest => "all other requests".into(),
    }
}

/// The upstreams in the order in which they are asked.
fn asks(route: &RouteSettings) -> String {
    let names = route.origins.iter().map(|origin| origin.to_string());
    names.collect::<Vec<_>>().join(", then ")
}

fn differences(route: &RouteSettings) -> Vec<String> {
    let times = [
        ("ttl", route.ttl),
        ("grace", route.grace),
        ("fail-ttl", route.fail_ttl),
    ];
    let send = route.send.as_ref();
    let mut all: Vec<String> = send
        .map(|send| format!("sends '{send}'"))
        .into_iter()
        .collect();
    for (name, time) in times {
        all.extend(time.map(|time| format!("{name} {}", format_duration(time))));
    }
    all.extend(route.rate.map(|rate| format!("rate {rate}")));
    all.extend(route.conns.map(|conns| format!("conns {conns}")));
    let reject = route.reject.as_ref();
    all.extend(reject.map(|reject| format!("rejects '{reject}'")));
    all.extend(route.min_bytes.map(|bytes| format!("min-bytes {bytes}")));
    let marker = route.end_marker.as_ref();
    all.extend(marker.map(|_| "an end-marker of its own".to_string()));
    all.extend(route.allow_empty.map(|may| {
        let may = if may { "may" } else { "may not" };
        format!("{may} be empty")
    }));
    let retry = route.connect_retry;
    all.extend(retry.map(|retry| format!("connect-retry {}", format_duration(retry))));
    all
}

/// Which route takes a request, and what is sent where.
pub(super) fn answer(set: &RouteSet, rest: &str, request: &str, fold: KeyFold) -> String {
    if let Err(why) = check_line(request.as_bytes()) {
        return format!("{request:?}: no request: {why}\n");
    }
    let folded = fold.whole(request.as_bytes());
    let Some(route) = set.choose(&folded) else {
        return format!("'{request}': no route takes it; sent as it is to {rest}\n");
    };

    let begin = format!("'{request}': {} ({})", route.pattern, route.place);
    let to = asks(route);
    match &route.send {
        None => format!("{begin}; sent as it is to {to}\n"),
        Some(send) => match send.fill(request.as_bytes(), &to) {
            Ok(line) => {
                let line = String::from_utf8_lossy(&line);
                format!("{begin}; sent as '{line}' to {to}\n")
            }
            Err(error) => format!("{begin}; declined: {error}\n"),
        },
    }
}

/// Prints on standard output.
pub(super) fn print(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| Error::Output {
        subject: "standard output".into(),
        why: reason(&error),
    })
}
