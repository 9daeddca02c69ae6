//! Routes on the command line and in a file: what they say, and what is wrong with
//! them.

mod check;

use super::{EXEC, pattern, rate};
use crate::cmd::addrs::connect_addr;
use crate::cmd::answers::end_marker;
use crate::cmd::failure::Failure;
use crate::cmd::log;
use crate::cmd::transforms::most_similar;
use crate::cmd::values::{duration, number};
use clap::Args;
use poetry::error::{Error, reason};
use poetry::handler::proxy::{BadRoutes, KeyFold, ReadRoutes, RouteSet, RouteSettings};
use poetry::routing::{RouteLine, RoutePattern, route_lines};
use poetry::upstream::{BadCommand, ExecCommand, Origin};
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which requests have other upstreams.
#[derive(Debug, Clone, Args)]
pub(super) struct Routes {
    /// Ask other servers for requests that a pattern takes: *.SUFFIX, an address or a
    /// network, /REGEX/, or * for all others; UPSTREAM is for what no route takes;
    /// needs --protocol line
    #[arg(long, value_name = "PATTERN=UPSTREAM[,UPSTREAM]", value_parser = route)]
    route: Vec<RouteSettings>,
    /// Routes in a file, a line each: PATTERN UPSTREAM[,UPSTREAM] and what differs,
    /// such as ttl=1d rate=30/min; read again on SIGHUP
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// Print what the routes mean, or what is wrong with them, and exit
    #[arg(long)]
    pub check: bool,
    /// With --check: print which route takes this request, and what is sent where
    #[arg(
        long,
        value_name = "TEXT",
        requires = "check",
        allow_hyphen_values = true
    )]
    ask: Vec<String>,
}

/// What routes need to know of the other arguments.
#[derive(Debug, Clone, Copy)]
pub(super) struct RouteContext {
    /// Whether there is an UPSTREAM for what no route takes.
    pub has_rest: bool,
    /// Connections at once, where a route does not say.
    pub conns: usize,
    pub fold: KeyFold,
    /// Whether warnings are left out.
    pub is_quiet: bool,
}

/// The longest file of routes, in bytes: some 50,000 lines. There are 1,500 top-level
/// domains.
const FILE_MAX: u64 = 4 << 20;

/// Errors that are told at once.
const ERRORS_MAX: usize = 20;

/// The port that is proposed where none is given: that of whois.
const PORT: u16 = 43;

impl Routes {
    /// Whether there are any.
    pub fn are_given(&self) -> bool {
        !self.route.is_empty() || self.routes.is_some()
    }

    /// The option that they are given by.
    pub fn option(&self) -> &'static str {
        if self.routes.is_some() {
            "routes"
        } else {
            "route"
        }
    }

    /// Reads the routes. Warns of those that are never reached.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn load(&self, context: &RouteContext) -> Result<RouteSet, Vec<BadRoutes>> {
        let mut routes = self.route.clone();
        if let Some(path) = &self.routes {
            routes.extend(read(path)?);
        }
        let routes = routes.into_iter().map(|of| with_runs(of, context.conns));
        let ignores_case = context.fold.case;
        let set = RouteSet::new(routes.collect(), ignores_case).map_err(|bad| vec![bad])?;

        self.check_rest(&set, context).map_err(|bad| vec![bad])?;
        if !context.is_quiet {
            for (route, first) in set.shadowed() {
                let (place, pattern) = (&route.place, &route.pattern);
                let first = &first.place;
                log::warning(&format!(
                    "{place}: '{pattern}' is never reached: {first} takes what it would"
                ));
            }
        }
        Ok(set)
    }

    /// Each request must have an upstream, and each upstream a request.
    fn check_rest(&self, set: &RouteSet, context: &RouteContext) -> Result<(), BadRoutes> {
        let is_rest = |of: &&RouteSettings| matches!(of.pattern, RoutePattern::Rest);
        let rest = set.routes().iter().find(is_rest);
        match rest {
            Some(route) if context.has_rest => Err(BadRoutes {
                place: route.place.clone(),
                why: "'*' takes all that UPSTREAM is for; wanted one of them".into(),
            }),
            None if !context.has_rest => Err(BadRoutes {
                place: self.place(),
                why: "no route takes what the others leave; wanted a route '*', or an UPSTREAM"
                    .into(),
            }),
            _ => Ok(()),
        }
    }

    fn place(&self) -> String {
        let path = self.routes.as_deref();
        path.map_or("--route".into(), |path| path.display().to_string())
    }

    /// The same as a usage error.
    pub fn failure(&self, errors: &[BadRoutes]) -> Failure {
        Failure::value(self.option(), told(errors))
    }

    /// What reads them again. `None` if they are not in a file.
    pub fn reader(&self, context: RouteContext) -> Option<ReadRoutes> {
        self.routes.as_ref()?;
        let routes = self.clone();
        Some(Box::new(move || {
            routes.load(&context).map_err(|errors| {
                let (first, more) = errors.split_first().expect("something is wrong");
                let mut why = first.why.clone();
                if !more.is_empty() {
                    why += &format!(" (and {} more)", more.len());
                }
                let subject = first.place.clone();
                Error::Local { subject, why }
            })
        }))
    }

    /// Prints what the routes mean, and which take the requests of --ask.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn print(&self, set: &RouteSet, rest: &str, fold: KeyFold) -> Result<(), Error> {
        let mut text = check::table(set, rest);
        for request in &self.ask {
            text.push('\n');
            text += &check::answer(set, rest, request, fold);
        }
        check::print(&text)
    }
}

