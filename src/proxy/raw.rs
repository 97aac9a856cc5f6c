//! What a raw listener does with a connection: no hello, no name, one way.

use std::sync::Arc;

use super::client::Client;
use super::failure::{Ending, Failure};
use super::upstream::{self, Pair};
use crate::net::limits::Admission;
use crate::net::raw;
use crate::net::session::Session;
use crate::snapshot::{Raw, Snapshot};

/// User, room, dial. Whoever is refused is reset: nothing else would tell it that nobody has heard what it said.
pub(super) async fn establish(
    snapshot: Arc<Snapshot>,
    client: Box<raw::Raw>,
    at: Arc<Raw>,
    session: &mut Session,
    admission: &mut Admission<'_>,
) -> Result<Pair, Ending> {
    session.routed(&at.name, &at.upstream, &at.metrics);
    // A TCP client has none.
    let uid = session.record.client.uid();
    if let Some(allowed) = &at.allow_uids
        && !uid.is_some_and(|uid| allowed.contains(&uid))
    {
        return Err(Failure::UserNotAllowed(uid).into());
    }
    let cap = at.max_connections.unwrap_or(snapshot.limits.per_route);
    admission.routed(&at.metrics, cap).map_err(Failure::Limit)?;
    let upstream = upstream::of_tunnel(&at, &snapshot)?;
    // Of a weighted one the member.
    session.record.upstream = Some(Arc::clone(&upstream.name));
    // There is none: the dial begins now.
    session.handshake_skipped();
    admission.established();
    let client = Client::Raw(client);
    Pair::join(client, Vec::new(), None, upstream, &snapshot, session).await
}
