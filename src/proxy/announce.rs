//! What an upstream is told of the client: the PROXY header that goes before its bytes.

use std::net::SocketAddr;

use rustls::ProtocolVersion;

use super::client::Client;
use crate::config::{ProxyTlvs, ProxyVersion, SendProxy};
use crate::log::Record;
use crate::name::SpiffeId;
use crate::net::dial::ProxyHeader;
use crate::net::proxy_header::{Addresses, Tls, Tlvs, of_its_own};
use crate::tls;
use crate::tls::options::PORTCULLIS;

/// How many random bytes are a connection's ID: as many as in a UUID, so that none comes twice.
const ID: usize = 16;

/// Makes the header for this client. An ID that goes up stands in the record too; one that came in goes on.
///
/// Of a client of a UNIX socket there is no address to tell: the header says so much.
pub(super) fn header(
    send: &SendProxy,
    destination: Option<SocketAddr>,
    client: &Client,
    record: &mut Record,
) -> ProxyHeader {
    let destination = destination.or_else(|| client.local_address());
    let destination = destination.or_else(|| record.listener.tcp());
    let Some((source, destination)) = record.client.address().zip(destination) else {
        return ProxyHeader {
            bytes: of_its_own(send.version),
            inside_tls: send.inside_tls,
        };
    };
    let addresses = Addresses {
        source,
        destination,
    };
    let bytes = match &send.version {
        ProxyVersion::V1 => addresses.to_v1(),
        ProxyVersion::V2(wanted) => {
            if wanted.unique_id && record.unique_id.is_none() {
                record.unique_id = new_id();
            }
            v2(&addresses, wanted, client.tls(), record)
        }
    };
    ProxyHeader {
        bytes,
        inside_tls: send.inside_tls,
    }
}

/// Of TLS that is passed through only the name is known: what was agreed, and with whom, is between its two ends.
fn v2(
    addresses: &Addresses,
    wanted: &ProxyTlvs,
    tls: Option<&tls::Stream>,
    record: &Record,
) -> Vec<u8> {
    let agreed = tls.map(tls::Stream::agreed);
    // rustls finishes no handshake with a certificate that it has not verified.
    let certificate = agreed.and_then(|agreed| agreed.peer_certificates()?.first());
    let proven = |wanted: bool| certificate.filter(|_| wanted);
    let common_name = proven(wanted.cert_cn).and_then(tls::common_name);
    let spiffe = proven(wanted.spiffe).and_then(tls::spiffe_id);
    let tlvs = Tlvs {
        // What is between the gateway and its client is nothing to the upstream.
        alpn: agreed
            .and_then(|agreed| agreed.alpn_protocol())
            .filter(|protocol| wanted.alpn && *protocol != PORTCULLIS),
        authority: record.sni.as_deref().filter(|_| wanted.authority),
        unique_id: record.unique_id.as_deref().filter(|_| wanted.unique_id),
        tls: agreed.filter(|_| wanted.ssl).map(|agreed| Tls {
            version: match agreed.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => Some("TLSv1.2"),
                Some(ProtocolVersion::TLSv1_3) => Some("TLSv1.3"),
                _ => None,
            },
            has_certificate: certificate.is_some(),
            common_name: common_name.as_deref(),
        }),
        spiffe: spiffe.as_ref().map(SpiffeId::as_str),
        crc32c: wanted.crc32c,
    };
    addresses.to_v2(&tlvs)
}

/// `None` where the system has no randomness, which a gateway that has made a handshake has.
fn new_id() -> Option<Box<[u8]>> {
    let mut id = [0; ID];
    let random = tls::provider().secure_random.fill(&mut id);
    random.is_ok().then(|| Box::from(id))
}
