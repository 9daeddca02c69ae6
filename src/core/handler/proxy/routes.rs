//! Routes as they are given: what each takes, what it asks, and how it differs from the
//! proxy.

use crate::error::Error;
use crate::protocol::EndMarker;
use crate::rate::Rate;
use crate::routing::{BadTable, RoutePattern, RoutingTable, SendTemplate};
use crate::upstream::Origin;
use regex::bytes::Regex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// One route. What is `None` is as for the whole proxy.
#[derive(Debug, Clone)]
pub struct RouteSettings {
    /// What it takes.
    pub pattern: RoutePattern,
    /// Where it is written, for errors: a file and a line, or an option.
    pub place: String,
    /// What it asks, in this order: at least one.
    pub origins: Vec<Arc<Origin>>,
    /// What is sent in place of the request.
    pub send: Option<SendTemplate>,
    /// How long a text is fresh.
    pub ttl: Option<Duration>,
    /// How long after that it may be served while it is refreshed.
    pub grace: Option<Duration>,
    /// How long a failure is cached.
    pub fail_ttl: Option<Duration>,
    /// How often each of its sources is asked.
    pub rate: Option<Rate>,
    /// Fetches that may run at once.
    pub conns: Option<usize>,
    /// Texts that match are not kept.
    pub reject: Option<Regex>,
    /// Texts of fewer bytes are not kept.
    pub min_bytes: Option<u64>,
    /// What each whole text ends with.
    pub end_marker: Option<EndMarker>,
    /// Whether a text may have no byte.
    pub allow_empty: Option<bool>,
    /// For how long sources that refuse are asked again.
    pub connect_retry: Option<Duration>,
}

impl RouteSettings {
    /// A route that differs in nothing but what it asks.
    pub fn new(pattern: RoutePattern, place: String, origins: Vec<Arc<Origin>>) -> RouteSettings {
        RouteSettings {
            pattern,
            place,
            origins,
            send: None,
            ttl: None,
            grace: None,
            fail_ttl: None,
            rate: None,
            conns: None,
            reject: None,
            min_bytes: None,
            end_marker: None,
            allow_empty: None,
            connect_retry: None,
        }
    }

    /// What tells its sources from others, in their order.
    pub(super) fn ids(&self) -> Vec<Vec<u8>> {
        self.origins.iter().map(|origin| origin.id()).collect()
    }
}

/// Routes that can be used together. By default none.
#[derive(Debug, Default)]
pub struct RouteSet {
    pub(super) routes: Vec<RouteSettings>,
    pub(super) table: RoutingTable,
    /// The rates that routes give their sources.
    pub(super) rates: HashMap<Vec<u8>, Rate>,
    /// The places that routes give their lists of sources.
    pub(super) conns: HashMap<Vec<Vec<u8>>, usize>,
}

/// Routes that can't be used together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {why}")]
pub struct BadRoutes {
    /// Where the route is written that is to blame.
    pub place: String,
    /// What is wrong, and what is wanted.
    pub why: String,
}

impl RouteSet {
    /// These routes. With `ignores_case` their expressions take great and small letters
    /// alike.
    ///
    /// # Errors
    /// A source has two rates, a list of sources two numbers of connections, or the
    /// expressions are too many or too large.
    pub fn new(routes: Vec<RouteSettings>, ignores_case: bool) -> Result<RouteSet, BadRoutes> {
        let patterns: Vec<RoutePattern> = routes.iter().map(|of| of.pattern.clone()).collect();
        let table = RoutingTable::new(&patterns, ignores_case).map_err(|bad: BadTable| {
            let is_regex = |of: &&RouteSettings| matches!(of.pattern, RoutePattern::Matches(_));
            let last = routes.iter().rfind(is_regex);
            BadRoutes {
                place: last.map(|of| of.place.clone()).unwrap_or_default(),
                why: bad.to_string(),
            }
        })?;

        let (mut rates, mut conns) = (Once::new("rate"), Once::new("conns"));
        for route in &routes {
            let ids = route.ids();
            if let Some(rate) = route.rate {
                for (id, origin) in ids.iter().zip(&route.origins) {
                    rates.set(id.clone(), rate, route, &origin.to_string())?;
                }
            }
            if let Some(number) = route.conns {
                conns.set(ids, number, route, "the same upstreams")?;
            }
        }
        Ok(RouteSet {
            rates: rates.values(),
            conns: conns.values(),
            routes,
            table,
        })
    }

