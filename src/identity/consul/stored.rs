//! What is kept of the identity on the disk: leaf, key and roots as Consul gave them, read back as answers are.

use serde::{Deserialize, Serialize};

use super::super::{Keeper, Kept, Trust};
use super::{Issued, Root, Roots, leaf_in, trust_in};
use crate::config::Secret;
use crate::state::{Opened, Part, Stored};
use crate::tls::mesh::Leaf;

/// An identity on the disk.
#[derive(Deserialize, Serialize)]
struct Identity {
    trust_domain: String,
    /// PEM.
    roots: Vec<String>,
    uri: String,
    /// PEM.
    chain: String,
    /// PEM, and secret.
    key: String,
}

/// Where it is kept from now on, and what was kept for the keeper's service, as long as that can be served with.
pub(super) fn begin_with(
    state: Option<Opened>,
    keeper: &mut Keeper,
) -> (Option<Part>, Option<Kept>) {
    let Some(Opened { part, stored }) = state else {
        return (None, None);
    };
    let read = |stored: Stored| read(&stored, &keeper.service, keeper.namespace.as_deref());
    let stored = stored.and_then(|stored| stored.map_or(Ok(None), read));
    let stored = stored.unwrap_or_else(|why| {
        keeper.refused = Some(why);
        None
    });
    (Some(part), stored)
}

fn read(stored: &Stored, service: &str, namespace: Option<&str>) -> Result<Option<Kept>, String> {
    let wrong = |error: String| {
        tracing::error!(%error, "the mesh identity on the disk cannot be used");
        format!("what the disk keeps is refused: {error}")
    };
    let mut entries = stored.entries::<Identity>().map_err(wrong)?.into_iter();
    let own = entries.find(|(name, _)| &**name == service);
    let Some((_, identity)) = own else {
        return Ok(None);
    };
    let roots = identity.roots.into_iter();
    let roots = Roots {
        trust_domain: identity.trust_domain,
        roots: roots.map(|root_cert| Root { root_cert }).collect(),
    };
    let issued = Issued {
        certificates: identity.chain,
        key: Secret::new(identity.key),
        uri: identity.uri,
    };
    Ok(Some(Kept {
        trust: trust_in(roots).map_err(wrong)?,
        leaf: leaf_in(&issued, service, namespace).map_err(wrong)?,
        confirmed: stored.confirmed,
    }))
}

/// Keeps the identity of this service, as of now.
pub(super) fn confirm(part: &Part, service: &str, trust: &Trust, leaf: &Leaf) {
    let identity = Identity {
        trust_domain: trust.domain.clone(),
        roots: trust.text.to_vec(),
        uri: leaf.id.to_string(),
        chain: leaf.text.chain.clone(),
        key: leaf.text.key.clone(),
    };
    part.put(service, &identity);
    part.retain(|name| name == service);
    part.confirm(&());
}
