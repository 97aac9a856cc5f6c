//! How the instances of services are dialled, by what their tags and the transports of the file say.

use std::sync::Arc;

use rustls::ClientConfig;

use super::Compiler;
use crate::config::{self, SendProxy, Timing};
use crate::snapshot::service::{Dialling, Service, ServiceKey, ServiceRoute, ServiceUpstream};
use crate::snapshot::upstream::{Transport, UpstreamTls};
use crate::tls::verify::Proof;

/// A way to dial, but for who must be there.
pub(super) struct Way<'a> {
    asked: &'a Dialling,
    transport: Option<&'a config::Transport>,
}

impl Compiler<'_> {
    /// How a service's upstream is to be dialled; or why it must not be.
    pub(super) fn way<'a>(&'a self, upstream: &'a ServiceUpstream) -> Result<Way<'a>, Arc<str>> {
        let asked = upstream.dialling.as_ref().map_err(Arc::clone)?;
        let transport = match &asked.transport {
            None => None,
            Some(name) => Some(self.inputs.config.transports.get(&**name).ok_or_else(|| {
                Arc::from(format!(
                    "its transport `{name}` does not exist: add a [transports.{name}] section to the file"
                ))
            })?),
        };
        Ok(Way { asked, transport })
    }

    /// Outside the mesh.
    pub(super) fn transport(&self, way: &Way<'_>) -> Transport {
        if !way.asked.tls {
            return Transport::Plain;
        }
        let name = way.asked.transport.as_deref().unwrap_or_default();
        match way.transport.and_then(|transport| transport.tls.as_ref()) {
            Some(tls) => tls_transport(tls, self.inputs.transport_configs.get(name)),
            None => Transport::Broken(
                format!(
                    "its tags ask for TLS, and its transport `{name}` has none: add [transports.{name}.tls] to the file"
                )
                .into(),
            ),
        }
    }

    /// What the owner of a route should know of how its service is dialled.
    pub(super) fn transport_warning(
        &self,
        key: &ServiceKey,
        route: &ServiceRoute,
    ) -> Option<Arc<str>> {
        let service = self.next.service(key)?;
        let mut upstreams = service.upstreams.iter();
        let upstream = upstreams.find(|upstream| upstream.name == route.upstream)?;
        let asked = upstream.dialling.as_ref().ok()?;
        let name = asked.transport.as_ref()?;
        let transport = self.inputs.config.transports.get(&**name)?;
        transport.tls.as_ref()?;
        let why = match (&upstream.mesh, asked.tls) {
            (Some(_), _) => "the mesh brings its own",
            (None, false) => "its tags do not ask for it with `loadbalancer.server.tls=true`",
            (None, true) => return None,
        };
        Some(format!("`tls` of its transport `{name}` has no effect: {why}").into())
    }

    /// Whether a route of a service may lead to members of the mesh only. What an upstream of the file is by itself is the
    /// operator's affair; among the members of one there may be some of anybody.
    pub(super) fn needs_mesh(&self, key: &ServiceKey, route: &ServiceRoute) -> bool {
        let named = self.inputs.config.upstreams.get(&*route.upstream);
        route.mesh
            || named.is_some_and(|named| !named.weighted.is_empty())
                && self
                    .next
                    .service(key)
                    .is_some_and(|service| self.is_meshed(service))
    }

    /// Whether a service asks for the mesh: the upstreams of its own are all there then.
    fn is_meshed(&self, service: &Service) -> bool {
        let own = service.upstreams.iter();
        own.filter(|own| !self.inputs.config.upstreams.contains_key(&*own.name))
            .any(|own| own.mesh.is_some())
    }
}

impl Way<'_> {
    pub(super) fn send_proxy(&self, is_mesh: bool) -> Option<SendProxy> {
        let asked = self.asked.send_proxy.map(|version| SendProxy {
            version,
            inside_tls: false,
        });
        let send = asked.or(self.transport.and_then(|transport| transport.send_proxy))?;
        // No sidecar takes anything before its TLS.
        Some(SendProxy {
            inside_tls: send.inside_tls || is_mesh,
            ..send
        })
    }

    pub(super) fn timing(&self) -> Timing {
        let timing = self.transport.map(|transport| transport.timing);
        let timing = timing.unwrap_or_default();
        Timing {
            half_closed: self.asked.half_closed.or(timing.half_closed),
            ..timing
        }
    }
}

/// TLS that the file says, with what was made for it.
pub(super) fn tls_transport(
    tls: &config::UpstreamTls,
    made: Option<&Result<Arc<ClientConfig>, String>>,
) -> Transport {
    match made {
        Some(Ok(config)) => Transport::Tls(UpstreamTls {
            config: Arc::clone(config),
            server_name: tls.server_name.clone(),
            spiffe: match &tls.proof {
                Proof::Spiffe(id) => Some(id.clone()),
                Proof::ServerName | Proof::AnyOf(_) => None,
            },
            identity: None,
            former: None,
        }),
        Some(Err(why)) => Transport::Broken(why.as_str().into()),
        None => Transport::Broken("its tls is not made".into()),
    }
}
