//! What tags name of the file and the file does not have: their routes refuse, and the log says so once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::config::Config;
use crate::name::quoted;
use crate::snapshot::Snapshot;
use crate::snapshot::service::{Service, ServiceKey, ServiceTls};

/// As many names are told of at once; a service may ask for whatever it likes.
const MOST: usize = 100;

/// A part of the file that tags can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Transport,
    Middleware,
    Options,
    Upstream,
}

/// The section that has it, in messages.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transport => "transports",
            Self::Middleware => "middlewares",
            Self::Options => "tls.options",
            Self::Upstream => "upstreams",
        })
    }
}

/// What is missing, by the services whose tags name it.
#[derive(Debug, Default)]
pub(super) struct Dangling {
    by_service: BTreeMap<ServiceKey, BTreeSet<(Kind, String)>>,
    told: BTreeSet<(Kind, String)>,
}

impl Dangling {
    /// Takes in another configuration, for every service that there is.
    pub(super) fn follow(&mut self, snapshot: &Snapshot, config: &Config) {
        let services = snapshot.services().into_iter();
        self.learn(
            services.map(|service| (&service.key, Some(&**service))),
            config,
        );
    }

    /// Takes in what has become of services; tells of what is missing now, and was not before.
    pub(super) fn learn<'a>(
        &mut self,
        services: impl IntoIterator<Item = (&'a ServiceKey, Option<&'a Service>)>,
        config: &Config,
    ) {
        for (key, service) in services {
            let missing = service.map(|service| missing(service, config));
            match missing.filter(|missing| !missing.is_empty()) {
                Some(missing) => drop(self.by_service.insert(key.clone(), missing)),
                None => drop(self.by_service.remove(key)),
            }
        }
        let all = self.by_service.values().flatten();
        let all: BTreeSet<(Kind, String)> = all.take(MOST).cloned().collect();
        for (kind, name) in all.difference(&self.told) {
            let asking = self.by_service.iter();
            let mut asking = asking.filter(|(_, all)| all.contains(&(*kind, name.clone())));
            let Some((first, _)) = asking.next() else {
                continue;
            };
            tracing::warn!(
                name = %quoted(name),
                service = %quoted(&first.name),
                source = first.source.as_str(),
                others = asking.count(),
                "tags name what the file does not have: their routes refuse until it stands in [{kind}]"
            );
        }
        self.told = all;
    }
}

/// What the tags of a service name of the file in vain.
fn missing(service: &Service, config: &Config) -> BTreeSet<(Kind, String)> {
    // A name with an `@` is that of a service.
    let of_the_file = |name: &&str| !name.contains('@');
    let mut missing = BTreeSet::new();
    let mut look = |kind: Kind, name: &str, is_there: bool| {
        if !is_there {
            missing.insert((kind, name.to_owned()));
        }
    };
    for route in &service.routes {
        for name in route
            .middlewares
            .iter()
            .map(|name| &**name)
            .filter(of_the_file)
        {
            look(
                Kind::Middleware,
                name,
                config.middlewares.contains_key(name),
            );
        }
        if let Some(name) = Some(&*route.upstream).filter(of_the_file) {
            look(Kind::Upstream, name, config.upstreams.contains_key(name));
        }
        if let ServiceTls::Terminate(Some(name)) = &route.tls {
            look(Kind::Options, name, config.tls_options.contains_key(name));
        }
    }
    for upstream in &service.upstreams {
        let asked = upstream.dialling.as_ref().ok();
        if let Some(name) = asked.and_then(|asked| asked.transport.as_deref()) {
            look(Kind::Transport, name, config.transports.contains_key(name));
        }
    }
    missing
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::rule::Rule;
    use crate::snapshot::Source;
    use crate::snapshot::service::{Dialling, ServiceRoute, ServiceUpstream};

    fn config(text: &str) -> Config {
        crate::config::parse(text, Path::new("portcullis.toml"))
            .unwrap()
            .config
    }

    fn service(name: &str) -> Service {
        let dialling = Dialling {
            transport: Some("db".into()),
            ..Dialling::default()
        };
        Service {
            key: ServiceKey {
                source: Source::Consul,
                place: None,
                name: name.into(),
            },
            upstreams: vec![ServiceUpstream {
                name: format!("{name}@consul").into(),
                endpoints: Vec::new(),
                named: Vec::new(),
                mesh: None,
                empty: None,
                check: None,
                dialling: Ok(dialling),
            }],
            routes: vec![ServiceRoute {
                name: format!("{name}@consul").into(),
                rule: Rule::parse("HostSNI(`a.example.test`)").unwrap(),
                priority: None,
                tls: ServiceTls::Terminate(Some("strict".to_owned())),
                upstream: "board".into(),
                middlewares: vec!["office".into(), "own@consul".into()],
                mesh: false,
                broken: None,
                warnings: Vec::new(),
            }],
            middlewares: BTreeMap::new(),
            skipped: Vec::new(),
            restored: None,
            notes: Vec::new(),
        }
    }

    #[test]
    fn what_the_file_does_not_have_is_missed_once_and_until_it_has_it_or_nobody_asks() {
        let (a, b) = (service("a"), service("b"));
        let mut dangling = Dangling::default();
        let empty = config("[consul]\n");
        dangling.learn([(&a.key, Some(&a))], &empty);
        let all = [
            (Kind::Transport, "db"),
            (Kind::Middleware, "office"),
            (Kind::Options, "strict"),
            (Kind::Upstream, "board"),
        ];
        let told = |dangling: &Dangling, all: &[(Kind, &str)]| {
            let all = all.iter().map(|(kind, name)| (*kind, (*name).to_owned()));
            assert_eq!(dangling.told, all.collect());
        };
        told(&dangling, &all);

        let some = config(
            "[consul]\n[transports.db]\n[tls.options.strict]\n[upstreams.board]\naddress = \"10.0.0.1:22\"\n",
        );
        dangling.learn([(&a.key, Some(&a)), (&b.key, Some(&b))], &some);
        told(&dangling, &all[1..2]);
        dangling.learn([(&a.key, None)], &some);
        told(&dangling, &all[1..2]);
        dangling.learn([(&b.key, None)], &some);
        told(&dangling, &[]);
    }
}
