//! What a token may do, right by right, as Consul's servers decide it.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::{Client, Error, answer, login, refused};

/// Where Consul's own dashboard asks the same; an agent with a token, or with none, may.
const PATH: &str = "/v1/internal/acl/authorize";

/// A right, in the words of Consul's rules.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Right<'a> {
    /// On what: `service`, `node`.
    pub resource: &'a str,
    /// To do what with it: `read`, `write`.
    pub access: &'a str,
    /// Its name; the empty one stands for what a rule on the empty prefix is about, which is all.
    pub segment: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Decision {
    allow: bool,
}

impl Client {
    /// Which of these rights the token has, in their order; `None` where the agent has no ACLs, and nobody needs any.
    pub async fn rights(
        &self,
        datacenter: Option<&str>,
        rights: &[Right<'_>],
    ) -> Result<Option<Vec<bool>>, Error> {
        let shared = &self.0;
        let unexpected = |reason: String| Error::Unexpected {
            api: shared.api,
            path: PATH.to_owned(),
            reason,
        };
        let held = shared.tokens.current(shared).await?;
        let body = serde_json::to_string(rights).map_err(|error| unexpected(error.to_string()))?;
        let within: Vec<_> = datacenter.iter().map(|name| ("dc", *name)).collect();
        let path = match super::parameters(&within).first() {
            Some(within) => format!("{PATH}?{within}"),
            None => PATH.to_owned(),
        };
        let mut request = login::request(shared, &path, body).map_err(unexpected)?;
        if let Some(held) = &held {
            let header = held.header.clone();
            (request.headers_mut()).insert(shared.api.token_header(), header);
        }
        let reply = shared.agent.post(request, shared.agent.limits.answer).await;
        let reply = reply.map_err(|failure| shared.error(failure, PATH))?;
        if reply.status != StatusCode::OK {
            let secrets = held.iter().map(|held| &held.secret).chain(&*shared.unsaid);
            return match refused(shared.api, &reply, secrets, PATH) {
                Error::Status { text, .. } if text.contains("ACL support disabled") => Ok(None),
                error => Err(error),
            };
        }
        let decisions: Vec<Decision> = answer::decode(&reply.body).map_err(unexpected)?;
        match decisions.len() == rights.len() {
            true => Ok(Some(decisions.iter().map(|one| one.allow).collect())),
            false => Err(unexpected("not every right has an answer".to_owned())),
        }
    }
}
