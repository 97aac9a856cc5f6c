//! Where tunnels lead, and what is proven there.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::decode::Typed;
use crate::config::diagnostic::Findings;
use crate::config::routes::reference_help;
use crate::config::upstream_tls;
use crate::config::value::Wrong;
use crate::config::{Endpoint, EndpointAddress, Gateway, Upstream};
use crate::name::HostName;

/// A host and a port, which only a gateway's may lack. Whoever would write a scheme learns that TLS is on anyway.
pub(super) fn far_end(text: &str, default: Option<u16>) -> Result<EndpointAddress, Wrong> {
    const EXAMPLE: &str = "write a host and a port, such as \"master.example.com:8443\", \"10.0.0.5:8443\" or \"[2001:db8::5]:8443\"";
    let wrong =
        |why: &str, help: &str| Wrong::new(format!("{text:?} is no host with a port: {why}"), help);
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.split('/').next().unwrap_or_default();
        return Err(wrong(
            &format!("{scheme:?} is a scheme"),
            &format!("leave it out, as in {rest:?}: a tunnel always speaks TLS"),
        ));
    }
    // No port that is written is 0.
    let far =
        Gateway::parse(text, default.unwrap_or(0)).map_err(|error| wrong(error.why(), EXAMPLE))?;
    if far.port == 0 {
        let with_port = Gateway {
            port: Gateway::DEFAULT_PORT,
            ..far
        }
        .to_string();
        return Err(wrong(
            "it has none",
            &format!("add it, as in {with_port:?}"),
        ));
    }
    match far.to_string().parse() {
        Ok(address) => Ok(EndpointAddress::Ip(address)),
        Err(_) => HostName::parse(&far.host)
            .map(|name| EndpointAddress::Dns(name, far.port))
            .map_err(|error| wrong(&error.to_string(), EXAMPLE)),
    }
}

pub(super) fn host_name(text: &str) -> Result<(), Wrong> {
    HostName::parse(text).map(drop).map_err(|error| {
        Wrong::new(
            format!("{text:?} is no host name: {error}"),
            "write the name of a route of the gateway, such as \"rdp.vm.example.com\", without a port",
        )
    })
}

/// A gateway that ends TLS proves one name, or passes on the hello of one: who is behind it is told by nothing else.
pub(super) fn refuse_other_proof(tls: &upstream_tls::Section, findings: &mut Findings<'_>) {
    if let Some((key, span)) = tls.other_proof() {
        findings.error(
            span,
            format!("`{key}` beside `gateway`: then nobody would prove the `name`, which a gateway is asked for"),
            "remove it, and the certificate must have the `name`; what proves another identity is dialled as `to`",
        );
    }
}

pub(super) fn named(
    typed: &Typed<String>,
    known: &BTreeSet<&str>,
    findings: &mut Findings<'_>,
) -> Option<String> {
    if known.contains(typed.value.as_str()) {
        return Some(typed.value.clone());
    }
    let otherwise = match typed.value.contains(':') {
        true => "write an address as `to`".to_owned(),
        false => format!("add an [upstreams.{}] section", typed.value.escape_debug()),
    };
    findings.missing(
        typed.span.clone(),
        format!("`{}`: there is no upstream {:?}", typed.key, typed.value),
        reference_help(&typed.value, known, &otherwise),
    );
    None
}

/// Whoever writes a tunnel takes it for TLS; an upstream without it is dialled as a route would dial it.
pub(super) fn warn_of_plain(
    typed: &Typed<String>,
    upstreams: &BTreeMap<String, Upstream>,
    name: &str,
    findings: &mut Findings<'_>,
) {
    let upstream = upstreams.get(name);
    let members = upstream.into_iter().flat_map(|upstream| &upstream.weighted);
    let mut all = std::iter::once(name).chain(members.map(|member| member.upstream.as_str()));
    let is_open = |name: &&str| upstreams.get(*name).is_some_and(is_plain_elsewhere);
    if let Some(plain) = all.find(is_open) {
        findings.warning(
            Some(typed.span.clone()),
            format!(
                "`{}`: the upstream {plain:?} is dialled in the clear: what goes through the tunnel can be read on the network, and changed",
                typed.key
            ),
            format!("add [upstreams.{plain}.tls], if it speaks TLS, or lead the tunnel to a gateway in front of it"),
        );
    }
}

/// Whether it is dialled without TLS, and not on this machine alone.
fn is_plain_elsewhere(upstream: &Upstream) -> bool {
    let is_elsewhere = |endpoint: &Endpoint| match &endpoint.address {
        EndpointAddress::Ip(address) => !address.ip().to_canonical().is_loopback(),
        EndpointAddress::Dns(name, _) => name.as_str() != "localhost",
    };
    let service = upstream.service.as_ref();
    upstream.tls.is_none()
        && (upstream.endpoints.iter().any(is_elsewhere)
            || upstream.nomad_service.is_some()
            || service.is_some_and(|service| !service.mesh))
}
