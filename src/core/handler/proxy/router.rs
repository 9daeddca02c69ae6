//! The targets of a proxy, and which one a request has. Without routes there is one.
//!
//! When routes are read again, what has not changed stays: texts, sources with what is
//! known of them, queues. A fetch keeps the target that it began with.
//!
//! | of two routes | they share |
//! |---|---|
//! | with the same sources | the places before them, and the queue |
//! | with one source in common | its rate, its pause, its health and its figures |
//! | with the same sources and the same template | texts |

use super::key::{Key, Scope, Tag};
use super::routes::{RouteSet, RouteSettings, Routing};
use super::target::{Places, Target, TargetSettings, scope};
use super::{ProxySettings, Rejects};
use crate::cache::KeepTimes;
use crate::protocol::EndRule;
use crate::rate::Rate;
use crate::routing::RoutingTable;
use crate::upstream::{AskLimits, Origin, SharedSource, Upstream};
use std::collections::HashMap;
use std::sync::Arc;

/// Sources and the places before them, by what tells the sources from others.
type Lists = HashMap<Vec<Vec<u8>>, (Upstream, Arc<Places>)>;

/// The targets of a proxy.
pub(super) struct Router {
    table: Option<RoutingTable>,
    /// By the places of their routes.
    targets: Vec<Arc<Target>>,
    /// What requests have that no route takes.
    rest: Arc<Target>,
    sources: Vec<Arc<SharedSource>>,
    lists: Lists,
    by_tag: HashMap<Tag, Arc<Target>>,
    /// By their prefixes.
    scopes: HashMap<Vec<u8>, Scope>,
    next_tag: u32,
}

impl Router {
    /// The targets of a proxy.
    pub(super) fn new(settings: &mut ProxySettings) -> Router {
        let Some(routing) = &mut settings.routing else {
            return Router::of_one(settings);
        };
        let set = std::mem::take(&mut routing.set);
        let routing = settings.routing.as_ref().expect("it was there above");
        Router::of_routes(set, routing, settings, None)
    }

    /// The target of all requests, if there are no routes.
    pub(super) fn only(&self) -> Option<&Arc<Target>> {
        self.table.is_none().then_some(&self.rest)
    }

    /// One target for all requests.
    fn of_one(settings: &ProxySettings) -> Router {
        let own = &settings.target;
        let scope = scope(&own.upstream, None, settings);
        let places = Places::new(&own.upstream, own.conns, settings.upstream_queue);
        let rest = Target::new(own.clone(), scope.clone(), places.clone());
        Router {
            table: None,
            targets: Vec::new(),
            sources: rest.upstream.sources().to_vec(),
            lists: HashMap::from([(own.upstream.ids(), (own.upstream.clone(), places))]),
            by_tag: HashMap::from([(scope.tag(), rest.clone())]),
            scopes: HashMap::from([(scope.prefix().to_vec(), scope)]),
            rest,
            next_tag: 0,
        }
    }

    /// The targets of these routes. What `before` has and they share stays.
    pub(super) fn of_routes(
        set: RouteSet,
        routing: &Routing,
        settings: &ProxySettings,
        before: Option<&Router>,
    ) -> Router {
        let mut build = Build::new(&set, routing, settings, before);
        let rest = (!set.takes_all()).then(|| build.rest());
        let targets: Vec<Arc<Target>> = set.routes.iter().map(|of| build.route(of)).collect();
        // Where a route takes all, any will do: it is never asked.
        let rest = rest.or_else(|| targets.first().cloned());
        let rest = rest.expect("a set that takes all has a route");
        let Build {
            sources,
            lists,
            scopes,
            next_tag,
            ..
        } = build;

        let mut by_tag = HashMap::new();
        for target in [&rest].into_iter().chain(&targets) {
            by_tag.insert(target.scope.tag(), target.clone());
        }
        Router {
            table: Some(set.table),
            targets,
            rest,
            sources: sources.listed,
            lists,
            by_tag,
            scopes,
            next_tag,
        }
    }

    /// The target of a request, as its key has it.
    pub(super) fn choose(&self, folded: &[u8]) -> &Arc<Target> {
        let route = self.table.as_ref().and_then(|table| table.choose(folded));
        route.map_or(&self.rest, |route| &self.targets[route])
    }

    /// The sources, each once, in the order in which routes name them.
    pub(super) fn sources(&self) -> &[Arc<SharedSource>] {
        &self.sources
    }

    /// The places, each once.
    pub(super) fn places(&self) -> impl Iterator<Item = &Arc<Places>> {
        self.lists.values().map(|(_, places)| places)
    }

    /// The parts that the keys of a target share, one for each.
    pub(super) fn scopes(&self) -> impl Iterator<Item = &Scope> {
        self.scopes.values()
    }

    /// A target with this key. `None` if there is no such any more.
    pub(super) fn with_key(&self, key: &Key) -> Option<&Arc<Target>> {
        self.by_tag.get(&key.tag())
    }

    /// The key of a whole key. `None` if it is of no target.
    pub(super) fn key_of(&self, whole: &[u8]) -> Option<Key> {
        let prefix = Scope::prefix_of(whole)?;
        self.scopes.get(prefix)?.key_of(whole)
    }
}

/// Sources, each of them once.
#[derive(Default)]
struct Sources {
    known: HashMap<Vec<u8>, Arc<SharedSource>>,
    listed: Vec<Arc<SharedSource>>,
}