/// The most connections to the upstreams of routes that are reckoned with. With routes
/// to hundreds of servers not all are asked at once; if they are, a fetch without a
/// descriptor fails.
const CONNS_MAX: usize = 1024;

/// Connections that the routes may have at once.
pub(super) fn connections(set: &RouteSet, conns: usize) -> usize {
    let mut lists = HashSet::new();
    let own = set.routes().iter().filter_map(|route| {
        let ids: Vec<Vec<u8>> = route.origins.iter().map(|origin| origin.id()).collect();
        lists.insert(ids).then(|| route.conns.unwrap_or(conns))
    });
    own.sum::<usize>().min(CONNS_MAX)
}

/// The errors, a line each.
fn told(errors: &[BadRoutes]) -> String {
    let lines = errors.iter().take(ERRORS_MAX).map(BadRoutes::to_string);
    let mut lines: Vec<String> = lines.collect();
    if errors.len() > ERRORS_MAX {
        lines.push(format!("and {} more", errors.len() - ERRORS_MAX));
    }
    lines.join("\n")
}

/// A route with commands of which as many may run as there are connections.
fn with_runs(mut route: RouteSettings, conns: usize) -> RouteSettings {
    let runs = route.conns.unwrap_or(conns);
    for origin in &mut route.origins {
        if let Origin::Exec(command) = &**origin {
            *origin = Arc::new(Origin::Exec(command.clone().at_most(runs)));
        }
    }
    route
}

/// Parses one `--route`.
fn route(text: &str) -> Result<RouteSettings, String> {
    const WANTED: &str = "wanted PATTERN=UPSTREAM, like '*.example=whois.example:43'";
    let Some((pattern, upstreams)) = split(text) else {
        return Err(format!("no '=' after the pattern; {WANTED}"));
    };
    let pattern: Result<RoutePattern, _> = pattern.parse();
    let pattern = pattern.map_err(|error| error.to_string())?;
    let place = format!("--route '{text}'");
    Ok(RouteSettings::new(pattern, place, origins(upstreams)?))
}

/// The pattern, and what follows the `=` after it. That of an expression is the first
/// after a slash.
fn split(text: &str) -> Option<(&str, &str)> {
    if !text.starts_with('/') {
        return text.split_once('=');
    }
    let ends = text.match_indices("/=").map(|(at, _)| at);
    let mut ends = ends.filter(|at| *at > 0 && !text[..*at].ends_with('\\'));
    let end = ends.next()?;
    Some((&text[..=end], &text[end + 2..]))
}

/// Upstreams between commas. A command has the rest of the text.
fn origins(text: &str) -> Result<Vec<Arc<Origin>>, String> {
    let mut origins = Vec::new();
    let mut rest = Some(text);
    while let Some(text) = rest {
        let one = if text.starts_with(EXEC) {
            rest = None;
            text
        } else {
            let (one, more) = text
                .split_once(',')
                .map_or((text, None), |(a, b)| (a, Some(b)));
            rest = more;
            one
        };
        origins.push(Arc::new(origin(one)?));
    }
    Ok(origins)
}

fn origin(text: &str) -> Result<Origin, String> {
    if let Some(command) = text.strip_prefix(EXEC) {
        let command: Result<ExecCommand, BadCommand> = command.parse();
        return command.map(Origin::Exec).map_err(|error| error.to_string());
    }
    if text == "builtin" {
        return Err("builtin takes no request; wanted a server or a command".into());
    }
    connect_addr(PORT)(text).map(Origin::Server)
}

