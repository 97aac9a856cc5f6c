//! The upstreams and their endpoints.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use super::consul::{self, Section};
use super::decode::{List, Typed};
use super::diagnostic::Findings;
use super::file::{self, File};
use super::proxy_protocol::Way;
use super::value::{self, endpoint_address, read};
use super::{
    ConsulService, Endpoint, EndpointAddress, ListenAddress, Listener, NomadService, SendProxy,
    Transport, Upstream, listen, nomad, transports, weighted,
};

const PREPARED_QUERY: &str = "not supported: prepared queries; write the `service` itself, and its `datacenter` if that is another";

/// What Consul knows beside services, and this gateway does not dial, with what to do.
pub(super) const UNSUPPORTED: &[(&str, &str)] = &[
    ("prepared_query", PREPARED_QUERY),
    ("prepared_queries", PREPARED_QUERY),
    (
        "peer",
        "not supported: services that a peer exports; run a gateway in that cluster, and write its address here",
    ),
    (
        "subset",
        "not supported: subsets of a service-resolver; choose instances by `constraints` in [consul], or register them as a service",
    ),
    (
        "redirect",
        "not supported: redirects of a service-resolver; write the `service` that it leads to",
    ),
    (
        "failover",
        "not supported: failover of a service-resolver; list upstreams in `weighted`: one with nothing to dial is passed over",
    ),
    (
        "mesh_gateway",
        "not supported: mesh gateways; sidecars are dialled themselves, in another datacenter at the address that Consul tells",
    ),
    (
        "partition",
        "it is one for the whole gateway: write `partition` in [consul]",
    ),
];

/// What our own addresses are: no endpoint may be one of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own<'a> {
    pub(super) listeners: &'a [Listener],
    /// Where tunnels listen over TCP.
    pub(super) tunnels: &'a [SocketAddr],
    pub(super) admin: Option<&'a ListenAddress>,
}

/// The upstreams of the file, those that are broken left out.
pub(super) fn upstreams(
    file: &File,
    own: Own<'_>,
    transports: &BTreeMap<String, Transport>,
    folder: &Path,
    findings: &mut Findings<'_>,
) -> BTreeMap<String, Upstream> {
    let mut upstreams = BTreeMap::new();
    for (name, typed) in &file.upstreams {
        read(name, findings, |text| value::name(text));
        let endpoints = match &typed.endpoints {
            Some(list) => endpoints(list, own, findings),
            None => Vec::new(),
        };
        let tls = typed
            .tls
            .as_ref()
            .and_then(|tls| tls.mean(Some(&endpoints), folder, findings));
        let service = service(typed, file.consul.as_ref(), findings);
        let nomad_service = nomad_service(typed, file.nomad.is_some(), findings);
        let way = match &service {
            Some(service) if service.mesh => Way::Mesh,
            _ if typed.tls.is_some() => Way::Tls,
            _ => Way::Plain,
        };
        let send_proxy = typed.proxy_protocol.as_ref();
        let send_proxy = send_proxy.and_then(|send| send.mean(way, findings));
        let check = typed.health_check.as_ref();
        let health_check = check.map(|check| check.mean(&endpoints, way, own, findings));
        let transport = transports::of_upstream(typed, transports, findings).unwrap_or_default();
        let through = transport.send_proxy.map(|send| SendProxy {
            // No sidecar takes anything before its TLS.
            inside_tls: send.inside_tls || way == Way::Mesh,
            ..send
        });
        let weighted = weighted::members(typed, file, findings);
        let is_service = service.is_some() || nomad_service.is_some();
        if !endpoints.is_empty() || is_service || !weighted.is_empty() {
            upstreams.insert(
                name.value.clone(),
                Upstream {
                    endpoints,
                    weighted,
                    service,
                    nomad_service,
                    tls: tls.or(transport.tls),
                    is_gateway: false,
                    send_proxy: send_proxy.or(through),
                    health_check,
                    timing: transport.timing,
                },
            );
        }
    }
    upstreams
}

