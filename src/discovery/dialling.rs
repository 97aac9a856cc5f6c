//! What becomes of how tags ask for instances to be dialled.

use std::sync::Arc;
use std::time::Duration;

use super::shortened;
use super::tags::Transport;
use crate::config::{ProxyVersion, Timing};
use crate::name::quoted;
use crate::snapshot::service::Dialling;

/// How the instances are dialled; or why they must not be.
///
/// As in Traefik, a transport that is named says everything: the tags' own PROXY header and delay count without one only.
/// In the mesh it is obeyed too, but for its TLS.
pub(super) fn dialling(asked: &Transport, mesh: bool) -> Result<Dialling, Arc<str>> {
    let tls = asked.tls && !mesh;
    let Some(reference) = &asked.reference else {
        if tls {
            return Err("`loadbalancer.server.tls` alone does not say which name an instance must prove: name a transport of the file that does, with `loadbalancer.serverstransport=NAME@file`".into());
        }
        return Ok(Dialling {
            tls,
            transport: None,
            send_proxy: asked.proxy,
            half_closed: asked.termination_delay.map(half_closed),
        });
    };
    let wrong = |why: &str| {
        Err(shortened(&format!(
            "the transport {} {why}",
            quoted(reference)
        )))
    };
    let name = match reference.rsplit_once('@') {
        Some((name, "file")) => name,
        Some((_, provider)) => {
            return wrong(&format!(
                "is of the provider {}: only those of the file can be had, as in `NAME@file`",
                quoted(provider)
            ));
        }
        None => {
            return wrong("would be one of tags, which cannot define any: write `NAME@file`");
        }
    };
    Ok(Dialling {
        tls,
        transport: Some(shortened(name)),
        send_proxy: None,
        half_closed: None,
    })
}

/// What of it has no effect.
pub(super) fn warnings(asked: &Transport, mesh: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if mesh && asked.tls {
        warnings.push(
            "`loadbalancer.server.tls` has no effect: the mesh decides how its sidecar is dialled"
                .to_owned(),
        );
    }
    let has_transport = asked.reference.is_some();
    for (is_asked, key) in [
        (asked.proxy.is_some(), "proxyprotocol"),
        (asked.termination_delay.is_some(), "terminationdelay"),
    ] {
        if has_transport && is_asked {
            warnings.push(format!(
                "`loadbalancer.{key}` has no effect beside `loadbalancer.serverstransport`: what that says counts"
            ));
        }
    }
    warnings
}

/// What must be the same for instances to get the same bytes. How long one side may go on is the newest's to say.
pub(super) fn bytes(asked: &Transport, mesh: bool) -> (bool, Option<&str>, Option<ProxyVersion>) {
    let reference = asked.reference.as_deref();
    let proxy = asked.proxy.filter(|_| reference.is_none());
    (asked.tls && !mesh, reference, proxy)
}

/// Traefik's documentation means milliseconds.
fn half_closed(milliseconds: i64) -> Duration {
    let delay = u64::try_from(milliseconds).map(Duration::from_millis);
    delay.unwrap_or(Timing::ENDLESS).min(Timing::ENDLESS)
}
