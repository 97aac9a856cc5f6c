//! What a route's middlewares ask of a client, before its handshake and before anything is dialled for it.

use std::net::IpAddr;

use rustls::AlertDescription;
use tokio::net::TcpStream;

use super::failure::{Answer, Ending, Failure};
use super::status;
use crate::config::Middleware;
use crate::net::limits::Admission;
use crate::rule;
use crate::snapshot::{Action, Route, Snapshot};

/// Lets a client pass that does what all of them ask; the others are told that they may not (RFC 8446 §6.2), which a
/// person can act on.
pub(super) fn pass(
    tcp: TcpStream,
    (client, alpn): (IpAddr, &[Vec<u8>]),
    route: &Route,
    snapshot: &Snapshot,
    admission: &mut Admission<'_>,
) -> Result<TcpStream, Ending> {
    match admit(client, route, snapshot, admission) {
        Ok(()) => Ok(tcp),
        Err(failure) => {
            let alert = match failure {
                Failure::RouteBroken(_) => AlertDescription::InternalError,
                Failure::Limit(_) => status::over_limit(alpn, AlertDescription::AccessDenied),
                _ => AlertDescription::AccessDenied,
            };
            Err(failure.answered(tcp, Answer::Alert(alert)))
        }
    }
}

fn admit(
    client: IpAddr,
    route: &Route,
    snapshot: &Snapshot,
    admission: &mut Admission<'_>,
) -> Result<(), Failure> {
    if let Action::Broken(why) = &route.action {
        return Err(Failure::RouteBroken(why.clone()));
    }
    let middlewares = snapshot.middlewares(route);
    let mut most: Option<usize> = None;
    for middleware in middlewares.map_err(Failure::RouteBroken)? {
        match middleware {
            Middleware::IpAllowList(networks) => {
                if !networks.iter().any(|network| rule::covers(network, client)) {
                    return Err(Failure::NotAllowed(client));
                }
            }
            // There is one count, so that the lowest of several numbers is what they say together.
            Middleware::InFlightConn(max) => most = Some(most.map_or(*max, |most| most.min(*max))),
        }
    }
    match most {
        Some(most) => admission
            .in_flight(&route.metrics, most)
            .map_err(Failure::Limit),
        None => Ok(()),
    }
}
