//! The model of a service: everything a connection needs to know, compiled, immutable, read once per connection.

use std::sync::Arc;

pub mod certificates;
pub mod table;
pub mod upstream;

use crate::metrics::RouteMetrics;
use crate::rule::Rule;
use crate::tls::server::ServerPolicy;

use certificates::Certificates;
use table::Table;
use upstream::Upstream;

/// What every connection is served from until the next one is published.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counts publications, from 1.
    pub generation: u64,
    /// The routes, indexed.
    pub table: Table,
    /// The edge certificates, indexed.
    pub certificates: Arc<Certificates>,
}

/// A route, ready to serve.
#[derive(Debug)]
pub struct Route {
    /// Its name, unique within its source.
    pub name: Arc<str>,
    /// Who told us of it.
    pub source: Source,
    /// Which clients it takes.
    pub rule: Rule,
    /// Written, or the rule's own.
    pub priority: i64,
    /// What happens to the client's TLS.
    pub action: Action,
    /// Where its bytes go.
    pub upstream: Arc<Upstream>,
    /// What its connections count on.
    pub metrics: Arc<RouteMetrics>,
}

/// Who told us of a route. The order is the order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The configuration file.
    File,
}

impl Source {
    /// The word that stands in logs, metrics and `/v1/routes`.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::File => "file",
        }
    }
}

/// What happens to the client's TLS.
#[derive(Clone, Debug)]
pub enum Action {
    /// The upstream ends it.
    PassThrough,
    /// The gateway ends it, under this policy.
    Terminate(Arc<ServerPolicy>),
    /// Nothing: the route's option set is missing or broken, for this reason. It refuses, and never serves with another set.
    Broken(String),
}