    /// The routes, in their order.
    pub fn routes(&self) -> &[RouteSettings] {
        &self.routes
    }

    /// Routes that are never reached, each with the one that takes what it would.
    pub fn shadowed(&self) -> impl Iterator<Item = (&RouteSettings, &RouteSettings)> {
        let pairs = self.table.shadowed().iter();
        pairs.map(|(route, first)| (&self.routes[*route], &self.routes[*first]))
    }

    /// The route that takes a request.
    pub fn choose(&self, request: &[u8]) -> Option<&RouteSettings> {
        self.table.choose(request).map(|route| &self.routes[route])
    }

    /// Whether a route takes what no other does.
    pub fn takes_all(&self) -> bool {
        let is_rest = |of: &RouteSettings| matches!(of.pattern, RoutePattern::Rest);
        self.routes.iter().any(is_rest)
    }
}

/// Values that may be given once for each key, or the same each time.
struct Once<K, V> {
    name: &'static str,
    given: HashMap<K, (V, String)>,
}

impl<K: Eq + std::hash::Hash, V: PartialEq + std::fmt::Display + Copy> Once<K, V> {
    fn new(name: &'static str) -> Once<K, V> {
        Once {
            name,
            given: HashMap::new(),
        }
    }

    fn set(&mut self, key: K, value: V, route: &RouteSettings, of: &str) -> Result<(), BadRoutes> {
        let first = self.given.entry(key);
        let (before, place) = first.or_insert_with(|| (value, route.place.clone()));
        if *before == value {
            return Ok(());
        }
        let name = self.name;
        Err(BadRoutes {
            place: route.place.clone(),
            why: format!(
                "{name}={value} for {of}, which {place} has given {name}={before}; \
                 wanted one of them"
            ),
        })
    }

    fn values(self) -> HashMap<K, V> {
        let given = self.given.into_iter();
        given.map(|(key, (value, _))| (key, value)).collect()
    }
}

/// The routes of a proxy.
pub struct Routing {
    /// The routes at first.
    pub set: RouteSet,
    /// How often each source is asked, unless a route says.
    pub rate: Option<Rate>,
    /// How long a source is not asked after an answer that was rejected; `None` for a
    /// minute, doubled, where it has a rate.
    pub reject_pause: Option<Duration>,
    /// Reads the routes again.
    pub read: Option<ReadRoutes>,
}

/// Reads routes again, from where they were read at first. May block.
pub type ReadRoutes = Box<dyn Fn() -> Result<RouteSet, Error> + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    fn route(pattern: &str, upstream: &str, place: &str) -> RouteSettings {
        let addr = upstream.parse().expect("an address");
        let origins = vec![Arc::new(Origin::Server(addr))];
        let pattern = pattern.parse().expect("a pattern");
        RouteSettings::new(pattern, place.into(), origins)
    }

    fn rated(route: RouteSettings, rate: &str) -> RouteSettings {
        RouteSettings {
            rate: Some(rate.parse().expect("a rate")),
            ..route
        }
    }

    #[test]
    fn a_source_has_one_rate_whichever_route_gives_it() {
        let routes = vec![
            route("*.a", "x.example:43", "f:1"),
            rated(route("*.b", "x.example:43", "f:2"), "1/s"),
            rated(route("*.c", "x.example:43", "f:3"), "1/s"),
        ];
        let set = RouteSet::new(routes.clone(), false).expect("they agree");
        assert_eq!(set.rates.len(), 1);

        let odd = rated(route("*.d", "x.example:43", "f:4"), "2/s");
        let routes = [routes, vec![odd]].concat();
        let error = RouteSet::new(routes, false).expect_err("two rates");
        assert_eq!(
            error.to_string(),
            "f:4: rate=2/s for x.example:43, which f:2 has given rate=1/s; wanted one of them"
        );
    }

    #[test]
    fn the_same_upstreams_have_one_number_of_connections() {
        let with = |route: RouteSettings, conns| RouteSettings {
            conns: Some(conns),
            ..route
        };
        let routes = vec![
            with(route("*.a", "x.example:43", "f:1"), 1),
            with(route("*.b", "y.example:43", "f:2"), 2),
            with(route("*.c", "x.example:43", "f:3"), 2),
        ];
        let error = RouteSet::new(routes, false).expect_err("two numbers");
        let why = "conns=2 for the same upstreams, which f:1 has given conns=1; \
                   wanted one of them";
        assert_eq!(error.why, why);
    }
}
