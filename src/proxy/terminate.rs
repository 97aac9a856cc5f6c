//! Ending a client's TLS under the policy of its route.

use rustls::AlertDescription;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::failure::{Answer, Ending, Failure};
use super::hello::Hello;
use crate::snapshot::certificates::Certificates;
use crate::tls;
use crate::tls::server::ServerPolicy;

/// The one protocol that a certificate authority offers when it looks for its challenge (RFC 8737 §3). No upstream may
/// answer for the gateway: who is asked for the proof of a name must be who ends its TLS.
const ACME: &[u8] = b"acme-tls/1";

/// Finishes the client's handshake before the deadline.
///
/// Whether a certificate proves the name is asked first, of the same set that then serves it: rustls would answer
/// the want of one with an alert that says nothing of names.
pub(super) async fn accept(
    tcp: TcpStream,
    hello: Hello,
    policy: &ServerPolicy,
    certificates: &Certificates,
    deadline: Instant,
) -> Result<Box<tls::Stream>, Ending> {
    if hello.alpn == [ACME] {
        return Err(Failure::AcmeProbe
            .answered(tcp, Answer::Alert(AlertDescription::NoApplicationProtocol)));
    }
    if !certificates.covers(hello.name.as_ref()) {
        return Err(
            Failure::NoCertificate.answered(tcp, Answer::Alert(AlertDescription::UnrecognisedName))
        );
    }
    let config = policy.config(&hello.alpn).clone();
    let handshake = tls::Stream::accept(tcp, hello.into_bytes(), config);
    match timeout_at(deadline, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(failed)) => {
            Err(Failure::Handshake(failed.error).answered(failed.tcp, Answer::Close))
        }
        Err(_) => Err(Failure::HandshakeTimeout.into()),
    }
}