/// A router that is being built.
struct Build<'a> {
    settings: &'a ProxySettings,
    routing: &'a Routing,
    before: Option<&'a Router>,
    /// The sources of all that there was.
    earlier: HashMap<Vec<u8>, Arc<SharedSource>>,
    rates: &'a HashMap<Vec<u8>, Rate>,
    conns: &'a HashMap<Vec<Vec<u8>>, usize>,
    sources: Sources,
    lists: Lists,
    scopes: HashMap<Vec<u8>, Scope>,
    next_tag: u32,
}

impl<'a> Build<'a> {
    fn new(
        set: &'a RouteSet,
        routing: &'a Routing,
        settings: &'a ProxySettings,
        before: Option<&'a Router>,
    ) -> Build<'a> {
        let first = settings.target.upstream.sources();
        let earlier = before.map_or(first, |router| router.sources());
        let earlier = earlier.iter().map(|source| (source.id(), source.clone()));
        Build {
            settings,
            routing,
            before,
            earlier: earlier.collect(),
            rates: &set.rates,
            conns: &set.conns,
            sources: Sources::default(),
            lists: HashMap::new(),
            scopes: HashMap::new(),
            next_tag: before.map_or(0, |router| router.next_tag),
        }
    }

    /// What requests have that no route takes.
    fn rest(&mut self) -> Arc<Target> {
        let own = self.settings.target.clone();
        let sources = own.upstream.sources().iter();
        let origins: Vec<Arc<Origin>> = sources.map(|source| source.origin()).collect();
        let (upstream, places) = self.upstream(&origins);
        let scope = self.scope(&upstream, None);
        Target::new(TargetSettings { upstream, ..own }, scope, places)
    }

    /// The target of a route.
    fn route(&mut self, route: &RouteSettings) -> Arc<Target> {
        let base = &self.settings.target;
        let (upstream, places) = self.upstream(&route.origins);
        let scope = self.scope(&upstream, Some(route));
        let own = TargetSettings {
            upstream,
            send: route.send.clone(),
            route: Some(route.pattern.to_string().into()),
            times: KeepTimes {
                ttl: route.ttl.unwrap_or(base.times.ttl),
                grace: route.grace.unwrap_or(base.times.grace),
                fail_ttl: route.fail_ttl.unwrap_or(base.times.fail_ttl),
            },
            ttls: base.ttls.clone(),
            rejects: Rejects {
                pattern: route.reject.clone().or(base.rejects.pattern.clone()),
                min_bytes: route.min_bytes.unwrap_or(base.rejects.min_bytes),
            },
            conns: places.number,
            ends: EndRule {
                marker: route.end_marker.clone().or(base.ends.marker.clone()),
                allow_empty: route.allow_empty.unwrap_or(base.ends.allow_empty),
            },
            connect_retry: route.connect_retry.unwrap_or(base.connect_retry),
        };
        Target::new(own, scope, places)
    }

    /// These sources, and the places before them.
    fn upstream(&mut self, origins: &[Arc<Origin>]) -> (Upstream, Arc<Places>) {
        let ids: Vec<Vec<u8>> = origins.iter().map(|origin| origin.id()).collect();
        if let Some(known) = self.lists.get(&ids) {
            return known.clone();
        }

        let number = self.conns.get(&ids).copied();
        let number = number.unwrap_or(self.settings.target.conns);
        let sources = ids.iter().zip(origins);
        let sources = sources
            .map(|(id, origin)| self.source(id, origin))
            .collect();
        let upstream = Upstream::sharing(sources);

        let earlier = self.before.and_then(|router| router.lists.get(&ids));
        let earlier = earlier.map(|(_, places)| places.clone());
        let is_unchanged =
            |places: &Arc<Places>| places.number == number && places.are_before(&upstream);
        let queue = self.settings.upstream_queue;
        let new = || Places::new(&upstream, number, queue);
        let places = earlier.filter(is_unchanged).unwrap_or_else(new);

        self.lists.insert(ids, (upstream.clone(), places.clone()));
        (upstream, places)
    }

    fn source(&mut self, id: &[u8], origin: &Arc<Origin>) -> Arc<SharedSource> {
        if let Some(source) = self.sources.known.get(id) {
            return source.clone();
        }

        let rate = self.rates.get(id).copied().or(self.routing.rate);
        let limits = AskLimits::of(rate, self.routing.reject_pause);
        let source = match self.earlier.get(id) {
            Some(source) => source.limited(limits),
            None => SharedSource::new(origin.clone(), limits),
        };
        self.sources.known.insert(id.to_vec(), source.clone());
        self.sources.listed.push(source.clone());
        source
    }

    fn scope(&mut self, upstream: &Upstream, route: Option<&RouteSettings>) -> Scope {
        let send = route.and_then(|route| route.send.as_ref());
        let scope = scope(upstream, send, self.settings);
        if let Some(known) = self.scopes.get(scope.prefix()) {
            return known.clone();
        }

        let earlier = self.before.map(|router| &router.scopes);
        let known = earlier.and_then(|scopes| scopes.get(scope.prefix()));
        let tagged = known.cloned().unwrap_or_else(|| {
            self.next_tag += 1;
            scope.tagged(Tag::new(self.next_tag))
        });
        let prefix = tagged.prefix().to_vec();
        self.scopes.insert(prefix, tagged.clone());
        tagged
    }
}

#[cfg(test)]
mod tests;
