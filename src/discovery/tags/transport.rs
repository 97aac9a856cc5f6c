//! How tags ask for instances to be dialled: TLS, a transport of the file, a PROXY header, and how long one side may go on.

use super::{Place, TagError, text};
use crate::config::{ProxyTlvs, ProxyVersion};

/// What the `loadbalancer` of a `tcp.services.NAME` says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// Whether the instances speak TLS (`server.tls`).
    pub tls: bool,
    /// The transport that says more (`serverstransport`), as it was written.
    pub reference: Option<String>,
    /// The PROXY header that they are sent (`proxyprotocol`), if any.
    pub proxy: Option<ProxyVersion>,
    /// How long one direction outlives the other, in milliseconds (`terminationdelay`); less than 0 is without an end.
    pub termination_delay: Option<i64>,
}

impl Transport {
    /// Takes in the tag whose key goes on with `path`; `proxy` is the switch that stands at its `proxyprotocol`. Whether
    /// it is about this at all.
    pub(super) fn take(
        &mut self,
        path: &[&str],
        place: &Place<'_>,
        proxy: bool,
    ) -> Result<bool, TagError> {
        match path {
            ["server", "tls"] => self.tls = place.boolean()?,
            ["serverstransport"] => self.reference = text(place.value),
            // What stands under a switch that is off is not even read.
            ["proxyprotocol"] | ["proxyprotocol", "version"] if !proxy => {}
            ["proxyprotocol"] => _ = self.proxy.get_or_insert(V2),
            ["proxyprotocol", "version"] => {
                self.proxy = Some(match place.value {
                    "1" => ProxyVersion::V1,
                    "2" => V2,
                    _ => return Err(place.not("1 or 2")),
                });
            }
            ["terminationdelay"] => self.termination_delay = Some(place.number()?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// As Traefik sends it: without TLVs.
const V2: ProxyVersion = ProxyVersion::V2(ProxyTlvs {
    alpn: false,
    authority: false,
    ssl: false,
    cert_cn: false,
    unique_id: false,
    spiffe: false,
    crc32c: false,
});
