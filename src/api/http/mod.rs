//! Consul's HTTP API as a gateway reads it: questions with an answer, and blocking queries that tell of changes.

mod answer;
mod connection;
mod error;
mod limits;
mod token;
mod watch;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;

pub use answer::{Answer, null_is_default};
pub use error::{ClientError, Error};
pub use token::TokenId;
pub use watch::Watch;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls_pki_types::ServerName;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use connection::{Agent, Failure, Reply};
use limits::Limits;
use token::{Held, Tokens};

use crate::config::{Consul, ConsulAddress};
use crate::tls;
use crate::tls::verify::Proof;

/// What stands in a path or a query as it is (RFC 3986 §2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Answers larger than this are read as JSON away from the threads that move bytes: 8 MB take 40 ms and more.
const LARGE: usize = 64 * 1024;

/// A client of one Consul agent. Clones share its connections and its bounds.
///
/// It speaks HTTP/1.1 over TCP or a UNIX socket, with TLS or without; follows no redirect and no proxy; and sends its token
/// in a header only.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    agent: Agent,
    /// The agent's address, for messages.
    name: String,
    /// What stands before every path.
    prefix: String,
    /// What every question says, but for the token.
    headers: HeaderMap,
    tokens: Tokens,
    reads: Semaphore,
}

/// A question.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<'a> {
    /// The parts of the path after `/v1`, such as `["health", "service", name]`. They may hold anything: what could be
    /// taken for something else is escaped, a `/` too.
    pub path: &'a [&'a str],
    /// Keys and values after the `?`; escaped likewise.
    pub parameters: &'a [(&'a str, &'a str)],
    /// Whether the leader makes sure that it still is the leader (`?consistent`): slower, and never stale.
    pub consistent: bool,
}

impl Client {
    /// Reads the CAs, the certificate and the token, and asks nothing yet.
    pub fn new(consul: &Consul) -> Result<Self, ClientError> {
        Self::with_limits(consul, Limits::default())
    }

    fn with_limits(consul: &Consul, limits: Limits) -> Result<Self, ClientError> {
        let host = match &consul.address {
            ConsulAddress::Tcp(..) => consul.address.to_string(),
            // As curl says it; nobody routes by it.
            ConsulAddress::Unix(_) => "localhost".to_owned(),
        };
        let address = || ClientError::Address(format!("{}{}", consul.address, consul.prefix));
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(&host).map_err(|_| address())?);
        let agent = concat!("portcullis/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        if let Some((user, password)) = &consul.basic_auth {
            let pair = format!("{user}:{}", password.reveal());
            let encoded = data_encoding::BASE64.encode(pair.as_bytes());
            let basic = HeaderValue::from_str(&format!("Basic {encoded}"));
            let mut basic = basic.map_err(|_| address())?;
            basic.set_sensitive(true);
            headers.insert(AUTHORIZATION, basic);
        }
        Uri::try_from(format!("{}/v1", consul.prefix)).map_err(|_| address())?;
        Ok(Self(Arc::new(Shared {
            agent: Agent {
                address: consul.address.clone(),
                tls: security(consul)?,
                idle: Default::default(),
                limits: limits.clone(),
            },
            name: consul.address.to_string(),
            prefix: consul.prefix.clone(),
            headers,
            tokens: Tokens::new(consul.token.as_ref())?,
            reads: Semaphore::new(limits.reads),
        })))
    }

    /// Asks once. At most 16 such reads go on at a time; the others wait for their turn.
    pub async fn read<T>(&self, query: &Query<'_>) -> Result<Answer<T>, Error>
    where
        T: DeserializeOwned + Send + 'static,
    {
        // It is never closed.
        let _turn = self.0.reads.acquire().await.ok();
        let mut parameters = parameters(query.parameters);
        if query.consistent {
            parameters.push("consistent".to_owned());
        }
        let patience = self.0.agent.limits.answer;
        self.ask(&path(query.path), &parameters, patience).await
    }

    /// Asks, as whom the token says; once more if Consul refuses it and its file holds another by now.
    async fn ask<T>(
        &self,
        path: &str,
        parameters: &[String],
        patience: Duration,
    ) -> Result<Answer<T>, Error>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let token = self.0.tokens.current().await;
        let asked_as = token.as_ref().map(|held| held.id).unwrap_or_default();
        let answer = self.ask_as(token, path, parameters, patience).await;
        match answer {
            Err(error) if error.is_denied() => match self.0.tokens.other_than(asked_as).await {
                Some(other) => self.ask_as(Some(other), path, parameters, patience).await,
                None => Err(error),
            },
            answer => answer,
        }
    }

    async fn ask_as<T>(
        &self,
        token: Option<Held>,
        path: &str,
        parameters: &[String],
        patience: Duration,
    ) -> Result<Answer<T>, Error>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let Shared { agent, prefix, .. } = &*self.0;
        let unexpected = |reason: String| Error::Unexpected {
            path: path.to_owned(),
            reason,
        };
        let target = match parameters {
            [] => format!("{prefix}{path}"),
            _ => format!("{prefix}{path}?{}", parameters.join("&")),
        };
        let target = Uri::try_from(target);
        let target = target.map_err(|error| unexpected(format!("it was never asked: {error}")))?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = target;
        *request.headers_mut() = self.0.headers.clone();
        if let Some(held) = &token {
            let headers = request.headers_mut();
            headers.insert("x-consul-token", held.header.clone());
        }
        let reply = agent.ask(request, patience).await;
        let reply = reply.map_err(|failure| self.error(failure, path))?;
        if reply.status != StatusCode::OK {
            return Err(refused(&reply, token.as_ref(), path));
        }
        let id = token.map(|held| held.id).unwrap_or_default();
        let value = value(reply.body).await.map_err(unexpected)?;
        Ok(Answer::read(&reply.headers, id).map(|()| value))
    }

    fn error(&self, failure: Failure, path: &str) -> Error {
        let (agent, path) = (self.0.name.clone(), path.to_owned());
        match failure {
            Failure::Unreachable(reason) => Error::Unreachable { agent, reason },
            Failure::BrokenOff(reason) => Error::BrokenOff {
                agent,
                path,
                reason,
            },
            Failure::Timeout(after) => Error::Timeout { agent, path, after },
            Failure::TooLarge => Error::TooLarge {
                path,
                most: self.0.agent.limits.bytes,
            },
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0.name).finish()
    }
}

