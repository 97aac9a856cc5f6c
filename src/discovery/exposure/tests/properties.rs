//! What holds of every service, tried on random ones.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn tag() -> impl Strategy<Value = String> {
    let router = prop_oneof![
        prop::sample::select(
            &[
                "tls=true",
                "tls=false",
                "tls.passthrough=true",
                "tls.options=x@file",
                "tls.options=x",
                "priority=3",
                "priority=x",
                "entrypoints=https",
                "entrypoints=ssh",
                "service=s",
                "service=web",
                "service=other",
                "service=b@file",
                "service=x@docker",
                "middlewares=m",
                "middlewares=n,x@file",
                "middlewares=x@docker",
                "rulesyntax=v2",
                "rulesyntax=v4",
                "nonsense=1"
            ][..]
        )
        .prop_map(str::to_owned),
        prop::sample::select(
            &[
                "HostSNI(`a`)",
                "HostSNI(`*`)",
                "HostSNI(`",
                "!HostSNI(`a`)",
                "HostSNI(`1.2.3.4`)",
                "HostSNI(`a`, `b`)",
                "HostSNIRegexp(`{x:.+}`)"
            ][..]
        )
        .prop_map(|rule| format!("rule={rule}")),
    ];
    let router = (prop::sample::select(&["web", "r", "R", "a/b"][..]), router)
        .prop_map(|(name, tag)| format!("tcp.routers.{name}.{tag}"));
    let server = prop::sample::select(
        &[
            "server.port=7",
            "server.tls=true",
            "proxyprotocol=",
            "healthcheck.send=x",
        ][..],
    )
    .prop_map(|tag| format!("tcp.services.s.loadbalancer.{tag}"));
    let middleware = prop::sample::select(
        &[
            "ipallowlist.sourcerange=10.0.0.0/8",
            "ipallowlist.sourcerange=",
            "inflightconn.amount=3",
            "inflightconn.amount=x",
        ][..],
    );
    let middleware = (prop::sample::select(&["m", "n"][..]), middleware)
        .prop_map(|(name, tag)| format!("tcp.middlewares.{name}.{tag}"));
    let other = prop::sample::select(
        &[
            "enable=false",
            "consulcatalog.connect=true",
            "consulcatalog.canary=1",
        ][..],
    )
    .prop_map(str::to_owned);
    let ours = prop_oneof![8 => router, 2 => server, 2 => middleware, 1 => other];
    let prefix = prop::sample::select(&["traefik", "portcullis"][..]);
    prop_oneof![
        20 => (prefix, ours).prop_map(|(prefix, tag)| format!("{prefix}.{tag}")),
        1 => any::<String>(),
    ]
}

