//! The line language: a command, answered with text and a close. Pure.
//!
//! It is what `poetry fetch --ask COMMAND unix:PATH` and `nc -U PATH` speak. A browser
//! can't send a first line that is not HTTP, so it adds no way in for web pages.

use super::action::{self, Action, KEYS_MAX, KeyQuery, PurgeTarget};
use crate::cache::Purge;
use crate::escape;
use crate::protocol::check_line;
use std::time::Duration;

/// The commands.
pub const HELP: &str = "\
status             the figures at a glance
keys [PREFIX]      what is cached, and for how long
flights            the fetches under way and in queue
upstreams          the servers that are asked
log [CLASS]        requests as they end: hit, stale, collapsed, miss, own, failure
top                the figures, each second
top keys           the keys asked for most, each second
purge KEY          remove one cached answer; over unix: only
purge --prefix P   remove those that begin with P
purge --all        remove all
refresh KEY        fetch one text now; over unix: only
ready              whether new clients are served: a reset if not
live               whether the executor runs: a reset if not
metrics            the figures for Prometheus
notices            what went wrong lately, counted
help               this
";

/// What this command asks for. The name of a key is the rest of the line as it is.
///
/// # Errors
/// What is wrong with it.
pub fn parse(line: &[u8]) -> Result<Action, String> {
    if check_line(line).is_err() {
        return Err("wanted one line of at most 1024 bytes".into());
    }
    let (word, rest) = split(line);
    let plain = |action: Action| {
        if rest.is_none_or(|rest| rest.trim_ascii().is_empty()) {
            return Ok(action);
        }
        Err(format!("{} stands alone; try help", word.escape_ascii()))
    };

    match word {
        b"status" => plain(Action::Status {
            history: Duration::ZERO,
        }),
        b"flights" => plain(Action::Flights),
        b"upstreams" => plain(Action::Upstreams),
        b"ready" => plain(Action::Ready { upstream: false }),
        b"live" => plain(Action::Live),
        b"metrics" => plain(Action::Metrics),
        b"notices" => plain(Action::Notices),
        b"help" | b"" => plain(Action::Help),
        b"top" if rest.map(<[u8]>::trim_ascii) == Some(b"keys") => Ok(Action::TopKeys),
        b"top" => plain(Action::Top),
        b"keys" => Ok(Action::Keys(KeyQuery {
            prefix: rest.unwrap_or_default().to_vec(),
            cursor: None,
            limit: KEYS_MAX,
        })),
        b"log" => log(rest.unwrap_or_default().trim_ascii()),
        b"purge" => purge(rest),
        b"refresh" => Ok(Action::Refresh {
            name: rest.ok_or("wanted refresh KEY")?.to_vec(),
            wait: false,
        }),
        _ => {
            let word = escape::text(&String::from_utf8_lossy(word));
            Err(format!("no such command: {word}; try help"))
        }
    }
}

fn log(class: &[u8]) -> Result<Action, String> {
    let class = match class {
        b"" => None,
        word => {
            let class = std::str::from_utf8(word).ok().and_then(action::class);
            Some(class.ok_or_else(|| format!("a class is one of {}", action::classes()))?)
        }
    };
    Ok(Action::Log { class, sample: 1 })
}

/// A key is what follows the first blank, or nothing (`purge `): the poem protocol's.
/// A bare `purge` or `refresh` is a mistake more often than that.
fn purge(rest: Option<&[u8]>) -> Result<Action, String> {
    const WANTED: &str = "wanted purge KEY, purge --prefix P or purge --all";
    let rest = rest.ok_or(WANTED)?;
    let target = match split(rest) {
        (b"--all", None) => PurgeTarget::All,
        (b"--prefix", Some(prefix)) if !prefix.is_empty() => PurgeTarget::Prefix(prefix.to_vec()),
        (b"--", Some(name)) => PurgeTarget::Named(name.to_vec()),
        (word, _) if word.starts_with(b"--") => return Err(WANTED.into()),
        _ => PurgeTarget::Named(rest.to_vec()),
    };
    Ok(Action::Purge(target, Purge::Hard))
}

/// The first word, and what follows the blank after it.
fn split(line: &[u8]) -> (&[u8], Option<&[u8]>) {
    match line.iter().position(|byte| *byte == b' ') {
        Some(blank) => (&line[..blank], Some(&line[blank + 1..])),
        None => (line, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_of_the_help_is_one() {
        let commands = HELP.lines().map(|line| {
            let command = line.split("  ").next().unwrap_or_default();
            command.replace("[PREFIX]", "a").replace("[CLASS]", "miss")
        });
        for command in commands {
            assert!(parse(command.as_bytes()).is_ok(), "{command}");
        }
    }

    #[test]
    fn a_key_is_the_rest_of_the_line() {
        let purge = |target| Ok(Action::Purge(target, Purge::Hard));
        let named = |name: &[u8]| purge(PurgeTarget::Named(name.to_vec()));
        assert_eq!(parse(b"purge -T dn,ace a"), named(b"-T dn,ace a"));
        assert_eq!(parse(b"purge  a "), named(b" a "));
        assert_eq!(parse(b"purge "), named(b""), "the poem");
        assert_eq!(parse(b"purge -- --all"), named(b"--all"));
        assert_eq!(parse(b"purge --all"), purge(PurgeTarget::All));
        let prefix = PurgeTarget::Prefix(b"a b".to_vec());
        assert_eq!(parse(b"purge --prefix a b"), purge(prefix));
        let name = b"\xff".to_vec();
        let refresh = Action::Refresh { name, wait: false };
        assert_eq!(parse(b"refresh \xff"), Ok(refresh));
    }

    #[test]
    fn a_mistake_purges_nothing() {
        for line in [
            &b"purge"[..],
            b"refresh",
            b"purge --al",
            b"purge --all example.net",
            b"purge --prefix",
            b"purge --prefix ",
            b"PURGE a",
            b"purg a",
            b"status a",
            b"log nothing",
            b"GET /",
            b"a\nb",
        ] {
            assert!(parse(line).is_err(), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn an_unknown_command_is_told_without_control_characters() {
        let error = parse("\u{202e}x y".as_bytes()).expect_err("no command");
        assert_eq!(error, "no such command: \\u{202e}x; try help");
    }
}
