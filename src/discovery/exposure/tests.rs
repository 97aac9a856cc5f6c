//! What is made of services, with the tags that jobs carry.

mod canaries;
mod definitions;
mod endpoints;
mod mesh;
mod middlewares;
mod nomad;
mod options;
mod properties;
mod refusals;
mod rules;

use std::time::Duration;

use super::super::instance::{Health, Instance};
use super::*;
use crate::config::{ProxyTlvs, ProxyVersion, Timing};
use crate::name::MeshService;
use crate::snapshot::Source;
use crate::snapshot::service::{ServiceKey, ServiceRoute, ServiceTls};

/// What a job carries that passes through to sshd.
const SSH: &[&str] = &[
    "traefik.tcp.routers.web.entrypoints=https",
    "traefik.tcp.routers.web.tls.passthrough=true",
    "traefik.tcp.routers.web.rule=HostSNI(`web.test`)",
];

const CONNECT: &str = "traefik.consulcatalog.connect=true";

fn exposure() -> Exposure {
    Exposure {
        entry_points: vec!["https".to_owned(), "websecure".to_owned()],
        own: ["192.0.2.9:8443".parse().unwrap()].into(),
        mesh: true,
        ..Exposure::default()
    }
}

fn instance(id: &str, tags: &[&str]) -> Instance {
    Instance {
        id: format!("node/{id}").into(),
        beside: None,
        address: format!("10.0.0.{}:22", id.bytes().last().unwrap())
            .parse()
            .ok(),
        ports: Vec::new(),
        tags: tags.iter().map(|tag| Arc::from(*tag)).collect(),
        health: Health::Passing,
        weight_passing: 1,
        weight_warning: 1,
        modified: 1,
    }
}

/// The sidecar beside an instance.
fn sidecar(id: &str) -> Instance {
    Instance {
        id: format!("node/{id}-sidecar-proxy").into(),
        beside: Some(format!("node/{id}").into()),
        address: format!("10.0.1.{}:21000", id.bytes().last().unwrap())
            .parse()
            .ok(),
        ..instance(id, &[])
    }
}

/// A service called `web`.
fn web(instances: Vec<Instance>) -> Found {
    Found {
        key: ServiceKey {
            place: None,
            source: Source::Consul,
            name: "web".into(),
        },
        mesh: MeshService {
            partition: None,
            namespace: "default".into(),
            datacenter: "dc1".into(),
            service: "web".into(),
        },
        instances,
        sidecars: None,
        unusable: Vec::new(),
        filtered: false,
        canary: None,
    }
}

/// The service of one instance with these tags.
fn tagged(tags: &[&str]) -> Service {
    service(&web(vec![instance("a", tags)]), &exposure())
}

fn with<'a>(tags: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [tags, more].concat()
}

/// The only route, serving.
fn route(service: &Service) -> &ServiceRoute {
    assert_eq!(service.routes.len(), 1, "{service:#?}");
    let route = &service.routes[0];
    assert_eq!(route.broken, None, "{service:#?}");
    route
}

fn broken(service: &Service) -> &str {
    assert_eq!(service.routes.len(), 1, "{service:#?}");
    let reason = service.routes[0].broken.as_deref().unwrap();
    assert!(
        service
            .skipped
            .iter()
            .any(|skipped| &*skipped.reason == reason),
        "{service:#?}"
    );
    reason
}

/// What is skipped, as `INSTANCE ROUTER: REASON`.
fn skipped(service: &Service) -> Vec<String> {
    let line = |skipped: &Skipped| {
        let name = |name: &Option<Arc<str>>| name.as_deref().unwrap_or("-").to_owned();
        format!(
            "{} {}: {}",
            name(&skipped.instance),
            name(&skipped.router),
            skipped.reason
        )
    };
    service.skipped.iter().map(line).collect()
}

