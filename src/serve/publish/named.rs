//! The names that discovered services are registered with: which are kept resolved, and which are too many.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use tokio::sync::watch;

use crate::config::{Config, EndpointAddress};
use crate::name::HostName;
use crate::snapshot::service::{Service, ServiceKey};

/// As many names are kept resolved for services in all; those beyond stand for nothing.
///
/// 1,000: each is asked for every 5 to 60 s, so that nobody who may register services makes more than 200 questions a second.
pub(super) const MOST_NAMES: usize = 1000;

/// The names of services.
#[derive(Debug)]
pub(super) struct Named {
    by_service: BTreeMap<ServiceKey, BTreeSet<HostName>>,
    /// Those that are kept resolved: one that is stays so as long as a service has it.
    chosen: BTreeSet<HostName>,
    left_out: usize,
    /// Whoever keeps them resolved.
    told: watch::Sender<BTreeSet<HostName>>,
}

impl Named {
    pub(super) fn new(told: watch::Sender<BTreeSet<HostName>>) -> Self {
        Self {
            by_service: BTreeMap::new(),
            chosen: BTreeSet::new(),
            left_out: 0,
            told,
        }
    }

    /// Takes in what has become of services; tells whether other names are kept resolved now.
    pub(super) fn learn<'a>(
        &mut self,
        services: impl IntoIterator<Item = (&'a ServiceKey, Option<&'a Service>)>,
    ) -> bool {
        let mut has_changed = false;
        for (key, service) in services {
            let upstreams = service.into_iter().flat_map(|service| &service.upstreams);
            let named = upstreams.flat_map(|upstream| &upstream.named);
            let names: BTreeSet<HostName> = named.map(|named| named.host.clone()).collect();
            let before = match names.is_empty() {
                true => self.by_service.remove(key),
                false => self.by_service.insert(key.clone(), names.clone()),
            };
            has_changed |= before.unwrap_or_default() != names;
        }
        has_changed && self.choose()
    }

    fn choose(&mut self) -> bool {
        let all: BTreeSet<&HostName> = self.by_service.values().flatten().collect();
        let mut chosen = self.chosen.clone();
        chosen.retain(|name| all.contains(name));
        let room = MOST_NAMES.saturating_sub(chosen.len());
        let new = all.iter().filter(|name| !self.chosen.contains(**name));
        let new: Vec<HostName> = new.take(room).map(|name| (*name).clone()).collect();
        chosen.extend(new);
        let left_out = all.len() - chosen.len();
        if left_out > 0 && self.left_out == 0 {
            tracing::warn!(
                left_out,
                most = MOST_NAMES,
                "services are registered with more names than are resolved"
            );
        }
        self.left_out = left_out;
        if chosen == self.chosen {
            return false;
        }
        self.chosen.clone_from(&chosen);
        self.told.send_replace(chosen);
        true
    }

    /// Those that are kept resolved.
    pub(super) fn chosen(&self) -> &BTreeSet<HostName> {
        &self.chosen
    }

    /// How many are not.
    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }

    /// The services that have one of these names.
    pub(super) fn services<'a>(
        &'a self,
        names: &'a BTreeSet<HostName>,
    ) -> impl Iterator<Item = &'a ServiceKey> {
        let services = self.by_service.iter();
        let have = services.filter(|(_, own)| !own.is_disjoint(names));
        have.map(|(key, _)| key)
    }
}

/// The names that stand for something else now.
pub(super) fn moved(
    before: &BTreeMap<HostName, Vec<IpAddr>>,
    now: &BTreeMap<HostName, Vec<IpAddr>>,
) -> BTreeSet<HostName> {
    let names = before.keys().chain(now.keys());
    let names = names.filter(|name| before.get(*name) != now.get(*name));
    names.cloned().collect()
}

/// The DNS names that a configuration needs.
pub(in crate::serve) fn names(config: &Config) -> BTreeSet<HostName> {
    let upstreams = config.upstreams.values();
    upstreams
        .flat_map(|upstream| &upstream.endpoints)
        .filter_map(|endpoint| match &endpoint.address {
            EndpointAddress::Dns(name, _) => Some(name.clone()),
            EndpointAddress::Ip(_) => None,
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::snapshot::Source;
    use crate::snapshot::service::{Dialling, NamedEndpoint, ServiceUpstream};

    fn service(name: &str, hosts: &[String]) -> Service {
        let named = hosts.iter().map(|host| NamedEndpoint {
            host: HostName::parse(host).unwrap(),
            port: 22,
            configured: "n/i".into(),
            weight: 1,
            is_local_allowed: false,
        });
        Service {
            key: ServiceKey {
                source: Source::Consul,
                place: None,
                name: name.into(),
            },
            upstreams: vec![ServiceUpstream {
                name: format!("{name}@consul").into(),
                endpoints: Vec::new(),
                named: named.collect(),
                mesh: None,
                empty: None,
                check: None,
                dialling: Ok(Dialling::default()),
            }],
            routes: Vec::new(),
            middlewares: BTreeMap::new(),
            skipped: Vec::new(),
            restored: None,
            notes: Vec::new(),
        }
    }

    fn hosts(numbers: std::ops::Range<usize>) -> Vec<String> {
        numbers.map(|i| format!("h{i:05}.test")).collect()
    }

    #[test]
    fn names_beyond_the_limit_wait_until_there_is_room_and_take_nobodys_place() {
        let (told, heard) = watch::channel(BTreeSet::new());
        let mut named = Named::new(told);
        let late = service("late", &hosts(500..500 + MOST_NAMES));
        assert!(named.learn([(&late.key, Some(&late))]));
        assert_eq!((named.chosen().len(), named.left_out()), (MOST_NAMES, 0));
        let more = service("more", &hosts(0..10));
        assert!(!named.learn([(&more.key, Some(&more))]));
        assert_eq!(named.left_out(), 10);
        let first = HostName::parse("h00000.test").unwrap();
        assert!(!heard.borrow().contains(&first));
        let less = service("late", &hosts(500..505));
        assert!(named.learn([(&less.key, Some(&less))]));
        assert_eq!((named.chosen().len(), named.left_out()), (15, 0));
        assert!(heard.borrow().contains(&first));
        assert!(named.learn([(&more.key, None), (&less.key, None)]));
        assert!(heard.borrow().is_empty());
    }
}
