//! Reaching a route's upstream, and relaying to it.

use super::failure::Answer;
use super::failure::{Ending, Failure};
use crate::config::Limits;
use crate::net::dial::{self, Dial};
use crate::net::relay::{self, Outcome, Patience, Socket};
use crate::net::session::Session;
use crate::snapshot::upstream::Upstream;

/// Dials the endpoint whose turn it is; while none answers, the next, as often as the limits allow.
///
/// No byte of the client has gone up yet, so that trying another is safe.
pub(super) async fn dial(
    upstream: &Upstream,
    limits: &Limits,
    session: &mut Session,
) -> Result<dial::Upstream, Failure> {
    let dial = Dial {
        tls: upstream
            .tls
            .as_ref()
            .map(|tls| (tls.config.clone(), tls.server_name.clone())),
        timeout: limits.dial,
        keepalive: limits.keepalive,
    };
    let mut failure = Failure::NoEndpoint;
    for endpoint in upstream.turn().take(limits.dial_attempts) {
        session.record.endpoint = Some(endpoint.address);
        match dial.connect(endpoint.address).await {
            Ok(stream) => {
                session.dial_done();
                return Ok(stream);
            }
            Err(error) => {
                tracing::debug!(upstream = %upstream.name, endpoint = %endpoint.address, %error, "dial failed");
                failure = Failure::Dial(error);
            }
        }
    }
    Err(failure)
}

/// Relays until the end; `early` is what the client has sent already.
pub(super) async fn relay<C: Socket>(
    mut client: C,
    mut upstream: dial::Upstream,
    early: Vec<u8>,
    limits: &Limits,
    session: &mut Session,
) -> Result<(), Ending> {
    let patience = Patience {
        idle: limits.idle,
        half_closed: limits.half_closed,
    };
    let (up, down) = (&mut session.up, &mut session.down);
    match relay::relay(&mut client, &mut upstream, early, patience, up, down).await {
        Outcome::Closed => Ok(()),
        Outcome::ClientFailed(e) => Err(Failure::ClientReset(e).into()),
        // The client may still be sending; a reset on top would cost it the upstream's last words.
        Outcome::UpstreamFailed(e) => {
            Err(Failure::UpstreamReset(e).answered(client.into_tcp(), Answer::Close))
        }
        Outcome::Idle => Err(Failure::Idle.into()),
        Outcome::HalfClosed => Err(Failure::HalfClosed.into()),
    }
}
