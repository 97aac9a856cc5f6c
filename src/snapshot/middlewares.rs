//! The middlewares of a snapshot by their names: what each is, and whose definition counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::service::ServiceKey;
use super::shards::Shards;
use super::{Route, Snapshot};
use crate::config::Middleware;
use crate::name::quoted;

/// Everything that routes may ask of their clients. A name of the file has no `@`, and one of services ends with `@SOURCE`.
#[derive(Clone, Debug, Default)]
pub(super) struct Middlewares {
    pub(super) file: Arc<BTreeMap<String, Middleware>>,
    services: Shards<Arc<str>, Definitions>,
}

/// What services define by one name; an error says what is wrong with a definition.
#[derive(Clone, Debug, Default)]
struct Definitions(BTreeMap<ServiceKey, Result<Middleware, Arc<str>>>);

impl Middlewares {
    /// A service defines this from now on; or, with `None`, no more.
    pub(super) fn define(
        &mut self,
        name: &Arc<str>,
        by: &ServiceKey,
        definition: Option<Result<Middleware, Arc<str>>>,
    ) {
        self.services.change(Arc::clone(name), |slot| {
            let Definitions(all) = slot.get_or_insert_default();
            match definition {
                Some(definition) => drop(all.insert(by.clone(), definition)),
                None => drop(all.remove(by)),
            }
            if all.is_empty() {
                *slot = None;
            }
        });
    }

    fn find(&self, name: &str, route_of: Option<&ServiceKey>) -> Result<&Middleware, String> {
        if let Some(middleware) = self.file.get(name) {
            return Ok(middleware);
        }
        match self.services.find(name) {
            Some(definitions) => definitions.of(name, route_of),
            None if name.contains('@') => Err(format!(
                "no service defines its middleware {}",
                quoted(name)
            )),
            None => Err(format!("the file has no middleware {}", quoted(name))),
        }
    }
}

impl Definitions {
    /// A service's own counts for its routes; of others all must say the same, so that nobody can put something weaker in
    /// the place of what is there.
    fn of(&self, name: &str, route_of: Option<&ServiceKey>) -> Result<&Middleware, String> {
        let own = route_of.and_then(|key| self.0.get_key_value(key));
        let mut all = self.0.iter();
        let Some((by, definition)) = own.or_else(|| all.next()) else {
            return Err(format!(
                "no service defines its middleware {}",
                quoted(name)
            ));
        };
        if own.is_none()
            && let Some((other, _)) = all.find(|(_, other)| *other != definition)
        {
            return Err(format!(
                "the services `{}` and `{}` define its middleware {} differently",
                by.name,
                other.name,
                quoted(name)
            ));
        }
        definition.as_ref().map_err(|why| {
            format!(
                "its middleware {}, of the service `{}`: {why}",
                quoted(name),
                by.name
            )
        })
    }
}

impl Snapshot {
    /// What a route asks of its clients, in the order in which it names it; or why that cannot be told, for people: then it
    /// must serve nobody.
    pub fn middlewares(&self, route: &Route) -> Result<Vec<&Middleware>, String> {
        let names = route.middlewares.iter();
        names.map(|name| self.middleware(name, route)).collect()
    }

    /// What this one of the middlewares that a route names is.
    pub fn middleware(&self, name: &str, route: &Route) -> Result<&Middleware, String> {
        self.middlewares.find(name, route.service.as_ref())
    }
}