/// What verifies the agent, and the name that it must prove: the one that is written, or else that of its address.
fn security(
    consul: &Consul,
) -> Result<Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>, ClientError> {
    if !consul.https {
        return Ok(None);
    }
    let name = match (&consul.server_name, &consul.address) {
        (Some(name), _) => name.as_str(),
        (None, ConsulAddress::Tcp(host, _)) => host,
        (None, ConsulAddress::Unix(_)) => "localhost",
    };
    let proved = ServerName::try_from(name.to_owned())
        .map_err(|_| ClientError::ServerName(name.to_owned()))?;
    let certificate = consul.certificate.as_ref();
    let certificate: Option<(&Path, &Path)> =
        certificate.map(|(chain, key)| (chain.as_path(), key.as_path()));
    let config = tls::client::config(&consul.roots, certificate, Proof::ServerName)?;
    Ok(Some((config, proved)))
}

fn path(parts: &[&str]) -> String {
    let mut path = "/v1".to_owned();
    for part in parts {
        path.push('/');
        path.extend(utf8_percent_encode(part, ESCAPED));
    }
    path
}

fn parameters(pairs: &[(&str, &str)]) -> Vec<String> {
    let escaped = |text| utf8_percent_encode(text, ESCAPED);
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| format!("{}={}", escaped(*key), escaped(*value)))
        .collect()
}

/// The beginning of a refusal. A server that repeats what it was sent does not put the token into our log.
fn refused(reply: &Reply, token: Option<&Held>, path: &str) -> Error {
    let text = String::from_utf8_lossy(&reply.body);
    let text = match token {
        Some(held) => text.replace(held.secret.reveal(), "MASKED"),
        None => text.into_owned(),
    };
    Error::Status {
        path: path.to_owned(),
        code: reply.status.as_u16(),
        text: error::shown(text),
    }
}

async fn value<T>(body: Vec<u8>) -> Result<T, String>
where
    T: DeserializeOwned + Send + 'static,
{
    if body.len() <= LARGE {
        return answer::decode(&body);
    }
    let decoded = tokio::task::spawn_blocking(move || answer::decode(&body)).await;
    decoded.unwrap_or_else(|_| Err("it could not be read: the program is stopping".to_owned()))
}
