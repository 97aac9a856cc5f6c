//! Random changes, one publication after the other, against everything at once.

use proptest::prelude::*;

use super::services::{asked, bare, identity, in_mesh, key, standing_for_a_service, upstream};
use super::*;
use crate::config::Middleware;
use crate::snapshot::service::{ServiceRoute, ServiceUpstream};

/// What routes lead to: upstreams of services, and those of the file, which services ask for too.
const UPSTREAMS: [&str; 5] = ["web", "a@consul", "b/x@consul", "web@consul", "mine"];
const HOSTS: [&str; 4] = ["a.test", "b.test", "web.test", "*.test"];
const SERVICES: [&str; 4] = ["a", "b", "c", "web"];

fn file() -> Inputs {
    let mut inputs = standing_for_a_service(false);
    let mine = super::inputs(
        "[routes.mine]\nhost = \"mine.test\"\npassthrough = true\nupstream = \"mine\"\n\
         [upstreams.mine]\naddress = \"10.0.0.2:22\"\n",
    );
    inputs.config.upstreams.extend(mine.config.upstreams);
    inputs
}

/// Of the service, but for what it must not have.
fn service_upstreams(service: &str) -> impl Strategy<Value = ServiceUpstream> {
    let endpoints = prop::sample::subsequence(vec!["10.0.1.1:1", "10.0.1.2:2"], 0..=2);
    let own = [format!("{service}@consul"), format!("{service}/x@consul")];
    let names = own.into_iter().chain(["web", "mine"].map(str::to_owned));
    let names: Vec<String> = names.collect();
    (prop::sample::select(names), endpoints, any::<bool>()).prop_map(|(name, endpoints, mesh)| {
        ServiceUpstream {
            mesh: in_mesh(&name).filter(|_| mesh),
            empty: endpoints.is_empty().then(|| "all are critical".into()),
            check: None,
            ..upstream(&name, &endpoints)
        }
    })
}

fn service_routes(service: &str) -> impl Strategy<Value = ServiceRoute> {
    let names = vec![format!("{service}@consul"), format!("{service}/r@consul")];
    (
        prop::sample::select(names),
        prop::sample::select(&HOSTS[..]),
        prop::sample::select(&UPSTREAMS[..]),
        prop::option::of(-1..3_i64),
        any::<bool>(),
        prop::sample::subsequence(vec!["m@consul", "n@consul", "x"], 0..=2),
    )
        .prop_map(
            |(name, host, upstream, priority, broken, asked_for)| ServiceRoute {
                priority,
                middlewares: asked_for.into_iter().map(Arc::from).collect(),
                broken: broken.then(|| "broken".into()),
                ..asked(&name, &format!("HostSNI(`{host}`)"), upstream)
            },
        )
}

fn service_middlewares() -> impl Strategy<Value = Vec<(&'static str, usize)>> {
    let names = prop::sample::select(&["m@consul", "n@consul"][..]);
    prop::collection::vec((names, 0..2_usize), 0..2)
}

/// A service as it is from now on; `None` for one that goes.
fn changes() -> impl Strategy<Value = (ServiceKey, Option<Arc<Service>>)> {
    let shape = |name| {
        let upstreams = prop::collection::vec(service_upstreams(name), 0..3);
        let routes = prop::collection::vec(service_routes(name), 0..3);
        prop::option::weighted(0.8, (upstreams, routes, service_middlewares()))
    };
    prop::sample::select(&SERVICES[..])
        .prop_flat_map(move |name| (Just(name), shape(name)))
        .prop_map(|(name, shape)| {
            let service = shape.map(|(upstreams, routes, middlewares)| {
                let middlewares = middlewares.into_iter();
                let middlewares = middlewares.map(|(name, most)| {
                    let most = Middleware::InFlightConn(most);
                    (name.into(), Ok(most))
                });
                Arc::new(Service {
                    upstreams,
                    routes,
                    middlewares: middlewares.collect(),
                    ..bare(name)
                })
            });
            (key(name), service)
        })
}

/// All that a connection or an operator can see of a snapshot.
fn picture(snapshot: &Snapshot) -> Vec<String> {
    let routes = snapshot.table.routes().into_iter().map(|route| {
        let Route {
            name,
            source,
            service,
            rule,
            priority,
            action,
            upstream,
            ..
        } = &**route;
        let rule = rule.text();
        let middlewares = snapshot.middlewares(route);
        format!(
            "{source:?} {name} {service:?} {rule} {priority} {action:?} {upstream} {middlewares:?}"
        )
    });
    let hosts = ["a.test", "b.test", "web.test", "c.test", "mine.test"].map(|host| {
        let found = route(snapshot, host).map(|route| route.name.to_string());
        format!("{host} {found:?}")
    });
    let mut upstreams: Vec<_> = snapshot.upstreams.values().collect();
    upstreams.sort_by_key(|upstream| &upstream.name);
    let upstreams = upstreams.into_iter().map(|upstream| {
        let transport = match &upstream.transport {
            Transport::Tls(tls) => format!("{:?} {:?}", tls.spiffe, tls.server_name),
            other => format!("{other:?}"),
        };
        let (name, service, empty) = (&upstream.name, &upstream.service, &upstream.empty);
        let endpoints = upstream.endpoints();
        format!("{name} {service:?} {transport} {empty:?} {endpoints:?}")
    });
    let services = snapshot
        .services()
        .into_iter()
        .map(|service| format!("{service:?}"));
    let standings = snapshot.standings().iter();
    let standings = standings
        .filter(|(_, count)| **count > 0)
        .map(|standing| format!("{standing:?}"));
    let all = routes.chain(hosts).chain(upstreams).chain(services);
    all.chain(standings).collect()
}

proptest! {
    #[test]
    fn publishing_change_by_change_ends_where_everything_at_once_does(
        batches in prop::collection::vec(prop::collection::vec(changes(), 1..4), 1..8),
        identity_at in 0..8_usize,
    ) {
        let (mut inputs, metrics) = (file(), Metrics::new());
        let identity = identity();
        let mut snapshot = compile(&inputs, None, &metrics);
        let mut all = BTreeMap::new();
        for (n, batch) in batches.into_iter().enumerate() {
            if n == identity_at {
                inputs.identity = Some(Arc::clone(&identity));
                snapshot = compile(&inputs, Some(&snapshot), &metrics);
            }
            let batch: BTreeMap<_, _> = batch.into_iter().collect();
            snapshot = update(&inputs, &snapshot, &batch, &metrics);
            all.extend(batch);
            let at_once = compile(&inputs, None, &metrics);
            let at_once = update(&inputs, &at_once, &all, &metrics);
            prop_assert_eq!(picture(&snapshot), picture(&at_once));
            let anew = compile(&inputs, Some(&snapshot), &metrics);
            prop_assert_eq!(picture(&snapshot), picture(&anew));
        }
    }
}