fn instances(ids: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Instance>> {
    let health = prop::sample::select(
        &[
            Health::Passing,
            Health::Warning,
            Health::Critical,
            Health::Maintenance,
        ][..],
    );
    let instance = (prop::collection::vec(tag(), 0..8), health, 0u64..3, 0u32..3);
    prop::collection::vec(instance, ids).prop_map(|all| {
        let made = all
            .into_iter()
            .enumerate()
            .map(|(n, (tags, health, modified, weight))| Instance {
                tags: tags.iter().map(|tag| tag.as_str().into()).collect(),
                health,
                modified,
                weight_passing: weight,
                ..instance_at(n)
            });
        made.collect()
    })
}

fn instance_at(n: usize) -> Instance {
    super::instance(&n.to_string(), &[])
}

fn found() -> impl Strategy<Value = Found> {
    let sidecars = prop::option::of(instances(0..4));
    (instances(0..5), sidecars).prop_map(|(instances, sidecars)| {
        let mut found = web(instances);
        found.unusable = ["node/x", "node/y"]
            .map(|id| (id.into(), "no address".into()))
            .into();
        found.sidecars = sidecars.map(|all| {
            let beside = all.into_iter().enumerate().map(|(n, proxy)| Instance {
                tags: proxy.tags,
                health: proxy.health,
                ..sidecar(&n.to_string())
            });
            beside.collect()
        });
        found
    })
}

fn anyhow_exposed() -> impl Strategy<Value = Exposure> {
    (any::<bool>(), any::<bool>()).prop_map(|(mesh, allow_default_from_tags)| Exposure {
        mesh,
        allow_default_from_tags,
        wanted: [(
            "web".to_owned(),
            vec![Wanted {
                upstream: "bastion".into(),
                mesh,
            }],
        )]
        .into(),
        ..exposure()
    })
}

proptest! {
    #[test]
    fn the_order_of_instances_says_nothing(found in found(), exposure in anyhow_exposed(), turn in 0usize..5) {
        let mut other = found.clone();
        let turn = turn.min(other.instances.len());
        other.instances.rotate_left(turn);
        if let Some(sidecars) = &mut other.sidecars {
            sidecars.reverse();
        }
        other.unusable.reverse();
        prop_assert_eq!(service(&found, &exposure), service(&other, &exposure));
    }

    #[test]
    fn names_are_unique_and_no_route_is_a_default_unless_tags_may(found in found(), exposure in anyhow_exposed()) {
        let service = service(&found, &exposure);
        let routes: BTreeSet<&str> = service.routes.iter().map(|route| &*route.name).collect();
        prop_assert_eq!(routes.len(), service.routes.len());
        let upstreams: BTreeSet<&str> = service.upstreams.iter().map(|upstream| &*upstream.name).collect();
        prop_assert_eq!(upstreams.len(), service.upstreams.len());
        for route in &service.routes {
            prop_assert!(exposure.allow_default_from_tags || !route.rule.is_default());
            let own = &*route.upstream == "web@consul" || route.upstream.starts_with("web/");
            prop_assert!(!own || upstreams.contains(&*route.upstream));
        }
        for upstream in &service.upstreams {
            let dialled = upstream.endpoints.iter().any(|endpoint| endpoint.weight > 0);
            prop_assert_eq!(upstream.empty.is_none(), dialled);
        }
    }

    #[test]
    fn what_asks_for_the_mesh_is_dialled_through_it_or_not_at_all(mut found in found(), exposure in anyhow_exposed()) {
        if let Some(first) = found.instances.first_mut() {
            first.tags.push(CONNECT.into());
        }
        if !Reading::of(&found, &exposure).asks_for_mesh() {
            return Ok(());
        }
        let service = service(&found, &exposure);
        for upstream in service.upstreams.iter().filter(|upstream| upstream.name.contains('@')) {
            prop_assert!(upstream.mesh.is_some());
            prop_assert!(upstream.endpoints.iter().all(|endpoint| endpoint.address.port() == 21_000));
        }
        let usable = exposure.mesh && found.sidecars.as_ref().is_some_and(|all| !all.is_empty());
        for route in service.routes.iter().filter(|route| route.upstream.starts_with("web")) {
            prop_assert!(usable || route.broken.is_some());
        }
    }

    #[test]
    fn whatever_strangers_write_there_is_no_panic(tags in prop::collection::vec(any::<String>(), 0..8), name in any::<String>()) {
        let keys = ["tcp.routers.", "tcp.services.", "tcp.routers.a.rule=", "tcp.routers.a.service=", "tcp.routers.a.tls.options=", "tcp.routers.web.middlewares=", "tcp.middlewares.m.ipallowlist.sourcerange="];
        let mut all: Vec<String> = SSH.iter().map(|tag| (*tag).to_owned()).collect();
        for (n, tag) in tags.iter().enumerate() {
            all.push(format!("traefik.{}{tag}", keys[n % keys.len()]));
        }
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let mut found = web(vec![instance("a", &all)]);
        found.key.name = name.as_str().into();
        let service = service(&found, &exposure());
        prop_assert!(service.skipped.iter().all(|skipped| skipped.reason.chars().count() <= 301));
    }
}
