//! What the other arguments of a proxy mean where there are routes.

use super::routes::{RouteContext, connections};
use super::source::{descriptors, descriptors_of, upstream};
use super::{Args, fold, limits};
use crate::cmd::failure::Failure;
use crate::cmd::flags::Output;
use poetry::addr::Addr;
use poetry::error::Error;
use poetry::handler::proxy::{RouteSet, RouteSettings, Routing};
use poetry::routing::RoutePattern;
use poetry::upstream::{Origin, SharedSource, Upstream};
use std::net::IpAddr;

impl Args {
    fn context(&self, output: &Output) -> RouteContext {
        RouteContext {
            has_rest: !self.upstreams.is_empty(),
            conns: self.upstream_conns as usize,
            fold: fold(self),
            is_quiet: output.quiet,
        }
    }

    /// The routes, if there are any.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub(super) fn load_routes(&self, output: &Output) -> Result<Option<RouteSet>, Failure> {
        if !self.routes.are_given() {
            return Ok(None);
        }
        let set = self.routes.load(&self.context(output));
        set.map(Some).map_err(|errors| self.routes.failure(&errors))
    }

    /// Prints what the routes mean.
    ///
    /// # Errors
    /// There are none, or [`Error::Output`].
    pub(super) fn check_routes(&self, routes: Option<&RouteSet>) -> Result<(), Failure> {
        let Some(set) = routes else {
            let why = "nothing to check; wanted --routes or --route";
            return Err(Failure::value("check", why));
        };
        let rest = upstream(&self.upstreams, 1).to_string();
        let printed: Result<(), Error> = self.routes.print(set, &rest, fold(self));
        Ok(printed?)
    }

    /// What is asked for what no route takes: that of the route `*`, if there is one.
    pub(super) fn rest(&self, routes: Option<&RouteSet>) -> Upstream {
        let is_rest = |of: &&RouteSettings| matches!(of.pattern, RoutePattern::Rest);
        let rest = routes.and_then(|set| set.routes().iter().find(is_rest));
        let limits = limits(self);
        match rest {
            Some(route) => {
                let origins = route.origins.iter().cloned();
                let sources = origins.map(|origin| SharedSource::new(origin, limits));
                Upstream::sharing(sources.collect())
            }
            None => upstream(&self.upstreams, self.upstream_conns as usize).limited(limits),
        }
    }

    /// The routes for a proxy that runs.
    pub(super) fn routing(&self, routes: Option<RouteSet>, output: &Output) -> Option<Routing> {
        Some(Routing {
            set: routes?,
            rate: self.upstream_rate,
            reject_pause: self.reject_pause,
            read: self.routes.reader(self.context(output)),
        })
    }

    /// Descriptors for what is asked.
    pub(super) fn upstream_fds(&self, routes: Option<&RouteSet>) -> u64 {
        let conns = self.upstream_conns.into();
        let Some(set) = routes else {
            return descriptors(&self.upstreams, conns);
        };
        let mut origins = set.routes().iter().flat_map(|route| &route.origins);
        let runs_any = origins.any(|origin| matches!(**origin, Origin::Exec(_)))
            || self.upstreams.iter().any(|of| of.command().is_some());
        let rest = if self.upstreams.is_empty() { 0 } else { conns };
        let conns = rest + connections(set, self.upstream_conns as usize) as u64;
        descriptors_of(conns, runs_any)
    }
}

/// What the proxy does, for its ready line.
pub(super) fn verb(upstream: &Upstream, routes: Option<&RouteSet>) -> String {
    match routes.map(|set| set.routes().len()) {
        None => format!("Proxying {upstream}"),
        Some(1) => "Proxying by 1 route".into(),
        Some(routes) => format!("Proxying by {routes} routes"),
    }
}

/// The servers of routes that may be this proxy itself. Names are left out: there may
/// be a thousand, and each would have to be resolved first.
pub(super) fn addresses(routes: &RouteSet) -> impl Iterator<Item = &Addr> {
    let origins = routes.routes().iter().flat_map(|route| &route.origins);
    origins.filter_map(|origin| match &**origin {
        Origin::Server(addr) => Some(addr).filter(|addr| match addr {
            Addr::Unix(_) => true,
            Addr::Tcp { host, .. } => host == "localhost" || host.parse::<IpAddr>().is_ok(),
        }),
        Origin::Exec(_) | Origin::BuiltIn(_) => None,
    })
}