fn addresses(service: &Service, upstream: &str) -> Vec<String> {
    let upstream = service
        .upstreams
        .iter()
        .find(|u| &*u.name == upstream)
        .unwrap();
    let endpoints = upstream.endpoints.iter();
    endpoints
        .map(|endpoint| endpoint.address.to_string())
        .collect()
}

fn upstreams(service: &Service) -> Vec<&str> {
    service
        .upstreams
        .iter()
        .map(|upstream| &*upstream.name)
        .collect()
}

#[test]
fn the_tags_of_a_job_make_a_route_through_the_mesh() {
    let mut found = web(vec![instance(
        "a",
        &[
            "traefik.enable=true",
            CONNECT,
            "traefik.tcp.routers.web.entrypoints=https",
            "traefik.tcp.routers.web.tls=true",
            "traefik.tcp.routers.web.rule=HostSNI(`web.domain.com`)",
            "traefik.tcp.routers.web.service=web",
        ],
    )]);
    found.sidecars = Some(vec![sidecar("a")]);
    let service = service(&found, &exposure());
    let expected = ServiceRoute {
        name: "web@consul".into(),
        rule: crate::rule::Rule::parse("HostSNI(`web.domain.com`)").unwrap(),
        priority: None,
        tls: ServiceTls::Terminate(None),
        upstream: "web@consul".into(),
        broken: None,
        middlewares: Vec::new(),
        mesh: true,
        warnings: Vec::new(),
    };
    assert_eq!(service.routes, [expected]);
    assert_eq!(service.upstreams.len(), 1);
    assert_eq!(service.upstreams[0].mesh, Some(found.mesh));
    assert_eq!(addresses(&service, "web@consul"), ["10.0.1.97:21000"]);
    assert_eq!(skipped(&service), [""; 0]);
}

#[test]
fn what_happens_to_tls_is_what_the_tags_say() {
    for (tags, expected) in [
        (&["tls=true"][..], ServiceTls::Terminate(None)),
        (&["tls="], ServiceTls::Terminate(None)),
        (&["tls.passthrough=true"], ServiceTls::PassThrough),
        (
            &["tls=TRUE", "tls.passthrough=false"],
            ServiceTls::Terminate(None),
        ),
        (
            &["tls.options=strict@file"],
            ServiceTls::Terminate(Some("strict".to_owned())),
        ),
        (&["tls.options=default"], ServiceTls::Terminate(None)),
        (&["tls.options=default@file"], ServiceTls::Terminate(None)),
        (&["tls.options="], ServiceTls::Terminate(None)),
    ] {
        let mut all = vec!["portcullis.tcp.routers.r.rule=HostSNI(`a`)".to_owned()];
        all.extend(
            tags.iter()
                .map(|tag| format!("portcullis.tcp.routers.r.{tag}")),
        );
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        assert_eq!(route(&tagged(&all)).tls, expected, "{tags:?}");
    }
}

#[test]
fn a_service_without_a_router_of_its_own_is_not_reached_at_all() {
    for tags in [
        &[][..],
        &["http"],
        &["traefik.enable=true"],
        &["traefik.tcp.services.web.loadbalancer.server.port=22"],
    ] {
        let service = tagged(tags);
        assert!(
            service.routes.is_empty() && service.upstreams.is_empty(),
            "{service:#?}"
        );
        assert_eq!(skipped(&service), [""; 0]);
    }
}