/// The service that an upstream stands for.
fn service(
    upstream: &file::Upstream,
    consul: Option<&Section>,
    findings: &mut Findings<'_>,
) -> Option<ConsulService> {
    let Some(typed) = &upstream.service else {
        // Nomad's services are in namespaces too.
        let namespace = upstream.namespace.as_ref();
        let namespace = namespace.filter(|_| upstream.nomad_service.is_none());
        for typed in upstream.datacenter.iter().chain(namespace) {
            findings.missing(
                typed.span.clone(),
                format!(
                    "`{}` without `service`: only a service of Consul is in one",
                    typed.key
                ),
                "add `service = \"web\"`, or remove it",
            );
        }
        if let Some(mesh) = &upstream.mesh {
            findings.missing(
                mesh.span.clone(),
                format!(
                    "`{}` without `service`: only a service of Consul is in its mesh",
                    mesh.key
                ),
                "add `service = \"web\"`, or remove it",
            );
        }
        return None;
    };
    let name = consul::service_name(typed, findings);
    if name
        .as_ref()
        .is_some_and(|name| name.ends_with(".query.consul"))
    {
        findings.error(
            typed.span.clone(),
            format!("`{}`: {:?} is a prepared query", typed.key, typed.value),
            PREPARED_QUERY,
        );
    }
    if let Some(tls) = &upstream.tls {
        findings.error(
            tls.place.span.clone(),
            format!(
                "`{}` beside `service`: the mesh brings its own TLS",
                tls.place.key
            ),
            "remove it; for TLS of its own to a service outside the mesh, write its `endpoints`",
        );
    }
    let Some(consul) = consul else {
        findings.missing(
            typed.span.clone(),
            format!(
                "`{}`: there is no [consul] section to find it by",
                typed.key
            ),
            "add a line `[consul]`; an agent on this machine needs nothing below it",
        );
        return None;
    };
    let mesh = match &upstream.mesh {
        Some(mesh) if mesh.value && !consul.names_identity => {
            findings.missing(
                mesh.span.clone(),
                format!("`{}`: the gateway has no identity to show in the mesh", mesh.key),
                "add `mesh_identity = \"portcullis\"` to [consul]: a service whose certificate the gateway may have",
            );
            false
        }
        Some(mesh) => mesh.value,
        None => consul.names_identity,
    };
    name.map(|name| ConsulService {
        name,
        mesh,
        place: None,
    })
}

/// The service of Nomad's own that an upstream stands for; its namespace is [told later](nomad::locate).
fn nomad_service(
    upstream: &file::Upstream,
    has_section: bool,
    findings: &mut Findings<'_>,
) -> Option<NomadService> {
    let typed = upstream.nomad_service.as_ref()?;
    if let Some(tls) = &upstream.tls {
        findings.error(
            tls.place.span.clone(),
            format!(
                "`{}` beside `nomad_service`: its instances are dialled over plain TCP",
                tls.place.key
            ),
            "remove it; for TLS, write its `endpoints`",
        );
    }
    if !has_section {
        findings.missing(
            typed.span.clone(),
            format!("`{}`: there is no [nomad] section to find it by", typed.key),
            "add a line `[nomad]`; an agent on this machine needs nothing below it",
        );
        return None;
    }
    nomad::service_name(typed, findings).map(|name| NomadService {
        namespace: nomad::DEFAULT.to_owned(),
        name,
    })
}

/// The endpoint that an address typed in a route stands for.
pub(super) fn endpoint(
    address: &Typed<String>,
    own: Own<'_>,
    findings: &mut Findings<'_>,
) -> Option<EndpointAddress> {
    let endpoint = read(address, findings, |text| endpoint_address(text))?;
    let (key, place) = (address.key.as_str(), address.span.clone());
    listen::refuse_loop(&endpoint, own, key, place, findings);
    Some(endpoint)
}

fn endpoints(
    list: &List<file::Endpoint>,
    own: Own<'_>,
    findings: &mut Findings<'_>,
) -> Vec<Endpoint> {
    let mut found: Vec<Endpoint> = Vec::new();
    for typed in &list.value {
        // A weight is a share: more than 65535 says nothing that a smaller one could not.
        let weight = match &typed.weight {
            Some(weight) => read(weight, findings, |value| value::number(*value, 0..=65_535)),
            None => Some(1),
        };
        let Some(address) = endpoint(&typed.address, own, findings) else {
            continue;
        };
        if found.iter().any(|other| other.address == address) {
            findings.warning(
                Some(typed.address.span.clone()),
                format!("`{}`: {:?} is listed twice", list.key, typed.address.value),
                "write it once, with a `weight` if it shall have a larger share",
            );
        }
        found.push(Endpoint {
            address,
            weight: weight.unwrap_or(1),
        });
    }
    if list.is_empty {
        findings.missing(
            list.span.clone(),
            format!("`{}` is an empty list: there is nothing to dial", list.key),
            "write at least one address, such as [\"10.0.0.5:22\"]",
        );
    } else if !found.is_empty() && found.iter().all(|endpoint| endpoint.weight == 0) {
        findings.error(
            list.span.clone(),
            format!(
                "`{}`: every weight is 0: there is nothing to dial",
                list.key
            ),
            "give at least one endpoint a weight of 1 or more",
        );
    }
    found
}
