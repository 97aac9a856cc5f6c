//! What a client hears of its route beyond TLS, if it offers `portcullis/1`: others see no difference.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use rustls::AlertDescription;
use tokio::time::timeout;

use super::failure::{Answer, Ending, Failure};
use crate::net::Stream;
use crate::net::frame::{Frame, Refusal};
use crate::net::relay::Socket;
use crate::reason::Reason;
use crate::tls::options::PORTCULLIS;
use crate::tls::{self, End};

/// How long a client may take none of what it is told.
///
/// 1 s: the frame fits any socket's buffer; it waits only for a client that reads nothing of its handshake's end.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tells that the upstream is there, ahead of its first byte: in one segment with the ticket that ends the handshake.
pub(super) async fn ok(client: &mut Stream) -> Result<(), Failure> {
    match listening(client) {
        Some(tls) => say(tls, &Frame::Ok).await.map_err(Failure::ClientReset),
        None => Ok(()),
    }
}

/// Tells why it is not, and ends TLS as it should end. The client has finished its handshake, and was found to be one that the
/// route is for: only such a one is told.
pub(super) async fn failed(mut client: Stream, failure: Failure) -> Ending {
    if let Some(tls) = listening(&mut client) {
        let reason = failure.reason();
        let frame = Frame::Failed(Refusal::new(reason, text(reason)));
        // Best effort, as with an alert: the record has the reason, whether the client hears it or not.
        if say(tls, &frame).await.is_ok() {
            let _ = timeout(PATIENCE, poll_fn(|cx| tls.poll_shutdown(cx, End::Clean))).await;
        }
    }
    failure.answered(client.into_tcp(), Answer::Close)
}

/// The alert for one connection too many. No alert of TLS means that; `user_canceled`, "for some reason unrelated to a
/// protocol failure" (RFC 8446 §6.1), is told from others by who knows it, and the `usual` one says more to who does not.
pub(super) fn over_limit(offered: &[Vec<u8>], usual: AlertDescription) -> AlertDescription {
    match offered.iter().any(|protocol| protocol == PORTCULLIS) {
        true => AlertDescription::UserCanceled,
        false => usual,
    }
}

/// The client's TLS, if a status was promised there.
fn listening(client: &mut Stream) -> Option<&mut tls::Stream> {
    match client {
        Stream::Tls(tls) if tls.agreed().alpn_protocol() == Some(PORTCULLIS) => Some(tls),
        _ => None,
    }
}

async fn say(tls: &mut tls::Stream, frame: &Frame) -> io::Result<()> {
    let bytes = frame.encode();
    let said = timeout(PATIENCE, poll_fn(|cx| tls.poll_write(cx, &bytes))).await;
    said.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        .map(|_| ())
}

/// What of a reason is anybody's business: no address, no name behind the gateway, nothing of a certificate.
fn text(reason: Reason) -> &'static str {
    match reason {
        Reason::NoHealthyUpstream => "nothing that serves it is up",
        Reason::DialFailed => "what stands behind it takes no connections",
        Reason::DialTimeout => "what stands behind it does not answer",
        Reason::UpstreamTls => "the gateway gets no TLS from what stands behind it",
        Reason::UpstreamIdentity => "what stands behind it does not prove who it is",
        Reason::DeniedByIntention => "an intention of the mesh denies it to the gateway",
        Reason::Shortage => "the gateway has nothing left to connect with",
        Reason::RouteBroken => "its route is broken",
        _ => OTHERWISE,
    }
}

/// Of what comes before the dial, or after it, no frame tells.
const OTHERWISE: &str = "the gateway's log says why";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::reason::Fault;

    #[test]
    fn the_document_has_every_reason_that_a_frame_tells() {
        let document = include_str!("../../docs/status-frame.md");
        let table = document.split("| reason | what it means |").nth(1);
        let table = table.and_then(|rest| rest.split("\n\n").next()).unwrap();
        for reason in Reason::ALL {
            let is_told = text(*reason) != OTHERWISE;
            let is_there = table.contains(&format!("`{reason}`"));
            assert_eq!(is_told, is_there, "{reason}");
        }
    }

    #[test]
    fn every_failure_of_a_dial_has_words_of_its_own() {
        let later = [
            Reason::RefusedByGateway,
            Reason::UpstreamReset,
            Reason::PossibleIntentionDenial,
        ];
        for reason in Reason::ALL {
            if reason.fault() == Fault::Upstream && !later.contains(reason) {
                assert_ne!(text(*reason), OTHERWISE, "{reason}");
            }
        }
    }

    #[test]
    fn who_asks_for_nothing_gets_the_usual_alert_for_one_connection_too_many() {
        let usual = AlertDescription::InternalError;
        for (offered, alert) in [
            (&[][..], usual),
            (&[b"h2".to_vec()], usual),
            (
                &[b"h2".to_vec(), PORTCULLIS.to_vec()],
                AlertDescription::UserCanceled,
            ),
        ] {
            assert_eq!(over_limit(offered, usual), alert);
        }
    }
}