#[test]
fn a_router_leads_where_its_service_is() {
    let port = "traefik.tcp.services.Ssh.loadbalancer.server.port=2222";
    let second = "traefik.tcp.services.other.loadbalancer.server.port=80";
    for (tags, upstream) in [
        (&[][..], "web@consul"),
        (&["traefik.tcp.routers.web.service=web"], "web@consul"),
        (&["traefik.tcp.routers.web.service=WEB"], "web@consul"),
        (
            &["traefik.tcp.routers.web.service=web@consulcatalog"],
            "web@consul",
        ),
        (&[port], "web/ssh@consul"),
        (
            &[port, "traefik.tcp.routers.web.service=ssh"],
            "web/ssh@consul",
        ),
        (
            &[port, "traefik.tcp.routers.web.service=SSH@consul"],
            "web/ssh@consul",
        ),
        (
            &[port, second, "traefik.tcp.routers.web.service=ssh"],
            "web/ssh@consul",
        ),
        (&[port, "traefik.tcp.routers.web.service=web"], "web@consul"),
        (&["traefik.tcp.routers.web.service=bastion@file"], "bastion"),
        (&["traefik.tcp.routers.web.service=Other"], "Other@consul"),
        (
            &["traefik.tcp.routers.web.service=other@consulcatalog"],
            "other@consul",
        ),
        (
            &["traefik.tcp.routers.web.service=other/ssh@consul"],
            "other/ssh@consul",
        ),
    ] {
        let service = tagged(&with(SSH, tags));
        let route = route(&service);
        assert_eq!(&*route.upstream, upstream, "{tags:?}");
        let warns = route
            .warnings
            .iter()
            .any(|warning| warning.contains("leads to another service"));
        assert_eq!(
            warns,
            upstream.to_lowercase().starts_with("other"),
            "{tags:?}"
        );
    }
}

#[test]
fn a_service_that_asks_for_the_mesh_asks_it_of_another_service_too_but_not_of_the_operator() {
    for (tags, mesh) in [
        (&["traefik.tcp.routers.web.service=other"][..], false),
        (&["traefik.tcp.routers.web.service=other", CONNECT], true),
        (
            &["traefik.tcp.routers.web.service=bastion@file", CONNECT],
            false,
        ),
        (&[CONNECT], true),
    ] {
        let mut found = web(vec![instance("a", &with(SSH, tags))]);
        found.sidecars = Some(vec![sidecar("a")]);
        let service = service(&found, &exposure());
        assert_eq!(route(&service).mesh, mesh, "{tags:?}");
    }
}

#[test]
fn a_service_is_known_by_its_normalized_name_too() {
    let mut found = web(vec![instance(
        "a",
        &with(SSH, &["traefik.tcp.routers.web.service=my-web-1"]),
    )]);
    found.key.name = "My.web_1".into();
    let service = service(&found, &exposure());
    assert_eq!(&*route(&service).upstream, "My.web_1@consul");
    assert_eq!(&*route(&service).name, "My.web_1/web@consul");
}

#[test]
fn a_router_without_entry_points_and_one_of_ours_among_others_are_taken() {
    let tags = &SSH[1..];
    for entry_points in [
        &[][..],
        &["traefik.tcp.routers.web.entrypoints="],
        &["traefik.tcp.routers.web.entrypoints=other, websecure"],
    ] {
        route(&tagged(&with(tags, entry_points)));
    }
}

#[test]
fn what_is_harmless_to_leave_out_is_a_warning() {
    for (tag, warning) in [
        (
            "routers.web.tls.certresolver=le",
            "`tls.certresolver` is not supported yet: it serves with the certificates",
        ),
        (
            "routers.web.tls.domains[0].main=a",
            "`tls.domains` is not supported yet: it serves with the certificates",
        ),
        (
            "routers.web.tls.options=strict@file",
            "`tls.options` has no effect where TLS is passed through",
        ),
        ("routers.web.rule=HostSNI(`10.0.0.1`)", "its rule: "),
    ] {
        let service = tagged(&with(SSH, &[&format!("portcullis.tcp.{tag}")]));
        let warnings = &route(&service).warnings;
        assert!(
            warnings.iter().any(|found| found.starts_with(warning)),
            "{tag}: {warnings:?}"
        );
        assert_eq!(skipped(&service), [""; 0]);
    }
}

#[test]
fn a_priority_is_passed_on_and_0_is_the_rules_own() {
    for (priority, expected) in [("7", Some(7)), ("-7", Some(-7)), ("0", None)] {
        let service = tagged(&with(
            SSH,
            &[&format!("traefik.tcp.routers.web.priority={priority}")],
        ));
        assert_eq!(route(&service).priority, expected);
    }
}