/// Reads a file of routes.
fn read(path: &Path) -> Result<Vec<RouteSettings>, Vec<BadRoutes>> {
    let text = text(path).map_err(|why| {
        let place = path.display().to_string();
        vec![BadRoutes { place, why }]
    })?;

    let mut routes = Vec::new();
    let mut errors = Vec::new();
    for line in route_lines(&text) {
        let (number, route) = match line {
            Ok(line) => (line.number, parse(&line)),
            Err(bad) => (bad.number, Err(bad.why.to_string())),
        };
        let place = format!("{}:{number}", path.display());
        match route {
            Ok(route) => routes.push(RouteSettings { place, ..route }),
            Err(why) => errors.push(BadRoutes { place, why }),
        }
    }
    if routes.is_empty() && errors.is_empty() {
        let place = path.display().to_string();
        let why = "no route in it; wanted lines like '*.example whois.example:43'".into();
        errors.push(BadRoutes { place, why }); // it may be half written
    }
    if errors.is_empty() {
        Ok(routes)
    } else {
        Err(errors)
    }
}

fn text(path: &Path) -> Result<String, String> {
    let meta = std::fs::metadata(path).map_err(|error| reason(&error))?;
    if !meta.is_file() {
        return Err("no file that can be read again; wanted a file of routes".into());
    }
    let file = File::open(path).map_err(|error| reason(&error))?;
    let mut bytes = Vec::new();
    let read = file.take(FILE_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| reason(&error))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(format!("over {FILE_MAX} bytes; wanted a file of routes"));
    }
    String::from_utf8(bytes).map_err(|_| "no text in UTF-8; wanted a file of routes".into())
}

/// A line of a file, all but its place.
fn parse(line: &RouteLine) -> Result<RouteSettings, String> {
    let quoted = |word: &str, why: String| format!("'{word}': {why}");
    let mut words = line.words.iter();
    let word = words.next().map_or("", String::as_str);
    let pattern: Result<RoutePattern, _> = word.parse();
    let pattern = pattern.map_err(|error| quoted(word, error.to_string()))?;

    let Some(word) = words.next() else {
        return Err(quoted(
            word,
            "no upstream after it; wanted HOST:PORT".into(),
        ));
    };
    let origins = origins(word).map_err(|why| quoted(word, why))?;
    let mut route = RouteSettings::new(pattern, String::new(), origins);
    let mut given = HashSet::new();
    for word in words {
        let value = set(&mut route, word, &mut given);
        value.map_err(|why| quoted(word, why))?;
    }
    Ok(route)
}

/// Sets one value of a route.
type SetValue = fn(&mut RouteSettings, &str) -> Result<(), String>;

/// What may differ from one route to another, by its name in a file.
const VALUES: [(&str, SetValue); 11] = [
    ("ttl", |of, text| put(&mut of.ttl, duration(text))),
    ("grace", |of, text| put(&mut of.grace, duration(text))),
    ("fail-ttl", |of, text| put(&mut of.fail_ttl, duration(text))),
    ("rate", |of, text| put(&mut of.rate, rate(text))),
    ("conns", |of, text| {
        let conns = number(1u32)(text).map(|conns| conns as usize);
        put(&mut of.conns, conns)
    }),
    ("reject", |of, text| put(&mut of.reject, pattern(text))),
    ("min-bytes", |of, text| {
        put(&mut of.min_bytes, number(0u64)(text))
    }),
    ("end-marker", |of, text| {
        put(&mut of.end_marker, end_marker(text))
    }),
    ("allow-empty", |of, text| {
        put(&mut of.allow_empty, yes_or_no(text))
    }),
    ("connect-retry", |of, text| {
        put(&mut of.connect_retry, duration(text))
    }),
    ("send", |of, text| {
        let template = text.parse();
        put(
            &mut of.send,
            template.map_err(|error: poetry::routing::BadTemplate| error.to_string()),
        )
    }),
];

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("wanted yes or no".into()),
    }
}

fn put<T>(place: &mut Option<T>, value: Result<T, String>) -> Result<(), String> {
    *place = Some(value?);
    Ok(())
}

/// Sets what a word says. `given` are the names that other words have set.
fn set(
    route: &mut RouteSettings,
    word: &str,
    given: &mut HashSet<&'static str>,
) -> Result<(), String> {
    let names = VALUES.map(|(name, _)| name);
    let (name, text) = word.split_once('=').unwrap_or((word, ""));
    let Some((name, value)) = VALUES.iter().find(|(known, _)| *known == name) else {
        let wanted = match most_similar(name, &names) {
            Some(near) => format!("try {near}="),
            None if !word.contains('=') => {
                "wanted upstreams between commas, without spaces, and then NAME=VALUE".into()
            }
            None => format!("wanted one of {}", names.join(", ")),
        };
        return Err(format!("no such value; {wanted}"));
    };
    if !word.contains('=') {
        return Err(format!("no value; wanted {name}=VALUE"));
    }
    if !given.insert(name) {
        return Err("given twice; wanted one of them".into());
    }
    value(route, text)
}

#[cfg(test)]
mod tests;
